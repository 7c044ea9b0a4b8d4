"""Scenario files: what they ask, what is refused before any work, what they answer; every shipped one is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hwsim
from hwsim.errors import HwsimError, InfeasibleError, InputFileError
from hwsim.scenario_api import SHIPPED, scenario_path, shipped_scenarios
from hwsim.scenarios.measures import MEASURES

BASE: dict[str, Any] = {"model": "llama-3-8b", "hardware": "h100-sxm-80", "gpus": 8, "job": {"global_batch": 64}}
FIXED: dict[str, Any] = {**BASE, "strategy": {"tp": 2, "zero": 1}}


def asked(**fields: Any) -> dict[str, Any]:
    """A scenario with these fields over a small base."""
    return {"title": "t", "base": BASE, **fields}


def written(folder: Path, text: str, name: str = "s.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


# --- what is asked


def test_an_answer_is_that_of_the_command_with_the_same_arguments() -> None:
    result = hwsim.whatif(asked(base=FIXED))
    same = hwsim.estimate_training("llama-3-8b", "h100-sxm-80", 8, tp=2, zero=1, global_batch=64)
    assert result.base.estimate is not None
    assert result.base.estimate.to_dict() == same.to_dict()
    planned = hwsim.whatif(asked())
    best = hwsim.plan("llama-3-8b", "h100-sxm-80", 8, global_batch=64).best
    assert planned.base.estimate is not None
    assert planned.base.estimate.to_dict() == best.to_dict()


def test_overrides_are_settings_by_path() -> None:
    changes = {
        "fast": {"accelerator": {"memory": {"bandwidth": "6.7 TB/s"}}},
        "slow": {"cluster.node.nic_bandwidth": "25 GB/s"},
    }
    result = hwsim.whatif(asked(base=FIXED, overrides=changes, scenarios={"both": ["fast", "slow"]}))
    settings = ["accelerator.memory.bandwidth=6.7 TB/s", "cluster.node.nic_bandwidth=25 GB/s"]
    same = hwsim.estimate_training("llama-3-8b", gpus=8, tp=2, zero=1, global_batch=64, settings=settings)
    assert result.outcomes[1].measures["step_time"] == same.step_time_s


def test_a_multiple_is_of_what_the_scenario_has() -> None:
    changes = {"a100": {"hardware": "a100-sxm-80"}, "twice": {"accelerator.memory.bandwidth": {"times": 2}}}
    scenarios = {"h100 twice": ["twice"], "a100 twice": ["a100", "twice"]}
    loaded = hwsim.resolve_scenario(asked(overrides=changes, scenarios=scenarios))
    assert loaded.question("h100 twice").fields["accelerator.memory.bandwidth"] == "6.7 TB/s"
    assert loaded.question("a100 twice").fields["accelerator.memory.bandwidth"] == "4078 GB/s"


def test_a_multiple_of_a_group_is_of_each_of_its_rates() -> None:
    loaded = hwsim.resolve_scenario(asked(overrides={"x": {"accelerator.peak": {"times": 2}}}, scenarios={"s": ["x"]}))
    fields = loaded.question("s").fields
    assert fields["accelerator.peak.bf16"] == "1.9788 PFLOP/s"
    assert fields["accelerator.peak.fp8"] == "3.9578 PFLOP/s"


def test_scenarios_may_lie_inside_each_other() -> None:
    changes = {"a": {"gpus": 16}, "b": {"job.seq_len": 4096}, "c": {"grid": "france"}}
    scenarios = {"inner": ["a", "b"], "outer": ["inner", "c"]}
    fields = hwsim.resolve_scenario(asked(overrides=changes, scenarios=scenarios)).question("outer").fields
    assert (fields["gpus"], fields["job.seq_len"], fields["grid"]) == (16, 4096, "france")


def test_the_base_of_a_file_may_be_changed_from_outside() -> None:
    loaded = hwsim.resolve_scenario(asked(), settings={"gpus": 16, "job.seq_len": 2048})
    assert loaded.base.fields["gpus"] == 16
    assert loaded.base.fields["job.seq_len"] == 2048


def test_without_replanning_the_strategy_of_the_base_is_kept() -> None:
    changes = {"slow": {"cluster.tiers.nvlink.bandwidth": {"times": 0.05}}}
    kept = hwsim.whatif(asked(overrides=changes, scenarios={"s": ["slow"]}, replan=False))
    searched = hwsim.whatif(asked(overrides=changes, scenarios={"s": ["slow"]}))
    assert kept.outcomes[1].estimate is not None
    assert kept.base.estimate is not None
    assert kept.outcomes[1].estimate.strategy == kept.base.estimate.strategy
    assert searched.outcomes[1].measures["step_time"] <= kept.outcomes[1].measures["step_time"]


# --- changes and reasons


def test_changes_are_ratios_and_name_the_part_that_moved() -> None:
    result = hwsim.whatif(
        asked(base=FIXED, overrides={"x": {"accelerator.memory.bandwidth": {"times": 0.25}}}, scenarios={"s": ["x"]})
    )
    change = next(each for each in result.changes["s"] if each.measure.name == "step_time")
    assert change.ratio == result.outcomes[1].measures["step_time"] / result.base.measures["step_time"]
    assert change.better is False
    assert "backward" in change.reason


def test_a_change_of_price_alone_is_explained_by_the_price() -> None:
    result = hwsim.whatif(
        asked(
            base={**FIXED, "model": "gpt2", "hardware": "l4"},
            overrides={"x": {"accelerator.price.rent": {"times": 2}}},
            scenarios={"s": ["x"]},
        )
    )
    change = next(each for each in result.changes["s"] if each.measure.name == "cost")
    assert change.ratio == pytest.approx(2.0, rel=1e-12)
    assert change.reason == "price of a device-hour +100%"


def test_twice_the_devices_are_twice_the_device_hours_at_half_the_speed() -> None:
    result = hwsim.whatif(
        asked(
            base={**FIXED, "tokens": "10B"},
            overrides={"x": {"gpus": 16, "job.global_batch": 128}},
            scenarios={"s": ["x"]},
        )
    )
    days = next(each for each in result.changes["s"] if each.measure.name == "days")
    assert 0.5 <= days.ratio < 0.6
    assert "16 devices instead of 8" in days.reason


# --- expectations


def test_what_does_not_hold_is_said_with_the_figure() -> None:
    result = hwsim.whatif(
        asked(base={**FIXED, "tokens": "1T"}, expect=[{"what": "days", "at_most": 1}, {"what": "fits"}])
    )
    assert not result.holds
    assert [verdict.holds for verdict in result.verdicts] == [False, True]
    assert result.verdicts[0].what == "days at most 1 day"


@pytest.mark.parametrize(
    ("bound", "holds"), [(100, True), ("100", True), ("2400 h", True), ("1 h", False), ("1k", True)]
)
def test_bounds_are_numbers_or_quantities(bound: Any, holds: bool) -> None:
    result = hwsim.whatif(asked(base={**FIXED, "tokens": "1B"}, expect=[{"what": "days", "at_most": bound}]))
    assert result.holds is holds


def test_nothing_that_fits_is_infeasible_with_the_nearest_fix() -> None:
    with pytest.raises(InfeasibleError, match="Nearest fix"):
        hwsim.whatif(asked(base={"model": "llama-3-70b", "hardware": "rtx4090", "gpus": 1}))


def test_one_scenario_that_does_not_fit_is_an_answer() -> None:
    result = hwsim.whatif(
        asked(overrides={"x": {"model": "llama-3-70b", "hardware": "rtx4090"}}, scenarios={"s": ["x"]})
    )
    assert not result.outcomes[1].fits
    assert "out of memory" in result.outcomes[1].why_not
    assert result.to_dict()["outcomes"][1]["estimate"] is None


# --- sweeps

AXES: dict[str, Any] = {
    "accelerator.memory.bandwidth": ["2 TB/s", "3.35 TB/s", "8 TB/s"],
    "cluster.tiers.nvlink.bandwidth": {"times": [0.25, 1, 4]},
    "strategy.micro_batch": [1, 2, 4],
    "job.seq_len": [2048, 8192],
}


def test_a_sweep_gives_the_bits_of_each_point_alone() -> None:
    swept = hwsim.whatif(asked(base=FIXED, sweep={"axes": AXES})).swept
    assert swept is not None
    assert swept.grid.points == 54
    frame = swept.to_frame()
    for i in (0, 17, 33, 53):
        row = frame.iloc[i]
        settings = [
            f"accelerator.memory.bandwidth={float(row['accelerator.memory.bandwidth']) / 1e12!r} TB/s",
            f"cluster.tiers.nvlink.bandwidth={450 * float(row['cluster.tiers.nvlink.bandwidth'])!r} GB/s",
        ]
        alone = hwsim.estimate_training(
            "llama-3-8b", gpus=8, tp=2, zero=1, global_batch=64, settings=settings,
            micro_batch=int(row["strategy.micro_batch"]), seq_len=int(row["job.seq_len"]),
        )  # fmt: skip
        assert row["step_time_s"] == pytest.approx(alone.step_time_s, rel=1e-12)
        assert row["memory_bytes"] == alone.memory_reserved_bytes
        assert row["fits"] == alone.fits


def test_a_long_sweep_of_machines_is_cut_into_pieces_that_agree() -> None:
    axis = {"from": "1 TB/s", "to": "9 TB/s", "points": 1200}
    swept = hwsim.whatif(asked(base=FIXED, sweep={"axes": {"accelerator.memory.bandwidth": axis}})).swept
    assert swept is not None
    times = swept.measures["step_time"]
    assert np.all(np.diff(times) <= 0)
    ends = {"accelerator.memory.bandwidth": ["1 TB/s", "9 TB/s"]}
    short = hwsim.whatif(asked(base=FIXED, sweep={"axes": ends})).swept
    assert short is not None
    assert [times[0], times[-1]] == short.measures["step_time"].tolist()


def test_illegal_points_say_which_rule_they_break() -> None:
    swept = hwsim.whatif(asked(base=FIXED, sweep={"axes": {"strategy.tp": [1, 3, 8]}})).swept
    assert swept is not None
    assert swept.fits.tolist() == [False, False, True] or swept.fits[2]
    assert "tp" in swept.why_not[1]
    assert np.isnan(swept.measures["step_time"][1])


def test_zip_takes_values_side_by_side() -> None:
    axes = {"job.seq_len": [2048, 4096, 8192], "job.global_batch": [256, 128, 64]}
    swept = hwsim.whatif(asked(base=FIXED, sweep={"combine": "zip", "axes": axes})).swept
    assert swept is not None
    assert [tuple(point.values()) for point in swept.grid.values()] == [(2048, 256), (4096, 128), (8192, 64)]


def test_ranges_have_both_ends() -> None:
    axes = {"accelerator.memory.bandwidth": {"from": "1 TB/s", "to": "4 TB/s", "points": 3, "spacing": "log"}}
    swept = hwsim.whatif(asked(base=FIXED, sweep={"axes": axes})).swept
    assert swept is not None
    assert [point["accelerator.memory.bandwidth"] for point in swept.grid.values()] == [
        1e12,
        pytest.approx(2e12),
        4e12,
    ]
    stepped = hwsim.whatif(asked(base=FIXED, sweep={"axes": {"gpus": {"from": 8, "to": 32, "step": 8}}})).swept
    assert stepped is not None
    assert [point["gpus"] for point in stepped.grid.values()] == [8, 16, 24, 32]


def test_scenarios_may_be_an_axis() -> None:
    sweep = {"axes": {"scenario": ["base", "s"], "job.seq_len": [2048, 4096]}}
    swept = hwsim.whatif(
        asked(base=FIXED, overrides={"x": {"hardware": "a100-sxm-80"}}, scenarios={"s": ["x"]}, sweep=sweep)
    ).swept
    assert swept is not None
    assert swept.measures["step_time"][2] > swept.measures["step_time"][0]


def test_a_sweep_that_plans_shows_the_strategy_of_each_point() -> None:
    swept = hwsim.whatif(asked(sweep={"axes": {"gpus": [8, 16]}})).swept
    assert swept is not None
    best = hwsim.plan("llama-3-8b", "h100-sxm-80", 16, global_batch=64).best
    assert swept.measures["step_time"][1] == best.step_time_s
    assert len(swept.layouts) == 2


# --- what is refused, with its line

WRONG = {
    "unknown field": ("  job: {seq_lenn: 4096}", r"s\.yaml:5: job\.seq_lenn: unknown field - did you mean seq_len"),
    "unknown root": ("  accelerater.memory.bandwidth: 4 TB/s", r"s\.yaml:5: .*did you mean accelerator"),
    "unknown path": (
        "  accelerator.memory.bandwith: 4 TB/s",
        r"s\.yaml:5: memory\.bandwith: unknown field - did you mean bandwidth",
    ),
    "wrong unit": ("  accelerator.memory.bandwidth: 4 GiB", r"s\.yaml:5: memory\.bandwidth: unit 'GiB' does not fit"),
    "no unit": ("  accelerator.memory.bandwidth: 4e12", r"s\.yaml:5: memory\.bandwidth: .*needs a unit"),
    "negative": ("  job.seq_len: -8", r"s\.yaml:5: seq_len: must be a whole number from 1"),
    "not a number": ("  job.seq_len: .nan", r"s\.yaml:5: seq_len: must be a whole number"),
    "unknown grid": ("  grid: atlantis", r"s\.yaml:5: .*unknown grid 'atlantis'"),
    "unknown prices": ("  prices: cheap", r"s\.yaml:5: .*unknown price"),
    "other task": ("  qps: 5", r"s\.yaml:5: qps: is not for task train"),
    "field twice": ("  job.seq_len: 1\n  job: {seq_len: 2}", r"s\.yaml:6: job\.seq_len: given twice"),
    "whole group": ("  job.framework: nothing", r"s\.yaml:5: unknown framework 'nothing'"),
    "outside": ("  grid: ../../etc/passwd.yaml", r"s\.yaml:5: grid: .*lies outside the scenario's folder"),
    "absolute": ("  prices: /etc/passwd.yaml", r"s\.yaml:5: prices: .*lies outside the scenario's folder"),
    "a profile that extends outside": ("  prices: near.yaml", r"near\.yaml:1: extends: .*lies outside"),
    "batch of a search": ("  task: infer\n  job.batch: 4", r"s\.yaml:6: job\.batch: is chosen by the search"),
    "deadline of a strategy": ("  strategy: {tp: 2}\n  target_days: 4", r"s\.yaml:6: target_days: is for a search"),
    "times": ("  job.seq_len: {times: 0}", r"s\.yaml:5: job\.seq_len: times must be a positive number"),
    "nothing to multiply": ("  job.framework: {times: 2}", r"s\.yaml:5: job\.framework: the base has no number"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_base_is_refused_with_its_line(tmp_path: Path, case: str) -> None:
    lines, message = WRONG[case]
    written(tmp_path, "extends: ../far.yaml\n", "near.yaml")
    path = written(tmp_path, f"title: t\nbase:\n  model: llama-3-8b\n  hardware: h100-sxm-80\n{lines}\n")
    with pytest.raises(InputFileError, match=message):
        hwsim.resolve_scenario(path)


@pytest.mark.parametrize(
    ("name", "message"), [("lama-3-8b", "unknown model 'lama-3-8b' - did you mean"), ("", "no name given")]
)
def test_an_unknown_model_is_refused_with_its_line(tmp_path: Path, name: str, message: str) -> None:
    path = written(tmp_path, f"title: t\nbase:\n  gpus: 8\n  model: '{name}'\n")
    with pytest.raises(InputFileError, match=rf"s\.yaml:4: .*{message}"):
        hwsim.resolve_scenario(path)


HEAD = (
    "title: t\nbase: {model: llama-3-8b, gpus: 8}\noverrides:\n"
    "  a: {gpus: 16}\n  b: {gpus: 32}\n  c: {accelerator.memory.bandwidth: 4 TB/s}\n"
)
STRUCTURE = {
    "one field twice": ("scenarios:\n  s: [a, b]\n", r"s\.yaml:8: s: gpus is overridden twice \(also gpus at .*:4\)"),
    "unknown override": ("scenarios:\n  s: [aa]\n", r"s\.yaml:8: .*no override 'aa' - did you mean a"),
    "circle": ("scenarios:\n  s: [r]\n  r: [s]\n", r"s\.yaml:.*goes round in a circle: s -> r -> s"),
    "itself": ("scenarios:\n  s: [s]\n", r"goes round in a circle: s -> s"),
    "name of the base": ("scenarios:\n  base: [a]\n", r"s\.yaml:8: .*'base' is the base's name"),
    "unused override is checked": ("  d: {gpuss: 3}\n", r"s\.yaml:7: gpuss: unknown field - did you mean gpus"),
    "unknown key": ("scenario: {}\n", r"s\.yaml:7: scenario: unknown field - did you mean scenarios"),
    "duplicate key": ("overrides: {}\n", r"duplicate key 'overrides'"),
    "anchor": ("notes: &x hello\n", r"anchors and aliases are not allowed"),
    "tag": ("notes: !!python/object:os.system x\n", r"tag .* is not allowed"),
    "unknown measure": (
        "expect:\n  - {what: dayz, at_most: 1}\n",
        r"s\.yaml:8: expect: 'dayz' is no measure - did you mean days",
    ),
    "no bound": ("expect:\n  - {what: days}\n", r"s\.yaml:8: .*needs at_least or at_most"),
    "unknown scenario": ("expect:\n  - {what: fits, in: [z]}\n", r"s\.yaml:8: expect: no scenario 'z'"),
    "wrong bound": ("expect:\n  - {what: days, at_most: soon}\n", r"s\.yaml:8: expect: 'soon' is not a quantity"),
    "two fields of one": (
        "  d: {accelerator.memory.bandwidth: {times: 2}}\nscenarios:\n  s: [c, d]\n",
        r"accelerator\.memory\.bandwidth is overridden twice",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", STRUCTURE)
def test_a_wrong_structure_is_refused_with_its_line(tmp_path: Path, case: str) -> None:
    tail, message = STRUCTURE[case]
    with pytest.raises(InputFileError, match=message):
        hwsim.resolve_scenario(written(tmp_path, HEAD + tail))


SIZES = ("tp", "cp", "pp", "vpp", "ep", "etp")
CUBE = ", ".join(f"strategy.{name}: {{from: 1, to: 100, step: 1}}" for name in SIZES)
SWEEPS = {
    "too many points": ("axes: {CUBE}", r"100 x .* = 1,000,000,000,000 points are more than 100,000"),
    "too many on one axis": ("axes: {gpus: {from: 1, to: 10, points: 1000000000000}}", r"points: must be from 2 to"),
    "endless steps": ("axes: {gpus: {from: 1, to: 10, step: 1e-30}}", r"s\.yaml:.*step must be positive"),
    "backwards": ("axes: {gpus: {from: 1, to: 10, step: -1}}", r"step must be positive"),
    "unknown axis": ("axes: {job.seqlen: [1, 2]}", r"s\.yaml:.*job\.seqlen: unknown field - did you mean seq_len"),
    "unequal zip": ("combine: zip\n  axes: {gpus: [8, 16], job.seq_len: [1024]}", r"zipped axes differ in length"),
    "log of nothing": ("axes: {gpus: {from: 0, to: 10, points: 3, spacing: log}}", r"a log range needs positive ends"),
    "wrong unit": (
        "axes: {accelerator.memory.bandwidth: {from: 1 GiB, to: 2 GiB, points: 2}}", r"unit 'GiB' does not fit",
    ),
    "beyond its range": ("axes: {accelerator.memory.bandwidth: [1 TB/s, 1 EB/s, 2e9 TB/s]}", r"must be between"),
    "empty": ("axes: {gpus: []}", r"needs at least 1 entry"),
    "none": ("axes: {}", r"needs at least 1 entry"),
    "two kinds": ("axes: {gpus: {from: 1, to: 2, points: 2, times: [1]}}", r"needs one of a list of values"),
    "too many searches": ("axes: {gpus: {from: 8, to: 8000, step: 8}}", r"1,000 points are more than 200 searches"),
    "unknown scenario": ("axes: {scenario: [base, nope]}", r"no scenario 'nope'"),
}  # fmt: skip


@pytest.mark.parametrize("case", SWEEPS)
def test_a_wrong_sweep_is_refused(tmp_path: Path, case: str) -> None:
    text, message = SWEEPS[case]
    strategy = "" if case == "too many searches" else ", strategy: {tp: 2}"
    path = written(
        tmp_path, f"title: t\nbase: {{model: gpt2, gpus: 8{strategy}}}\nsweep:\n  {text.replace('CUBE', CUBE)}\n"
    )
    with pytest.raises(InputFileError, match=message):
        hwsim.whatif(path)


HOSTILE = ["", "[]", "3", "title: t", "base: {}", "\x00", "title: t\nbase: 3", "title: t\nbase: {model: {a: {b: 1}}}",
           "title: {a: 1}\nbase: {model: gpt2}", "title: t\nbase: {model: gpt2, gpus: 1e400}",
           "title: t\nbase: {model: gpt2}\nscenarios: {a: b}", "title: t\nbase: {model: gpt2}\nsweep: 7",
           "title: t\nbase: {model: gpt2}\nexpect: {what: fits}", "title: t\nbase: {model: [gpt2]}",
           "title: t\nbase: {model: gpt2, hardware: {a: 1}}", "title: t\nbase: {model: gpt2, gpus: true}",
           "title: t\nbase: {model: gpt2, tokens: -5}", "title: t\nbase: {model: gpt2, strategy.tp: [1, 2]}",
           "title: t\nbase: {model: gpt2, job.settings: x}", "title: t\nbase: {model: gpt2, task: fly}",
           "title: t\nbase: {model: gpt2, job.precision: {times: 2}}",
           "title: t\nbase: {model: gpt2, pin.tp: two}"]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_files_get_one_clear_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(HwsimError) as error:
        hwsim.whatif(written(tmp_path, text))
    assert error.value.exit_code in (2, 3)
    assert len(str(error.value)) < 2500


# --- what ships


PINS = {"pin.order": "tp-cp-dp-pp", "pin.vpp": 1}
"""One placement, no chunks: a tenth of the search, so that all of them run in a minute."""


@pytest.mark.parametrize("name", shipped_scenarios())
def test_every_shipped_scenario_runs_and_holds(name: str) -> None:
    serves = hwsim.resolve_scenario(name).base.serves
    result = hwsim.whatif(name, settings={} if serves else PINS)
    assert result.holds, [verdict for verdict in result.verdicts if not verdict.holds]
    assert result.base.fits
    json.dumps(result.to_dict(), allow_nan=True)
    assert len(result.loaded.scenario.question) > 40
    for outcome in result.outcomes:
        assert set(outcome.measures) <= set(MEASURES)


def test_there_are_ten_and_more_and_their_headers_say_how_to_run_them() -> None:
    names = shipped_scenarios()
    assert len(names) >= 10
    for name in names:
        first = scenario_path(name).read_text(encoding="utf-8").splitlines()[0]
        assert first.startswith(f"# Run:  hwsim whatif scenarios/{name}.yaml")


def test_the_template_is_a_scenario_that_runs(tmp_path: Path) -> None:
    result = hwsim.whatif(written(tmp_path, hwsim.scenario_template()))
    assert result.holds
    assert result.swept is not None


def test_the_schema_describes_every_shipped_file() -> None:
    import jsonschema

    from hwsim.specs.reading import read_yaml

    schema = hwsim.scenario_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    for folder in SHIPPED:
        for path in folder.glob("*.yaml"):
            assert not list(check.iter_errors(read_yaml(path).data)), path
    assert list(check.iter_errors({"title": "t", "base": {"model": "gpt2"}, "scenarioz": {}}))
    assert list(check.iter_errors({"title": "t", "base": {"model": "gpt2", "task": "fly"}}))
    assert list(check.iter_errors({"title": "t", "base": {}}))


def test_ten_thousand_machines_are_one_sweep() -> None:
    swept = hwsim.whatif("network-or-memory").swept
    assert swept is not None
    assert swept.grid.points == 10_000
    assert np.all(swept.fits)
    field = swept.measures["days"].reshape(100, 100)
    assert np.all(np.diff(field, axis=0) <= 0)
    assert np.all(np.diff(field, axis=1) <= 0)


# --- what an unkind user tries


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ("{job.seq_len: [0, 128]}", "seq_len"),
        ("{job.seq_len: [.nan, 128]}", "seq_len"),
        ("{job.seq_len: [[1, 2], {a: 1}]}", "seq_len"),
        ("{job.seq_len: {from: 1, to: .nan, step: 3}}", "finite"),
        ("{job.seq_len: {from: -1e308, to: 1e308, points: 3}}", "finite"),
        ("{tokens: [1T, -1]}", "tokens"),
        ("{gpus: ['1e400']}", "gpus"),
        ("{gpus: [x]}", "gpus"),
        ("{model: [gpt2, gtp3]}", "gtp3"),
        ("{model: [../../x.yaml]}", "outside"),
        ("{model: [/etc/passwd]}", "outside"),
        ("{strategy.tp: [1, -1]}", "tp"),
        ("{strategy.zero: [4]}", "zero"),
        ("{strategy.recompute: [none, banana]}", "banana"),
        ("{job.precision: [bf16, zz]}", "zz"),
        ("{grid: [france, nope]}", "nope"),
        ("{scenario: {times: [1]}}", "scenario"),
        ("{accelerator.memory.bandwidth: {times: [1]}, accelerator.memory: {times: [2]}}", "both change"),
    ],
)
def test_wrong_values_of_a_sweep_are_refused_before_any_work_with_their_line(
    tmp_path: Path, axes: str, said: str
) -> None:
    base = "title: t\nbase: {model: gpt2, hardware: a100-sxm-80, gpus: 8, job.global_batch: 64, strategy.tp: 1}\n"
    path = written(tmp_path, f"{base}sweep:\n  axes: {axes}\n")
    with pytest.raises(InputFileError, match=r"s\.yaml:[34]: ") as error:
        hwsim.resolve_scenario(path)
    assert said in str(error.value)


def test_points_without_an_answer_say_why() -> None:
    base = {**FIXED, "model": "gpt2"}
    rows = hwsim.whatif(asked(base=base, sweep={"axes": {"job.seq_len": [128, 4096]}})).swept.rows()  # type: ignore[union-attr]
    assert [row["fits"] for row in rows] == [True, False]
    assert rows[0]["infeasible"] is None
    assert "positions" in rows[1]["infeasible"]


def test_scenarios_that_double_at_every_level_are_no_hang() -> None:
    scenarios = {"s0": ["e"], **{f"s{i}": [f"s{i - 1}"] * 50 for i in range(1, 14)}}
    with pytest.raises(HwsimError, match="more than 200 overrides"):
        hwsim.resolve_scenario(asked(overrides={"e": {}}, scenarios=scenarios))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1e400", 10**400])
def test_a_bound_is_a_finite_number(value: Any) -> None:
    with pytest.raises(InputFileError, match="finite"):
        hwsim.resolve_scenario(asked(expect=[{"what": "step_time", "at_most": value}]))


def test_names_and_titles_are_no_markup(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from hwsim.cli.app import run

    path = written(
        tmp_path,
        "title: '[/bold] :100: \u202e'\nbase: {model: gpt2, gpus: 1, strategy.tp: 1}\n"
        "overrides: {a: {gpus: 2}}\nscenarios: {'[/bold]x[red]': [a]}\n",
    )
    for more in ([], ["--resolved"]):
        assert run(["whatif", str(path), *more], debug=True) == 0
        out = capsys.readouterr().out
        assert "[/bold]x[red]" in out
        assert "\u202e" not in out


def test_a_spec_inside_a_file_is_wrong_on_a_line_of_that_file(tmp_path: Path) -> None:
    path = written(tmp_path, "title: t\nbase:\n  model: {layers: 2}\n")
    with pytest.raises(InputFileError, match=r"s\.yaml:3: hidden: missing"):
        hwsim.resolve_scenario(path)


def test_a_price_that_is_set_goes_before_the_book() -> None:
    base = {**FIXED, "accelerator.price.rent": "5 USD/h", "accelerator.price.purchase": "1 USD"}
    given, plain = (hwsim.whatif(asked(base=each)).base for each in (base, FIXED))
    assert given.bill is not None
    hours = given.bill.device_hours.expected
    assert given.measures["cost"] == pytest.approx(5.0 * hours)
    assert given.measures["owned_cost"] < plain.measures["owned_cost"]
    assert given.bill.sources["rent_usd"].startswith("given")
    sweep = {"axes": {"accelerator.price.rent": ["5 USD/h", "0 USD/h"]}}
    swept = hwsim.whatif(asked(base=FIXED, sweep=sweep)).swept
    assert swept is not None
    assert list(swept.measures["cost"]) == pytest.approx([5.0 * hours, 0.0])


def test_a_multiple_is_of_what_the_base_set() -> None:
    base = {**BASE, "accelerator.price.rent": "5 USD/h", "accelerator.memory.bandwidth": {"times": 2}}
    turned = {"gpus": {"times": 2}, "accelerator.price.rent": {"times": 2}}
    turned |= {"accelerator.memory.bandwidth": {"times": 3}}
    fields = (
        hwsim.resolve_scenario(asked(base=base, overrides={"x": turned}, scenarios={"s": ["x"]})).question("s").fields
    )
    assert fields["gpus"] == 16
    assert fields["accelerator.price.rent"] == "10 USD/h"
    assert fields["accelerator.memory.bandwidth"] == "20.1 TB/s"


def test_nothing_in_the_base_is_no_infinite_change() -> None:
    base = {**FIXED, "accelerator.price.rent": "0 USD/h"}
    changed = {"a": {"accelerator.price.rent": "1 USD/h"}}
    result = hwsim.whatif(asked(base=base, overrides=changed, scenarios={"s": ["a"]}))
    cost = next(each for each in result.changes["s"] if each.measure.name == "cost")
    assert (cost.shown, cost.reason) == ("from nothing", "nothing in the base")


def test_a_budget_by_a_scaling_law_is_one_of_a_given_strategy_too() -> None:
    base = {**FIXED, "tokens": "optimal"}
    result = hwsim.whatif(asked(base=base, sweep={"axes": {"accelerator.memory.bandwidth": {"times": [1.0]}}}))
    assert result.swept is not None
    assert 0 < result.base.measures["days"] == pytest.approx(result.swept.measures["days"][0])
    assert result.base.measures["cost"] == pytest.approx(result.swept.measures["cost"][0])


def test_a_setting_may_be_a_mapping(tmp_path: Path) -> None:
    from hwsim.scenario_api import settings_of

    settings = settings_of(["accelerator.memory.bandwidth={times: 2}", "gpus=16"])
    assert settings == {"accelerator.memory.bandwidth": {"times": 2}, "gpus": 16}
    assert hwsim.resolve_scenario(asked(), settings).base.fields["accelerator.memory.bandwidth"] == "6.7 TB/s"
    with pytest.raises(HwsimError, match="profile folder"):
        hwsim.resolve_scenario(asked(), profiles=tmp_path / "none")
