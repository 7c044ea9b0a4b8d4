"""Every profile file is valid, named after itself, physically possible and says where its numbers come from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

import hwsim
from hwsim.errors import InputFileError, UsageError
from hwsim.report.catalog import hardware_values, sourced_sheet, spec_rows
from hwsim.report.terminal import as_text
from hwsim.specs.files import resolve_extends, validate
from hwsim.specs.hardware import Accelerator, Cluster, Hardware
from hwsim.specs.library import load_hardware, names, split_settings
from hwsim.specs.reading import Document, read_yaml

ROOT = Path(__file__).parents[1] / "hardware_profiles"
ACCELERATORS = {path.stem: path for path in sorted((ROOT / "accelerators").glob("*.yaml"))}
CLUSTERS = {path.stem: path for path in sorted((ROOT / "clusters").glob("*.yaml"))}

CATALOGUE = """
    v100-sxm2-16 v100-pcie-16 v100-sxm2-32 v100-pcie-32 t4 a10 a10g a30 a40 a100-pcie-40 a100-pcie-80 a100-sxm-40
    a100-sxm-80 a800-sxm-80 l4 l40 l40s rtx3090 rtx4090 rtx5090 rtx-a6000 rtx6000-ada rtx-pro-6000-ws
    rtx-pro-6000-server h20-96 h100-pcie-80 h100-sxm-80 h100-nvl-94 h800-sxm-80 gh200-96 gh200-144 h200-sxm-141 b200-sxm
    b300-sxm gb200 gb300 rubin-vr200 gb10 mi100 mi210 mi250x mi300x mi325x mi350x mi355x mi455x gaudi2 gaudi3 arc-b60
    tpu-v2 tpu-v3 tpu-v4 tpu-v5e tpu-v5p tpu-v6e tpu-v7 tpu-8t tpu-8i trainium1 inferentia2 trainium2 trainium3
    groq-lpu1 wse3 m2-ultra m3-ultra ascend-910b ascend-910c ascend-950dt xeon-8480p epyc-9654 grace-cpu
    """
"""Accelerators of the catalogue that the project was given."""
NODES = """
    dgx1-v100 dgx2-v100 dgx-a100-640 dgx-h100 dgx-h200 dgx-b200 lenovo-sr680a-v3-b200 lenovo-sr780a-v3-b200 dgx-b300
    gb200-nvl72 gb300-nvl72 vr-nvl72 superpod-h100-su aws-p3dn aws-p4d aws-p4de aws-p5 aws-p5en aws-p6-b200 aws-p6-b300
    aws-p6e-gb200 aws-trn1 aws-inf2-48xl aws-trn2 aws-trn2-ultra aws-trn3-gen2 gcp-a2-ultra gcp-a3-high gcp-a3-mega
    gcp-a3-ultra gcp-a4 gcp-a4x azure-nd-a100-v4 azure-nd-h100-v5 azure-nd-gb200-v6 azure-nd-mi300x-v5 mi300x-ubb
    mi355x-ubb gaudi2-hls gaudi3-hls3 tpu-v2-pod tpu-v3-pod tpu-v4-pod tpu-v5e-pod tpu-v5p-pod tpu-v6e-pod tpu-v7-pod
    cloudmatrix384 meta-24k-roce generic-rail-2tier
    """
"""Nodes, racks and pods of that catalogue."""
NARROW = 128 * 128 * 2
WIDE = 256 * 256 * 2
FLOP_PER_CLOCK_AND_UNIT = {
    1024: "v100-sxm2-16 v100-pcie-16 v100-sxm2-32 v100-pcie-32 t4 a10 a40 rtx-a6000 l4 l40s rtx6000-ada gb10 h20-96 "
    "rtx-pro-6000-ws rtx-pro-6000-server mi100 mi210 mi250x xeon-8480p",
    512: "a10g l40 rtx3090 rtx4090 rtx5090",
    2048: "a30 a100-pcie-40 a100-pcie-80 a100-sxm-40 a100-sxm-80 a800-sxm-80 mi300x mi325x arc-b60",
    4096: "h100-pcie-80 h100-sxm-80 h100-nvl-94 h800-sxm-80 gh200-96 gh200-144 h200-sxm-141 mi350x mi355x",
    8192: "b200-sxm b300-sxm gb200 gb300 rubin-vr200 mi455x ascend-910b ascend-910c",
    NARROW: "tpu-v2 tpu-v3 tpu-v4 tpu-v5e tpu-v5p trainium1 inferentia2 trainium2",
    WIDE: "tpu-v6e tpu-v7 gaudi2 gaudi3",
    256: "m2-ultra m3-ultra",
    64: "epyc-9654",
}
"""What one SM, CU, core or matrix unit multiplies and adds per cycle in 16 bits, dense with fp32 accumulation.

GeForce cards and the L40 halve it; the H20 is held to about a quarter of a Hopper SM.
"""
SPECIFIED = {
    "v100-pcie-16": (16, 900),
    "t4": (16, 320),
    "a40": (48, 696),
    "h100-nvl-94": (94, 3938),
    "gh200-144": (144, 4900),
    "b300-sxm": (288, 7750),
    "rtx-pro-6000-server": (96, 1597),
    "mi325x": (256, 6000),
    "tpu-v6e": (32, 1638),
    "trainium2": (96, 2900),
    "ascend-910c": (128, 3200),
}
"""Memory [GiB] and its bandwidth [GB/s] of a sample."""
NO_FP8 = """
    v100-sxm2-16 v100-pcie-16 v100-sxm2-32 v100-pcie-32 t4 a10 a10g a30 a40 a100-pcie-40 a100-pcie-80 a100-sxm-40
    a100-sxm-80 a800-sxm-80 rtx3090 rtx-a6000 mi100 mi210 mi250x arc-b60 tpu-v2 tpu-v3 tpu-v4 ascend-910b ascend-910c
    """
"""Devices whose parents may have more dtypes than they."""


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
    annotation = spec.model_fields[head].annotation
    if get_origin(annotation) in (dict, tuple):
        rest = rest.partition(".")[2]
    return not rest or any(is_field(inner, rest) for inner in models_in(annotation))


def test_a_source_may_name_an_entry() -> None:
    assert is_field(Accelerator, "kernels.libraries.vllm.gemm")
    assert is_field(Accelerator, "kernels.gemm.dtypes.fp8")
    assert not is_field(Accelerator, "kernels.libraries.vllm.gem")
    assert is_field(Cluster, "tiers.nvlink.libraries")
    assert not is_field(Cluster, "tiers.nvlink.library")


def test_an_inherited_curve_is_not_called_measured() -> None:
    rows = spec_rows("accelerator", load_hardware("rtx4090").accelerator)
    assert {row["kind"] for row in rows if row["field"].startswith("accelerator.kernels.")} == {"assumed"}
    rows = spec_rows("accelerator", load_hardware("l40s").accelerator)
    assert "measured" in {row["kind"] for row in rows if row["field"].startswith("accelerator.kernels.gemm.")}


def test_the_whole_catalogue_is_there() -> None:
    accelerators, nodes = CATALOGUE.split(), NODES.split()
    assert (len(accelerators), len(nodes)) == (72, 50)
    assert set(accelerators) <= set(ACCELERATORS)
    assert set(nodes) <= set(CLUSTERS)


@pytest.mark.parametrize("paths", [ACCELERATORS, CLUSTERS], ids=["accelerators", "clusters"])
def test_children_name_and_source_themselves(paths: dict[str, Path]) -> None:
    own = {name: read_yaml(path).data for name, path in paths.items()}
    assert [name for name, fields in own.items() if not {"name", "title", "sources"} <= set(fields)] == []
    assert [name for name, fields in own.items() if "default" not in fields["sources"]] == []
    assert len({fields["title"] for fields in own.values()}) == len(own)


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


@pytest.mark.parametrize(
    ("name", "rate"), [(name, rate) for rate, ids in FLOP_PER_CLOCK_AND_UNIT.items() for name in ids.split()]
)
def test_peak_over_clock_and_units_is_what_the_silicon_does(name: str, rate: int) -> None:
    spec = accelerator(name)
    peak = max(spec.peak.bf16 or 0.0, spec.peak.fp16 or 0.0)
    assert spec.clock
    assert 0.9 * rate <= peak / spec.clock / spec.compute_units <= 1.06 * rate


@pytest.mark.parametrize(("name", "memory"), SPECIFIED.items())
def test_memory_is_that_of_the_data_sheet(name: str, memory: tuple[int, int]) -> None:
    spec = accelerator(name)
    assert (spec.memory.capacity, spec.memory.bandwidth) == pytest.approx((memory[0] * 2**30, memory[1] * 1e9))


@pytest.mark.parametrize("name", NO_FP8.split())
def test_no_peak_leaks_from_a_parent(name: str) -> None:
    assert not accelerator(name).peak.fp8
    assert not accelerator(name).peak.fp4


@pytest.mark.parametrize("name", ACCELERATORS)
def test_no_multiply_beats_the_peak(name: str) -> None:
    for dtype, peak in accelerator(name).peak:
        if peak:
            seconds = hwsim.operator_time(name, "gemm", m=4096, n=4096, k=4096, dtype=dtype)
            assert 0.05 < 2 * 4096**3 / seconds / peak <= 1, dtype


@pytest.mark.parametrize("name", ACCELERATORS)
def test_every_accelerator_runs_attention_and_streams(name: str) -> None:
    dtype = next(dtype for dtype in ("bf16", "fp16", "fp32") if getattr(accelerator(name).peak, dtype))
    shape: dict[str, Any] = {"batch": 1, "q_len": 2048, "kv_len": 2048, "heads": 16, "kv_heads": 16, "head_dim": 128}
    assert 0 < hwsim.operator_time(name, "attention", dtype=dtype, **shape) < 1
    moved = 2**26
    assert hwsim.operator_time(name, "stream", dtype=dtype, bytes=moved) > moved / accelerator(name).memory.bandwidth


@pytest.mark.parametrize("name", ACCELERATORS)
def test_narrower_numbers_are_never_slower(name: str) -> None:
    peak = accelerator(name).peak
    rates = [rate for rate in (peak.fp32, peak.tf32, peak.bf16, peak.fp8, peak.fp4) if rate]
    assert rates == sorted(rates)


@pytest.mark.parametrize("name", ACCELERATORS)
def test_memory_power_and_price_are_in_order(name: str) -> None:
    spec = accelerator(name)
    shared = {"apple": 0.75, "cpu": 0.25}.get(spec.family, 0.9)
    assert spec.memory.visible is None or shared * spec.memory.capacity <= spec.memory.visible <= spec.memory.capacity
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


def test_a_chip_that_does_not_exist_is_called_by_its_name_and_was_not_measured(tmp_path):
    """The README's example: one file that extends a device and overrides three fields."""
    chip = tmp_path / "my-chip.yaml"
    chip.write_text(
        "name: double-hbm\nextends: h100-sxm-80\nmemory: {bandwidth: 6.7 TB/s}\npeak: {bf16: 1.5 PFLOP/s}\n"
        "price: {rent: 9 USD/h}\n"
    )
    made_up = hwsim.plan(model="7b", hardware=str(chip), gpus=8).best
    real = hwsim.plan(model="7b", hardware="h100-sxm-80", gpus=8).best
    assert made_up.hardware["accelerator"] == "double-hbm"
    assert (made_up.calibration, real.calibration) == ("inherited", "measured")
    assert 1.2 < real.step_time_s / made_up.step_time_s < 1.6
    assert hwsim.load_hardware(str(chip)).accelerator.title in ("", "double-hbm")


@pytest.mark.parametrize("kind", ["accelerators", "clusters"])
def test_every_sheet_fits_a_screen(kind):
    for name in names(kind):
        files, rows = hardware_values(name, None)
        lines = as_text(sourced_sheet(files, rows)).splitlines()
        assert max(len(line) for line in lines if not line.startswith("/")) <= 120, name
        assert not any("…" in line for line in lines), name
