"""The reports that are kept say what hwsim says today (`make reports` writes them anew)."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from hwsim.cli.app import run

ROOT = Path(__file__).parent.parent
KEPT = {
    "buy-h200-or-a100.html": ["buy-h200-or-a100"],
    "serve-h200-or-a100.html": ["serve-h200-or-a100"],
    "plan-70b-64-h100.html": ["--model", "70b", "--gpus", "64", "--tokens", "1T"],
}
UNSAID = {"svg", "script", "style"}
"""Pictures are drawn by whatever matplotlib there is; what they show stands in the tables below them."""


class Words(HTMLParser):
    """The text of a page without its pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.inside: list[str] = []
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in UNSAID:
            self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.inside and tag == self.inside[-1]:
            self.inside.pop()

    def handle_data(self, data: str) -> None:
        if not self.inside and data.strip():
            self.found.append(" ".join(data.split()))


def words(page: str) -> list[str]:
    """What a page says, up to how to get it again (which names files and versions)."""
    parser = Words()
    parser.feed(page)
    last = max(i for i, text in enumerate(parser.found) if text == "Reproduce")
    return parser.found[:last]


@pytest.mark.parametrize("name", KEPT)
def test_a_kept_report_is_what_is_said_today(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / name
    assert run(["report", *KEPT[name], "-o", str(target)], debug=False) == 0
    kept, made = ((folder / name).read_text(encoding="utf-8") for folder in (ROOT / "reports", tmp_path))
    assert words(made) == words(kept), "run `make reports`"
    assert len(kept.encode()) < 2 * 2**20
    assert not re.search(r"(?:src|href)=\"(?!#|data:)", kept)
