"""The scoreboard: facts, errors by hand, groups within their tolerance, bands that hold what they say."""

import json
import re
from dataclasses import replace
from functools import reduce
from pathlib import Path

import numpy as np
import pytest

import hwsim
from hwsim.cli.app import run
from hwsim.errors import InputFileError, UsageError
from hwsim.report.scoreboard import view
from hwsim.report.terminal import as_text
from hwsim.specs import bands as stored
from hwsim.specs.library import load_framework, load_hardware, names
from hwsim.validation import left_out, published
from hwsim.validation.bands import derive_bands, interval, left_out_coverage
from hwsim.validation.facts import FOLDER, MEMORY, Fact, Source, facts, read_facts, sources, tolerances
from hwsim.validation.published import Row, score, scoreboard, seconds_ratio


@pytest.fixture(scope="module")
def board():
    return scoreboard()


def test_at_least_200_configurations_of_15_sources():
    configurations = {(fact.source, str(fact.model), fact.hardware, fact.devices, str(fact.given)) for fact in facts()}
    assert len(configurations) >= 200
    assert len({fact.source for fact in facts()}) >= 15
    assert len({fact.id for fact in facts()}) == len({(fact.id, fact.metric) for fact in facts()}) == len(facts())


def test_every_source_says_where_and_under_which_licence():
    files = {path.stem for path in FOLDER.glob("*.csv")} - {"fits", "left_out", "serving_scores"}
    assert files == set(sources())
    for source in sources().values():
        assert source.url.startswith("https://")
        assert source.licence
        assert source.group in tolerances()


def test_every_group_is_within_its_tolerance(board):
    off = {group.name: (round(group.mean, 3), group.tolerance) for group in board.groups if not group.holds}
    assert not off


def fact(metric, value, name="f", source="s"):
    return Fact(name, source, "g", metric, value, "gpt2", "a100-sxm-80", 8, {"framework": "megatron"}, (), "")


def test_errors_are_counted_in_time_and_averaged_by_source():
    """One source 10 % slow in time; one predicted twice the rate, which is half the time."""
    rows = [
        Row(fact("step_time", 1.0, source="a"), 1.1, True),
        Row(fact("step_time", 2.0, source="a"), 2.2, True),
        Row(fact("tokens_per_s_per_device", 100.0, source="b"), 200.0, False),
    ]
    assert [seconds_ratio(row) for row in rows] == pytest.approx([1.1, 1.1, 0.5])
    group = score("g", rows)
    assert group.mean == pytest.approx((0.1 + 0.5) / 2)
    assert group.bias == pytest.approx((0.1 - 0.5) / 2)
    assert group.worst == pytest.approx(0.5)
    assert group.coverage == pytest.approx(2 / 3)
    assert rows[2].to_dict()["error"] == pytest.approx(1.0)


def test_json_has_the_keys_of_the_contract(capsys):
    assert run(["validate", "published", "--group", "korthikanti2022", "--json"], debug=True) == 0
    data = json.loads(capsys.readouterr().out)
    assert {"id", "source", "group", "metric", "published", "predicted", "error"} <= data["rows"][0].keys()
    assert data["groups"][0]["rows"] > 0


def test_a_group_out_of_tolerance_exits_5(capsys, monkeypatch):
    monkeypatch.setattr(published, "tolerances", lambda: {name: t.model_copy(update={"mean": 0.0001})
                                                          for name, t in tolerances().items()})  # fmt: skip
    assert run(["validate", "published", "--group", "korthikanti2022"], debug=False) == 5
    told = capsys.readouterr()
    assert "out of tolerance: Megatron on A100" in told.err
    assert "NO" in told.out


FLOORS = {"Megatron on A100": 0.095, "Small models on one A100 node": 0.10, "SimuMax boxes": 0.056,
          "PyTorch FSDP": 0.12, "NVIDIA on Hopper and Blackwell": 0.18, "MaxText on TPU": 0.15}  # fmt: skip


def test_floors_hold_with_constants_chosen_without_the_source(board):
    """As recorded by the last `hwsim validate published --write-left-out`."""
    left_out = {group.name: group.left_out for group in board.groups}
    assert {name: left_out[name] for name in FLOORS if left_out[name] > FLOORS[name]} == {}
    assert left_out["Peak memory (allocator)"] is None


def test_constants_are_found_again_and_not_where_nobody_measured(monkeypatch):
    """Figures made by hwsim itself under a constant of ours: it is found from one source, and assumed without any."""
    few = [f for f in facts() if f.source in ("megatron_bridge", "nemo") and f.metric not in MEMORY][:40:4]
    made = [replace(f, settings=(*f.settings, "framework.overlap_tensor=0.25")) for f in few]
    own = [replace(f, published=published.predict(m).predicted) for f, m in zip(few, made, strict=True)]
    runs = left_out.Runs(own)
    at = next(i for i, c in enumerate(left_out.constants()) if c.field == "framework.overlap_tensor")
    every = np.ones(len(own), dtype=bool)
    constant = left_out.constants()[at]
    assert constant.tried[runs.choose(every)[at]] == 0.25
    assert runs.choose(~every)[at] == 0
    assert [part.sum() for part in runs.parts("nemo")] == [(runs.source == "nemo").sum()]


def test_values_that_ship_are_among_those_tried():
    for constant in left_out.constants():
        for name in constant.of:
            root = constant.field.split(".")[0]
            owner = load_framework(name) if root == "framework" else load_hardware(name).accelerator
            assert any(value == reduce(getattr, constant.path, owner) for value in constant.values), (constant, name)


def test_every_row_fits_a_screen_and_no_error_is_minus_nothing(board):
    text = as_text(view(board, [], every_row=True))
    assert max(len(line) for line in text.splitlines()) <= 120
    assert "…" not in text
    assert not re.search(r"-0(\.0)?%", text)
    assert all(row.fact.id in text for row in board.rows)


def test_unknown_group_is_refused():
    with pytest.raises(UsageError, match="no group or source holds 'nobody'"):
        hwsim.validate_published("nobody")


def test_picture_is_drawn_and_not_blank(tmp_path, capsys):
    from matplotlib.image import imread

    path = tmp_path / "board.png"
    assert run(["validate", "published", "--group", "korthikanti2022", "--plot", str(path)], debug=True) == 0
    pixels = imread(path)[:, :, :3]
    assert pixels.shape[1] > 900
    assert 0.01 < np.mean(pixels.min(axis=2) < 0.9) < 0.5
    assert not list(tmp_path.glob(".*"))
    assert run(["validate", "published", "--group", "glm130b", "--plot", str(tmp_path / "no.format")], debug=False) == 2
    assert "--plot needs .png, .svg or .pdf" in capsys.readouterr().err
    assert [item.name for item in tmp_path.iterdir()] == ["board.png"]


def test_a_wrong_fact_names_file_and_row(tmp_path):
    text = (FOLDER / "glm130b.csv").read_text(encoding="utf-8").replace("step_time", "step_tme", 1)
    path = tmp_path / "glm130b.csv"
    path.write_text(text, encoding="utf-8")
    source = Source(title="t", url="https://x", licence="l", group="g", kind="vendor")
    with pytest.raises(InputFileError, match=r"glm130b\.csv: gpuhours-0075: metric step_tme"):
        list(read_facts(path, source))


# ---- bands -----------------------------------------------------------------------------------------------------------


def test_interval_leaves_a_tenth_out_at_either_end_and_counts_groups_alike():
    rng = np.random.default_rng(1)
    many, few = 1.0 + 0.1 * rng.standard_normal(20_000), 2.0 + 0.1 * rng.standard_normal(200)
    low, high = interval([many])
    assert (low, high) == pytest.approx((1 - 0.128, 1 + 0.128), abs=0.005)
    low, high = interval([many, few])
    assert low < 1.0
    assert high > 1.9


def test_coverage_is_that_of_groups_the_interval_never_saw():
    alike = [np.linspace(0.9, 1.1, 50) for _ in range(5)]
    assert left_out_coverage(alike) == pytest.approx(0.8, abs=0.05)
    apart = [np.full(10, 0.5), np.full(10, 1.0), np.full(10, 2.0)]
    assert left_out_coverage(apart) < 0.5


def test_shipped_bands_are_those_of_the_scoreboard(board):
    """After a change of predictions: `hwsim validate published --write-bands hwsim/data/bands.yaml`."""
    now, kept = derive_bands(board.rows), stored.bands().families
    assert now.keys() == kept.keys()
    for name, band in now.items():
        assert (band.low, band.high, band.rows) == pytest.approx(
            (kept[name].low, kept[name].high, kept[name].rows), abs=0.011
        ), name


def test_published_runs_lie_in_their_printed_bands_as_often_as_said(board):
    steps = [row for row in board.rows if row.fact.metric not in MEMORY]
    assert np.mean([row.inside for row in steps]) >= 0.75


def test_what_nobody_measured_says_so_and_gets_the_widest_band():
    known = hwsim.estimate_training("7b", "h100-sxm-80", 8, framework="nemo")
    assert known.band["family"] == "nemo on hopper"
    assert known.band["measured"]
    unknown = hwsim.estimate_training("7b", "gaudi3", 64, framework="megatron")
    assert unknown.band["family"] == "megatron"
    assert not unknown.band["measured"]
    every = stored.bands().families
    assert every["any"].rows == max(band.rows for band in every.values())
    assert unknown.step_time_low_s <= every["any"].low * unknown.step_time_s
    assert unknown.step_time_high_s >= every["any"].high * unknown.step_time_s
    assert stored.family("nothing", "nobody", False) == ("any", every["any"])
    assert all(0 < band.low < 1 < band.high for band in every.values())


def test_a_run_that_was_measured_fits(board):
    """Out-of-memory verdicts: nothing that ran is called too large for its device."""
    wrong = [row.fact.id for row in board.rows if row.fact.metric in MEMORY and not row.inside]
    assert not wrong


@pytest.mark.parametrize("name", names("frameworks"))
def test_every_framework_estimates(name):
    found = hwsim.estimate_training("llama-2-7b", "a100-sxm-80", 16, framework=name)
    assert found.step_time_low_s < found.step_time_s < found.step_time_high_s
    assert sum(found.time_s.values()) == pytest.approx(found.step_time_s)


def test_the_readme_shows_this_scoreboard(board):
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for group in board.groups:
        assert f"| {group.name} | {group.rows} | {group.sources} | {group.mean:.1%} |" in readme, group.name


def test_bands_need_every_row(tmp_path, capsys):
    target = tmp_path / "bands.yaml"
    assert run(["validate", "published", "--group", "nano", "--write-bands", str(target)], debug=False) == 2
    assert "leave out --group" in capsys.readouterr().err
    assert not target.exists()
