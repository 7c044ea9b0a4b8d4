"""Reports: a page that is whole, safe, readable and the same every time, whatever the names in it."""

from __future__ import annotations

import io
import itertools
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import demo_report
import numpy as np
import pytest
from demo_report import HOSTILE, SCRIPT, SPEED

from hwsim.errors import UsageError
from hwsim.report import assets, figures
from hwsim.report.document import Cell, Document, Paragraph, Reproduce, Section
from hwsim.report.figures import Measure, Operator, Point, Range
from hwsim.report.html import to_html
from hwsim.report.markdown import plain, to_markdown
from hwsim.report.rendering import drawn, house_style, inline_svg, png, svg, text_boxes
from hwsim.report.style import DARK, LIGHT, SCREEN, clean, contrast, fit
from hwsim.report.writing import write_with

EMPTY = {"br", "meta", "img", "input", "link", "hr"}
ADDRESSES = {"href", "src", "xlink:href", "action", "srcset", "poster", "data", "formaction"}
CLEAN = demo_report.every_figure()
EVERY = (*CLEAN, *demo_report.hostile_figures())
NAMES = [figure.name for figure in EVERY]


class Page(HTMLParser):
    """Elements, their attributes and the text of a page, and whether its tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"{tag} has an attribute twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def values(self, name: str) -> list[str]:
        return [attributes[name] or "" for _, attributes in self.elements if name in attributes]


@pytest.fixture(scope="module")
def html() -> str:
    return to_html(demo_report.demo())


@pytest.fixture(scope="module")
def page(html) -> Page:
    return Page(html)


def small(*shown, title="Small") -> Document:
    return Document(title, "", ("Yes",), (Section("Only", shown),), Reproduce("hwsim plan"), {"hwsim": "0"})


def test_the_page_is_well_formed_and_its_ids_are_unique(page):
    assert not page.open
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    wanted = {part for name in ("aria-labelledby", "aria-describedby") for v in page.values(name) for part in v.split()}
    assert wanted <= set(ids)
    assert {v[1:] for v in page.values("href") if v.startswith("#")} <= set(ids)


def test_nothing_is_loaded_from_outside(html, page):
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert name not in ADDRESSES or value.startswith(("#", "data:")), (tag, name, value)
            assert not name.startswith("on"), (tag, name)
            assert "url(" not in value or "url(#" in value, (tag, name, value)
    style = "".join(text for tag, text in page.texts if tag == "style")
    assert "@import" not in style
    assert "url(" not in style
    assert "://" not in re.sub(re.escape("http://e.x/i.png"), "", html)
    policy = next(a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_hostile_text_is_inert(html, page):
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert not [tag for tag, _ in page.elements if tag in ("img", "iframe", "object", "embed", "link", "base", "b")]
    assert "<script>alert" not in html
    assert "".join(text for _, text in page.texts).count(SCRIPT) > 20
    assert not re.search("[\x00-\x08\x1b\u202e]", html)


def test_reading_aids(page):
    tags = [tag for tag, _ in page.elements]
    headings = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(headings))
    for landmark in ("header", "main", "nav", "footer"):
        assert tags.count(landmark) == 1
    assert tags.count("caption") == tags.count("table")
    assert all("scope" in a for tag, a in page.elements if tag == "th")
    assert tags.count("svg") == len(demo_report.demo().figures)
    assert all(a["role"] == "img" and a["aria-labelledby"] for tag, a in page.elements if tag == "svg")
    assert tags.count("desc") == tags.count("svg")
    first = next(a for tag, a in page.elements if tag == "a")
    assert first["href"] == "#main"


@pytest.mark.parametrize(("theme", "scheme"), [(LIGHT, "light"), (DARK, "dark")])
def test_text_contrasts_with_what_is_behind_it(html, theme, scheme):
    block = re.search(rf":root \{{ color-scheme: {scheme};(.*?)\}}", html).group(1)
    found = dict(re.findall(r"--([\w-]+): (#\w{6});", block))
    assert found == theme.variables()
    for text in ("ink", "muted", "accent", "good", "bad"):
        for behind in ("paper", "surface"):
            assert contrast(found[text], found[behind]) >= 4.5, (text, behind)
    for i in range(len(theme.series)):
        assert contrast(found[f"on-{i}"], found[f"series-{i}"]) >= 4.5, i


def test_figures_in_the_page_follow_its_colours(html):
    """Every colour in a figure is a variable, but those of a heat map's cells and their text."""
    styles = set(re.findall("#[0-9a-f]{6}", "".join(re.findall('style="([^"]*)"', html))))
    heat = inline_svg(next(figure for figure in CLEAN if figure.name == "heatmap"))
    assert styles <= set(re.findall("#[0-9a-f]{6}", heat))
    assert "#fade" not in html
    assert len(set(SCREEN.variables().values())) == len(SCREEN.variables())


def test_the_same_document_gives_the_same_bytes(html):
    for figure in CLEAN[1:3]:
        assert inline_svg(figure) in html
    code = (
        "import sys, demo_report\nfrom hwsim.report.html import to_html\nfrom test_report import small, CLEAN\n"
        "sys.stdout.buffer.write(to_html(small(CLEAN[3], demo_report.plan_table())).encode())"
    )
    elsewhere = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, cwd=Path(__file__).parent,
        env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "7"},
    )  # fmt: skip
    assert elsewhere.stdout == to_html(small(CLEAN[3], demo_report.plan_table())).encode()


def test_size(html):
    assert len(html.encode()) < 1_000_000


@pytest.mark.parametrize("figure", EVERY, ids=NAMES)
def test_texts_stay_inside_apart_and_have_units(figure):
    with house_style(LIGHT):
        canvas = drawn(figure, LIGHT, True)
        boxes = text_boxes(canvas)
        width, height = canvas.bbox.width, canvas.bbox.height
    assert figure not in CLEAN or not list(without_unit(canvas))
    assert len(boxes) > 3
    for text, box in boxes:
        assert box.x0 > -0.5, text
        assert box.y0 > -0.5, text
        assert box.x1 < width + 0.5, text
        assert box.y1 < height + 0.5, text
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        apart = min(a.x1, b.x1) - max(a.x0, b.x0) < 1 or min(a.y1, b.y1) - max(a.y0, b.y0) < 1
        assert apart, (one, other)


@pytest.mark.parametrize("figure", EVERY, ids=NAMES)
def test_every_figure_says_what_it_shows(figure):
    assert figure.title
    assert len(figure.alt) > 20
    assert figure.data
    assert not re.search(r"[1-9]\d*\.\d{3}|0\.0*[1-9]\d{3}", figure.alt), "more than three digits"


def without_unit(canvas):
    """Labels of axes that say no unit, neither in brackets nor at the ticks; counts and swept names need none."""
    for axes in canvas.axes:
        for axis in (axes.xaxis, axes.yaxis):
            label, ticks = axis.get_label_text(), [tick.get_text() for tick in axis.get_ticklabels()]
            if label and not re.search(r"\[.+\]|Devices|Nodes|Batch", label):
                yield from [] if any(re.search("[%a-zA-Z]", tick) for tick in ticks) else [label]


def degenerate():
    speed, none = SPEED, math.nan
    yield figures.memory_bars("a", "t", {}, 1.0)
    yield figures.memory_bars("a", "t", {"p": {}}, {"p": 5.0})
    yield figures.time_waterfall("a", "t", {})
    yield figures.time_waterfall("a", "t", {"one": 0.0})
    yield figures.time_waterfall("a", "t", {"work": 3.0, "hidden": -1.0})
    yield figures.traffic_bars("a", "t", {"tier": {"tensor": 0.0}})
    yield figures.roofline("a", "t", [], {"bf16": 1e15}, {"HBM": 1e12})
    yield figures.roofline("a", "t", [Operator("x", none, none, none)], {"a": 1e15, "b": 1e14}, {"c": 1e12, "d": 1e11})
    yield figures.pareto("a", "t", [], speed, speed)
    yield figures.pareto("a", "t", [Point("p", 1.0, 1.0, True, True)], speed, speed, log=(True, True))
    yield figures.pareto("a", "t", [Point(f"p{i}", i, i, i > 900) for i in range(1, 1000)], speed, speed)
    yield figures.tornado("a", "t", {}, "time")
    yield figures.tornado("a", "t", {"x": (0.0, none)}, "time")
    yield figures.ranges("a", "t", [Range("x", 0.0, 0.0, 0.0, Measure("Cost", "usd"))])
    yield figures.delta_bars("a", "t", {"same": 0.0}, "base", "cost", better="more")
    yield figures.scaling("a", "t", {"one": [(8, 1.0)], "none": []}, Measure("Devices"), speed)
    yield figures.sweep_lines("a", "t", {"x": [(0, 0.0), (1, none)], "y": []}, speed, speed)
    yield figures.sweep_heatmap("a", "t", ["1"], ["1"], [[7.0]], speed, ("x", "y"))
    big = [[float(i * j + 1) for i in range(60)] for j in range(50)]
    yield figures.sweep_heatmap(
        "a", "t", [str(i) for i in range(60)], [str(i) for i in range(50)], big, speed, ("x", "y")
    )
    yield figures.accuracy_strip("a", "t", {"none": []})
    yield figures.latency_cdf("a", "t", {"none": [], "one": [1.0]})


@pytest.mark.parametrize("figure", list(degenerate()))
def test_figures_of_little_or_much(figure):
    text = inline_svg(figure)
    ElementTree.fromstring(text)
    assert len(text) < 200_000


def test_pictures_are_not_blank_and_stand_alone():
    from PIL import Image

    for figure in (CLEAN[0], CLEAN[10]):
        pixels = np.asarray(Image.open(io.BytesIO(png(figure))).convert("RGB"))
        ink = (pixels != 255).any(axis=2)
        assert 0.02 < ink.mean() < 0.9, figure.name
        assert len(np.unique(pixels @ np.array([65536, 256, 1]))) > 20
        assert not ink[0].any()
        assert not ink[:, 0].any()
    text = svg(CLEAN[0])
    assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(" not in text


def test_hover_values_stand_on_their_marks():
    figure = CLEAN[0]
    root = ElementTree.fromstring(inline_svg(figure))
    titles = [mark.findtext("title") for mark in root.iter("g") if mark.get("class") == "mark"]
    assert titles == list(figure.hover)
    assert "tp 4 · pp 2 · dp 8: weights 16.4 GiB" in titles


def test_markdown_shows_text_as_it_is():
    from markdown_it import MarkdownIt

    text = to_markdown(demo_report.demo())
    shown = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)
    page = Page(shown)
    tags = [tag for tag, _ in page.elements]
    assert not {"script", "a", "img", "em", "del"} & set(tags)
    assert tags.count("table") == 2 + len(demo_report.demo().figures)
    words = "".join(text for _, text in page.texts)
    assert words.count(SCRIPT) > 20
    assert "x|y|z" in words
    assert "`code` $x_1$ **b**" in words
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) > 2 for row in rows)


def test_markdown_links_to_pictures_that_are_written(tmp_path):
    document = small(CLEAN[1], Paragraph("- no list\n\n1. none either"))
    written = assets.write_assets(document, tmp_path / "some where")
    assert sorted(path.name for path in written) == ["time.csv", "time.png", "time.svg"]
    assets.write_report(document, tmp_path / "a.md", assets=tmp_path / "some where")
    text = (tmp_path / "a.md").read_text(encoding="utf-8")
    assert "](some%20where/time.png)" in text
    assert "\\- no list" in text
    assert "1\\. none" in text
    lines = written[2].read_text(encoding="utf-8").splitlines()
    assert lines[0] == "part,Time [s]"
    assert len(lines) == 1 + len(CLEAN[1].data)


def test_spreadsheets_run_nothing():
    figure = figures.time_waterfall("a", "t", {"=1+1": 1.0, "@x": -2.0})
    assert assets.data_csv(figure) == "part,Time [s]\n'=1+1,1.0\n'@x,-2.0\n"


def test_an_interrupted_write_leaves_the_old_report(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def half(target):
        target.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_with(path, "--report", half)
    monkeypatch.setattr("hwsim.report.html.to_html", lambda _: half(tmp_path / "elsewhere"))
    with pytest.raises(KeyboardInterrupt):
        assets.write_report(small(), path)
    assert path.read_text() == "old"
    assert {entry.name for entry in tmp_path.iterdir()} == {"report.html", "elsewhere"}


def test_reports_are_written_by_suffix(tmp_path):
    for name, start in (("a.html", "<!DOCTYPE html>"), ("a.MD", "# Small")):
        assets.write_report(small(Paragraph("x")), tmp_path / name)
        assert (tmp_path / name).read_text(encoding="utf-8").startswith(start)
    with pytest.raises(UsageError, match=r"--report .*a\.pdf': a report ends in \.html or \.md"):
        assets.write_report(small(), tmp_path / "a.pdf")
    with pytest.raises(UsageError, match="--report"):
        assets.write_report(small(), tmp_path / "missing" / "a.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--assets"):
        assets.write_assets(small(CLEAN[1]), tmp_path / "file")


def test_names_of_figures_are_checked():
    with pytest.raises(ValueError, match="names of their own"):
        small(CLEAN[0], CLEAN[0])
    with pytest.raises(ValueError, match="names of their own"):
        small(figures.time_waterfall("../x", "t", {}))


def test_pieces_of_text():
    assert clean("".join(HOSTILE)).isprintable()
    assert plain("a\n|b|\t<i>") == "a \\|b\\| &lt;i&gt;"
    assert fit("x" * 100, 10, 2) == "x" * 10 + "\n" + "x" * 9 + "…"
    assert fit("", 10) == ""
    assert Cell.of(math.inf, "usd") == Cell("n/a")
    assert Cell.of(2048.0, "bytes") == Cell("2 KiB", 2048.0)


def test_a_document_needs_no_matplotlib():
    code = "import sys, demo_report; demo_report.demo(); print({'matplotlib', 'jinja2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          cwd=Path(__file__).parent, env={"PYTHONPATH": ":".join(sys.path)})  # fmt: skip
    assert done.stdout.strip() == "set()"
