"""The model presets: every file valid, every alias to a preset, every parameter count that of the reference class."""

import csv
from pathlib import Path

import pytest

import hwsim
from hwsim import specs
from hwsim.specs.files import read_yaml, validate
from hwsim.specs.model import Model

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
    assert hwsim.count_parameters(preset).total == COUNTS[preset]
