"""Kernels timed where they run: every operator call of small training steps, in its place, and a few kernels alone.

A kernel alone in a loop finds its operands in the cache and its output in memory that was handed out before. In a step
it finds neither, and on a CPU that is half of its time. So a clock stands between PyTorch and its kernels while whole
steps run; what Python and autograd add between the kernels is the rest of a step that ran without the clock.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from hwsim.errors import UsageError
from hwsim.fitting.fitted import Column
from hwsim.units import GIB, KIB, MIB

AHEAD_CYCLES = 200_000_000
"""Clock cycles that a GPU is kept waiting while the host enqueues a step, so that no kernel waits for the host."""
HALF = ("bf16", "fp16")
FEWEST_ROUNDS, MOST_BUDGETS = 5, 3.0
PROBE, DISTURBED, PAUSE_S = 256, 1.5, 0.05
"""Edge of the multiply that tells a busy machine, how much slower it is then, and how long one waits. [s]"""


@dataclass(frozen=True)
class Call:
    """One operator call of a step."""

    phase: str
    """forward, backward or optimizer."""
    name: str
    """As PyTorch names it, e.g. aten.mm.default."""
    shapes: tuple[tuple[int, ...], ...]
    """Of its tensor arguments."""
    causal: bool = False


@dataclass(frozen=True)
class Steps:
    """Repeated steps of one shape."""

    calls: tuple[Call, ...]
    seconds: Column
    """Of each call."""
    wall: dict[str, float]
    """Of each phase without the clock. [s]"""
    parameters: int


def torch_module() -> Any:
    """PyTorch; it ships with the extra `torch`.

    Raises
    ------
    UsageError
        If it is not installed.
    """
    try:
        import torch
    except ImportError:
        msg = "calibrating needs PyTorch: pip install 'hwsim[torch]'"
        raise UsageError(msg) from None
    return torch


@dataclass(frozen=True)
class Bench:
    """Where and in which number format things are measured."""

    device: str
    """cpu or cuda."""
    dtype: str
    """fp32, bf16 or fp16."""

    @property
    def torch_dtype(self) -> Any:
        """The same as PyTorch has it."""
        torch = torch_module()
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.dtype]

    @property
    def element_bytes(self) -> float:
        """Of one number."""
        return 2.0 if self.dtype in HALF else 4.0

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device == "cuda":
            torch_module().cuda.synchronize()

    def normal(self, *sizes: int, grad: bool = False) -> Any:
        """Random numbers on the device."""
        torch = torch_module()
        made = torch.randn(*sizes, device=self.device, dtype=self.torch_dtype)
        return made.requires_grad_(grad)


def clock(bench: Bench) -> Any:
    """A dispatch mode that notes every operator call and how long it took."""
    torch = torch_module()
    from torch.utils._python_dispatch import TorchDispatchMode

    class Clock(TorchDispatchMode):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.phase = "forward"
            self.calls: list[Call] = []
            self._marks: list[tuple[Any, Any]] = []

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            begin = _mark(torch, bench)
            result = func(*args, **(kwargs or {}))
            self._marks.append((begin, _mark(torch, bench)))
            tensors = tuple(tuple(each.shape) for each in args if isinstance(each, torch.Tensor))
            causal = "scaled_dot" in str(func) and any(each is True for each in (*args, *(kwargs or {}).values()))
            self.calls.append(Call(self.phase, str(func), tensors, causal))
            return result

        def seconds(self) -> list[float]:
            bench.wait()
            if bench.device == "cuda":
                return [1e-3 * begin.elapsed_time(end) for begin, end in self._marks]
            return [end - begin for begin, end in self._marks]

    return Clock()


def _mark(torch: Any, bench: Bench) -> Any:
    if bench.device != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


Step = Callable[[Callable[[str], None]], None]
"""Runs once, and says which phase begins."""


class Repeated:
    """A step that is run now and then, with the clock and without it by turns."""

    def __init__(self, made: tuple[Step, int], bench: Bench) -> None:
        self._step, self._parameters = made
        self._bench = bench
        self._calls: tuple[Call, ...] = ()
        self._clocked: list[list[float]] = []
        self._plain: list[dict[str, float]] = []
        self._step(lambda _: None)
        self.cost_s = sum(_phases(self._step, bench).values())

    def visit(self) -> None:
        """Run a step without the clock, which fills the caches, and one with it."""
        self._plain.append(_phases(self._step, self._bench))
        self._calls, seconds = _clocked(self._step, self._bench)
        self._clocked.append(seconds)

    def steps(self) -> Steps:
        """What was seen so far."""
        quiet = np.min(np.array(self._clocked), axis=0)
        wall = {phase: min(each[phase] for each in self._plain) for phase in self._plain[0]}
        return Steps(self._calls, np.asarray(quiet, np.float64), wall, self._parameters)


class Quiet:
    """Tells by a small multiply whether others use the machine, and waits for a moment in which they do not."""

    def __init__(self, bench: Bench, patience_s: float) -> None:
        self._one = bench.normal(PROBE, PROBE)
        self._bench, self._left_s = bench, patience_s
        self._best_s = min(self._probe_s() for _ in range(20))
        self._asked = self._disturbed = 0

    @property
    def busy(self) -> float:
        """Share of the moments looked at in which others used the machine."""
        return self._disturbed / max(self._asked, 1)

    def _probe_s(self) -> float:
        begin = time.perf_counter()
        self._one.mm(self._one)
        self._bench.wait()
        return time.perf_counter() - begin

    def wait(self) -> None:
        """Return when the machine is quiet, or patience is at an end."""
        while True:
            found = [self._probe_s() for _ in range(3)]
            self._best_s = min(self._best_s, *found)
            self._asked += 1
            if max(found) < DISTURBED * self._best_s:
                return
            self._disturbed += 1
            if self._left_s <= 0.0:
                return
            time.sleep(PAUSE_S)
            self._left_s -= PAUSE_S


def rounds(jobs: list[Repeated], budget_s: float, bench: Bench) -> float:
    """Visit all jobs in turn for `budget_s`, and tell how busy others kept the machine (see `Quiet.busy`).

    What disturbs the machine for a while then disturbs all alike, and the least time of each is one that nothing did,
    if there are enough: on a busy machine it takes up to `MOST_BUDGETS` times as long until each has been visited
    `FEWEST_ROUNDS` times, and up to half as much time again is spent waiting for quiet moments.
    """
    quiet = Quiet(bench, 0.5 * budget_s)
    spent, done = 0.0, 0
    while True:
        for job in jobs:
            if done and spent > budget_s and (done >= FEWEST_ROUNDS or spent > MOST_BUDGETS * budget_s):
                return quiet.busy
            quiet.wait()
            begin = time.perf_counter()
            job.visit()
            spent += time.perf_counter() - begin
        done += 1


def _clocked(step: Step, bench: Bench) -> tuple[tuple[Call, ...], list[float]]:
    with clock(bench) as watch:
        if bench.device == "cuda":
            torch_module().cuda._sleep(AHEAD_CYCLES)
        step(lambda phase: setattr(watch, "phase", phase))
    return tuple(watch.calls), watch.seconds()


def _phases(step: Step, bench: Bench) -> dict[str, float]:
    """Seconds of each phase of a step."""
    marks: list[tuple[str, float]] = []

    def begin(phase: str) -> None:
        bench.wait()
        marks.append((phase, time.perf_counter()))

    step(begin)
    begin("")
    return {phase: after - at for (phase, at), (_, after) in pairwise(marks)}


def copy_rate(bench: Bench, cache_bytes: float, budget_s: float) -> float:
    """Best rate of large copies and adds, read plus written. [byte/s]"""
    torch = torch_module()
    count = int(min(max(8.0 * cache_bytes, MIB * 128), GIB) / 4.0)
    source, target = (torch.zeros(count, device=bench.device) for _ in range(2))
    found = 0.0
    for run, arrays in ((lambda: target.copy_(source), 2), (lambda: torch.add(source, target, out=target), 3)):
        found = max(found, arrays * 4.0 * count / min(_repeat(run, bench, budget_s / 2.0)))
    return found


def launch_s(bench: Bench, budget_s: float) -> float:
    """Host time of one kernel that does next to nothing. [s]"""
    torch = torch_module()
    one = torch.zeros(1, device=bench.device)

    def many() -> None:
        for _ in range(100):
            one.add_(1.0)

    return min(_repeat(many, bench, budget_s, wait=False)) / 100.0


def _repeat(run: Callable[[], Any], bench: Bench, budget_s: float, wait: bool = True) -> list[float]:
    run()
    bench.wait()
    found: list[float] = []
    end = time.perf_counter() + budget_s
    while len(found) < 5 or time.perf_counter() < end:
        begin = time.perf_counter()
        run()
        if wait:
            bench.wait()
        found.append(time.perf_counter() - begin)
        bench.wait()
    return found


def cpu_cache_bytes() -> float:
    """Last-level cache of the first core; 0 where the system does not say."""
    found = 0.0
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text(encoding="ascii").strip()
        scale = {"K": KIB, "M": MIB}.get(text[-1:], 1.0)
        found = max(found, scale * float(text.rstrip("KMG") or 0))
    return found


def cpu_title() -> str:
    """What the system calls its processor."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    named = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return f"{named[0] if named else platform.processor() or 'CPU'} ({os.cpu_count()} cores)"


def memory_bytes() -> float:
    """Of the machine."""
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


@contextmanager
def threads(count: int | None) -> Iterator[int]:
    """PyTorch with so many threads, by default its own number; and that number."""
    torch = torch_module()
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield count or before
    finally:
        torch.set_num_threads(before)
