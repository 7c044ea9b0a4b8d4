"""Architectures against counts by hand: latent attention, windows, parallel blocks, encoders, towers, more tokens."""

import pytest

import hwsim

H, HEADS, F, V, SEQ, BATCH = 64, 4, 96, 128, 32, 2
LLAMA = {"layers": 4, "hidden": H, "heads": HEADS, "ffn": F, "gated": True, "vocab": V, "norm": "rmsnorm",
         "positions": "rope", "tied_embeddings": False}  # fmt: skip
ENDS = 2 * V * H + H


def step(model, gpus=1, **given):
    usual = {"framework": "megatron", "seq_len": SEQ, "global_batch": BATCH, "micro_batch": BATCH, "zero": 0}
    return hwsim.estimate_training(model, "h100-sxm-80", gpus, **(usual | given))


def matmul_flops(weights):
    """Forward and both backward multiplies of a step."""
    return 6 * weights * SEQ * BATCH


HEAD_FLOPS = matmul_flops(V * H)


def test_latent_attention_matrix_by_matrix():
    q_rank, kv_rank, nope, rope, value = 24, 16, 12, 4, 8
    mla = LLAMA | {"q_rank": q_rank, "kv_rank": kv_rank, "nope_dim": nope, "rope_dim": rope, "v_dim": value}
    matrices = (H * q_rank + q_rank * HEADS * (nope + rope) + H * (kv_rank + rope)
                + kv_rank * HEADS * (nope + value) + HEADS * value * H + 3 * H * F)  # fmt: skip
    norms = 2 * H + q_rank + kv_rank
    assert hwsim.count_parameters(mla).total == 4 * (matrices + norms) + ENDS
    pairs = BATCH * HEADS * SEQ * (SEQ + 1) / 2
    forward = 2 * pairs * (nope + rope + value)
    backward = 2 * pairs * 5 * (nope + rope)  # values padded to the width of keys
    expected = 4 * (matmul_flops(matrices) + forward + backward) + HEAD_FLOPS
    assert step(mla, attention="flash").flops_per_device == pytest.approx(expected)


@pytest.mark.parametrize("windowed", [0, 1, 3, 4])
def test_some_layers_see_a_window(windowed):
    window, d = 8, H // HEADS
    model = LLAMA | ({"window": window, "window_layers": windowed} if windowed else {})
    near = sum(min(i + 1, window) for i in range(SEQ))
    far = SEQ * (SEQ + 1) / 2
    pairs = (windowed * near + (4 - windowed) * far) * BATCH * HEADS
    weights = 4 * (4 * H * H + 3 * H * F)
    expected = matmul_flops(weights) + 3.5 * 4 * d * pairs + HEAD_FLOPS
    assert step(model).flops_per_device == pytest.approx(expected)
    assert step(model).memory_bytes == step(LLAMA).memory_bytes


def test_encoders_see_every_key():
    both = step(LLAMA | {"causal": False}).flops_per_device - step(LLAMA).flops_per_device
    assert both == pytest.approx(4 * 3.5 * 4 * H * BATCH * (SEQ**2 - SEQ * (SEQ + 1) / 2))


def test_a_parallel_block_sums_once_over_its_tensor_parallel_peers():
    serial, parallel = (step(LLAMA | {"parallel": flag, "norms": norms}, gpus=2, tp=2, sequence_parallel=False)
                        for flag, norms in ((False, 2), (True, 1)))  # fmt: skip
    stream = 2 * SEQ * BATCH * H
    layer = (serial.traffic_bytes["tp"] - parallel.traffic_bytes["tp"]) / 4
    assert layer == 2 * stream * 2 * (2 - 1) / 2  # one all-reduce less each way


def test_every_decoder_layer_attends_to_the_encoder():
    source = 48
    model = LLAMA | {"encoder": {"layers": 3}}
    layer, cross = 4 * H * H + 3 * H * F, 4 * H * H
    norms = 3 * 2 * H + 4 * 3 * H + H  # of encoder layers, decoder layers, and after the encoder
    assert hwsim.count_parameters(model).total == 3 * layer + 4 * (layer + cross) + norms + ENDS
    per_pair = 3.5 * 4 * H * BATCH
    encoder = 3 * (6 * layer * source * BATCH + per_pair * source**2)
    decoder = 4 * (matmul_flops(layer + cross // 2) + 6 * cross // 2 * source * BATCH
                   + per_pair * (SEQ * (SEQ + 1) / 2 + SEQ * source))  # fmt: skip
    assert step(model, source_len=source).flops_per_device == pytest.approx(encoder + decoder + HEAD_FLOPS)


def test_images_pass_a_tower_and_a_projector():
    tower = {"layers": 2, "hidden": 32, "heads": 2, "ffn": 64, "patch": 4, "image": 16, "positions": "learned",
             "max_positions": 16, "causal": False, "head": "none", "patch_bias": False}  # fmt: skip
    model = LLAMA | {"vision": {"tower": tower, "projector": [H]}}
    added = hwsim.count_parameters(model).total - hwsim.count_parameters(LLAMA).total
    blocks = 2 * (4 * 32 * 32 + 4 * 32 + 2 * 32 * 64 + 64 + 32 + 4 * 32)
    assert added == blocks + 3 * 16 * 32 + 16 * 32 + 2 * 32 + 32 * H + H
    one, three = (step(model, images=count).flops_per_device for count in (1, 3))
    none = step(LLAMA).flops_per_device
    assert three - none == pytest.approx(3 * (one - none))


def test_layers_that_predict_further_tokens_share_the_head():
    plain, further = hwsim.count_parameters(LLAMA), hwsim.count_parameters(LLAMA | {"mtp_layers": 1})
    layer = 4 * H * H + 3 * H * F + 2 * H
    assert further.total - plain.total == layer + 2 * H * H + 2 * H + H
    more = step(LLAMA | {"mtp_layers": 1}).flops_per_device - step(LLAMA).flops_per_device
    pairs = BATCH * SEQ * (SEQ + 1) / 2
    assert more == pytest.approx(matmul_flops(layer - 2 * H + 2 * H * H) + 3.5 * 4 * H * pairs + HEAD_FLOPS)


@pytest.mark.parametrize("pp", [2, 4])
def test_stages_of_two_stacks_hold_all_layers_between_them(pp):
    """First and last stages hold what their layers are: an encoder and a decoder of different widths."""
    model = LLAMA | {"layers": 8, "encoder": {"layers": 8, "ffn": 4 * F}}
    whole = step(model).memory_bytes["weights"] / 2
    parts = step(model, gpus=pp, pp=pp, micro_batch=1)
    assert parts.fits
    assert parts.memory_bytes["weights"] / 2 >= whole / pp * 0.9
    assert parts.flops_per_device < step(model).flops_per_device
