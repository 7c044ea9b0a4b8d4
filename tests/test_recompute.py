"""What recompute saves and runs again, by module and by framework, against bytes and FLOPs counted by hand."""

import csv
import io
import json

import pytest

import hwsim
from hwsim.cli.app import run
from hwsim.errors import UsageError
from hwsim.specs.job import MODULES

H, HEADS, KV, D, FFN, LAYERS, SEQ = 1024, 8, 2, 128, 4096, 4, 2048
MODEL = {
    "layers": LAYERS, "hidden": H, "heads": HEADS, "kv_heads": KV, "ffn": FFN, "gated": True, "vocab": 32000,
    "norm": "rmsnorm", "positions": "rope", "tied_embeddings": False,
}  # fmt: skip
QKV = (HEADS + 2 * KV) * D
SAVED = {  # 16-bit elements that each operator of a layer saves per token
    "norms": 2 * H, "qkv": H, "attention": QKV + 2 * HEADS, "output": HEADS * D, "up": H,
    "activation": 2 * FFN, "down": FFN,
}  # fmt: skip
ENDS = 2 * H  # final norm and head input


def estimate(recompute, framework="megatron", **more):
    return hwsim.estimate_training(
        MODEL, "h100-sxm-80", 1, micro_batch=1, global_batch=1, seq_len=SEQ, recompute=recompute, framework=framework,
        zero=0, **more,
    )  # fmt: skip


def activations(dropped=0, kept=None):
    """Bytes: all that the layers save less what is dropped per token and layer, and what the head saves."""
    per_layer = sum(SAVED.values()) - dropped if kept is None else kept
    return 2 * SEQ * (LAYERS * per_layer + ENDS)


def test_nothing_run_again():
    assert estimate("none").memory_bytes["activations"] == activations()


@pytest.mark.parametrize(
    ("modules", "dropped"),
    [
        (["core_attn"], 2 * HEADS),  # the log-sum-exp of each row
        (["layernorm"], 2 * H),  # what the projections behind the norms save
        (["mlp_act"], FFN),
        (["mlp_act", "layernorm"], FFN + 2 * H),
        (["mlp"], 2 * FFN + FFN),
        (["attn"], QKV + 2 * HEADS + HEADS * D),
        ("mlp,attn", 3 * FFN + QKV + 2 * HEADS + HEADS * D),
    ],
)
def test_bytes_saved_by_module(modules, dropped):
    assert estimate(modules).memory_bytes["activations"] == activations(dropped)


def matmuls(*shapes):
    return SEQ * LAYERS * sum(2 * a * b for a, b in shapes)


def test_flops_of_what_is_run_again():
    base = estimate("none").flops_per_device
    triangle = 4 * LAYERS * HEADS * D * SEQ * (SEQ + 1) / 2
    again = {
        "mlp_act": 0,
        "layernorm": 0,
        "core_attn": triangle,
        "mlp": matmuls((H, 2 * FFN)),
        "attn": triangle + matmuls((H, QKV)),
    }
    others = {"mla_up_proj", "moe_act", "moe", "shared_experts"}
    assert again.keys() | others == MODULES.keys()
    again |= dict.fromkeys(others, 0)
    for module, flops in again.items():
        assert estimate([module]).flops_per_device - base == pytest.approx(flops), module


def test_full_recompute_runs_the_layer_again_and_pytorch_stops_early():
    layer = matmuls((H, QKV), (HEADS * D, H), (H, 2 * FFN)) + 4 * LAYERS * HEADS * D * SEQ * (SEQ + 1) / 2
    down = matmuls((FFN, H))
    assert estimate("full").flops_per_device - estimate("none").flops_per_device == pytest.approx(layer + down)
    early, none = estimate("full", "fsdp"), estimate("none", "fsdp")
    assert early.flops_per_device - none.flops_per_device == pytest.approx(layer)


def test_torchtitan_saves_every_second_multiply():
    """Its operator-level selective checkpointing keeps the input, q, v, attention, gate and down outputs of a layer."""
    kept = H + HEADS * D + KV * D + HEADS * D + FFN + H
    found = estimate("selective", "torchtitan").memory_bytes["activations"]
    assert found == pytest.approx(activations(kept=kept), rel=0.01)
    again = matmuls((H, KV * D), (HEADS * D, H), (H, FFN))
    extra = estimate("selective", "torchtitan").flops_per_device - estimate("none", "torchtitan").flops_per_device
    assert extra == pytest.approx(again, rel=0.01)


def test_slower_with_more_run_again():
    steps = [estimate(how).step_time_s for how in ("none", ["mlp_act"], ["mlp"], "full")]
    assert steps == sorted(steps)


@pytest.mark.parametrize(("wrong", "said"), [("mlp,atn", "'atn' is none of"), (["core"], "did you mean core_attn")])
def test_unknown_module_is_refused(wrong, said):
    with pytest.raises(UsageError, match=said):
        estimate(wrong)


def test_modules_are_named_in_the_answer():
    assert estimate(["mlp_act", "layernorm"]).job["recompute_modules"] == ["mlp_act", "layernorm"]
    assert estimate("mlp").strategy["recompute"] == "mlp"
    assert estimate("selective").strategy["recompute"] == "selective"
    replayed = estimate(estimate("mlp_act, layernorm").strategy["recompute"])
    assert replayed.job["recompute_modules"] == ["mlp_act", "layernorm"]


def test_modules_are_named_in_every_format(capsys):
    command = ["estimate", "train", "--model", "gpt2", "--recompute", "core_attn,mlp_act", "--format"]
    shown = {}
    for how in ("table", "json", "csv"):
        assert run([*command, how], debug=True) == 0
        shown[how] = capsys.readouterr().out
    assert "recompute core_attn,mlp_act" in shown["table"]
    data = json.loads(shown["json"])
    assert data["strategy"]["recompute"] == "core_attn,mlp_act"
    assert data["job"]["recompute_modules"] == ["core_attn", "mlp_act"]
    row = next(csv.DictReader(io.StringIO(shown["csv"])))
    assert row["strategy.recompute"] == row["job.recompute_modules"] == "core_attn,mlp_act"


@pytest.mark.parametrize("recompute", ["layernorm", ["core_attn"], ["mlp"], ["attn", "mlp"], "selective", "full"])
def test_hfu_counts_what_is_run_again(recompute):
    """HFU over MFU is executed over model FLOPs, but for the causal half of attention, which MFU counts in full."""
    none, found = (
        hwsim.estimate_training("llama-2-7b", "h100-sxm-80", 8, recompute=how, seq_len=512, zero=3)
        for how in ("none", recompute)
    )
    executed = found.values["flops_per_device"] / none.values["flops_per_device"]
    assert found.hfu / found.mfu == pytest.approx(executed, abs=0.02)
