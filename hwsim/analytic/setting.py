"""Everything but the strategy: what is trained, on which machine, how."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from hwsim.costs.compute import Device, device
from hwsim.costs.network import Network, network
from hwsim.formulas.types import Numeric
from hwsim.ops.axes import tensor
from hwsim.ops.count import STACKS, Parameters, parameters
from hwsim.ops.operator import Formats
from hwsim.ops.plan import Habits
from hwsim.ops.stacks import Segment, segments
from hwsim.ops.whole import Lengths, Whole, whole
from hwsim.specs.hardware import Hardware
from hwsim.specs.job import Precision, TrainingJob
from hwsim.specs.model import Model
from hwsim.specs.strategy import Strategies

PASSES = ("norm_passes", "activation_passes", "rope_passes", "score_passes")
"""What a framework says of its unfused kernels, and the operators go by."""


@dataclass(frozen=True)
class Setting:
    """Everything but the strategy: what is trained, on which machine, how."""

    model: Model
    hardware: Hardware
    job: TrainingJob
    devices: int

    @cached_property
    def precision(self) -> Precision:
        """Bytes per number by role."""
        return self.job.numbers

    @cached_property
    def device(self) -> Device:
        """Kernel curves at the job's compute dtype, as they run for hours on end."""
        libraries = self.job.framework.libraries
        return device(self.hardware.accelerator, self.precision.compute, libraries, training=True)

    @cached_property
    def network(self) -> Network:
        """The cluster laid out for this many devices."""
        return network(self.hardware.cluster, self.devices)

    @cached_property
    def parameters(self) -> Parameters:
        """Parameter counts."""
        return parameters(self.model)

    @cached_property
    def formats(self) -> dict[str, Formats]:
        """Bytes per number in the operators, and what is trained, by stack."""
        numbers, framework = self.precision, self.job.framework
        passes = {name: getattr(framework, name) for name in PASSES}
        moved = {
            "fused": (2.0 * self.job.gradient_bytes, 0.0),
            "separate": (numbers.gradient, numbers.gradient + 2.0 * self.job.gradient_bytes),
            "none": (numbers.gradient, 0.0),
        }[framework.accumulation]
        saved = numbers.gemm_input if framework.saves_quantised else numbers.activation
        gathered = numbers.gemm_input if framework.gathers_quantised else numbers.activation
        whole = Formats(
            numbers.activation, numbers.gemm_input, saved, gathered, *moved, **passes,
            statistics=framework.statistics_bytes, autograd=framework.autograd,
        )  # fmt: skip
        adapters = self.job.method != "full"
        unpacked = self.job.frozen_bytes + numbers.wire if self.job.method == "qlora" else 0.0
        frozen = replace(whole, trains=False, rank=self.job.rank * adapters, unpack_bytes=unpacked)
        still = replace(whole, trains=False)
        of_stack = frozen if adapters else whole
        return {stack: still if stack in self.job.frozen else of_stack for stack in STACKS}

    @cached_property
    def habits(self) -> Habits:
        """How the software runs what the model asks for."""
        job, framework = self.job, self.job.framework
        return Habits(
            flash=job.attention == "flash",
            logit_bytes=framework.logit_bytes,
            logit_traffic_bytes=framework.logit_traffic_bytes,
            imbalance=job.imbalance,
            capacity=job.capacity,
            grouped=framework.grouped,
            gathers_again=framework.gathers_again,
            dispatch_domain=float(self.hardware.cluster.tiers[0].size or 1) if framework.dispatch_once else 0.0,
        )

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """Layers of every stack, in order."""
        return segments(self.model)

    @cached_property
    def layers(self) -> int:
        """All of them."""
        return sum(segment.layers for segment in self.segments)


def model_plan(setting: Setting, s: Strategies) -> Whole:
    """What the operators of this setting are built from."""
    job = setting.job
    lengths = Lengths(None if job.source_len is None else float(job.source_len), job.images)
    quiet = frozenset(name for name in job.frozen if name != "decoder")
    return whole(setting.model, s, setting.formats, setting.habits, lengths, quiet)


def tied_parameters(setting: Setting, s: Strategies) -> Numeric:
    """Embedding rows on one device that the LM head shares; none where it has its own."""
    model = setting.model
    return tensor.local_vocab(model.vocab, s) * (model.embedding_dim or model.hidden) * float(model.is_tied)
