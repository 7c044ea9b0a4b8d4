"""Fused experts and latent attention: routing as simulated, curves as measured, fits of known curves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from hwsim.costs.compute import Device, device, experts_kinds
from hwsim.fitting import experts as fitted
from hwsim.fitting import latent
from hwsim.fitting.experts_rows import FORMATS, SKEWS, columns, experts_table
from hwsim.fitting.profile_writer import with_fits
from hwsim.formulas.experts import ExpertsMachine, active_experts, busiest_experts, busiest_rows
from hwsim.ops.work import Attention, Experts
from hwsim.specs.library import load_hardware

DEEPSEEK = Experts(256.0, 8.0, 256.0, 256.0, 7168.0, 2048.0, True, 1.0, 1.0, kind="fp8_block")
"""The routed experts of DeepSeek-V3, all on one device."""
TRUE = {
    "efficiency": 0.5, "pad_rows": 20.0, "memory_efficiency": 0.8, "latency": 15.0, "step": 1.0, "memory_latency": 8.0,
    "passes": 2.0, "remote_share": 0.5, "token_passes": 4.0,
}  # fmt: skip


def on(name: str, compute: str = "bf16", *libraries: str, cache: str | None = None) -> Device:
    return device(load_hardware(name).accelerator, compute, libraries, cache=cache)


def drawn(tokens: int, experts: int, topk: int, devices: int, skew: float) -> tuple[float, float]:
    """Rows and active experts of the busiest device when popularities are drawn, mean of many draws."""
    rng, low, high = np.random.default_rng(7), 1.0, 0.8 * tokens
    shares = rng.random((400, experts))
    slope = 1.0 - skew
    popular = ((high**slope - low**slope) * shares + low**slope) ** (1.0 / slope)
    rows = np.round(popular / popular.sum(1, keepdims=True) * tokens * topk).reshape(400, devices, -1)
    busiest = rows[np.arange(400), rows.sum(2).argmax(1)]
    return float(busiest.sum(1).mean()), float((busiest > 0).sum(1).mean())


@pytest.mark.parametrize("devices", [1, 4, 16, 64])
@pytest.mark.parametrize("skew", [1.01, 1.2])
@pytest.mark.parametrize("tokens", [256, 4096])
def test_the_busiest_device_is_that_of_a_simulation(tokens: int, skew: float, devices: int) -> None:
    rows, active = drawn(tokens, 256, 8, devices, skew)
    assert float(busiest_rows(tokens, 8, 256 / devices, 256, skew)) == pytest.approx(rows, rel=0.15)
    assert float(busiest_experts(tokens, 8, 256 / devices, 256, skew)) == pytest.approx(active, rel=0.15)


def test_rows_by_chance_are_those_of_a_simulation() -> None:
    rng = np.random.default_rng(3)
    chosen = np.stack([rng.permuted(np.tile(np.arange(64), (32, 1)), axis=1)[:, :6] for _ in range(300)])
    counts = np.stack([np.bincount(one.ravel(), minlength=64) for one in chosen])
    assert float(active_experts(32, 64, 6, 0.0)) == pytest.approx((counts > 0).sum(1).mean(), rel=0.01)
    busiest = counts.reshape(300, 8, 8).sum(2).max(1).mean()
    assert float(busiest_rows(32, 6, 8, 64, 0.0)) == pytest.approx(busiest, rel=0.05)


@pytest.mark.parametrize("skew", [-1.0, 0.0, 0.7, 1.0, 1.2])
def test_more_tokens_are_never_less_work(skew: float) -> None:
    tokens = np.arange(1.0, 20000.0, 7.0)
    rows = busiest_rows(tokens, 8, 32, 256, skew)
    active = busiest_experts(tokens, 8, 32, 256, skew)
    assert (np.diff(rows) > 0).mean() > 0.999  # one step down where the range of the power law starts to grow
    assert (active <= 32).all()
    assert (active >= 1).all()
    assert (rows <= 8 * tokens).all()
    assert (rows >= tokens).all()  # a mean of 1 row per token, and no less on the busiest


def test_even_chance_and_skewed_routing_in_order() -> None:
    even, chance, skewed = (float(busiest_rows(512, 8, 16, 256, skew)) for skew in (-1.0, 0.0, 1.2))
    assert even == 256.0
    assert even < chance < skewed
    even, chance, skewed = (float(active_experts(64, 256, 8, skew)) for skew in (-1.0, 0.0, 1.2))
    assert even == 256.0
    assert even > chance > skewed


@pytest.mark.parametrize(
    ("tokens", "tp", "ep", "skew", "measured_us"),
    [
        (64, 8, 1, 1.2, 386.0), (384, 2, 1, 1.01, 1633.9), (96, 4, 8, 1.01, 152.0), (256, 4, 32, 1.2, 106.8),
        (96, 1, 32, 1.2, 158.2), (1024, 2, 32, 1.2, 320.8), (12288, 4, 8, 1.01, 2403.6), (128, 2, 64, 1.2, 90.3),
    ],
)  # fmt: skip
def test_measured_layers_are_met(tokens: int, tp: int, ep: int, skew: float, measured_us: float) -> None:
    """DeepSeek-V3's experts in block-scaled fp8 on an H100, SGLang (aiconfigurator)."""
    work = replace(DEEPSEEK, tokens=float(tokens), experts=256.0 / ep, ffn=2048.0 / tp, skew=skew)
    assert 1e6 * float(on("h100-sxm-80", "fp8", "sglang").seconds(work)) == pytest.approx(measured_us, rel=0.25)


@pytest.mark.parametrize("name", ["a100-sxm-80", "h100-sxm-80", "b200-sxm", "l40s", "arc-b60", "mi300x", "tpu-v6e"])
def test_no_layer_is_faster_than_the_data_sheet(name: str) -> None:
    machine = on(name)
    tokens, ffn = np.meshgrid(2.0 ** np.arange(0, 17), 2.0 ** np.arange(5, 14))
    for held, skew in ((256.0, 0.0), (8.0, 1.2), (32.0, -1.0)):
        work = Experts(tokens, 8.0, held, 256.0, 7168.0, ffn, skew=skew)
        seconds, waiting = machine.cost(work)
        assert (seconds >= machine.limit_s(work) * (1.0 - 1e-12)).all()
        assert (seconds == machine.seconds(work)).all()
        assert (np.isin(waiting, (0.0,)) | (waiting == seconds)).all()


def test_a_format_takes_its_own_curve_or_the_nearest() -> None:
    h100 = on("h100-sxm-80", "fp8", "vllm")
    block, tensor = (float(h100.seconds(replace(DEEPSEEK, kind=kind))) for kind in ("fp8_block", "fp8"))
    assert block != tensor
    assert float(h100.seconds(replace(DEEPSEEK, kind=None))) == block
    assert h100.experts["mxfp4_fp8"] == h100.experts["fp8_block"]  # not measured there
    assert on("h100-sxm-80", "bf16", "vllm").experts == h100.experts
    assert "fp8" not in on("a100-sxm-80", "bf16", "sglang").experts


def test_widths_suggest_a_format() -> None:
    suggested = {
        (2.0, 2.0): ("bf16",), (2.0, 0.53): ("int4", "mxfp4"), (1.0, 1.0): ("fp8_block", "fp8"),
        (1.0, 0.53): ("mxfp4_fp8",), (0.5625, 0.5625): ("fp4",),
    }  # fmt: skip
    for (row, weight), kinds in suggested.items():
        assert experts_kinds(replace(DEEPSEEK, input_bytes=row, weight_bytes=weight, kind=None)) == kinds


def test_what_was_not_measured_is_inherited_or_like_plain_multiplies() -> None:
    own, near = (on(name).experts["bf16"] for name in ("h200-sxm-141", "h100-sxm-80"))
    assert own == near._replace(bandwidth_bytes_per_s=own.bandwidth_bytes_per_s)
    bare = on("mi300x")
    assert not bare.experts
    assert bare.latent is None
    assert bare.seconds(replace(DEEPSEEK, kind=None, input_bytes=2.0, weight_bytes=2.0)) > 0


def test_a_latent_is_read_once() -> None:
    decode = Attention(64.0, 1.0, 4096.0, 128.0, 1.0, 576.0, value_dim=512.0, shared=True)
    assert decode.memory_bytes == 2.0 * 64 * (4096 * 576 + 128 * (576 + 512))
    assert replace(decode, kv_bytes=1.0).memory_bytes == 64 * (4096 * 576 + 2.0 * 128 * (576 + 512))
    assert decode.flops == 2.0 * 64 * 128 * 4096 * (576 + 512)
    plain = Attention(64.0, 1.0, 4096.0, 32.0, 8.0, 128.0)
    assert replace(plain, value_dim=128.0).memory_bytes == plain.memory_bytes


@pytest.mark.parametrize(
    ("work", "measured_us"),
    [
        (Attention(64.0, 1.0, 4096.0, 128.0, 1.0, 576.0, value_dim=512.0, shared=True), 139.4),
        (Attention(32.0, 1.0, 32768.0, 128.0, 1.0, 576.0, value_dim=512.0, shared=True), 482.0),
        (Attention(4.0, 8192.0, 8192.0, 128.0, 128.0, 192.0, value_dim=128.0), 19422.0),
    ],
)
def test_measured_latent_attention_is_met(work: Attention, measured_us: float) -> None:
    """DeepSeek's heads on an H100, TensorRT-LLM (aiconfigurator)."""
    machine = on("h100-sxm-80", "bf16", "trtllm")
    assert 1e6 * float(machine.seconds(work)) == pytest.approx(measured_us, rel=0.1)


def test_a_few_queries_on_shared_latents_are_rows_of_one_block() -> None:
    machine = on("h100-sxm-80", "bf16", "trtllm", cache="fp8")
    one = Attention(8.0, 1.0, 8192.0, 16.0, 1.0, 576.0, value_dim=512.0, shared=True, kv_bytes=1.0)
    assert machine.seconds(replace(one, q_len=4.0)) == machine.seconds(replace(one, heads=64.0))
    assert machine.seconds(replace(one, q_len=4.0)) < 2.0 * machine.seconds(one)


def _table(rows: int = 500) -> pd.DataFrame:
    """Layers of one device, timed by a known curve."""
    rng = np.random.default_rng(5)
    experts = rng.choice([32, 128, 256], rows)
    found = pd.DataFrame({
        "gpu": "h100", "framework": "vllm", "version": "1", "kernel": "vllm_fused_moe", "dtype": "bfloat16",
        "num_tokens": rng.choice([1, 8, 64, 256, 1024, 16384], rows), "hidden": rng.choice([2048, 4096, 7168], rows),
        "inter": rng.choice([1024, 2048, 4096], rows), "topk": rng.choice([4, 8], rows), "num_experts": experts,
        "moe_tp": rng.choice([1, 2, 8], rows), "moe_ep": rng.choice([1, 4, 16], rows),
        "distribution": rng.choice(list(SKEWS), rows), "latency_us": 1.0,
    })  # fmt: skip
    sample = fitted.sample_of("h100-sxm-80", "bf16", found.assign(format="bf16", family="triton"))
    values = np.array([TRUE[str(name)] for name in fitted.NAMES])
    return found.assign(latency_us=1e6 * sample.rows.predict(sample.machine(values)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of one device whose coefficients are known."""
    place = tmp_path_factory.mktemp("measured")
    (place / "kernels").mkdir()
    _table().to_csv(place / "kernels/moe.csv.gz", index=False)
    return place


def test_a_known_curve_comes_back(folder: Path) -> None:
    own, library = fitted.fit_experts(folder)
    assert own.path == ("kernels", "experts", "dtypes", "bf16")
    assert library.path == ("kernels", "libraries", "vllm", "experts", "dtypes", "bf16")
    assert own.values == library.values
    assert library.outside.median < 0.02
    for name in ("efficiency", "memory_efficiency"):
        assert library.values[name] == pytest.approx(TRUE[name], rel=0.1)


def test_the_profile_gains_curves_and_loses_nothing(folder: Path) -> None:
    path = Path("hardware_profiles/accelerators/mi300x.yaml")
    text = path.read_text(encoding="utf-8")
    fits = [replace(fit, profile="mi300x") for fit in fitted.fit_experts(folder)]
    written = with_fits(text, path, fits, "2026-11-25")
    assert [line for line in text.splitlines() if line not in written and "status" not in line] == []
    assert "kernels.libraries.vllm.experts:" in written


def test_rows_that_a_cache_served_do_not_count(folder: Path) -> None:
    table = experts_table(folder)
    quick = fitted.sample_of("h100-sxm-80", "bf16", table.assign(latency_us=0.01))
    assert not quick.weights.any()


def test_old_sglang_multiplied_rows_of_experts_elsewhere() -> None:
    row = {
        "framework": "sglang", "version": "0.5.10", "kernel": "k", "dtype": "bfloat16", "distribution": "balanced",
        "num_tokens": 8192, "hidden": 4096, "inter": 2688, "topk": 22, "num_experts": 512, "moe_tp": 1, "moe_ep": 256,
        "latency_us": 8475.0,
    }  # fmt: skip
    old, new = (columns(pd.DataFrame([row | {"version": version}])) for version in ("0.5.10", "0.5.14"))
    assert float(new.rows[0]) == 704.0
    assert float(old.rows[0]) == pytest.approx(22 * 8192 * 2 / 24, rel=0.01)  # one token in 12 meets the device
    assert (float(old.elsewhere[0]), float(new.elsewhere[0])) == (0.0, 22 * 8192 - 704.0)


def test_floors_of_the_host_stay_out_of_latent_curves() -> None:
    rng, rows = np.random.default_rng(2), 160
    decode = rng.random(rows) < 0.5
    table = pd.DataFrame({
        "phase": np.where(decode, "decode", "prefill"), "kv_dtype": "bfloat16", "heads": rng.choice([8, 32, 128], rows),
        "batch": rng.choice([1, 8, 64], rows), "q_len": np.where(decode, 1, rng.choice([64, 1024, 8192], rows)),
        "past_kv": np.where(decode, rng.choice([15, 1023, 16383], rows), 0), "latency_us": 1.0,
    })  # fmt: skip
    h100 = load_hardware("h100-sxm-80").accelerator
    machine = on("h100-sxm-80", "bf16", "trtllm").latent
    assert machine is not None
    seconds = np.maximum(latent.columns(table).forward_s(machine), np.where(decode, 200e-6, 100e-6))
    sample = latent.Sample(h100, "bf16", latent.columns(table.assign(latency_us=1e6 * seconds)))
    assert len(sample.coefficients) == len(latent.CURVE) + 2
    traits = next(one for one in latent.TRAITS if one["query_rows"] == 128 and one["decode_rows"] == 64)
    values: npt.NDArray[np.float64] = sample.best(traits)
    assert np.median(np.abs(sample.predict(traits, values) / seconds - 1.0)) < 0.05
    assert "decode_host" not in latent.written(traits, values)
    assert float(values[0]) <= latent.QUICK["latency"]


def test_every_format_of_the_table_is_one_of_the_profiles() -> None:
    names = {name for name, _ in FORMATS.values()}
    measured = {str(kind) for name in ("h100-sxm-80", "b200-sxm") for kind in on(name).experts}
    assert names == measured
    assert isinstance(on("h100-sxm-80").experts["bf16"], ExpertsMachine)
