"""What everybody asks, against what papers and model cards say of the same models."""

import pytest

import hwsim
from hwsim.errors import UsageError
from hwsim.specs.library import load_hardware

TOKENS_405B, GPUS_405B = 15.6e12, 16_384
"""Llama Team, "The Llama 3 Herd of Models", 2024, sections 3.2 and 3.3."""
PARAMETERS_8B, EMBEDDING_8B = 8_030_261_248, 128_256 * 4096
"""Of meta-llama/Meta-Llama-3-8B: all weights, and those that a token looks up."""


def answers(found):
    """Question to its figures."""
    return {row["question"].partition(" in ")[0]: row for row in found.rows()}


@pytest.fixture(scope="module")
def largest():
    return hwsim.faq("405b", gpus=GPUS_405B, tokens=TOKENS_405B)


@pytest.fixture(scope="module")
def small():
    return hwsim.faq("llama-3-8b", gpus=64, tokens=1e12)


def test_tokens_that_are_compute_optimal():
    found = answers(hwsim.faq("llama-2-70b", gpus=64))["How much data does it need?"]
    assert found["optimal_tokens"] == pytest.approx(1.4e12, rel=0.02), "Chinchilla: 70B on 1.4T (Hoffmann, table 3)"
    assert found["tokens"] == found["optimal_tokens"]
    assert found["tokens_per_parameter"] == pytest.approx(20.0)


def test_compute_of_llama_3_405b(largest):
    found = answers(largest)["How much compute is that?"]
    assert "= 3.8e+25" in found["formula"], "3.8 × 10^25 FLOPs (section 3.2)"
    assert 3.8e25 < found["training_flops"] < 1.15 * 3.8e25, "attention comes on top"


def test_device_hours_of_llama_3_405b(largest):
    hours = answers(largest)["What does training cost?"]["device_hours"]
    assert 0.8 * 30.84e6 < hours < 30.84e6, "30.84M H100 hours with its interruptions (model card of 3.1)"
    days = answers(largest)["How long does training take?"]
    assert days["days"] * 24 * GPUS_405B == pytest.approx(hours)
    assert days["days_low"] < days["days"] < days["days_high"]


def test_a_model_that_no_node_holds_has_no_answer_on_inference(largest):
    assert largest.serving.why_not
    assert not [question for question in answers(largest) if "inference" in question or "users" in question]


def test_bytes_of_state_a_parameter(small):
    found = answers(small)["How much memory does training take?"]
    assert found["state_bytes"] / PARAMETERS_8B == 18.0, "Korthikanti et al. 2022: 18 bytes with 32-bit gradients"
    assert found["least_devices"] == 2.0


def test_cache_of_a_request(small):
    found = answers(small)["How many users at once?"]
    assert found["kv_bytes_per_request"] == 2 * 32 * 8 * 128 * 2 * 1280, "keys and values, 32 layers, 8 heads, bf16"


def test_a_token_takes_no_less_than_reading_the_weights(small):
    found = answers(small)["How fast is inference?"]
    device = load_hardware("h100-sxm-80").accelerator
    least = 2.0 * (PARAMETERS_8B - EMBEDDING_8B) / device.memory.bandwidth
    assert least < found["tpot_s"] < 2.0 * least


def test_devices_for_thirty_days_follow_from_the_throughput(small):
    found = answers(small)
    days = found["How long does training take?"]["days"]
    needed = found["How many devices train it"]["devices_for_30_days"]
    assert needed % 8 == 0
    assert needed - 8 < 64 * days / 30.0 <= needed


def test_a_clean_grid_emits_less_for_about_the_same_energy(small):
    usual = answers(small)["How much energy and carbon does training take?"]
    clean = answers(hwsim.faq("llama-3-8b", gpus=64, tokens=1e12, grid="france"))
    clean = clean["How much energy and carbon does training take?"]
    assert clean["energy_j"] == pytest.approx(usual["energy_j"], rel=0.1)
    assert clean["carbon_kg"] < 0.5 * usual["carbon_kg"]
    for text in ("Our World in Data", "Uptime Institute"):
        assert text in usual["source"], "where the carbon of the grid and its cooling are from"


def test_rows_are_the_json_and_the_table(small):
    assert small.to_dict()["questions"] == small.rows()
    assert list(small.to_frame()["question"]) == [row["question"] for row in small.rows()]
    assert all(row["formula"] and row["source"] and row["answer"] for row in small.rows())


@pytest.mark.parametrize("given", [{"gpus": 0}, {"tokens": -1.0}, {"grid": "frnce"}, {"hardware": "h1000"}])
def test_what_is_wrong_is_refused(given):
    with pytest.raises(UsageError):
        hwsim.faq("gpt2", **given)
