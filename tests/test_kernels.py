"""Kernel times: counted work, the roofline, monotony, one scalar against a column, and measured kernels."""

from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hwsim
from hwsim.errors import InputFileError
from hwsim.formulas import attention, gemm, stream
from hwsim.formulas.attention import AttentionMachine
from hwsim.formulas.gemm import GemmMachine
from hwsim.formulas.stream import StreamMachine
from hwsim.kernel_arguments import LIBRARIES
from hwsim.specs.files import read_yaml, resolve_extends, validate
from hwsim.specs.hardware import Accelerator
from hwsim.specs.library import load_framework, load_hardware, names

PROFILES = Path(__file__).parents[1] / "hardware_profiles" / "accelerators"
DEVICES = sorted(path.stem for path in PROFILES.glob("*.yaml"))


@cache
def _accelerator(name: str) -> Accelerator:
    document = resolve_extends(
        read_yaml(PROFILES / f"{name}.yaml"), lambda parent: read_yaml(PROFILES / f"{parent}.yaml")
    )
    return validate(Accelerator, document)


@cache
def _gemm(name: str) -> GemmMachine:
    device = _accelerator(name)
    rates = [rate for _, rate in device.peak if rate]
    own = {
        "peak_flops_per_s": device.peak.bf16 or device.peak.fp16 or max(rates),
        "bandwidth_bytes_per_s": device.memory.bandwidth,
        "units": float(device.compute_units),
        "cache_bytes": device.cache or 0.0,
    }
    curve = {
        field: float(getattr(device.kernels.gemm, field.removesuffix("_s")))
        for field in GemmMachine._fields
        if field not in own
    }
    return GemmMachine(**own, **curve)


@cache
def _attention(name: str) -> AttentionMachine:
    device = _accelerator(name)
    curve = device.kernels.attention
    return AttentionMachine(
        peak_flops_per_s=device.peak.bf16 or device.peak.fp16 or device.peak.fp32,
        bandwidth_bytes_per_s=device.memory.bandwidth,
        units=float(device.compute_units),
        cache_bytes=device.cache or 0.0,
        **{field: float(getattr(curve, field.removesuffix("_s"))) for field in AttentionMachine._fields[4:]},
    )


@cache
def _stream(name: str) -> StreamMachine:
    device = _accelerator(name)
    return StreamMachine(device.memory.bandwidth, device.kernels.stream.efficiency, device.kernels.stream.latency)


# Counted work.


@pytest.mark.parametrize(("m", "n", "k", "batch"), [(1, 1, 1, 1), (2, 3, 4, 1), (3, 5, 2, 3), (4, 1, 7, 2)])
def test_gemm_flops_and_bytes_are_those_of_the_triple_loop(m, n, k, batch):
    flops, read, written = 0, set(), set()
    for b in range(batch):
        for i in range(m):
            for j in range(n):
                written.add((b, i, j))
                for p in range(k):
                    read |= {("x", b, i, p), ("w", b, p, j)}
                    flops += 2
    assert gemm.gemm_flops(m, n, k, batch) == flops
    assert gemm.gemm_bytes(m, n, k, batch, 1.0, 4.0) == len(read) + 4 * len(written)


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize(("q_len", "kv_len"), [(1, 1), (5, 5), (1, 6), (3, 8)])
def test_attention_flops_are_those_of_the_loop_over_visible_keys(q_len, kv_len, causal):
    batch, heads, head_dim, flops = 2, 3, 4, 0
    for query in range(q_len):
        for key in range(kv_len):
            if not causal or key <= kv_len - q_len + query:
                flops += 2 * 2 * head_dim
    assert attention.attention_flops(batch, q_len, kv_len, heads, head_dim, causal) == batch * heads * flops


def test_attention_bytes_count_query_and_output_by_heads_and_keys_and_values_by_kv_heads():
    assert attention.attention_bytes(2, 3, 5, 4, 2, 8) == 2 * 2 * (2 * 3 * 4 * 8) + 2 * 2 * (2 * 5 * 2 * 8)
    assert attention.attention_bytes(2, 3, 5, 4, 2, 8, 1.0) == 2 * 2 * (2 * 3 * 4 * 8) + 2 * 1 * (2 * 5 * 2 * 8)


def test_sizes_given_as_integers_do_not_overflow():
    big = np.array([2**20], dtype=np.int32)
    assert gemm.gemm_flops(big, big, big, big)[0] == 2.0**81
    assert gemm.gemm_bytes(big, big, big, 1, 2, 2)[0] == 6.0 * 2.0**40
    assert attention.attention_flops(big, big, big, big, 128, 0)[0] == 2.0**89
    assert attention.attention_bytes(big, big, big, big, big, 128)[0] == 8.0 * 128 * 2.0**60
    assert np.isfinite(gemm.gemm_s(big, big, big, _gemm("h100-sxm-80"), big)[0])


# The roofline and the shape of the curves, on every device.

SIZES = st.integers(min_value=1, max_value=70_000)
HEADS = st.sampled_from([(1, 1), (8, 1), (8, 8), (32, 8), (40, 40), (128, 8)])
LENGTHS = st.integers(min_value=1, max_value=40_000)
EXAMPLES = settings(max_examples=60, deadline=None)


@EXAMPLES
@given(
    device=st.sampled_from(DEVICES),
    m=SIZES,
    n=SIZES,
    k=SIZES,
    batch=st.integers(1, 64),
    size=st.sampled_from([1, 2, 4]),
)
def test_gemm_is_never_faster_than_the_roofline(device, m, n, k, batch, size):
    machine = _gemm(device)
    time = gemm.gemm_s(m, n, k, machine, batch, size, size)
    compute = gemm.gemm_compute_s(m, n, k, machine, batch)
    memory = gemm.gemm_memory_s(m, n, k, machine, batch, size, size)
    weights, activations = size * batch * n * k, size * batch * (m * k + m * n)
    cold = weights * (weights > machine.cache_bytes) + activations * (activations > machine.cache_bytes * 2)
    assert compute >= gemm.gemm_flops(m, n, k, batch) / machine.peak_flops_per_s
    assert memory >= cold / machine.bandwidth_bytes_per_s
    cached = weights / machine.weight_cache_gain + activations / machine.cache_gain
    assert memory >= cached / machine.bandwidth_bytes_per_s
    serial = gemm.gemm_serial_s(m, k, machine, batch)
    assert max(compute, memory) <= time <= max(machine.floor_s, serial + 1.4143 * max(compute, memory))


@EXAMPLES
@given(device=st.sampled_from(DEVICES), m=SIZES, n=SIZES, k=SIZES, batch=st.integers(1, 64), more=st.integers(0, 300))
def test_gemm_time_does_not_fall_when_a_size_grows(device, m, n, k, batch, more):
    machine = _gemm(device)
    time = gemm.gemm_s(m, n, k, machine, batch)
    assert gemm.gemm_s(m + more, n, k, machine, batch) >= time
    assert gemm.gemm_s(m, n + more, k, machine, batch) >= time
    assert gemm.gemm_s(m, n, k + more, machine, batch) >= time
    assert gemm.gemm_s(m, n, k, machine, batch + more) >= time


@EXAMPLES
@given(
    device=st.sampled_from(DEVICES),
    batch=st.integers(1, 64),
    q_len=LENGTHS,
    past=LENGTHS,
    heads=HEADS,
    causal=st.integers(0, 1),
)
def test_attention_is_never_faster_than_the_roofline(device, batch, q_len, past, heads, causal):
    machine = _attention(device)
    shape = (batch, q_len, q_len + past, *heads, 128, causal)
    flops = attention.attention_flops(batch, q_len, q_len + past, heads[0], 128, causal)
    moved = attention.attention_bytes(batch, q_len, q_len + past, *heads, 128)
    forward, backward = (
        attention.attention_forward_s(*shape, machine),
        attention.attention_backward_s(*shape, machine),
    )
    assert forward >= max(flops / machine.peak_flops_per_s, moved / machine.bandwidth_bytes_per_s)
    assert backward >= max(2.5 * flops / machine.peak_flops_per_s, 2 * moved / machine.bandwidth_bytes_per_s)


@EXAMPLES
@given(device=st.sampled_from(DEVICES), batch=st.integers(1, 64), length=LENGTHS, heads=HEADS, more=st.integers(0, 300))
def test_attention_time_does_not_fall_when_a_size_grows(device, batch, length, heads, more):
    machine = _attention(device)
    for timed in (attention.attention_forward_s, attention.attention_backward_s):
        time = timed(batch, length, length, *heads, 128, 1, machine)
        assert timed(batch, length + more, length + more, *heads, 128, 1, machine) >= time
        assert timed(batch, length, length + more, *heads, 128, 1, machine) >= time
        assert timed(batch + more, length, length, *heads, 128, 1, machine) >= time
        assert timed(batch, length, length, *heads, 128 + more, 1, machine) >= time
        assert timed(batch, length, length, *heads, 128, 0, machine) >= time


@EXAMPLES
@given(
    device=st.sampled_from(DEVICES), m=SIZES, n=SIZES, k=SIZES, gain=st.floats(1.0, 10.0), moved=st.floats(0.0, 1e12)
)
def test_a_faster_device_is_never_slower(device, m, n, k, gain, moved):
    for field in ("peak_flops_per_s", "bandwidth_bytes_per_s"):
        machine, heads = _gemm(device), _attention(device)
        faster = machine._replace(**{field: getattr(machine, field) * gain})
        assert gemm.gemm_s(m, n, k, faster) <= gemm.gemm_s(m, n, k, machine)
        faster_heads = heads._replace(**{field: getattr(heads, field) * gain})
        for timed in (attention.attention_forward_s, attention.attention_backward_s):
            assert timed(2, m, m, 32, 8, 128, 1, faster_heads) <= timed(2, m, m, 32, 8, 128, 1, heads)
    slow = _stream(device)
    fast = slow._replace(bandwidth_bytes_per_s=slow.bandwidth_bytes_per_s * gain)
    assert moved / slow.bandwidth_bytes_per_s <= stream.stream_s(moved, slow)
    assert stream.stream_s(moved, fast) <= stream.stream_s(moved, slow)


@pytest.mark.parametrize("device", DEVICES)
def test_no_work_takes_the_fixed_time_of_a_kernel(device):
    machine, heads, memory = _gemm(device), _attention(device), _stream(device)
    assert gemm.gemm_s(0, 0, 0, machine, 0) >= machine.latency_s
    assert np.isfinite(gemm.gemm_s(0, 4096, 4096, machine))
    assert np.isfinite(attention.attention_forward_s(0, 0, 0, 0, 0, 128, 1, heads))
    assert stream.stream_s(0, memory) == memory.latency_s


# One scalar gives the bits of a column.


def _same_bits(function, columns, *rest):
    column = function(*columns, *rest)
    for row, expected in enumerate(column):
        assert float(function(*(float(values[row]) for values in columns), *rest)).hex() == float(expected).hex()


def test_a_scalar_gives_the_bits_of_a_column():
    rng = np.random.default_rng(20261123)
    m, n, k, batch = (rng.integers(1, high, 400).astype(float) for high in (40_000, 60_000, 30_000, 64))
    machine, heads, memory = _gemm("a100-sxm-80"), _attention("b200-sxm"), _stream("h100-sxm-80")
    _same_bits(gemm.gemm_flops, (m, n, k, batch))
    _same_bits(gemm.gemm_bytes, (m, n, k, batch), 2.0, 4.0)
    _same_bits(gemm.gemm_compute_s, (m, n, k), machine)
    _same_bits(gemm.gemm_memory_s, (m, n, k), machine)
    _same_bits(gemm.gemm_s, (m, n, k), machine)
    _same_bits(stream.stream_s, (m * n,), memory)
    kv_heads = rng.choice([1.0, 2.0, 8.0], 400)
    query_heads = kv_heads * rng.choice([1.0, 4.0, 5.0], 400)
    causal = rng.choice([0.0, 1.0], 400)
    _same_bits(attention.attended_pairs, (k, k + m, causal))
    _same_bits(attention.attention_flops, (batch, k, k + m, query_heads, kv_heads, causal))
    _same_bits(attention.attention_bytes, (batch, k, k + m, query_heads, kv_heads, n))
    shape = (batch, k, k + m, query_heads, kv_heads, rng.choice([64.0, 128.0], 400), causal)
    _same_bits(attention.attention_forward_s, shape, heads)
    _same_bits(attention.attention_backward_s, shape, heads)


# Measured kernels, y[m, n] = x[m, k] w[k, n] in fp16 or bf16, drawn at random within bands of m (n, k >= 1024).

MEASURED_US = {
    "a100-sxm-80": [  # Vidur 2024 (torch.linear), except 8 x 16384 x 2560: aiconfigurator, median of two frameworks
        (4, 2752, 4096, 21.0),
        (8, 16384, 2560, 66.856),
        (4, 28672, 8192, 287.5),
        (104, 8192, 5504, 80.0),
        (32, 57344, 8192, 612.25),
        (120, 12288, 4096, 76.0),
        (312, 8192, 28672, 822.0),
        (376, 1920, 5120, 44.0),
        (1016, 44032, 8192, 3408.5),
        (3008, 15360, 5120, 2045.5),
        (3456, 5120, 6912, 986.0),
        (3808, 4096, 1792, 224.5),
        (2816, 5120, 5120, 701.0),
        (3744, 49152, 8192, 13275.0),
        (9600, 14336, 4096, 5191.0),
        (18688, 8192, 2048, 2963.0),
    ],
    "h100-sxm-80": [  # Vidur 2024; k of 12288, 16384, 1536, 5120 and 65536 wide: aiconfigurator, median of frameworks
        (1, 16384, 12288, 149.574),
        (16, 8192, 3072, 20.0),
        (8, 5120, 13824, 52.0),
        (33, 10240, 16384, 129.457),
        (152, 5504, 8192, 47.0),
        (128, 11008, 4096, 39.0),
        (1968, 57344, 8192, 2718.5),
        (312, 57344, 8192, 487.5),
        (424, 4096, 1024, 14.0),
        (3968, 4096, 1024, 49.0),
        (3584, 8192, 6144, 455.0),
        (2464, 8192, 2752, 142.5),
        (8192, 4096, 1536, 137.638),
        (3616, 8192, 5504, 434.0),
        (16384, 1536, 5120, 324.071),
        (16384, 65536, 3584, 11143.874),
    ],
    "b200-sxm": [  # aiconfigurator, median of two or three frameworks
        (1, 12288, 4096, 21.549),
        (1, 1536, 16384, 12.691),
        (2, 7168, 6144, 16.892),
        (32, 2560, 2560, 5.907),
        (33, 3584, 4096, 8.968),
        (32, 12288, 6144, 32.202),
        (512, 3584, 5120, 22.802),
        (512, 4096, 3584, 13.003),
        (512, 51200, 5120, 173.396),
        (4352, 1024, 7168, 43.048),
        (8192, 12288, 1536, 200.883),
        (3073, 51200, 1024, 251.83),
        (8192, 3584, 1024, 43.979),
        (8192, 6144, 8192, 572.51),
        (32768, 7168, 2560, 736.332),
        (32768, 2560, 10240, 1147.644),
    ],
    "gb200": [  # aiconfigurator, median of two or three frameworks
        (1, 51200, 8192, 136.832),
        (2, 1536, 3584, 6.057),
        (5, 3072, 10240, 13.72),
        (5, 5120, 16384, 30.738),
        (33, 4096, 16384, 29.5),
        (33, 16384, 1536, 9.688),
        (97, 12288, 8192, 35.284),
        (193, 2048, 3072, 6.621),
        (512, 1024, 5120, 8.474),
        (513, 16384, 51200, 589.12),
        (2816, 65536, 1536, 359.288),
        (3073, 4096, 7168, 123.16),
        (8192, 5120, 1024, 51.466),
        (8192, 10240, 1024, 126.61),
        (32768, 16384, 8192, 6184.69),
    ],
    "b300-sxm": [  # aiconfigurator, median of two frameworks
        (1, 51200, 65536, 1058.2),
        (2, 8192, 2048, 7.917),
        (2, 5120, 5120, 12.442),
        (11, 12288, 51200, 197.352),
        (512, 16384, 16384, 170.333),
        (512, 3072, 1536, 5.764),
        (512, 51200, 5120, 166.959),
        (16384, 3072, 10240, 639.456),
        (16384, 16384, 1536, 511.918),
        (32768, 16384, 8192, 5909.36),
    ],
    "l40s": [  # aiconfigurator, median of up to three frameworks
        (1, 12288, 3584, 108.388),
        (2, 3072, 65536, 556.487),
        (7, 12288, 4096, 165.916),
        (16, 8192, 16384, 379.051),
        (32, 65536, 3072, 679.908),
        (48, 4096, 7168, 86.211),
        (97, 51200, 6144, 1008.61),
        (160, 12288, 65536, 2569.13),
        (512, 8192, 3072, 121.344),
        (513, 65536, 4096, 1910.39),
        (2305, 12288, 65536, 22226.1),
        (3585, 3072, 3072, 307.575),
        (3585, 1536, 65536, 3000.6),
        (4096, 65536, 7168, 18317.3),
        (32768, 2560, 8192, 7575.35),
        (32768, 1024, 51200, 19814.0),
    ],
    "arc-b60": [  # aiconfigurator, vllm
        (1, 1024, 8192, 42.065),
        (4, 3072, 4096, 72.266),
        (4, 32768, 3584, 610.268),
        (8, 1536, 3072, 35.097),
        (32, 16384, 3072, 339.849),
        (32, 12288, 32768, 1833.61),
        (48, 2048, 16384, 175.526),
        (128, 65536, 8192, 2675.46),
        (160, 3072, 2048, 52.923),
        (192, 32768, 3584, 665.393),
        (1024, 10240, 1024, 243.855),
        (2048, 3072, 7168, 991.637),
        (2048, 1536, 32768, 2537.46),
        (4096, 16384, 16384, 24756.5),
        (4096, 1536, 2048, 288.558),
        (4096, 8192, 16384, 12019.2),
    ],
    "v100-pcie-32": [  # apex_plus, torch
        (1, 8192, 4096, 87.0),
        (5, 1024, 2048, 24.0),
        (9, 32768, 8192, 1696.0),
        (9, 65536, 1024, 388.0),
        (32, 1024, 16384, 74.0),
        (42, 2048, 2048, 55.0),
        (58, 65536, 32768, 11435.0),
        (128, 4096, 1024, 37.0),
        (704, 16384, 65536, 19276.0),
        (704, 4096, 2048, 194.0),
        (2304, 32768, 1024, 2003.0),
        (3712, 32768, 2048, 6061.0),
        (3840, 4096, 16384, 5688.0),
        (5888, 32768, 4096, 18527.0),
        (10176, 1024, 1024, 271.0),
        (15552, 1024, 8192, 3176.0),
    ],
}


UNEVEN = ("v100-pcie-32",)
"""Devices whose library left skinny shapes to kernels several times slower than memory."""


@pytest.mark.parametrize("device", MEASURED_US)
def test_measured_gemms_are_met(device):
    """The median within 10 %, three of four within 15 %, all but one of sixteen within 22 %."""
    m, n, k, measured = np.array(MEASURED_US[device]).T
    error = np.abs(1e6 * gemm.gemm_s(m, n, k, _gemm(device)) / measured - 1)
    assert np.median(error) < 0.10
    assert device in UNEVEN or np.quantile(error, 0.75) < 0.15
    assert np.sort(error)[-2] < (0.5 if device in UNEVEN else 0.22)
    assert error.max() < (0.6 if device in UNEVEN else 0.4)


LIBRARY_US = [  # aiconfigurator; fp8 is per tensor, and casting the activations is part of it
    ("vllm", "fp8", (8192, 4096, 4096), 299.4),
    ("vllm", "fp8", (32768, 32, 64), 238.4),
    ("trtllm", "fp8", (1, 32, 64), 12.4),
    ("trtllm", "fp8", (16384, 128, 4096), 226.9),
    ("sglang", "fp8", (1, 32, 64), 4.7),
    ("sglang", "fp8", (16384, 128, 4096), 179.1),
]


@pytest.mark.parametrize(("library", "dtype", "shape", "measured"), LIBRARY_US)
def test_libraries_of_an_h100_are_told_apart(library, dtype, shape, measured):
    m, n, k = shape
    time = hwsim.operator_time("h100-sxm-80", "gemm", m=m, n=n, k=k, dtype=dtype, library=library)
    assert 1e6 * time == pytest.approx(measured, rel=0.2)


def test_measured_training_attention_and_decode_are_of_the_right_size():
    """FlashAttention on B200 at 4096 tokens, 128 query and 16 key heads: 490 us forward, 1469 us backward (SimuMax)."""
    machine = _attention("b200-sxm")
    shape = (1, 4096, 4096, 128, 16, 128, 1)
    assert 1e6 * attention.attention_forward_s(*shape, machine) == pytest.approx(490, rel=0.35)
    assert 1e6 * attention.attention_backward_s(*shape, machine) == pytest.approx(1469, rel=0.2)
    decode = attention.attention_forward_s(64, 1, 32768, 32, 8, 128, 0, machine)
    assert 0.8 < 64 * 32768 * 8 * 128 * 4 / 7.7e12 / decode < 0.95  # share of the bandwidth, measured .81 to .95


def test_windowed_keys_are_those_of_the_loop():
    for q_len, kv_len, window in ((1, 1, 1), (5, 5, 2), (5, 5, 9), (3, 8, 2), (3, 8, 6), (1, 8, 4)):
        seen = [min(kv_len - q_len + i, window) for i in range(1, q_len + 1)]
        assert attention.windowed_keys(q_len, kv_len, window) == pytest.approx(np.mean(seen))


def test_a_decode_packs_the_heads_that_share_keys():
    machine = _attention("h100-sxm-80")._replace(decode_rows=16.0, lone_rows=16.0, packed_heads=32.0)
    shared, own = (attention.attention_forward_s(64, 1, 8192, 32, heads, 128, 0, machine) for heads in (4, 32))
    assert own > 5 * shared  # eight times the keys and values
    limited = machine._replace(packed_heads=4.0)
    assert attention.attention_forward_s(64, 1, 8192, 32, 4, 128, 0, limited) > shared
    padded = machine._replace(decode_rows=128.0)
    assert attention.attention_forward_s(512, 1, 16, 32, 4, 128, 0, padded) > attention.attention_forward_s(
        512, 1, 16, 32, 4, 128, 0, machine
    )


def test_a_small_cache_is_read_faster_than_memory_but_no_faster_than_the_data_sheet():
    machine = _attention("b200-sxm")._replace(latency_s=0.0, split_latency_s=0.0, decode_overhead_keys=0.0, tail=0.0)
    small, large = (batch * 2048 * 8 * 128 * 4 for batch in (4, 512))
    times = [attention.attention_forward_s(batch, 1, 2048, 32, 8, 128, 0, machine) for batch in (4, 512)]
    assert small / 7.7e12 <= times[0]
    assert times[0] / small < times[1] / large
    uncached = machine._replace(cache_bytes=0.0)
    assert attention.attention_forward_s(4, 1, 2048, 32, 8, 128, 0, uncached) >= times[0]


def test_every_kernel_library_of_the_shipped_files_is_known(tmp_path):
    """Framework files and --set may name it on any device; a profile's own names are known on that device."""
    shipped = {
        str(name) for device in names("accelerators") for name in load_hardware(device).accelerator.kernels.libraries
    }
    shipped |= {name for framework in names("frameworks") for name in load_framework(framework).libraries}
    assert shipped <= set(LIBRARIES)
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: h100-sxm-80\nname: mine\nkernels: {libraries: {ours: {}}}\n", encoding="utf-8")
    estimate = partial(hwsim.estimate_training, "gpt2", gpus=1, settings="framework.libraries=[ours]")
    assert estimate(mine).step_time_s > 0
    with pytest.raises(InputFileError, match="unknown kernel library 'ours'"):
        estimate("h100-sxm-80")
