"""Everything but the strategy: what is trained, on which machine, how."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from hwsim.costs.compute import Device, device
from hwsim.costs.network import Network, network
from hwsim.formulas.types import Numeric
from hwsim.ops import block as block_ops
from hwsim.ops.axes import tensor
from hwsim.ops.count import Parameters, multiplies, parameters
from hwsim.ops.operator import Formats
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
    def multiplies(self) -> dict[str, float]:
        """Weights of each multiply of a layer, by operator."""
        return multiplies(self.model)

    @cached_property
    def formats(self) -> Formats:
        """Bytes per number in the operators."""
        numbers, framework = self.precision, self.job.framework
        passes = {name: getattr(framework, name) for name in PASSES}
        moved = {
            "fused": (2.0 * framework.gradient_bytes, 0.0),
            "separate": (numbers.gradient, numbers.gradient + 2.0 * framework.gradient_bytes),
            "none": (numbers.gradient, 0.0),
        }[framework.accumulation]
        saved = numbers.gemm_input if framework.saves_quantised else numbers.activation
        gathered = numbers.gemm_input if framework.gathers_quantised else numbers.activation
        return Formats(numbers.activation, numbers.gemm_input, saved, gathered, *moved, **passes)


def block_plan(setting: Setting, s: Strategies) -> block_ops.Plan:
    """What the operators of this setting are built from."""
    framework = setting.job.framework
    flash = setting.job.attention == "flash"
    return block_ops.block_plan(
        setting.model, s, setting.formats, flash, framework.logit_bytes, framework.logit_traffic_bytes
    )


def tied_parameters(setting: Setting, s: Strategies) -> Numeric:
    """Embedding rows on one device that the LM head shares; none where it has its own."""
    model = setting.model
    return tensor.local_vocab(model.vocab, s) * (model.embedding_dim or model.hidden) * float(model.tied_embeddings)
