"""Fields of specs by path, and machines whose fields are columns: the same bits as one machine at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hwsim
from hwsim.analytic.setting import Setting
from hwsim.analytic.training import evaluate
from hwsim.asking import asked
from hwsim.errors import UsageError
from hwsim.specs.fields import dimension_of, value_at, with_values
from hwsim.units import DIMENSIONS, parse, write

H100 = hwsim.load_hardware("h100-sxm-80")
COLUMNS = [
    "accelerator.peak.bf16", "accelerator.memory.bandwidth", "accelerator.memory.visible", "accelerator.cache",
    "accelerator.power.unlimited", "accelerator.price.rent", "accelerator.kernels.launch", "accelerator.power.tdp",
    "accelerator.kernels.graph_launch", "cluster.node.nic_bandwidth", "cluster.tiers.nvlink.bandwidth",
    "cluster.tiers.nvlink.latency", "cluster.tiers.rail.latency", "accelerator.power.idle",
]  # fmt: skip
RUNS: list[tuple[str, dict[str, Any]]] = [
    ("70b", {"tp": 2, "cp": 2, "zero": 3}),
    ("mixtral-8x7b", {"tp": 2, "ep": 8}),
    ("gpt-3-175b", {"tp": 8, "pp": 8, "vpp": 3, "global_batch": 64, "graphs": True}),
]


def test_a_field_is_read_and_replaced_by_its_path() -> None:
    assert value_at(H100, "accelerator.memory.bandwidth") == 3.35e12
    assert value_at(H100, "cluster.tiers.nvlink.bandwidth") == value_at(H100, "cluster.tiers.0.bandwidth") == 450e9
    faster = with_values(H100, {"cluster.tiers.nvlink.bandwidth": 900e9, "accelerator.power.tdp": 500.0})
    assert faster.cluster.tiers[0].bandwidth == 900e9
    assert faster.accelerator.power.tdp == 500.0
    assert H100.cluster.tiers[0].bandwidth == 450e9


def test_a_field_knows_its_dimension() -> None:
    assert dimension_of(H100, "accelerator.memory.bandwidth") == "bytes_per_s"
    assert dimension_of(H100, "accelerator.price.rent") == "usd_per_s"
    assert dimension_of(H100, "cluster.node.devices") is None


def test_a_wrong_path_names_the_nearest_field() -> None:
    with pytest.raises(UsageError, match="did you mean bandwidth"):
        value_at(H100, "accelerator.memory.bandwith")
    with pytest.raises(UsageError, match=r"cluster\.tiers\.nvlin.*did you mean nvlink"):
        with_values(H100, {"cluster.tiers.nvlin.bandwidth": 1.0})


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_what_is_written_is_read_back(dimension: str) -> None:
    for value in (0.0, 1.0 / 3.0, 3.35e12):
        assert parse(write(value, dimension), dimension) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(("model", "strategy"), RUNS, ids=[model for model, _ in RUNS])
@pytest.mark.parametrize("path", COLUMNS)
def test_a_column_of_machines_gives_the_bits_of_each(path: str, model: str, strategy: dict[str, Any]) -> None:
    setting, s = asked(model, H100, 64, **strategy)
    values = value_at(H100, path) * np.array([0.5, 0.9, 1.0, 1.1, 3.0])
    together = evaluate(Setting(setting.model, with_values(H100, {path: values}), setting.job, 64), s)
    for i, value in enumerate(values):
        alone = evaluate(Setting(setting.model, with_values(H100, {path: float(value)}), setting.job, 64), s)
        for name in ("step_time_s", "mfu", "energy_j", "cost_usd", "fits"):
            column = np.broadcast_to(getattr(together, name), values.shape)
            assert column[i] == getattr(alone, name), (name, value)


def test_more_memory_than_before_is_all_there() -> None:
    grown = hwsim.estimate_training("70b", gpus=64, tp=8, settings="accelerator.memory.capacity=160 GiB")
    assert grown.memory_capacity_bytes == 160 * 2**30
    both = ["accelerator.memory.capacity=160 GiB", "accelerator.memory.visible=150 GiB"]
    assert hwsim.estimate_training("70b", gpus=64, tp=8, settings=both).memory_capacity_bytes == 150 * 2**30
