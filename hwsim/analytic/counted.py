"""FLOPs of a step as papers count them, for MFU and HFU: the model's own, and what recompute adds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from hwsim.analytic.setting import Setting
from hwsim.formulas.training import model_flops
from hwsim.formulas.types import Numeric
from hwsim.ops.count import multiplies
from hwsim.specs.strategy import Strategies


class Attending(NamedTuple):
    """Attention of some layers."""

    operator: str
    stack: str
    layers: int
    width: float
    keys: Numeric
    """Per query, masked ones included."""


def step_flops(setting: Setting, s: Strategies) -> Numeric:
    """Of the whole job per step, as the Megatron papers count them: 6 N per token, and attention without mask.

    A frozen weight takes 4 (forward, and back to its inputs), a stack that no gradient goes through 2.
    """
    tokens, kept = stack_tokens(setting, s), weight_share(setting)
    heads = setting.parameters.matmul - sum(each.layers * each.weights for each in multiplies(setting.model))
    scored = s.global_batch * 1.0 if setting.model.head == "class" else tokens["decoder"]
    flops: Numeric = model_flops(heads * kept["decoder"], scored, 0, 0, 0)
    for each in multiplies(setting.model):
        flops = flops + model_flops(
            each.layers * each.weights * kept[each.stack], tokens[read_from(each.operator, each.stack)], 0, 0, 0
        )
    for part in attending(setting, s):
        share = 1.0 if part.stack == "decoder" or part.stack not in setting.job.frozen else 1.0 / 3.0
        flops = flops + model_flops(0, tokens[part.stack], part.layers * share, part.width, part.keys)
    return flops


def recomputed_flops(setting: Setting, s: Strategies) -> Numeric:
    """Counted the same way, what recompute adds: a second forward pass of the layers, or of some operators."""
    tokens = stack_tokens(setting, s)
    again = {name: operator.again for name, operator in setting.job.rerun.items()}
    everything: Numeric = 0.0
    chosen: Numeric = 0.0
    for each in multiplies(setting.model):
        flops = 2.0 * each.layers * each.weights * tokens[read_from(each.operator, each.stack)]
        everything, chosen = everything + flops, chosen + again.get(each.operator, 0.0) * flops
    for part in attending(setting, s):
        flops = 4.0 * part.layers * part.width * part.keys * tokens[part.stack]
        everything, chosen = everything + flops, chosen + again.get(part.operator, 0.0) * flops
    return np.where(s.recompute == 2, everything, np.where(s.recompute == 1, chosen, 0.0))


def stack_tokens(setting: Setting, s: Strategies) -> dict[str, Numeric]:
    """Tokens of each stack per step, whole job."""
    job, vision = setting.job, setting.model.vision
    patches = vision.tower.image_tokens if vision else 0
    return {
        "decoder": s.global_batch * s.seq_len,
        "encoder": s.global_batch * (s.seq_len if job.source_len is None else float(job.source_len)),
        "vision": s.global_batch * (job.images * patches),
    }


def read_from(operator: str, stack: str) -> str:
    """The stack whose tokens a multiply reads."""
    return "encoder" if operator == "cross kv" else stack


def weight_share(setting: Setting) -> dict[str, float]:
    """Passes of each stack's weights over the three of full training: forward, to the inputs, to the weights."""
    job = setting.job
    usual = 1.0 if job.method == "full" else 2.0 / 3.0
    still = {"decoder": 2.0 / 3.0, "encoder": 1.0 / 3.0, "vision": 1.0 / 3.0}
    return {name: still[name] if name in job.frozen else usual for name in still}


def attending(setting: Setting, s: Strategies) -> Iterator[Attending]:
    """Every attention of the layers."""
    lengths = {name: count / s.global_batch for name, count in stack_tokens(setting, s).items()}
    tower = setting.model.vision.tower if setting.model.vision else None
    for segment in setting.segments:
        model, length = segment.model, lengths[segment.stack]
        length = length if tower is None or segment.stack != "vision" else float(tower.image_tokens)
        width = model.heads * model.attention_dim
        for kind, count in segment.kinds:
            keys = length if kind.window is None else np.minimum(length, float(kind.window))
            yield Attending("attention", segment.stack, count, width, keys)
            if kind.cross:
                yield Attending("cross attention", segment.stack, count, width, lengths["encoder"])
