"""Reports of answers: their numbers are those of the answer, every figure has data, and nothing in a name is obeyed."""

from __future__ import annotations

import itertools
import json
import math

import pytest
from test_report import Page

import hwsim
from hwsim.cli.app import run
from hwsim.errors import InfeasibleError, UsageError
from hwsim.report import findings
from hwsim.report.html import to_html
from hwsim.report.markdown import to_markdown
from hwsim.report.rendering import drawn, house_style, text_boxes
from hwsim.report.style import LIGHT
from hwsim.reporting import answer_of, document_of, fields_of, outcome_of
from hwsim.scenarios.run import WhatIf
from hwsim.units import show

SCRIPT = "<script>alert(1)</script>"
SMALL = {"model": "gpt2", "hardware": "a100-sxm-80"}
SERVED = {**SMALL, "input_len": 128, "output_len": 16}
ASKED = {
    "train": lambda model: answer_of(fields_of({**SMALL, **model, "gpus": 2, "tokens": 1e9, "seq_len": 512})),
    "estimate": lambda model: answer_of(
        fields_of({**SMALL, **model, "gpus": 2, "tp": 2, "recompute": "core_attn", "global_batch": 8, "seq_len": 512})
    ),
    "serve": lambda model: answer_of(
        fields_of({**SERVED, **model, "task": "infer", "gpus": 2, "qps": 20.0, "ttft_ms": 500.0})
    ),
    "deployment": lambda model: answer_of(fields_of({**SERVED, **model, "task": "infer", "tp": 2, "batch": 4})),
    "simulation": lambda model: hwsim.simulate_serving(
        **{**SERVED, **model}, qps=8.0, requests=80, ttft_ms=500.0, tpot_ms=20.0, dp=2, gpus=2
    ),
    "size": lambda model: hwsim.size(
        **{**SMALL, **model}, tokens=1e11, target_days=1.0, budget_usd=1e4, max_gpus=32, seq_len=512
    ),
    "size to serve": lambda model: hwsim.size(
        **{**SERVED, **model}, task="infer", qps=20.0, tpot_ms=20.0, max_gpus=8, pin="tp=1"
    ),
}
SERVING = ("serve", "deployment", "simulation", "size", "size to serve")
FOUND: dict[str, object] = {}
MADE: dict[str, object] = {}


def found(kind):
    """An answer; each is found once for all tests."""
    if kind not in FOUND:
        FOUND[kind] = ASKED[kind]({})
    return FOUND[kind]


def made(kind):
    """The document of an answer."""
    if kind not in MADE:
        MADE[kind] = document_of(found(kind), command="hwsim report")
    return MADE[kind]


@pytest.fixture
def _no_levers(monkeypatch):
    """Reports without their tornado, which takes most of the time of a small one."""
    monkeypatch.setattr("hwsim.reporting._levers", lambda _: None)


def words(document) -> str:
    return "\n".join(document.answer)


def test_a_training_answer_says_what_was_found():
    for kind in ("train", "estimate"):
        best, document = found(kind).estimate, made(kind)
        assert show(best.tokens_per_s, "count") in document.answer[0]
        assert f"{best.mfu:.0%}" in document.answer[0]
        assert show(best.memory_reserved_bytes, "bytes") in words(document)
    assert f"of {found('train').plan.candidates:,} candidates" in made("train").sections[1].lead.lower()
    assert "core_attn" in made("estimate").answer[1]


def test_a_serving_answer_says_what_was_found():
    outcome, document = found("serve"), made("serve")
    best, bill = outcome.estimate.deployment, outcome.bill
    assert f"{best['qps']:.3g} requests/s" in document.answer[0]
    assert f"p95 TTFT {show(best['ttft_s']['p95'], 's')} of 500 ms" in words(document)
    assert show(float(bill.rent_usd["on_demand"].expected), "usd") in words(document)
    assert show(best["power_w"], "w") in words(document)
    table = document.sections[1].blocks[0]
    assert len(table.rows) == len(outcome.plan.plans)
    assert table.rows[0][1].sort == best["devices"]
    points = next(figure for figure in document.figures if figure.name == "pareto").data
    front = [point for point in points if point["on the front"] == "yes"]
    assert len(front) == len(outcome.plan.pareto)
    assert len(points) > len(front)


def test_one_deployment_says_what_was_found():
    best, document = found("deployment").estimate, made("deployment")
    assert document.answer[0].startswith(f"It fits: TTFT {show(best.ttft_s, 's')}, TPOT {show(best.tpot_s, 's')}")
    assert "batch 4" in words(document)
    assert not [figure for figure in document.figures if figure.name == "pareto"]
    over = answer_of(fields_of({**SERVED, "task": "infer", "tp": 1, "batch": 100_000}))
    assert "does not fit" in document_of(over).answer[0]


def test_a_simulation_says_what_happened():
    simulation, document = found("simulation"), made("simulation")
    v = simulation.values
    assert show(v["output_tokens_per_s"], "count") in document.answer[0]
    assert f"p95 TTFT {show(v['ttft_s']['p95'], 's')}" in document.answer[0]
    kept = f"{v['slo_share']:.1%}".replace("100.0%", "100%")
    assert f"{kept} of the requests keep TTFT up to 500 ms and TPOT up to 20 ms" in words(document)
    assert f"{v['goodput_per_s']:.3g} requests/s" in words(document)
    table = next(block for block in document.sections[1].blocks if type(block).__name__ == "Table")
    assert [cell.text for cell in table.rows[0][1:]] == [show(value, "s") for value in v["ttft_s"].values()]
    assert [figure.name for figure in document.figures][:5] == [
        "latency-ttft", "latency-tpot", "latency-e2e", "queue", "kv-cache"
    ]  # fmt: skip
    queue = next(figure for figure in document.figures if figure.name == "queue").data
    running = [row["Requests"] for row in queue if row["line"] == "running"]
    assert 0 < max(running) <= 2 * v["batch"]["max"]


def test_overload_comes_first():
    late = hwsim.simulate_serving("llama-3-8b", "l40s", qps=200.0, requests=200, output_len=64)
    assert late.overload
    document = document_of(late)
    assert document.answer[0].startswith("Overload: ")
    assert "at most" in document.answer[1]


def test_a_size_says_what_is_needed():
    sizing, document = found("size"), made("size")
    option = sizing.answer.option
    assert f"{option.devices:,} × {option.title}" in document.answer[0]
    assert f"{show(sizing.answer.days, 'days')}, {show(sizing.answer.cost_usd, 'usd')}" in document.answer[0]
    assert f"{sizing.machine.least:,.0f} devices" in words(document)
    figures = {figure.name: figure for figure in document.figures}
    assert {"considered-deadline", "considered-budget", "memory", "time", "roofline", "money"} <= set(figures)
    considered = figures["considered-deadline"].data
    assert {row["Time for the tokens [s]"] for row in considered if row["line"] == "deadline"} == {86400.0}
    there = {row["Devices"]: row["Time for the tokens [s]"] for row in considered if row["line"] == option.title}
    assert there[option.devices] == pytest.approx(sizing.answer.days * 86400.0)
    memory = sum(row["Memory per device [byte]"] for row in figures["memory"].data)
    assert memory == pytest.approx(option.plan.memory_reserved_bytes)


def test_the_bill_of_a_size_has_the_lost_time_in_it():
    from hwsim.reporting import _answered

    sizing = found("size")
    hours = _answered(sizing, None).bill.device_hours
    assert hours.expected == pytest.approx(sizing.answer.days * 24.0 * sizing.answer.option.devices)


def test_a_size_to_serve_says_what_is_needed():
    sizing, document = found("size to serve"), made("size to serve")
    assert f"{sizing.answer.option.devices:,} × {sizing.answer.option.title}" in document.answer[0]
    best = sizing.answer.option.plan.deployment
    assert f"p95 TPOT {show(best['tpot_s']['p95'], 's')} of 20 ms" in words(document)
    target = next(figure for figure in document.figures if figure.name == "considered-rate").data
    assert {row["Mean rate [tokens/s]"] for row in target if row["line"] == "asked for"} == {320.0}


@pytest.mark.parametrize("kind", ASKED)
def test_every_figure_has_data_and_every_section_something(kind):
    document = made(kind)
    assert len(document.figures) >= 5
    for figure in document.figures:
        assert figure.data, figure.name
        assert len(figure.title) > 10, figure.name
        assert figure.title[0] == figure.title[0].upper(), figure.title
        numbers = [value for row in figure.data for value in row.values() if isinstance(value, float)]
        assert any(map(math.isfinite, numbers)), figure.name
    for section in document.sections:
        assert section.blocks, section.title
    assert document.provenance["input hash"]


@pytest.mark.parametrize("kind", SERVING)
def test_no_text_leaves_its_figure_or_covers_another(kind):
    for figure in made(kind).figures:
        if figure.name in ("roofline", "money", "footprint", "scaling", "context-memory", "context-speed"):
            continue
        with house_style(LIGHT):
            canvas = drawn(figure, LIGHT, True)
            boxes, width, height = text_boxes(canvas), canvas.bbox.width, canvas.bbox.height
        for text, box in boxes:
            assert min(box.x0, box.y0) > -0.5, (figure.name, text)
            assert box.x1 < width + 0.5, (figure.name, text)
            assert box.y1 < height + 0.5, (figure.name, text)
        for (one, a), (other, b) in itertools.combinations(boxes, 2):
            apart = min(a.x1, b.x1) - max(a.x0, b.x0) < 1 or min(a.y1, b.y1) - max(a.y0, b.y0) < 1
            assert apart, (figure.name, one, other)


@pytest.mark.usefixtures("_no_levers")
@pytest.mark.parametrize("kind", ["train", "serve", "simulation", "size to serve"])
def test_a_hostile_name_is_inert(kind):
    from markdown_it import MarkdownIt

    model = {**hwsim.load_model("gpt2").model_dump(exclude_unset=True), "title": SCRIPT}
    document = document_of(ASKED[kind]({"model": model}), command=f"hwsim report --model '{SCRIPT}'")
    assert SCRIPT in document.title + document.subtitle
    if kind in ("serve", "simulation"):
        html = to_html(document)
        assert [tag for tag, _ in Page(html).elements].count("script") == 1
        assert "<script>alert" not in html
        assert len(html.encode()) < 2_000_000
    shown = Page(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(to_markdown(document)))
    assert not {"script", "a", "img"} & {tag for tag, _ in shown.elements}
    assert "".join(words for _, words in shown.texts).count(SCRIPT) >= 2


@pytest.mark.parametrize("kind", ["deployment", "simulation"])
def test_the_same_answer_gives_the_same_bytes_and_the_program_printed_writes_it(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    document = made(kind)
    first = to_markdown(document)
    assert first == to_markdown(document_of(ASKED[kind]({}), command="hwsim report"))
    hwsim.write_report(found(kind), "mine.md")
    exec(document.reproduce.python.replace("report.html", "report.md"), {})
    assert (tmp_path / "report.md").read_bytes() == (tmp_path / "mine.md").read_bytes()


def test_the_same_page_is_small_and_the_same_bytes():
    page = to_html(made("simulation"))
    assert page == to_html(made("simulation"))
    assert len(page.encode()) < 2_000_000


@pytest.mark.usefixtures("_no_levers")
def test_programs_are_printed_that_ask_the_same():
    call = made("size").reproduce.python.replace("hwsim.write_report", "result = dict").replace(', "report.html"', "")
    assert "hwsim.size(" in call
    assert "target_days=1.0" in call
    planned = hwsim.plan_inference("gpt2", "a100-sxm-80", 1, input_len=64, output_len=16)
    lengths = {"input_len": 64, "output_len": 16}
    outcome = outcome_of(planned, fields_of({**SMALL, "task": "infer", "gpus": 1, "top": 3, **lengths}))
    assert "'job.output_len': 16" in document_of(outcome).reproduce.python
    import pandas as pd

    trace = pd.DataFrame({"arrival_s": [0.0, 0.1], "input_tokens": [8, 8], "output_tokens": [4, 4]})
    assert document_of(hwsim.simulate_serving("gpt2", "a100-sxm-80", trace=trace)).reproduce.python == ""


def test_scenario_files_are_named_in_the_program(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("title: Two\nbase: {model: gpt2, hardware: a100-sxm-80, gpus: 1, strategy: {tp: 1}}\n")
    folder = tmp_path / "profiles"
    (folder / "accelerators").mkdir(parents=True)
    document = document_of(hwsim.whatif(path, settings={"job.seq_len": 128}), profiles=str(folder))
    assert f"scenario={str(path)!r}" in document.reproduce.python
    assert "settings={'job.seq_len': 128}" in document.reproduce.python
    assert f"profiles={str(folder)!r}" in document.reproduce.python


def test_what_no_report_is_made_of():
    with pytest.raises(UsageError, match="no report is made of a dict"):
        document_of({})
    with pytest.raises(UsageError, match=r"ask it as hwsim\.whatif"):
        document_of(found("deployment").estimate)
    with pytest.raises(InfeasibleError, match=r"405b .*out of memory"):
        answer_of({"model": "405b", "gpus": 1, "hardware": "a100-sxm-80"})


FLAGS = ["--model", "gpt2", "--hardware", "a100-sxm-80"]
SHORT = ["--input-len", "128", "--output-len", "16"]
COMMANDS = {
    "plan": ["plan", *FLAGS, "--gpus", "1", "--seq-len", "512", "--pin", "micro_batch=1", "--set", "model.layers=2"],
    "plan infer": ["plan", *FLAGS, "--task", "infer", "--gpus", "1", *SHORT],
    "size": ["size", *FLAGS, "--tokens", "1e10", "--target-days", "1", "--max-gpus", "8", "--seq-len", "512"],
    "simulate": ["simulate", "serving", *FLAGS, "--qps", "5", "--requests", "30", *SHORT],
    "estimate train": ["estimate", "train", *FLAGS, "--gpus", "1", "--seq-len", "512"],
    "estimate infer": ["estimate", "infer", *FLAGS, "--batch", "2", *SHORT, "--no-engine-overhead"],
}


@pytest.mark.usefixtures("_no_levers")
@pytest.mark.parametrize("name", COMMANDS)
def test_commands_write_a_report_of_what_they_print(name, tmp_path, capsys):
    path = tmp_path / "x.md"
    assert run([*COMMANDS[name], "--json", "--report", str(path)], debug=False) == 0
    out, err = capsys.readouterr()
    assert err == f"report: {path}\n"
    data = json.loads(out)
    best = data.get("plans", [data])[0]
    value = {
        "training": lambda: best["tokens_per_s"],
        "serving": lambda: best["output_tokens_per_s"],
        "inference": lambda: best.get("deployment", best)["output_tokens_per_s"],
        "size": lambda: best["answer"]["rent_usd_per_hour"] * 24.0 * best["answer"]["days"],
    }[best["kind"]]()
    head = path.read_text(encoding="utf-8").split("\n## ")[0].replace("\\", "")
    assert show(value, "usd" if name == "size" else "count") in head


def test_the_report_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = ["--gpus", "1", "--seq-len", "512", "--global-batch", "4", "--precision", "bf16", "--tokens", "1B"]
    assert run(["report", *FLAGS, *flags, "-o", "plan.md"], debug=False) == 0
    assert (tmp_path / "plan.md").read_text(encoding="utf-8").startswith("# GPT-2")
    (tmp_path / "s.yaml").write_text(
        "title: Two beside each other\nbase: {model: gpt2, gpus: 1, job: {seq_len: 128}, strategy: {tp: 1}}\n"
        "overrides: {more: {gpus: 2}}\nscenarios: {two: [more]}\n"
    )
    assert run(["report", "s.yaml", "--set", "job.global_batch=4", "--assets", "figures/here"], debug=False) == 0
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert "Two beside each other" in text
    assert (tmp_path / "figures" / "here" / "memory.png").exists()
    assert capsys.readouterr().err == "report: plan.md\nreport: report.html\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["report"], "give a scenario file, or --model"),
        (["report", "qlora-workstation", "--model", "gpt2"], "give a scenario file, or --model"),
        (["report", "qlora-workstation", "--gpus", "8"], "--gpus: the scenario says that"),
        (["report", "qlora-workstation", "--task", "infer"], "--task: the scenario says that"),
        (["report", "--model", "gpt2", "--qps", "3"], "qps: is not for task train"),
        (["report", "--model", "gpt2", "-o", "x.pdf"], "-o 'x.pdf': a report ends in .html or .md"),
        (["report", "--model", "gpt2", "-o", "missing/x.html"], "-o 'missing/x.html': no folder there"),
        (["report", "no-such-scenario"], "unknown scenario 'no-such-scenario'"),
        *(
            ([*command, *wrong], said)
            for command in COMMANDS.values()
            for wrong, said in (
                (["--report", "x.pdf"], "--report 'x.pdf': a report ends in .html or .md"),
                (["--report", "missing/x.html"], "--report 'missing/x.html': no folder there"),
                (["--assets", "here"], "--assets needs --report"),
                (["--report", "x.html", "--assets", "file/here"], "--assets 'file/here': no folder there"),
                (["--report", "x.html", "-o", "x.html"], "writes that file too"),
            )
        ),
    ],
)
def test_what_cannot_be_written_is_refused_before_any_work(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    for place in ("search.plan.plan_training", "analytic.training.evaluate", "events.serving.simulate"):
        monkeypatch.setattr(f"hwsim.{place}", None)
    assert run(arguments, debug=False) == 2
    assert said in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.usefixtures("_no_levers")
def test_an_interrupted_command_leaves_the_old_report(tmp_path, monkeypatch, capsys):
    path = tmp_path / "x.html"
    path.write_text("old")

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("hwsim.report.html.to_html", interrupt)
    assert run([*COMMANDS["estimate infer"], "--report", str(path)], debug=False) == 130
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.html"]


def compared(**more: object) -> WhatIf:
    base = {**SMALL, "gpus": 2, "tokens": 1e9, "job": {"seq_len": 512, "global_batch": 64}}
    return hwsim.whatif({"title": "t", "baseline": "two", "base": base, **more})


def test_a_comparison_is_a_sentence_and_says_what_is_the_same():
    found = compared(
        overrides={"more": {"gpus": 4}, "node": {"gpus": 8}}, scenarios={"four": ["more"], "eight": ["node"]}
    )
    lines = findings.answer_lines(found)
    assert lines[0].startswith("Eight is the fastest, with ")
    assert "for 1B tokens, ahead of four (" in lines[0]
    assert "; two is the slowest (" in lines[0]
    side = document_of(found).sections[0]
    heads = [column.name for column in side.blocks[0].columns]
    assert heads[:2] == ["scenario", "devices"]
    assert "fits" not in heads  # all do
    assert "tokens/s" not in heads  # the time says it


def test_a_sweep_says_which_axis_matters_most():
    axes = {"accelerator.memory.bandwidth": {"times": [1, 2]}, "accelerator.peak.bf16": {"times": [0.25, 1]}}
    found = compared(sweep={"axes": axes, "replan": False})
    lines = findings.sweep_lines(found.swept, False)
    assert lines[0].startswith("Peak bf16 matters most: × 1 takes ")
    assert lines[1].startswith("Memory bandwidth matters less: × 2 takes ")
    assert "is the fastest (" in lines[2]


def test_places_are_judged_by_what_they_change():
    found = compared(sweep={"axes": {"grid": ["norway", "poland"]}})
    line = findings.sweep_lines(found.swept, False, " for 1B tokens")[0]
    assert line.startswith("Norway emits the least carbon (")
    assert "Poland the most (" in line


@pytest.mark.parametrize(
    ("change", "said"),
    [(0.05, "A takes 5% longer than b"), (-0.2, "A takes 20% less time than b"), (3.0, "A takes 4 times as long as b")],
)
def test_a_change_in_words(change: float, said: str):
    assert findings.change_sentence("a", "days", change, "b") == said
