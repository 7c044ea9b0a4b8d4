"""How fast hwsim answers. Run: ``pytest tests/bench --benchmark-only`` (the ordinary run skips these).

``extra_info`` carries the figures to quote: candidates per second, strategies costed per second, peak memory.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import hwsim
from hwsim.analytic.training import Setting, evaluate, illegal
from hwsim.api import make_setting
from hwsim.search.space import Space, build_space
from hwsim.search.training_search import Found, search
from hwsim.specs.strategy import Strategies

ROOT = Path(__file__).parents[2]
MODEL, MACHINE, BATCH, SEQ_LEN = "gpt-3-175b", "a100-sxm-80", 1536, 2048
MILLION, API_CHUNK = 1_000_000, 1 << 16
COLUMN = 100_000


def _problem(devices: int) -> tuple[Setting, Space]:
    setting = make_setting(MODEL, MACHINE, devices, global_batch=BATCH, seq_len=SEQ_LEN)
    node = setting.hardware.cluster.node.devices
    return setting, build_space(setting.model, devices, BATCH, SEQ_LEN, {}, node)


def _search(devices: int) -> Found:
    found = Found()
    search(*_problem(devices), lambda columns: columns.step_time_s, found)
    return found


def _peak_mib() -> float:
    """High-water mark of this process so far. [MiB]

    Linux hands ``ru_maxrss`` down from parent to child, even through exec: a small child of a large run seems as large.
    ``VmHWM`` starts afresh with the program.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
        return int(lines["VmHWM"].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _search_alone(devices: int) -> tuple[float, float]:
    """High-water mark before and after one search. [MiB]"""
    _problem(devices)
    before = _peak_mib()
    _search(devices)
    return before, _peak_mib()


AIM_S = {"plan": 2.0, "--help": 0.3}
"""Whole-process seconds asked of a command ..."""
SLACK = 3
"""... and how many times that CI lets a busy machine take."""


@pytest.mark.parametrize("devices", [64, 1024, 4096])
def test_search_gpt3(benchmark: BenchmarkFixture, devices: int) -> None:
    found = benchmark.pedantic(_search, args=(devices,), rounds=3, warmup_rounds=1)
    assert found.feasible > 0
    assert found.candidates == found.feasible + sum(found.rejected.values())
    seconds = benchmark.stats.stats.min
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        before, after = pool.submit(_search_alone, devices).result()
    benchmark.extra_info.update(
        candidates=found.candidates,
        evaluated=found.evaluated,
        feasible=found.feasible,
        candidates_per_s=round(found.candidates / seconds),
        evaluated_per_s=round(found.evaluated / seconds),
        peak_memory_mib=round(after),
        peak_memory_of_search_mib=round(after - before),
    )
    assert seconds < 10
    assert after < 1024
    assert found.candidates / seconds > 1e6


@cache
def _a_million_legal() -> tuple[Setting, Strategies]:
    """Legal candidates in random order, each once: repeated rows would be gathered instead of computed."""
    setting, space = _problem(1024)
    order = np.random.default_rng(0).permutation(space.size)
    kept, count = [], 0
    for start in range(0, len(order), 1 << 18):
        index = order[start : start + (1 << 18)]
        s = space.decode(index)
        kept.append(index[~np.any([np.broadcast_to(m, s.shape) for m in illegal(setting.model, s).values()], axis=0)])
        count += len(kept[-1])
        if count >= MILLION:
            break
    chosen = np.concatenate(kept)[:MILLION]
    assert len(np.unique(chosen)) == MILLION
    return setting, space.decode(chosen).take(slice(None))


@pytest.mark.parametrize("rows_at_once", [API_CHUNK, MILLION])
def test_evaluate_a_million_legal_rows(benchmark: BenchmarkFixture, rows_at_once: int) -> None:
    setting, table = _a_million_legal()
    pieces = [table.take(slice(i, i + rows_at_once)) for i in range(0, MILLION, rows_at_once)]

    def run() -> list[Any]:
        answers = (evaluate(setting, piece) for piece in pieces)
        return [(answer.step_time_s, answer.memory.reserved_bytes) for answer in answers]

    parts = benchmark.pedantic(run, rounds=1, warmup_rounds=0)
    assert sum(len(seconds) for seconds, _ in parts) == MILLION
    assert all(np.isfinite(seconds).all() for seconds, _ in parts)
    benchmark.extra_info["strategies_per_s"] = round(MILLION / benchmark.stats.stats.min)


def test_evaluate_one_strategy(benchmark: BenchmarkFixture) -> None:
    job = {"tp": 8, "pp": 8, "global_batch": 64, "seq_len": SEQ_LEN}
    estimate = benchmark(hwsim.estimate_training, MODEL, MACHINE, 64, **job)
    assert estimate.step_time_s > 0


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["plan", "--model", "70b", "--gpus", "64"], ["hardware", "list"]],
    ids=" ".join,
)
def test_whole_command(benchmark: BenchmarkFixture, arguments: list[str]) -> None:
    command = [sys.executable, "-c", "from hwsim.cli import main; raise SystemExit(main())", *arguments]
    environment = {**os.environ, "COLUMNS": "120"}

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)

    done = benchmark.pedantic(run, rounds=3, warmup_rounds=1)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert benchmark.stats.stats.min < SLACK * AIM_S.get(arguments[0], float("inf"))


def test_operator_time_of_a_column(benchmark: BenchmarkFixture) -> None:
    rng = np.random.default_rng(0)
    m, n, k = (rng.integers(1, 20_000, COLUMN) for _ in range(3))
    seconds = benchmark(hwsim.operator_time, MACHINE, "gemm", m=m, n=n, k=k)
    assert seconds.shape == (COLUMN,)
    benchmark.extra_info["rows_per_s"] = round(COLUMN / benchmark.stats.stats.min)


def test_attention_time_of_a_column(benchmark: BenchmarkFixture) -> None:
    rng = np.random.default_rng(0)
    length = rng.integers(1, 32_768, COLUMN)
    shape = {"batch": 2, "q_len": length, "kv_len": length, "heads": 32, "kv_heads": 8, "head_dim": 128}
    seconds = benchmark(hwsim.operator_time, MACHINE, "attention", **shape, backward=True)
    assert seconds.shape == (COLUMN,)
    benchmark.extra_info["rows_per_s"] = round(COLUMN / benchmark.stats.stats.min)


def test_collective_time_of_a_column(benchmark: BenchmarkFixture) -> None:
    rng = np.random.default_rng(0)
    size = rng.integers(1, 2**34, COLUMN)
    members = rng.choice([2, 4, 8, 16, 64, 256, 1024], COLUMN)
    seconds = benchmark(hwsim.collective_time, MACHINE, "all_reduce", bytes=size, devices=members)
    assert seconds.shape == (COLUMN,)
    benchmark.extra_info["rows_per_s"] = round(COLUMN / benchmark.stats.stats.min)
