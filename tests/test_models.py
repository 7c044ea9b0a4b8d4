"""The model presets: every file valid, every alias to a preset, every parameter count that of the reference class."""

import csv
from pathlib import Path

import pytest

import hwsim
from hwsim import specs
from hwsim.errors import InputFileError
from hwsim.specs.files import validate
from hwsim.specs.library import load_model, split_settings
from hwsim.specs.model import Model
from hwsim.specs.reading import parse_yaml, read_yaml

DATA = Path(specs.__file__).parents[1] / "data"
PRESETS = sorted(path.stem for path in (DATA / "models").glob("*.yaml"))
with (Path(__file__).parent / "data" / "parameter_counts.csv").open(encoding="utf-8") as file:
    COUNTS = {row["preset"]: int(row["parameters"]) for row in csv.DictReader(file)}


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_is_valid_named_as_its_file_and_says_where_it_comes_from(preset):
    model = validate(Model, read_yaml(DATA / "models" / f"{preset}.yaml"))
    assert model.name == preset == preset.lower()
    assert model.title
    assert model.source


def test_every_alias_names_a_preset_and_is_none():
    aliases = read_yaml(DATA / "aliases.yaml").data
    assert set(aliases.values()) <= set(PRESETS)
    assert not set(aliases) & set(PRESETS)
    assert all(alias == alias.lower() for alias in aliases)


def test_every_preset_has_a_reference_count():
    assert sorted(COUNTS) == PRESETS


@pytest.mark.parametrize("preset", PRESETS)
def test_parameters_equal_those_of_the_reference_class(preset):
    model = load_model(preset).model_copy(update={"mtp_layers": 0})  # which the reference classes leave out
    assert hwsim.count_parameters(model).total == COUNTS[preset]


@pytest.mark.parametrize(
    ("reference", "setting"),
    [
        ({"layers": 4, "hidden": 250, "heads": 4}, []),
        ("gpt2", ["model.heads=5"]),
        (hwsim.load_model("gpt2"), ["model.heads=5"]),
    ],
)
def test_heads_that_do_not_divide_the_width_are_refused(reference, setting):
    with pytest.raises(InputFileError, match=r"heads \d must divide hidden \d+, or head_dim be given"):
        load_model(reference, split_settings(setting).get("model"))


def test_widths_that_follow_change_with_the_hidden_size():
    model = load_model("gpt2", split_settings("model.hidden=1536")["model"])
    assert (model.head_dim, model.ffn) == (128, 6144)
    assert load_model({"layers": 4, "hidden": 250, "heads": 4, "head_dim": 64}).head_dim == 64


def test_yaml_1_2_scalars():
    text = "a: [1, -2.5e3, .inf, true, null, ~, yes, 0x10, 1_000, 2026-01-01, '1', 4 TB/s]"
    expected = [1, -2500.0, float("inf"), True, None, None, "yes", "0x10", 1000, "2026-01-01", "1", "4 TB/s"]
    assert parse_yaml(text, "x").data["a"] == expected


def test_yaml_1_2_has_colons_in_braces():
    text = "name: x\nsource: {kind: measured, url: https://example.org/a:b}\npair: [x:y, 1]\n"
    found = parse_yaml(text, "x")
    assert found.data["source"] == {"kind": "measured", "url": "https://example.org/a:b"}
    assert found.data["pair"] == ["x:y", 1]
    assert (found.origin[("source", "url")], found.origin[("pair",)]) == ("x:2", "x:3")


def test_many_values_are_refused_before_they_take_long():
    with pytest.raises(InputFileError, match="more than 20,000 values"):
        parse_yaml("a: [" + "x," * 100_000 + "]", "x")


def test_a_model_extends_a_file_beside_it(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: gpt2\nname: mine\nlayers: 3\n")
    (tmp_path / "child.yaml").write_text("extends: mine.yaml\nheads: 6\n")
    model = load_model(tmp_path / "child.yaml")
    assert (model.name, model.layers, model.heads, model.hidden) == ("mine", 3, 6, 768)


@pytest.mark.parametrize(
    ("parent", "reason"),
    [("child", "round in a circle"), ("./child.yaml", "round in a circle"), ("gpt22", "did you mean gpt2")],
)
def test_extends_that_leads_nowhere_is_a_problem_of_the_file(tmp_path, parent, reason):
    path = tmp_path / "child.yaml"
    path.write_text(f"# mine\nextends: {parent}\n")
    with pytest.raises(InputFileError, match=rf"child.yaml:2: extends: .*{reason}"):
        load_model(path)


def test_a_dense_model_may_name_the_fields_of_experts():
    plain = {"layers": 2, "hidden": 64, "heads": 4}
    silent = {"experts": 0, "experts_per_token": None, "shared_experts": 0, "expert_ffn": None, "dense_layers": 0}
    assert hwsim.load_model(plain | silent) == hwsim.load_model(plain)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"experts": 4, "experts_per_token": 8}, "experts_per_token 8 is more than experts 4"),
        ({"shared_experts": 1}, "shared_experts need experts"),
        ({"experts": 4, "dense_layers": 2}, "dense_layers 2 leave none of 2"),
        (
            {"experts": 4, "dense_layers": 1, "expert_layers": 2},
            "expert_layers 2 are more than the 1 left for them",
        ),
        ({"window": 8, "window_layers": 3}, "window_layers 3 are more than layers 2"),
        ({"kv_rank": 16}, "latent attention needs kv_rank, rope_dim, nope_dim, v_dim"),
        ({"patch": 14}, "patch and image go together"),
        ({"norms": 1}, "norms: 1 needs parallel attention and MLP"),
        ({"encoder": {"layers": 2, "encoder": {"layers": 2}}}, "encoder: a decoder needs a head"),
        ({"vision": {"tower": {"layers": 2, "hidden": 32, "heads": 2}}}, "needs patch and image, in pixels"),
    ],
)
def test_contradictions_are_refused(fields, reason):
    with pytest.raises(InputFileError, match=reason):
        hwsim.load_model({"layers": 2, "hidden": 64, "heads": 4} | fields)


def test_an_encoder_takes_what_it_leaves_out_from_its_decoder():
    model = hwsim.load_model({"layers": 2, "hidden": 64, "heads": 4, "norm": "rmsnorm", "encoder": {"layers": 3}})
    encoder = model.encoder
    assert (encoder.layers, encoder.hidden, encoder.norm, encoder.qkv_bias) == (3, 64, "rmsnorm", False)
    assert not encoder.causal
    assert encoder.head == "none"
