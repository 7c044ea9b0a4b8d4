"""The list of a step's collectives against the brute-force count, and both against what PyTorch really sends."""

from __future__ import annotations

import os
import signal
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_brute_force import Case, all_cases

from hwsim.analytic.collectives_of_step import UNCOUNTED, collectives_of_step
from hwsim.analytic.training import evaluate
from hwsim.asking import asked
from hwsim.errors import UsageError
from hwsim.live.parallel import compare as parallel
from hwsim.live.parallel.cases import CASES, cases
from hwsim.live.processes import WorkerError

BRUTE = all_cases()
IN_BLOCKS = ("tp", "cp")
TASKS = Path("/proc/self/task")
MOE = {
    "layers": 4, "hidden": 64, "heads": 8, "kv_heads": 4, "vocab": 128, "max_positions": 64, "experts": 8,
    "dense_layers": 1, "shared_experts": 1, "expert_ffn": 64,
}  # fmt: skip


def sent_by_axis(setting: Any, s: Any) -> dict[str, float]:
    """What the busiest stage sends, from the list."""
    most: Counter[str] = Counter()
    for stage in range(int(s.pp)):
        sent: Counter[str] = Counter()
        for work in collectives_of_step(setting, s, stage):
            sent[work.traffic_axis] += work.sent_bytes * (work.traffic_axis != UNCOUNTED)
        most |= sent
    return dict(+most)


@pytest.mark.parametrize("case", BRUTE, ids=lambda case: case.name)
def test_the_list_is_that_of_the_brute_force_count(case: Case) -> None:
    for stage in range(case.strategy["pp"]):
        exact: dict[tuple[str, str], list[Fraction]] = {}
        for (kind, group, payload), times in case.step.collectives(stage).items():
            if len(case.step.groups(group, stage)[0]) > 1 and payload and times:
                entry = exact.setdefault((group, kind), [Fraction(0), Fraction(0)])
                entry[0] += times
                entry[1] += times * payload
        found = {
            (work.axis, work.kind): work
            for work in collectives_of_step(case.setting, case.columns, stage)
            if work.axis not in ("send", "tied", "partial")
        }
        assert {key: work.total_bytes for key, work in found.items()} == pytest.approx(
            {key: float(payload) for key, (_, payload) in exact.items()}, rel=1e-12
        )
        calls = {key: float(times) for key, (times, _) in exact.items() if key[0] in IN_BLOCKS}
        assert {key: work.calls for key, work in found.items() if key[0] in IN_BLOCKS} == pytest.approx(calls)


EXPERT_STRATEGIES = [
    {"ep": 4}, {"ep": 2, "zero": 1}, {"ep": 4, "etp": 2, "tp": 2}, {"ep": 2, "tp": 2, "pp": 2, "zero": 2},
    {"ep": 2, "cp": 2, "recompute": "full"}, {"ep": 4, "zero": 3}, {"pp": 2, "vpp": 2, "recompute": "selective"},
    {"framework": "fsdp", "zero": 3, "pp": 2}, {"framework": "fsdp", "zero": 3, "shard": 4}, {"framework": "pytorch"},
    {"tp": 4, "settings": ["framework.gathers_again=false"]},
]  # fmt: skip


@pytest.mark.parametrize("strategy", EXPERT_STRATEGIES, ids=str)
def test_the_list_of_experts_sums_to_the_traffic_of_an_estimate(strategy: dict[str, Any]) -> None:
    given = {"framework": "megatron", **strategy}
    setting, s = asked(MOE, "dgx-h100", 8, seq_len=64, global_batch=16, **given)
    predicted = {axis: float(np.max(value)) for axis, value in evaluate(setting, s).traffic_bytes.items()}
    found = sent_by_axis(setting, s)
    assert found == pytest.approx({axis: value for axis, value in predicted.items() if value})


def test_what_fsdp_keeps_whole_is_gathered_once() -> None:
    sent = [
        evaluate(*asked(MOE, "dgx-h100", 8, framework="fsdp", zero=3, seq_len=64, global_batch=16, settings=setting))
        for setting in ((), ("framework.keeps_ends=false",))
    ]
    kept, twice = (float(np.max(columns.traffic_bytes["dp"])) for columns in sent)
    ends = 128 * 64 + 64 * 64 + 2 * 64  # tied table, positions, final norm with its shift
    assert twice - kept == pytest.approx(2 * 2 * ends * 7 / 8)  # two micro-batches, two bytes


def test_what_is_saved_whole_is_gathered_once() -> None:
    dense = {"layers": 2, "hidden": 64, "heads": 8, "vocab": 128, "max_positions": 64}
    again, saved = (
        evaluate(*asked(dense, "dgx-h100", 2, tp=2, framework="megatron", seq_len=64, global_batch=1, settings=setting))
        for setting in ((), ("framework.gathers_again=false",))
    )
    regions, stream = 2 * 2 + 1, 64 * 64 * 2
    assert float(again.traffic_bytes["tp"] - saved.traffic_bytes["tp"]) == regions * stream / 2
    more = float(saved.memory.parts["activations"] - again.memory.parts["activations"])
    assert more == regions * stream / 2


def test_names_of_runs_are_their_own() -> None:
    names = [case.id for case in CASES]
    assert len(set(names)) == len(names)
    assert {case.group for case in cases(short=True)} == {case.group for case in CASES}
    assert {case.ranks for case in cases(short=True)} == {2}


def test_every_run_is_legal_and_talks() -> None:
    for case in CASES:
        setting, s = parallel.question(case)
        assert collectives_of_step(setting, s, 0), case.id
        assert int(s.devices) == case.ranks


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"^comparing with PyTorch needs it: pip install 'hwsim\[torch\]'$"):
        parallel.compare_parallel()


@pytest.mark.skipif(not TASKS.exists(), reason="children are looked up in Linux's /proc")
def test_a_killed_process_ends_all_of_them() -> None:
    pytest.importorskip("torch")
    children: list[int] = []

    def kill_one(message: Any) -> None:
        if not children:
            children.extend(workers())
            os.kill(children[-1], signal.SIGKILL)

    with pytest.raises(WorkerError, match=r"killed \(signal 9\)"):
        parallel.compare_parallel(short=True, heard=kill_one)
    assert len(children) == 2
    assert not workers()


def workers() -> list[int]:
    """Child processes of this one."""
    return [int(text) for path in TASKS.glob("*/children") for text in path.read_text(encoding="utf-8").split()]


def test_what_pytorch_sends_is_what_hwsim_lists() -> None:
    pytest.importorskip("torch")
    rows = parallel.compare_parallel(short=True)
    counted = [row for row in rows if row.note not in (parallel.UNCOUNTED["ep counts"], parallel.ROUTED)]
    assert [row for row in counted if not row.equal] == []
    assert {row.group for row in counted} == {case.group for case in CASES}
