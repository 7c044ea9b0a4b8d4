"""A report that uses every block and every figure, with names that would break a careless page."""

from __future__ import annotations

import math

from hwsim.report import figures
from hwsim.report.document import (
    Cell,
    Code,
    Column,
    Document,
    Facts,
    Figure,
    Paragraph,
    Reproduce,
    Section,
    Table,
)
from hwsim.report.figures import Measure, Operator, Point, Range

GIB = 2.0**30
SCRIPT = "<script>alert(1)</script>"
HOSTILE = (SCRIPT, "a\"b'c", "x|y|z", "`code` $x_1$ **b** ![i](http://e.x/i.png)", "a-very-long-name" * 12,
           "rocket 🚀 模型", "نموذج عربي", "ctrl\x00\x1b[31m\u202eevil", "")  # fmt: skip
SPEED = Measure("Throughput", unit="tokens/s")
PLANS = {
    "tp 4 · pp 2 · dp 8": {"weights": 16.4 * GIB, "gradients": 16.4 * GIB, "optimizer": 12.3 * GIB,
                           "activations": 18.9 * GIB, "logits and loss": 2.1 * GIB, "runtime": 1.6 * GIB},
    "tp 8 · pp 1 · dp 8": {"weights": 16.4 * GIB, "gradients": 16.4 * GIB, "optimizer": 12.3 * GIB,
                           "activations": 10.2 * GIB, "logits and loss": 1.1 * GIB, "runtime": 1.6 * GIB},
    "tp 2 · pp 4 · dp 8 without recompute": {"weights": 16.4 * GIB, "gradients": 16.4 * GIB, "optimizer": 12.3 * GIB,
                                             "activations": 45.2 * GIB, "logits and loss": 4.1 * GIB,
                                             "runtime": 1.6 * GIB},
}  # fmt: skip


def every_figure(tag: str = "") -> tuple[Figure, ...]:
    """One figure of every kind."""
    sizes = (64, 128, 256, 512, 1024)
    scaled = {
        "H100": [(n, 3200 * n * (64 / n) ** 0.05) for n in sizes],
        "A100": [(n, 1100 * n * (64 / n) ** 0.02) for n in sizes],
    }
    operators = [
        Operator("MLP up and gate", 410, 640e12, 0.31, "compute"), Operator("MLP down", 390, 610e12, 0.18, "compute"),
        Operator("attention scores", 180, 420e12, 0.14, "compute"), Operator("QKV", 330, 590e12, 0.09, "compute"),
        Operator("norms", 0.6, 1.7e12, 0.06, "HBM"), Operator("residual and dropout", 0.3, 0.9e12, 0.05, "HBM"),
        Operator("softmax and loss", 1.4, 3.4e12, 0.03, "HBM"), Operator("rotary", 1.1, 2.6e12, 0.02, "HBM"),
        Operator("tiny", 0.9, 0.1e12, 0.01, "launch"), Operator("nothing", 0, 0, 0.0, "launch"),
    ]  # fmt: skip
    cloud = [Point(f"plan {i}", 30 + (i * 37) % 50, 2e5 - 1500 * ((i * 53) % 60)) for i in range(40)]
    front = [Point("tp 8 · dp 8", 42, 1.62e5, True), Point("tp 4 · pp 2 · dp 8", 61, 2.05e5, True, True),
             Point("tp 2 · pp 4", 74, 2.11e5, True)]  # fmt: skip
    energy, cost = Measure("Energy", "j"), Measure("Cost", "usd")
    money = [Range("rent on demand", 1.9e6, 2.4e6, 3.1e6, cost), Range("buy, 4 years", 1.1e6, 1.5e6, 2.2e6, cost),
             Range("electricity", 3.1e12, 3.6e12, 4.4e12, energy),
             Range("emissions", 180, 420, 760, Measure("Carbon", unit="t CO2e"))]  # fmt: skip
    context = (8192, 16384, 32768, 65536, 131072)
    lines = {f"{n} devices": [(c, 3e6 / n * (c / 8192) ** 0.5 if c < n * 2000 else math.nan) for c in context]
             for n in (8, 16, 32, 64)}  # fmt: skip
    field = [[(r + 1) * 4.1 / (c + 1) if (r + c) % 7 else math.nan for c in range(6)] for r in range(5)]
    served = {f"{rate} requests/s": [0.08 * (1 + rate / 20) * math.exp(0.55 * math.tan(2.6 * (i + 0.5) / 500 - 1.3))
                                     for i in range(500)] for rate in (10, 30, 50)}  # fmt: skip
    step = {"forward": 1.9, "backward": 4.1, "tensor-parallel comm": 0.52, "pipeline bubble": 0.31,
            "gradient/weight comm": 0.18, "optimizer": 0.06, "waiting for host": 0.002}  # fmt: skip
    tiers = {"NVLink domain": {"tensor": 41e9, "data": 3e9}, "InfiniBand rail": {"pipeline": 0.6e9, "data": 12e9},
             "spine": {"data": 4.1e9}}  # fmt: skip
    effects = {"peak bf16": (0.071, -0.058), "HBM bandwidth": (0.024, -0.02), "NVLink bandwidth": (0.009, -0.007),
               "InfiniBand bandwidth": (0.004, -0.003), "launch cost": (-0.001, 0.001)}  # fmt: skip
    accuracy = {"pre-training": [0.93, 1.02, 1.05, 0.98, 1.11, 0.96, 1.3], "serving": [0.8, 1.0, 1.2, 1.05, 0.9],
                "memory": [0.97, 1.01, 1.0, 1.04]}  # fmt: skip
    tokens = Measure("Cost per million tokens", "usd")
    return (
        figures.memory_bars(f"memory{tag}", "The best plan uses 63 of 80 GiB; without recompute it needs 16 GiB more",
                            PLANS, 80 * GIB, "Largest rank of each plan."),
        figures.time_waterfall(f"time{tag}", "Backward passes take 58 % of the step", step),
        figures.traffic_bars(f"traffic{tag}", "Nine tenths of the bytes stay inside the NVLink domain", tiers),
        figures.roofline(f"roofline{tag}", "Matrix products reach two thirds of the peak", operators,
                         {"bf16": 989e12, "fp8": 1979e12}, {"HBM3": 3.35e12}),
        figures.pareto(f"pareto{tag}", "Six more GiB buy a quarter more throughput", cloud + front,
                       Measure("Memory per device, in GiB", unit="GiB"), SPEED),
        figures.tornado(f"tornado{tag}", "Only the peak matters: 10 % more buys 6 %", effects, "step time"),
        figures.ranges(f"ranges{tag}", "Buying costs less than renting at any price seen", money),
        figures.scaling(f"scaling{tag}", "1,024 devices keep 87 % of their speed", scaled, Measure("Devices"), SPEED),
        figures.delta_bars(f"delta{tag}", "Twice the HBM bandwidth saves 9 %, half the network costs 21 %",
                           {"double HBM": -0.09, "half network": 0.21, "4:1 oversubscription": 0.34}, "today",
                           "step time"),
        figures.sweep_lines(f"sweep{tag}", "Long contexts need more devices, then cost with their root", lines,
                            Measure("Context", unit="tokens"), SPEED, log=(True, True)),
        figures.sweep_heatmap(f"heatmap{tag}", "Cheapest at 6 nodes and batch 1", [f"{c + 1} nodes" for c in range(6)],
                              [f"batch {2**r}" for r in range(5)], field, tokens, ("Nodes", "Batch")),
        figures.accuracy_strip(f"accuracy{tag}", "Predictions like these were 7 % off on average", accuracy),
        figures.latency_cdf(f"latency{tag}", "The target holds up to 30 requests/s", served,
                            measure=Measure("Time to first token", "s"), target=0.5),
    )  # fmt: skip


def hostile_figures() -> tuple[Figure, ...]:
    """Figures whose names come from an enemy."""
    some = {name or "empty": 1.0 + i for i, name in enumerate(HOSTILE)}
    return (
        figures.memory_bars("hostile-memory", SCRIPT, dict.fromkeys(some, some), 60.0),
        figures.time_waterfall("hostile-time", HOSTILE[4], some),
        figures.traffic_bars("hostile-traffic", HOSTILE[1], dict.fromkeys(some, some)),
        figures.roofline("hostile-roofline", HOSTILE[3],
                         [Operator(n, 10.0 * v, 1e12 * v, 0.1, n) for n, v in some.items()],
                         {SCRIPT: 1e15}, {HOSTILE[4]: 1e12}),
        figures.pareto("hostile-pareto", HOSTILE[5], [Point(n, v, v * v, True, v == 3) for n, v in some.items()],
                       Measure(SCRIPT, unit="|"), Measure(HOSTILE[4], "bytes")),
        figures.tornado("hostile-tornado", HOSTILE[6], {n: (v, -v) for n, v in some.items()}, SCRIPT),
        figures.ranges("hostile-ranges", HOSTILE[7], [Range(n, v, v, v, Measure(n)) for n, v in some.items()]),
        figures.scaling("hostile-scaling", SCRIPT, {n: [(1, v), (2, v)] for n, v in some.items()}, Measure(SCRIPT),
                        SPEED),
        figures.sweep_lines("hostile-sweep", SCRIPT, {n: [(1, v), (2, math.nan)] for n, v in some.items()}, SPEED,
                            SPEED),
        figures.sweep_heatmap("hostile-heatmap", SCRIPT, list(some), list(some),
                              [[math.inf] * len(some)] * len(some), SPEED, (SCRIPT, HOSTILE[4])),
        figures.accuracy_strip("hostile-accuracy", SCRIPT, {n: [v, 0.0, math.nan] for n, v in some.items()}),
        figures.latency_cdf("hostile-latency", SCRIPT, {n: [v] for n, v in some.items()}, target=3.0),
        figures.delta_bars("hostile-delta", SCRIPT, {n: -v for n, v in some.items()}, SCRIPT, HOSTILE[4]),
    )  # fmt: skip


def plan_table() -> Table:
    """A wide table of numbers and text."""
    names = ("plan", "devices", "throughput", "MFU", "memory", "days", "cost", "energy", "limited by")
    columns = tuple(Column(name, kind="text" if name in ("plan", "limited by") else "number") for name in names)
    rows = tuple(
        (name, Cell("64", 64), Cell.of(2.05e5 - 21000 * i, "count"), Cell.of(0.461 - 0.04 * i, "fraction"),
         Cell.of(sum(PLANS[name].values()), "bytes"), Cell.of(86400.0 * (51 + 7 * i), "s"),
         Cell.of(2.4e6 + 3e5 * i, "usd"), Cell.of(None if i == 2 else 3.6e12, "j"), "compute")
        for i, name in enumerate(PLANS)
    )  # fmt: skip
    return Table("The best plans", columns, rows, ("Days without interruptions.", "Prices of 2026-06."))


def demo() -> Document:
    """Every block, every figure, with clean and with hostile text."""
    hostile = Table(SCRIPT, (Column(SCRIPT), Column("x|y", "`z`", "number")),
                    tuple((name, Cell(f"{i}k|", 1000.0 * i)) for i, name in enumerate(HOSTILE)), (SCRIPT,))  # fmt: skip
    clean = every_figure()
    return Document(
        title="Llama 3 70B on 64 × H100",
        subtitle="Pre-training of 15T tokens with bf16, sequences of 8,192 and a batch of 4M tokens",
        answer=("It fits, and 15T tokens take 51 days for 2.4M USD",
                "Best plan: tensor 4 · pipeline 2 · data 8, ZeRO 1; 63 of 80 GiB per device; MFU 46%",
                "Limited by compute; 10% more bf16 peak would help most (5.8%)",
                "Predictions like this one were 7% off on average (102 published runs)"),
        sections=(
            Section("Assumptions", (Facts((("Model", "llama-3-70b, 70.6B parameters"), ("Device", "H100 SXM 80 GB"),
                                           ("Price", "2.5 USD/h (datasheet, 2026-06)"), (SCRIPT, HOSTILE[4]))),)),
            Section("Plans", (plan_table(), Paragraph("A first paragraph.\n\nA second, with " + SCRIPT)),
                    "Three plans fit or nearly fit."),
            Section("Memory and time", clean[:4], "Where the memory and the time go."),
            Section("What if", clean[4:9], "What would change the answer."),
            Section("More", clean[9:], "Sweeps, accuracy and latency."),
            Section(SCRIPT, (hostile, Code("hwsim plan --model '" + SCRIPT + "' ```", "bash"), *hostile_figures()[:4]),
                    SCRIPT),
        ),
        reproduce=Reproduce("hwsim report --model 70b --gpus 64", 'hwsim.report("70b", "h100-sxm-80", 64)'),
        provenance={"hwsim": "0.1.0", "inputs": "sha256 4b1d…", "numpy": "2.4.6", SCRIPT: SCRIPT},
    )  # fmt: skip
