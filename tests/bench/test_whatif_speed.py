"""How fast scenario files, sensitivities and reports are. Run: ``pytest tests/bench --benchmark-only``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pytest_benchmark.fixture import BenchmarkFixture

import hwsim

ROOT = Path(__file__).parents[2]


def test_a_scenario_with_ten_thousand_points(benchmark: BenchmarkFixture) -> None:
    """The issue's floor: under 5 s, the search for the base's strategy and the file's checks included."""
    result = benchmark.pedantic(hwsim.whatif, args=("network-or-memory",), rounds=2, warmup_rounds=0)
    assert result.swept is not None
    assert result.swept.grid.points == 10_000
    benchmark.extra_info["points_per_s_of_the_sweep"] = round(result.swept.grid.points / result.swept.elapsed_s)


def test_a_whole_report_of_a_plan(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """The issue's floor: under 6 s and 2 MB, the process, the search and every figure included."""
    target = tmp_path / "report.html"
    command = [
        sys.executable,
        "-m",
        "hwsim",
        "report",
        "--model",
        "70b",
        "--gpus",
        "64",
        "--tokens",
        "1T",
        "-o",
        str(target),
    ]
    benchmark.pedantic(subprocess.run, args=(command,), kwargs={"check": True, "cwd": ROOT}, rounds=2, warmup_rounds=0)
    benchmark.extra_info["kilobytes"] = round(target.stat().st_size / 1000)


def test_every_lever_of_a_plan(benchmark: BenchmarkFixture) -> None:
    """Twenty-odd levers up and down, the strategy kept, and the search before."""
    found = benchmark.pedantic(hwsim.sensitivity, args=("70b", "h100-sxm-80", 64), rounds=2, warmup_rounds=0)
    assert len(found.levers) > 10
