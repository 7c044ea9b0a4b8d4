"""hwsim against the count of brute_force.py: parameters, FLOPs, memory and traffic of tiny cases, exactly."""

from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property
from itertools import product

import numpy as np
import pytest
from brute_force import Step, whole_parameters

from hwsim.analytic.training import Setting, TrainingColumns, evaluate, illegal
from hwsim.specs.hardware import Hardware
from hwsim.specs.job import OPTIMIZERS, PRECISIONS, TrainingJob
from hwsim.specs.library import load_framework, load_hardware
from hwsim.specs.model import Model
from hwsim.specs.strategy import Strategies, strategies

GPT = {
    "layers": 6, "hidden": 64, "heads": 8, "kv_heads": 8, "head_dim": 8, "ffn": 256, "gated": False, "vocab": 131,
    "tied_embeddings": True, "positions": "learned", "max_positions": 48, "position_offset": 0, "norm": "layernorm",
    "norm_bias": True, "qk_norm": False, "embedding_norm": False, "final_norm": True, "qkv_bias": True,
    "output_bias": True, "mlp_bias": True, "head_bias": False, "dropout": True, "window": None,
}  # fmt: skip
LLAMA = GPT | {
    "layers": 7, "kv_heads": 2, "ffn": 96, "gated": True, "vocab": 97, "tied_embeddings": False, "positions": "rope",
    "norm": "rmsnorm", "qkv_bias": False, "output_bias": False, "mlp_bias": False, "dropout": False,
}  # fmt: skip
MODELS = {
    "gpt": GPT,
    "llama": LLAMA,
    "bloom": GPT | {"layers": 8, "kv_heads": 1, "vocab": 50, "positions": "alibi", "embedding_norm": True},
    "qwen": LLAMA | {"layers": 5, "heads": 4, "kv_heads": 4, "head_dim": 12, "qk_norm": True, "qkv_bias": True},
    "opt": GPT | {"layers": 9, "kv_heads": 4, "vocab": 1001, "tied_embeddings": False, "position_offset": 2},
    "phi": LLAMA | {"layers": 8, "gated": False, "norm": "layernorm", "mlp_bias": True, "head_bias": True},
    "mistral": LLAMA | {"layers": 6, "window": 8, "tied_embeddings": True, "final_norm": False},
    "mpt": GPT | {"layers": 7, "norm_bias": False, "positions": "none", "dropout": False, "head_dim": 16},
}
AXES = ("tp", "pp", "vpp", "cp", "dp")
SHAPES = [
    shape
    for shape in product((1, 2, 4), (1, 2, 3, 4), (1, 2, 3), (1, 2), (1, 2, 4))
    if np.prod(shape) // shape[2] <= 32 and not (shape[2] > 1 and shape[1] == 1)
]
NODES = ((2, 8, None), (4, 12, None), (4, None), (2, 4, 8))
"""Devices in a domain of each tier."""
ORDERS = ("tp-cp-dp-pp", "tp-cp-pp-dp", "tp-dp-cp-pp", "tp-dp-pp-cp", "tp-pp-cp-dp", "tp-pp-dp-cp")
SEQ_LEN = 16


@dataclass(frozen=True)
class Case:
    """One model, machine, job and strategy; everything about it is worked out once."""

    name: str
    model: str
    nodes: tuple[int | None, ...]
    precision: str
    attention: str
    row: tuple[tuple[str, int | str | bool], ...]

    @cached_property
    def strategy(self) -> dict[str, int | str | bool]:
        return dict(self.row)

    @cached_property
    def step(self) -> Step:
        numbers, flash = plain_bytes(self.precision), self.attention == "flash"
        return Step(MODELS[self.model], self.strategy, numbers, self.nodes, flash)

    @cached_property
    def columns(self) -> Strategies:
        return strategies(**self.strategy)

    @cached_property
    def setting(self) -> Setting:
        job = TrainingJob(
            seq_len=SEQ_LEN,
            global_batch=self.strategy["global_batch"],
            precision=self.precision,
            attention=self.attention,
            framework=load_framework("megatron"),
        )
        return Setting(tiny(self.model), cluster(self.nodes), job, self.strategy["devices"])

    @cached_property
    def result(self) -> TrainingColumns:
        return evaluate(self.setting, self.columns)

    def stages(self) -> dict[str, int]:
        """Stage that stands for each of hwsim's classes."""
        last = self.strategy["pp"] - 1
        return {"first": 0, "middle": min(1, last), "last": last}


@cache
def tiny(name: str) -> Model:
    return Model(name=name, **MODELS[name])


@cache
def cluster(nodes: tuple[int | None, ...]) -> Hardware:
    hardware = load_hardware("dgx-h100")
    tiers = hardware.cluster.tiers
    sizes = (*nodes[:-1], None)  # the outermost tier has room for everyone
    sized = tuple(tier.model_copy(update={"size": size}) for tier, size in zip(tiers, sizes, strict=False))
    node = hardware.cluster.node.model_copy(update={"devices": nodes[0]})
    return hardware.model_copy(update={"cluster": hardware.cluster.model_copy(update={"node": node, "tiers": sized})})


@cache
def plain_bytes(precision: str) -> dict[str, int]:
    """Bytes per number by role, all of them whole."""
    formats, framework = PRECISIONS[precision], load_framework("megatron")
    sizes = {
        "activation": formats.activation,
        "saved": formats.gemm_input,
        "gathered": formats.gemm_input,
        "weight": formats.weight,
        "master": formats.master,
        "moments": OPTIMIZERS["adam"].matrix,
        "gradient": framework.gradient_bytes,
        "reduce": framework.reduce_bytes,
        "logit": framework.logit_bytes,
        "bucket": framework.bucket_bytes,
    }
    assert all(float(size).is_integer() for size in sizes.values())
    return {role: int(size) for role, size in sizes.items()}


def pick(options: tuple, number: int, stride: int):
    """A value that wanders over its options as the case number grows."""
    return options[(number * stride + number // len(options)) % len(options)]


def interleaves(layers: int, chunks: int) -> bool:
    """Interleaving needs chunks of one size, or of one size when both ends count as a layer."""
    return layers % chunks == 0 or (layers + 2) % chunks == 0


def all_cases() -> list[Case]:
    """Every shape of parallelism three times, with the other choices spread over them."""
    cases = []
    for number, (shape, turn) in enumerate(product(SHAPES, range(3))):
        s = dict(zip(AXES, shape, strict=True))
        data, kind = s["dp"] * s["cp"], pick(tuple(MODELS), number, 3)
        zero = pick((0, 1, 2, 3), number, 1) if data > 1 else 0
        rounds = pick((1, 2, 3), number, 2) if s["vpp"] > 1 else 1
        micro_batches = rounds * s["pp"] if s["vpp"] > 1 else pick((1, 2, 4, 6), number, 3)
        s["devices"] = s["tp"] * s["pp"] * data
        s["zero"], s["shard"] = zero, max(1, data // pick((1, 1, 2), number, 2))
        s["micro_batch"] = 1 + number % 2
        s["global_batch"] = s["dp"] * s["micro_batch"] * micro_batches
        s["seq_len"] = SEQ_LEN
        s["recompute"] = pick(("none", "selective", "full"), number, 1)
        s["sequence_parallel"] = s["tp"] > 1 and turn != 1
        s["schedule"] = "interleaved" if s["vpp"] > 1 else pick(("1f1b", "1f1b", "gpipe"), number, 2)
        s["order"] = pick(ORDERS, number, 5)
        if s["vpp"] > 1:
            chunks = s["pp"] * s["vpp"]
            kind = next((name for name in (kind, *MODELS) if interleaves(MODELS[name]["layers"], chunks)), kind)
        precision = pick(("bf16", "bf16", "fp32", "fp8"), number, 3)
        attention = pick(("flash", "unfused"), number, 1)
        nodes = pick(NODES, number, 3)
        label = "-".join(f"{axis}{size}" for axis, size in zip(AXES, shape, strict=True))
        rest = f"z{zero}.{s['shard']}-mb{s['micro_batch']}x{micro_batches}-{s['recompute']}-{attention}-{number}"
        case = Case(f"{kind}-{label}-{rest}", kind, nodes, precision, attention, tuple(s.items()))
        if not any(np.any(mask) for mask in illegal(tiny(kind), case.columns).values()):
            cases.append(case)
    return cases


CASES = all_cases()
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def same(found: float, exact: Fraction | int) -> bool:
    """Equal to the last bit; a fraction that no float holds (thirds, sevenths) may differ in the last few bits."""
    exact = Fraction(exact)
    if exact.denominator & (exact.denominator - 1) == 0:
        return Fraction(float(found)) == exact
    return float(found) == pytest.approx(float(exact), rel=1e-14)


def differences(found: dict[str, float], exact: dict[str, Fraction]) -> dict[str, tuple[float, float]]:
    """(hwsim, brute force) where they differ."""
    return {key: (float(found[key]), float(exact[key])) for key in exact if not same(found[key], exact[key])}


def test_cases_cover_the_grid():
    """Every choice of every column appears, and a few hundred cases are legal."""
    assert len(CASES) > 250
    for column, choices in {
        "tp": (1, 2, 4), "pp": (1, 2, 3, 4), "vpp": (1, 2, 3), "cp": (1, 2), "dp": (1, 2, 4), "zero": (0, 1, 2, 3),
        "micro_batch": (1, 2), "recompute": ("none", "selective", "full"), "sequence_parallel": (True, False),
        "schedule": ("gpipe", "1f1b", "interleaved"), "order": ORDERS,
    }.items():  # fmt: skip
        assert {case.strategy[column] for case in CASES} == set(choices), column
    assert {case.model for case in CASES} == set(MODELS)
    assert {case.nodes for case in CASES} == set(NODES)
    uneven = [case for case in CASES if len(set(case.step.chunks)) > 1]
    hybrid = [case for case in CASES if case.strategy["zero"] and case.strategy["shard"] < case.step.dp * case.step.cp]
    interleaved = [case for case in CASES if case.strategy["vpp"] > 1]
    assert min(len(uneven), len(hybrid), len(interleaved)) > 30


@pytest.mark.parametrize("name", MODELS)
def test_parameters_of_the_model(name):
    setting = next(case.setting for case in CASES if case.model == name)
    assert setting.parameters.total == whole_parameters(MODELS[name])


@every_case
def test_parameters_per_device(case):
    """Read off the weights of each class of stage."""
    pieces = case.strategy["shard"] if case.strategy["zero"] == 3 else 1
    each = PRECISIONS[case.precision].weight / pieces
    found = {name: case.result.memory.stages[name].parts["weights"] / each for name in case.stages()}
    exact = {name: Fraction(case.step.parameters(stage)) for name, stage in case.stages().items()}
    assert not differences(found, exact)


@every_case
def test_flops(case):
    """hwsim states those of the stage that takes longest."""
    assert any(same(case.result.flops_per_device, case.step.flops(stage)) for stage in range(case.step.pp))


def test_flops_are_nearly_always_those_of_the_stage_that_multiplies_most():
    """The stage that takes longest may multiply a little less than another."""
    other = [case for case in CASES if case.result.flops_per_device != max(map(case.step.flops, range(case.step.pp)))]
    assert len(other) < 0.03 * len(CASES)
    for case in other:
        assert case.result.flops_per_device > 0.8 * max(map(case.step.flops, range(case.step.pp)))


@every_case
def test_memory_of_each_stage(case):
    for name, stage in case.stages().items():
        assert not differences(case.result.memory.stages[name].parts, case.step.memory(stage)), name


@every_case
def test_memory_of_the_worst_device(case):
    assert not differences(case.result.memory.parts, case.step.worst_memory())


@every_case
def test_traffic_of_the_busiest_device(case):
    assert not differences(case.result.traffic_bytes, case.step.traffic()[0])


@every_case
def test_traffic_by_tier(case):
    """What each tier carries; groups that split unevenly over domains are taken by hwsim as the one split worst."""
    tiers = [tier.name for tier in case.setting.hardware.cluster.tiers]
    found = case.result.traffic_tier_bytes
    exact = dict(zip(tiers, case.step.traffic()[1], strict=True))
    if case.step.nested():
        assert not differences(found, exact)
    else:
        outward = [sum(float(found[name]) for name in tiers[i:]) for i in range(1, len(tiers))]
        least = [float(sum(exact[name] for name in tiers[i:])) for i in range(1, len(tiers))]
        assert all(a >= b * (1.0 - 1e-12) for a, b in zip(outward, least, strict=True))
