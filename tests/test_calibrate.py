"""hwsim calibrate: known curves found again, processes that leave nothing behind, and a small machine measured."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import hwsim
from hwsim.cli.app import run
from hwsim.errors import UsageError
from hwsim.fitting.attention_rows import Rows
from hwsim.fitting.collective_rows import Cells
from hwsim.fitting.gemm import Shapes
from hwsim.formulas.attention import AttentionMachine
from hwsim.formulas.gemm import GemmMachine
from hwsim.live import calibrate as live
from hwsim.live import measure, plans
from hwsim.live.measure import Call, Steps
from hwsim.live.processes import WorkerError, run_ranks
from hwsim.live.samples import Samples, Streams, samples
from hwsim.live.sheet import Facts
from hwsim.live.steps import Shape
from hwsim.specs.files import validate
from hwsim.specs.library import load_hardware
from hwsim.specs.reading import read_yaml

FACTS = Facts(
    name="toy", device="cpu", dtype="fp32", title="Toy CPU", units=4, threads=4, processes=4, peak_flops_per_s=400e9,
    memory_bytes_per_s=50e9, capacity_bytes=16 * 2.0**30, cache_bytes=32 * 2.0**20, launch_s=2e-6, overhead_s=5e-6,
    busy=0.0, torch="2.13.0", date="2026-11-25",
)  # fmt: skip
GEMM = GemmMachine(400e9, 50e9, 4, 0.9, 14, 32, 0.2, 0.3, 8e-6, 0.2, 3e-6, 0.0, 0.0, 0.0, FACTS.cache_bytes, 4.0)
ATTENTION = AttentionMachine(
    400e9, 50e9, 4, FACTS.cache_bytes, 0.8, 0.6, 30, 1, 20, 0.3, 0.4, 15e-6, 0, 5e-6, 3.0, 1, 1, 4096, 5, 512
)
STREAM = {"norm": (0.5, 20e-6), "activation": (0.25, 30e-6), "optimizer": (0.4, 900e-6)}
QUICK = plans.Plan(
    training=(Shape(16, 1, 1, 32, 8, 1), Shape(32, 2, 2, 64, 16, 2), Shape(64, 2, 1, 256, 32, 4)),
    linear=((64, 128, 96), (256, 64, 200)),
    attention=((2, 2, 64, 32, False), (1, 2, 96, 16, True)),
    decode=((1, 4, 64, 32), (4, 2, 128, 64)),
    groups=(2,),
    messages=(1024, 4096, 16384, 65536, 262144, 1048576),
)


def _made_rows() -> Samples:
    """Rows that the formulas themselves made."""
    rng = np.random.default_rng(3)
    m, n, k = (rng.choice([64, 96, 128, 256, 400, 512, 1024, 2048, 3000], 260).astype(float) for _ in range(3))
    shapes = Shapes(m, n, k, np.ones(260), np.ones(260), 4.0, 4.0)
    gemm = replace(shapes, seconds=shapes.predict(GEMM) * np.exp(rng.normal(0.0, 0.02, 260)))
    batch, heads = (rng.choice([1, 2, 4, 8], 80).astype(float) for _ in range(2))
    keys, width = rng.choice([64, 128, 256, 512, 1024, 2048], 80).astype(float), rng.choice([32.0, 64.0, 128.0], 80)
    queries = np.where(np.arange(80) % 4 == 0, 1.0, keys)
    rows = Rows(batch, queries, keys, heads, heads, width, np.arange(80) % 3 / 2.0 // 1.0, 2.0 + 0 * keys, 0 * keys)
    many = rows.take(queries > 1)
    size = np.geomspace(1e5, 1e8, 30)
    return Samples(
        gemm=gemm,
        forward=replace(rows, measured_s=rows.forward_s(ATTENTION)),
        backward=replace(many, measured_s=many.backward_s(ATTENTION)),
        streams={kind: Streams(size, late + size / (50e9 * share)) for kind, (share, late) in STREAM.items()},
        overhead_s=5e-6,
    )


def _made_talk() -> live.Talk:
    """All-reduces of 300 us and 25 us a step, at 1 GB/s, shared by all."""
    size, devices = (x.ravel() for x in np.meshgrid(2.0 ** np.arange(10, 26), [2.0, 4.0]))
    wire = 2.0 * size * (devices - 1.0) / devices
    seconds = 300e-6 + 25e-6 * 2.0 * (devices - 1.0) + wire / (1e9 * 2.0 / devices)
    return live.Talk({"all_reduce": Cells(size, devices, devices, seconds, np.ones(len(size)))})


@pytest.fixture(scope="module")
def made() -> live.Calibration:
    return live.fitted(FACTS, _made_rows(), _made_talk())


# Fits on a machine whose curves are known.
def test_the_profile_predicts_multiplies_it_never_saw(made: live.Calibration) -> None:
    m, n, k = (np.array(x, float) for x in ([80, 333, 1500, 64], [700, 192, 1100, 4096], [96, 1600, 900, 64]))
    truth = Shapes(m, n, k, m, m, 4.0, 4.0).predict(GEMM)
    found = hwsim.operator_time(made.profile, "gemm", m=m, n=n, k=k, dtype="fp32")
    np.testing.assert_allclose(found, truth, rtol=0.08)


def test_the_profile_predicts_attention_it_never_saw(made: live.Calibration) -> None:
    shape = {"batch": 3, "heads": 6, "kv_heads": 6, "q_len": 384, "kv_len": 384, "head_dim": 64, "causal": 1.0}
    rows = Rows(*(np.array([float(x)]) for x in (3, 384, 384, 6, 6, 64, 1, 2, 1)))
    for backward, truth in ((0.0, rows.forward_s(ATTENTION)), (1.0, rows.backward_s(ATTENTION))):
        found = hwsim.operator_time(made.profile, "attention", **shape, backward=backward, dtype="fp32")
        assert found == pytest.approx(float(truth[0]), rel=0.15)
    assert load_hardware(made.profile).accelerator.kernels.attention.mask_keys == 512


def test_each_kind_of_memory_bound_kernel_has_its_own_rate(made: live.Calibration) -> None:
    kinds = load_hardware(made.profile).accelerator.kernels.stream.kinds
    for kind, (share, late) in STREAM.items():
        assert kinds[kind].efficiency == pytest.approx(share, rel=0.02), kind  # type: ignore[index]
        assert kinds[kind].latency == pytest.approx(late, rel=0.05), kind  # type: ignore[index]


def test_collectives_are_found_and_lent(made: live.Calibration) -> None:
    for devices in (2, 4):
        for size in (2.0**11.5, 2.0**20.5, 2.0**24.5):
            wire = 2.0 * size * (devices - 1.0) / devices
            truth = 300e-6 + 25e-6 * 2.0 * (devices - 1.0) + wire / (1e9 * 2.0 / devices)
            found = hwsim.collective_time(made.profile, "all_reduce", bytes=size, devices=devices)
            assert found == pytest.approx(truth, rel=0.15)


def test_sources_say_what_was_measured_and_how_far_off_it_is(made: live.Calibration) -> None:
    hardware = load_hardware(made.profile)
    text = hardware.accelerator.sources["kernels.gemm"].text
    assert hardware.accelerator.kernels.status == hardware.cluster.tiers[0].status == "measured"
    assert "260 shapes of fp32 multiplies" in text
    assert "PyTorch 2.13.0, 4 threads" in text
    assert "left out of the fit" in text
    assert hardware.accelerator.sources["kernels.gemm"].date == "2026-11-25"
    assert "norm: 30 kernels" in hardware.accelerator.sources["kernels.stream"].text
    assert "all_reduce: 32 sizes" in hardware.cluster.tiers[0].source.text


def test_the_file_is_the_profile(made: live.Calibration, tmp_path: Path) -> None:
    path = tmp_path / "toy.yaml"
    path.write_text(made.text, encoding="utf-8")
    assert load_hardware(path) == load_hardware(made.profile)
    assert read_yaml(path).data == made.profile
    json.dumps(made.to_dict())
    estimate = hwsim.estimate_training(
        model={"layers": 2, "hidden": 256, "heads": 4, "vocab": 1000}, hardware=str(path), gpus=2, global_batch=8,
        micro_batch=4, seq_len=128, precision="fp32",
    ).to_dict()  # fmt: skip
    assert estimate["calibration"] == "measured"
    assert 0.0 < estimate["step_time_s"] < 2.0


# Steps as rows.
def _steps(*calls: tuple[Call, float], parameters: int = 100) -> Steps:
    wall = {"forward": 1e-3, "backward": 1e-3, "optimizer": 5e-4}
    return Steps(tuple(call for call, _ in calls), np.array([s for _, s in calls]), wall, parameters)


def test_calls_become_rows() -> None:
    size = (2, 4, 64, 32)
    found = samples(
        [
            _steps(
                (Call("forward", "aten.addmm.default", ((96,), (128, 32), (32, 96))), 4e-4),
                (Call("backward", "aten.mm.default", ((96, 128), (128, 32))), 3e-4),
                (Call("forward", "aten._scaled_dot_product_flash_attention_for_cpu.default", (size,) * 3, True), 2e-4),
                (Call("backward", "aten._scaled_dot_product_flash_attention_for_cpu_backward.default",
                      (size,) * 4, True), 5e-4),
                (Call("forward", "aten.native_layer_norm.default", ((128, 32), (32,), (32,))), 1e-4),
                (Call("forward", "aten.native_layer_norm.default", ((128, 32), (32,), (32,))), 3e-4),
                (Call("forward", "aten.view.default", ((128, 32),)), 1e-5),
                (Call("optimizer", "aten.add_.Tensor", ((128, 32), (128, 32))), 1e-5),
            )
        ],
        4.0,
    )  # fmt: skip
    between = (2e-3 - 18e-4) / 6
    assert found.overhead_s == pytest.approx(between)
    assert list(zip(found.gemm.m, found.gemm.n, found.gemm.k, strict=True)) == [(128, 96, 32), (96, 32, 128)]
    np.testing.assert_allclose(found.gemm.seconds, [4e-4 + between, 3e-4 + between])
    assert (found.forward.batch[0], found.forward.q_len[0], found.forward.heads[0], found.forward.causal[0]) == (
        2, 64, 4, 1,
    )  # fmt: skip
    assert found.backward.measured_s[0] == pytest.approx(5e-4 + between)
    assert found.streams["norm"].seconds.tolist() == pytest.approx([2e-4 + between])
    assert found.streams["norm"].size.tolist() == [2 * 128 * 32 * 4.0]
    assert found.streams["optimizer"].seconds.tolist() == [5e-4]
    assert "residual" not in found.streams


# Processes.
WORK = """
import os, signal, time
def works(rank, ranks, say, *, base):
    print("not an answer")
    say([rank, os.getpid()])
    return base + rank
def fails(rank, ranks, say):
    if rank == 1:
        raise ValueError("no such thing")
    time.sleep(60)
def waits(rank, ranks, say):
    say(os.getpid())
    time.sleep(60)
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "rank_work.py").write_text(WORK, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "rank_work"


def _gone(pid: int, patience_s: float = 10.0) -> bool:
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z":
            return True
        time.sleep(0.05)
    return False


def test_results_come_back_in_the_order_of_ranks(work: str) -> None:
    heard: list[Any] = []
    assert run_ranks(f"{work}:works", 3, {"base": 10}, 60.0, heard.append) == [10, 11, 12]
    assert sorted(rank for rank, _ in heard) == [0, 1, 2]
    assert all(_gone(pid) for _, pid in heard)


def test_a_failure_is_named_and_ends_all(work: str) -> None:
    begin = time.monotonic()
    with pytest.raises(WorkerError, match=r"process 1 of the measurement failed.*ValueError: no such thing"):
        run_ranks(f"{work}:fails", 2, {}, 60.0)
    assert time.monotonic() - begin < 30.0


def test_a_killed_process_ends_the_others(work: str) -> None:
    pids: list[int] = []

    def kill_second(pid: int) -> None:
        pids.append(pid)
        if len(pids) == 3:
            os.kill(pids[1], signal.SIGKILL)

    with pytest.raises(WorkerError, match=r"was killed \(signal 9\)"):
        run_ranks(f"{work}:waits", 3, {}, 60.0, kill_second)
    assert all(_gone(pid) for pid in pids)


def test_time_is_limited(work: str) -> None:
    pids: list[int] = []
    with pytest.raises(WorkerError, match="too long"):
        run_ranks(f"{work}:waits", 2, {}, 4.0, pids.append)
    assert all(_gone(pid) for pid in pids)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_no_orphans_whatever_ends_the_parent(work: str, tmp_path: Path, how: signal.Signals) -> None:
    told = "import signal\nfrom hwsim.live.processes import run_ranks\n"
    told += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it
    told += f"run_ranks('{work}:waits', 2, {{}}, 60.0, lambda pid: print(pid, flush=True))"
    root = str(Path(hwsim.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((root, str(tmp_path)))}
    with subprocess.Popen(
        [sys.executable, "-c", told], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, text=True
    ) as parent:
        assert parent.stdout is not None
        pids = [int(parent.stdout.readline()) for _ in range(2)]
        parent.send_signal(how)
        parent.wait(timeout=20)
    assert all(_gone(pid) for pid in pids)


# The command.
@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that needs no PyTorch: all but the processes is made up."""
    cuda = SimpleNamespace(is_available=lambda: False)
    monkeypatch.setattr(measure, "torch_module", lambda: SimpleNamespace(cuda=cuda, __version__="2.13.0"))
    monkeypatch.setattr(measure, "threads", lambda count: nullcontext(4))
    monkeypatch.setattr(measure, "copy_rate", lambda *_: 50e9)
    monkeypatch.setattr(measure, "launch_s", lambda *_: 2e-6)
    monkeypatch.setattr(live, "_kernels", lambda *_: _made_rows())


@pytest.mark.usefixtures("fake")
def test_a_killed_process_leaves_no_profile(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, work: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pids: list[int] = []

    def killed(function: str, ranks: int, arguments: dict[str, Any], timeout_s: float) -> list[Any]:
        def kill_first(pid: int) -> None:
            pids.append(pid)
            if len(pids) == ranks:
                os.kill(pids[0], signal.SIGKILL)

        return run_ranks(f"{work}:waits", ranks, {}, timeout_s, kill_first)

    monkeypatch.setattr(live, "run_ranks", killed)
    place = tmp_path / "out"
    place.mkdir()
    assert run(["calibrate", "-o", str(place / "my.yaml")], debug=False) == 1
    said = capsys.readouterr()
    assert "was killed (signal 9); nothing was written" in said.err
    assert said.out == ""
    assert list(place.iterdir()) == []
    assert all(_gone(pid) for pid in pids)


@pytest.mark.usefixtures("fake")
def test_the_command_writes_a_profile_that_estimates_take(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(live, "_talk", lambda *_: _made_talk())
    path = tmp_path / "my.yaml"
    assert run(["calibrate", "-o", str(path), "--name", "desk", "--json"], debug=True) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["kind"] == "calibration"
    assert told["written"] == str(path)
    assert told["profile"]["name"] == "desk"
    assert {fit["place"] for fit in told["fits"]} >= {"kernels.gemm", "kernels.attention", "kernels.stream"}
    line = ["estimate", "train", "--model", "gpt2", "--hardware", str(path), "--gpus", "1", "--precision", "fp32"]
    assert run([*line, "--global-batch", "8", "--seq-len", "128", "--json"], debug=True) == 0
    assert json.loads(capsys.readouterr().out)["hardware"]["accelerator"] == "desk"
    assert run(["calibrate"], debug=True) == 0
    assert "Not written; add -o my-machine.yaml" in capsys.readouterr().out


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert run(["calibrate"], debug=False) == 2
    assert capsys.readouterr().err == "hwsim: calibrating needs PyTorch: pip install 'hwsim[torch]'\n"


@pytest.mark.usefixtures("fake")
def test_wrong_flags_are_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flags, words in (
        (["--device", "cuda"], "PyTorch sees no CUDA device here"),
        (["--device", "tpu"], "must be one of cpu, cuda"),
        (["--name", "a b"], "letters, digits"),
        (["-o", str(tmp_path / "no" / "my.yaml")], "no folder there"),
        (["-o", "-"], "needs a file"),
        (["--threads", "0"], "--threads"),
    ):
        assert run(["calibrate", *flags], debug=False) == 2, flags
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
    with pytest.raises(UsageError, match="must be one of"):
        hwsim.calibrate(device="tpu")


# A small machine.
def test_a_small_calibration_of_this_machine() -> None:
    pytest.importorskip("torch")
    parts: list[str] = []
    found = live.calibrate("cpu", plan=QUICK, seconds=2.0, advance=parts.append)
    assert parts == list(live.PARTS)
    hardware = load_hardware(found.profile)
    assert validate(type(hardware.accelerator), read_document(found)) == hardware.accelerator
    step = hwsim.estimate_training(
        model={"layers": 2, "hidden": 64, "heads": 2, "vocab": 256}, hardware=found.profile, gpus=1, global_batch=2,
        micro_batch=2, seq_len=32, precision="fp32",
    ).to_dict()["step_time_s"]  # fmt: skip
    assert 1e-5 < step < 60.0
    assert hwsim.collective_time(found.profile, "all_reduce", bytes=1e6, devices=2) > 1e-5


def read_document(found: live.Calibration) -> Any:
    """The accelerator inside a calibration's profile."""
    from hwsim.specs.reading import Document

    return Document(found.profile["accelerator"], "profile")
