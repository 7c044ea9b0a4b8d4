"""What is measured on a CPU and on a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from hwsim.live.measure import Bench, Repeated
from hwsim.live.steps import Shape, attention_step, decode_step, linear_step, training_step


@dataclass(frozen=True)
class Plan:
    """Shapes to measure, small enough that all of them run in turn several times a minute."""

    training: tuple[Shape, ...]
    """The first is so small that it shows what the host takes."""
    linear: tuple[tuple[int, int, int], ...]
    """m, n, k of multiplies beside those of the training steps."""
    attention: tuple[tuple[int, int, int, int, bool], ...]
    """Batch, heads, sequence, head width, causal."""
    decode: tuple[tuple[int, int, int, int], ...]
    """Batch, heads, keys, head width."""
    groups: tuple[int, ...]
    """Processes that talk."""
    messages: tuple[int, ...]
    """Sizes of collectives. [byte]"""

    def jobs(self, bench: Bench) -> list[Repeated]:
        """Everything but the collectives, ready to run; the first training step comes several times."""
        made = [training_step(shape, bench) for shape in self.training]
        made += [linear_step(*shape, bench) for shape in self.linear]
        made += [attention_step(*shape, bench) for shape in self.attention]
        made += [decode_step(*shape, bench) for shape in self.decode]
        return [Repeated(each, bench) for each in made]


MESSAGES = tuple(2**power for power in range(10, 26))
CPU = Plan(
    training=(
        Shape(32, 1, 4, 64, 8, 1), Shape(64, 2, 2, 512, 64, 4), Shape(128, 4, 2, 1000, 64, 1),
        Shape(128, 2, 2, 4000, 128, 8), Shape(192, 6, 2, 2000, 256, 2), Shape(256, 4, 2, 8000, 64, 8),
        Shape(256, 8, 2, 1000, 512, 2), Shape(384, 6, 1, 16000, 128, 2), Shape(512, 8, 2, 2000, 64, 2),
        Shape(512, 16, 1, 4000, 256, 2), Shape(768, 12, 1, 8000, 128, 2), Shape(1024, 16, 1, 4000, 256, 1),
        Shape(1024, 8, 1, 2000, 64, 2), Shape(320, 5, 1, 32000, 64, 4), Shape(640, 10, 1, 6000, 512, 1),
    ),
    linear=(
        (8192, 512, 512), (64, 4096, 4096), (4096, 1024, 512), (512, 4096, 1024), (64, 512, 2048),
        (2048, 256, 1024), (256, 1024, 4096), (8192, 64, 128), (4096, 128, 64), (512, 64, 64), (128, 3000, 750),
        (750, 700, 900),
    ),
    attention=(
        (8, 4, 64, 32, False), (4, 4, 128, 64, False), (2, 4, 256, 64, False), (1, 4, 512, 64, False),
        (1, 2, 1024, 64, True), (1, 2, 1024, 64, False), (1, 1, 2048, 64, True), (1, 1, 2048, 128, True),
        (16, 4, 64, 32, True), (2, 4, 256, 128, True), (4, 2, 384, 64, True), (1, 2, 1536, 64, True),
        (8, 8, 96, 64, True), (2, 6, 192, 64, True),
    ),
    decode=tuple(
        (batch, heads, keys, width)
        for (batch, heads), keys, width in product(((1, 8), (4, 8), (16, 4)), (128, 512, 1024, 2048), (64, 128))
    ),
    groups=(2, 4),
    messages=MESSAGES,
)  # fmt: skip
GPU = Plan(
    training=(
        Shape(64, 1, 8, 64, 8, 1), Shape(512, 8, 2, 8000, 512, 2), Shape(768, 12, 2, 32000, 512, 4),
        Shape(1024, 16, 2, 32000, 1024, 2), Shape(1024, 8, 2, 16000, 2048, 4), Shape(1536, 12, 2, 32000, 1024, 4),
        Shape(2048, 16, 2, 32000, 2048, 2), Shape(2048, 32, 1, 64000, 4096, 1), Shape(3072, 24, 1, 32000, 2048, 4),
        Shape(4096, 32, 1, 32000, 2048, 4), Shape(4096, 32, 1, 32000, 512, 1), Shape(5120, 40, 1, 32000, 4096, 1),
    ),
    linear=(
        (128, 4096, 4096), (256, 8192, 8192), (1024, 4096, 4096), (2048, 8192, 8192), (8192, 8192, 8192),
        (16384, 4096, 1024), (4096, 28672, 8192), (64, 1024, 1024), (512, 2048, 8192), (3000, 5000, 700),
    ),
    attention=(
        (4, 16, 512, 64, False), (2, 16, 1024, 64, False), (1, 16, 4096, 128, False), (1, 16, 8192, 128, True),
        (1, 8, 16384, 128, True), (8, 16, 256, 128, True), (16, 16, 128, 64, True),
    ),
    decode=tuple(
        (batch, heads, keys, width)
        for (batch, heads), keys, width in product(((1, 32), (8, 32), (64, 16)), (512, 2048, 8192), (64, 128))
    ),
    groups=(2, 4, 8),
    messages=(*MESSAGES, 2**26, 2**28),
)  # fmt: skip
