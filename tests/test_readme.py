"""The README shows real output: every console block is run and compared, every Python block is a doctest."""

import doctest
import re
import shlex
from pathlib import Path

import pytest

from hwsim.cli.app import run

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```console\n\$ (.*?)\n(.*?)\n```", README, flags=re.DOTALL)
TIMING = re.compile(r"in [\d.]+ (ms|s|us)\b")


@pytest.mark.parametrize(("command", "shown"), BLOCKS, ids=[command for command, _ in BLOCKS])
def test_console_block_is_what_the_command_prints(command, shown, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    run(shlex.split(command)[1:], debug=False)
    out, err = capsys.readouterr()
    printed = TIMING.sub("in a moment", (out + err).rstrip("\n")).split("\n")
    expected = TIMING.sub("in a moment", shown).split("\n")
    if expected[-1] == "...":
        expected = expected[:-1]
        printed = printed[: len(expected)]
    assert printed == expected


def test_every_command_is_shown():
    for name in ("plan", "estimate train", "explain", "models list", "models show", "models check",
                 "hardware list", "hardware show", "hardware check"):  # fmt: skip
        assert any(command.startswith(f"hwsim {name}") for command, _ in BLOCKS), name


def test_python_blocks_run():
    results = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert results.attempted >= 8
    assert results.failed == 0
