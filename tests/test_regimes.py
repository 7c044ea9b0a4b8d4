"""Training regimes against counts by hand and figures of papers: adapters, optimizers, frozen stacks, offload."""

import pytest

import hwsim
from hwsim.errors import UsageError
from hwsim.specs.job import NF4_BYTES
from hwsim.units import GIB

ONE = {"hardware": "h100-sxm-80", "gpus": 1, "global_batch": 2, "seq_len": 512, "micro_batch": 1}
GRADIENT = 4


def step(model="llama-2-7b", **given):
    return hwsim.estimate_training(model, **(ONE | given))


# ---- adapters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rank", "trained"), [(8, 19_988_480), (16, 39_976_960), (64, 159_907_840)])
def test_adapters_of_llama_2_7b_are_those_that_peft_prints(rank, trained):
    """print_trainable_parameters() of LoRA on all linear layers of Llama 2 7B; QLoRA's paper has rank 64."""
    assert step(method="lora", rank=rank).memory_bytes["gradients"] == trained * GRADIENT
    assert step(method="qlora", rank=rank).memory_bytes["gradients"] == trained * GRADIENT


def test_frozen_weights_get_no_state_and_no_weight_gradient():
    full, lora = step(), step(method="lora")
    assert lora.memory_bytes["optimizer"] == 12 * 39_976_960
    weights = hwsim.count_parameters("llama-2-7b")
    tokens = 2 * 512
    saved = 2 * weights.matmul * tokens
    added = 6 * 39_976_960 * tokens
    assert full.flops_per_device - lora.flops_per_device == pytest.approx(saved - added)


def test_a_4_bit_base_is_stored_as_its_paper_says():
    """QLoRA, section 3: scales take 0.127 bits beside the 4 of each weight; LM head and tables stay whole."""
    assert abs(NF4_BYTES * 8 - 4.127) < 0.001
    counted, plain = hwsim.count_parameters("llama-2-7b"), step(method="lora").memory_bytes["weights"]
    layers = counted.matmul - 32000 * 4096
    assert step(method="qlora").memory_bytes["weights"] == pytest.approx(plain - layers * (2 - NF4_BYTES))


def test_a_65b_model_is_tuned_on_one_48_gb_card():
    """QLoRA's headline: "reduces memory ... enough to finetune a 65B parameter model on a single 48GB GPU"."""
    tuned = step("llama-1-65b", method="qlora", rank=64, recompute="full", global_batch=1, framework="fsdp")
    assert 36 * GIB < tuned.memory_allocated_bytes < 48 * GIB


# ---- optimizers ------------------------------------------------------------------------------------------------------


def test_optimizer_state_matrix_by_matrix():
    h, f, v, layers = 64, 256, 512, 2
    model = {"layers": layers, "hidden": h, "heads": 4, "ffn": f, "vocab": v, "tied_embeddings": False,
             "norm": "rmsnorm", "positions": "rope"}  # fmt: skip
    shapes = [(3 * h, h), (h, h), (f, h), (h, f)]
    inner = layers * sum(a * b for a, b in shapes)
    vectors = (2 * layers + 1) * h
    ends = 2 * v * h
    total = inner + vectors + ends
    master = 4 * total
    expected = {
        "adam": 8 * total,
        "momentum": 4 * total,
        "sgd": 0,
        "adam8bit": (2 + 8 / 256) * total,
        "muon": 4 * inner + 8 * (vectors + ends),
        "adafactor": 4 * (layers * sum(a + b for a, b in shapes) + (v + h) * 2 + vectors),
    }
    for name, state in expected.items():
        found = step(model, optimizer=name, framework="megatron", zero=0).memory_bytes["optimizer"]
        assert found == pytest.approx(master + state), name


def test_muon_multiplies_and_others_do_not():
    times = {name: step(optimizer=name, zero=0).time_s["optimizer"] for name in ("adam", "muon", "sgd")}
    assert times["sgd"] < times["adam"] < times["muon"]


# ---- frozen stacks and offload ---------------------------------------------------------------------------------------


def test_a_frozen_tower_runs_forward_only():
    whole, frozen = (step("llava-1.5-7b", seq_len=1024, frozen=names) for names in ((), ("vision",)))
    tower = hwsim.count_parameters("llava-1.5-7b").total - hwsim.count_parameters("llama-2-7b").total
    fewer = (whole.memory_bytes["gradients"] - frozen.memory_bytes["gradients"]) / GRADIENT
    assert fewer == pytest.approx(tower, rel=0.1)
    assert frozen.flops_per_device < whole.flops_per_device
    assert frozen.memory_bytes["activations"] < whole.memory_bytes["activations"]


def test_what_the_host_keeps_leaves_the_device_and_takes_its_time():
    here = step("llama-2-13b")
    for name, part in (("optimizer", "optimizer"), ("activations", "activations"), ("weights", "weights")):
        away = step("llama-2-13b", offload=name)
        assert away.memory_bytes[part] < 0.2 * here.memory_bytes[part]
        assert away.step_time_s > here.step_time_s or name == "activations"
        assert sum(away.time_s.values()) == pytest.approx(away.step_time_s)
    with pytest.raises(UsageError, match="disk"):
        step(offload="disk")


def test_the_budget_that_a_scaling_law_finds_best():
    """Hoffmann et al. 2022, table 3: 1.4 trillion tokens for 70 billion parameters."""
    plan = hwsim.plan("llama-3-70b", gpus=64, tokens="optimal", pin=["tp=8", "pp=4"], global_batch=512)
    assert plan.tokens == pytest.approx(1.4e12, rel=0.02)
    with pytest.raises(UsageError, match="tokens: must be a positive number"):
        hwsim.plan("llama-3-70b", gpus=64, tokens="optimum")


def test_one_sample_mini_batch_and_full_batch():
    """As many passes over the data, fewer updates, the same memory but for the micro-batch."""
    one, mini, full = (step("gpt2", global_batch=batch, seq_len=256) for batch in (1, 64, 4096))
    assert one.memory_bytes == mini.memory_bytes == full.memory_bytes
    per_sequence = [e.step_time_s / e.strategy["global_batch"] for e in (one, mini, full)]
    assert per_sequence[0] > per_sequence[1] > per_sequence[2]
