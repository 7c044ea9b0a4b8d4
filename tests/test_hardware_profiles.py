"""Every profile file is valid, named after itself, physically possible and says where its numbers come from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from hwsim.errors import InputFileError, UsageError
from hwsim.specs.files import resolve_extends, validate
from hwsim.specs.hardware import Accelerator, Cluster, Hardware
from hwsim.specs.library import load_hardware, split_settings
from hwsim.specs.reading import Document, read_yaml

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


def changed(*settings: str, name: str = "h100-sxm-80") -> Hardware:
    return load_hardware(name, settings=split_settings(settings))


@pytest.mark.parametrize("tier", ["rail", "1"])
def test_settings_reach_into_lists(tier: str) -> None:
    plain, machine = load_hardware("h100-sxm-80"), changed(f"cluster.tiers.{tier}.latency=7 us")
    assert [tier.latency for tier in machine.cluster.tiers] == pytest.approx([0.94e-6, 7e-6, 3.5e-6])
    assert machine.cluster.tiers[1].collectives == plain.cluster.tiers[1].collectives


def test_a_child_changes_one_tier_of_its_parent(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: dgx-h100\nname: mine\ntiers:\n  spine: {oversubscription: 4}\n")
    assert [tier.oversubscription for tier in load_hardware(path).cluster.tiers] == [1, 1, 4]
    path.write_text("extends: dgx-h100\nname: mine\ntiers:\n  nvlink: {}\n  spin: {oversubscription: 4}\n")
    with pytest.raises(InputFileError, match=r"mine.yaml:5: tiers.spin: no such entry - did you mean spine"):
        load_hardware(path)


def test_a_setting_chooses_the_cluster() -> None:
    assert changed("accelerator.usual_cluster=gb200-nvl72").cluster.name == "gb200-nvl72"
    assert changed("accelerator.name=mine").cluster.accelerator == "mine"


def test_the_device_of_a_cluster_is_no_setting() -> None:
    with pytest.raises(UsageError, match="--hardware"):
        changed("cluster.accelerator=a100-sxm-80")


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("accelerator.memory.capacity=1 B", "between 1 MiB and"),
        ("accelerator.memory.visible=200 GiB", "visible 200 GiB is more than the capacity, 80 GiB"),
        ("accelerator.power.tdp=0 W", "between 1 W and"),
        ("accelerator.power.idle=9 kW", "idle 9 kW is more than the tdp, 700 W"),
        ("accelerator.usual_framework=megatrn", "unknown framework 'megatrn' - did you mean megatron"),
        ("accelerator.usual_cluster=a100-sxm-80", "is an accelerator, not a cluster - did you mean dgx-a100-640"),
        ("cluster.node.idle_power=99 kW", "idle_power 99 kW is more than max_power, 10.2 kW"),
        ("cluster.tiers.rail.collectives.send_recv=[]", "at least one protocol for send_recv"),
        ("cluster.tiers.nvlink.size=300", "sizes must grow outwards"),
        ("cluster.tiers.9.size=300", "no such entry"),
        ("cluster.tiers=", "expected a list, nothing given"),
    ],
)
def test_impossible_hardware_is_refused(setting: str, reason: str) -> None:
    with pytest.raises(InputFileError, match=f"^--set {setting.partition('=')[0]}: .*{reason}"):
        changed(setting)


def test_a_changed_profile_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "accelerators" / "mine.yaml"
    path.parent.mkdir()
    for units in (100, 99):
        path.write_text(f"extends: h100-sxm-80\nname: mine\ncompute_units: {units}\n")
        assert load_hardware("mine", tmp_path).accelerator.compute_units == units


def test_problems_of_a_device_inside_a_cluster_file_are_placed_there(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: dgx-h100\naccelerator:\n  extends: h100-sxm-80\n  memory: {bandwith: 3 TB/s}\n")
    with pytest.raises(InputFileError, match=r"mine.yaml:4: memory.bandwith: unknown field - did you mean bandwidth"):
        load_hardware(path)
