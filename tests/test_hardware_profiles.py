"""Every profile file is valid, named after itself, physically possible and says where its numbers come from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from hwsim.specs.files import Document, read_yaml, resolve_extends, validate
from hwsim.specs.hardware import Accelerator, Cluster

ROOT = Path(__file__).parents[1] / "hardware_profiles"
ACCELERATORS = {path.stem: path for path in sorted((ROOT / "accelerators").glob("*.yaml"))}
CLUSTERS = {path.stem: path for path in sorted((ROOT / "clusters").glob("*.yaml"))}

FLOP_PER_CLOCK_AND_UNIT = {
    "volta": (1010, 1034),
    "ampere": (2028, 2068),
    "hopper": (4055, 4137),
    "blackwell": (7500, 8000),
    "cdna3": (2028, 2068),
    "tpu": (32400, 33100),
}
"""What one SM, CU or 128x128 matrix unit multiplies and adds per cycle in 16 bits, dense."""


def document(paths: dict[str, Path], name: str) -> Document:
    return resolve_extends(read_yaml(paths[name]), lambda parent: read_yaml(paths[parent]))


def accelerator(name: str) -> Accelerator:
    return validate(Accelerator, document(ACCELERATORS, name))


def cluster(name: str) -> Cluster:
    return validate(Cluster, document(CLUSTERS, name))


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every spec class inside an annotation such as ``tuple[Tier, ...] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)


def is_field(spec: type[BaseModel], path: str) -> bool:
    head, _, rest = path.partition(".")
    if head not in spec.model_fields:
        return False
    return not rest or any(is_field(inner, rest) for inner in models_in(spec.model_fields[head].annotation))


def test_the_promised_profiles_are_there() -> None:
    assert {"v100-sxm2-32", "a100-sxm-80", "h100-sxm-80", "b200-sxm", "gb200", "mi300x", "tpu-v5p"} <= set(ACCELERATORS)
    assert {"dgx-a100-640", "dgx-h100", "dgx-b200", "gb200-nvl72", "mi300x-ubb", "tpu-v5p-pod"} <= set(CLUSTERS)


@pytest.mark.parametrize("name", ACCELERATORS)
def test_accelerator_is_valid_and_named_after_its_file(name: str) -> None:
    spec = accelerator(name)
    assert spec.name == name
    assert spec.title
    assert spec.usual_cluster in CLUSTERS
    assert {"default", "kernels"} <= set(spec.sources)


@pytest.mark.parametrize("name", CLUSTERS)
def test_cluster_is_valid_and_named_after_its_file(name: str) -> None:
    spec = cluster(name)
    assert spec.name == name
    assert spec.title
    assert spec.accelerator in ACCELERATORS
    assert "default" in spec.sources


@pytest.mark.parametrize("name", ACCELERATORS)
def test_peak_over_clock_and_units_is_what_the_silicon_does(name: str) -> None:
    spec = accelerator(name)
    peak = spec.peak.bf16 or spec.peak.fp16
    assert peak
    assert spec.clock
    low, high = FLOP_PER_CLOCK_AND_UNIT[spec.family]
    assert low <= peak / spec.clock / spec.compute_units <= high


@pytest.mark.parametrize("name", ACCELERATORS)
def test_narrower_numbers_are_never_slower(name: str) -> None:
    peak = accelerator(name).peak
    rates = [rate for rate in (peak.fp32, peak.tf32, peak.bf16, peak.fp8, peak.fp4) if rate]
    assert rates == sorted(rates)


@pytest.mark.parametrize("name", ACCELERATORS)
def test_memory_power_and_price_are_in_order(name: str) -> None:
    spec = accelerator(name)
    assert spec.memory.visible is None or 0.97 * spec.memory.capacity <= spec.memory.visible <= spec.memory.capacity
    assert 0 < spec.power.idle < spec.power.tdp / 2
    assert spec.price.note or not spec.price.rent
    assert not (spec.price.rent and spec.price.committed) or spec.price.committed < spec.price.rent


@pytest.mark.parametrize("name", CLUSTERS)
def test_every_collective_has_a_protocol_for_two(name: str) -> None:
    for tier in cluster(name).tiers:
        for op in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send_recv"):
            assert any(protocol.min_devices == 2 for protocol in tier.collectives[op]), (tier.name, op)


@pytest.mark.parametrize("name", CLUSTERS)
def test_node_power_covers_its_devices(name: str) -> None:
    spec = cluster(name)
    power = accelerator(spec.accelerator).power
    if spec.node.max_power:
        assert spec.node.max_power > spec.node.devices * power.tdp
    if spec.node.idle_power:
        assert spec.node.idle_power > spec.node.devices * power.idle


@pytest.mark.parametrize("name", ACCELERATORS)
def test_accelerator_sources_name_real_fields(name: str) -> None:
    paths = set(accelerator(name).sources) - {"default"}
    assert [path for path in sorted(paths) if not is_field(Accelerator, path)] == []


@pytest.mark.parametrize("name", CLUSTERS)
def test_cluster_sources_name_real_fields(name: str) -> None:
    paths = set(cluster(name).sources) - {"default"}
    assert [path for path in sorted(paths) if not is_field(Cluster, path)] == []
