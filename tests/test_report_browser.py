"""The report as Chromium shows it; skipped where there is none."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile

import browser
import demo_report
import numpy as np
import pytest

from hwsim.report.assets import write_report

pytestmark = pytest.mark.skipif(not (browser.CHROMIUM and browser.DRIVER), reason="no Chromium with its driver")

OVERFLOW = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
CLIPPED = """
const found = [];
document.querySelectorAll("svg").forEach(function (svg) {
  const frame = svg.getBoundingClientRect();
  svg.querySelectorAll("text").forEach(function (text) {
    const box = text.getBoundingClientRect();
    const across = Math.max(frame.left - box.left, box.right - frame.right);
    const out = Math.max(across, frame.top - box.top, box.bottom - frame.bottom);
    if (out > 3) found.push([svg.getAttribute("aria-labelledby"), text.textContent, out]);
  });
});
return found;
"""
CUT = """
return Array.from(document.querySelectorAll(".scroll, pre"))
  .filter(box => box.offsetParent && (box.scrollWidth > box.clientWidth + 1))
  .map(box => [box.getAttribute("aria-labelledby"), box.scrollWidth, box.clientWidth]);
"""
AXE = """
const done = arguments[arguments.length - 1];
axe.run(document, {resultTypes: ["violations"]}).then(function (found) {
  done(found.violations.map(v => [v.id, v.help, v.nodes.slice(0, 3).map(n => n.html.slice(0, 200))]));
}).catch(function (error) { done([String(error)]); });
"""
PAPER = 703
"""Pixels across A4 between the margins of the page."""


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("report") / "demo.html"
    write_report(demo_report.demo(), path)
    return path.as_uri()


@pytest.fixture(scope="module")
def window():
    opened = browser.Browser()
    yield opened
    opened.close()


def pixels(picture: bytes):
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_it_is_seen_whole_by_day_and_by_night(window, url, width, scheme):
    window.open(url, width, scheme)
    assert window.run(OVERFLOW) <= 0
    assert window.run(CLIPPED) == []
    for place in ("main", "figure-memory", "figure-roofline"):
        window.run(f"document.getElementById('{place}').scrollIntoView({{behavior: 'instant'}})")
        shown = pixels(window.picture())
        assert shown.shape[1] == width
        paper = np.bincount((shown @ np.array([65536, 256, 1])).ravel()).argmax() >> 16
        assert (paper > 200) if scheme == "light" else (paper < 60)
        assert 0.005 < (np.abs(shown - shown[2, 2]).sum(axis=2) > 60).mean() < 0.7, place


def test_it_is_silent_and_asks_the_network_for_nothing(window, url):
    window.log("performance")
    window.log("browser")
    window.open(url)
    window.wait_for("const done = arguments[arguments.length - 1]; setTimeout(() => done(1), 300)")
    assert window.log("browser") == []
    asked = [entry["message"] for entry in window.log("performance") if "Network.requestWillBeSent" in entry["message"]]
    addresses = {found for message in asked for found in re.findall(r'"url":"([^"]{1,60})', message)}
    assert addresses
    assert all(address.startswith(("file:", "data:")) for address in addresses), addresses


def test_tables_sort_by_value_and_by_text(window, url):
    window.open(url)
    table = "document.querySelector('#section-2 table')"
    column = f"Array.from({table}.tBodies[0].rows, row => row.cells[PLACE].textContent)"
    heads = f"Array.from({table}.tHead.rows[0].cells)"
    press = (
        f"{heads}[PLACE].querySelector('button').click(); return [{column}, {heads}[PLACE].getAttribute('aria-sort')]"
    )
    memory, energy = press.replace("PLACE", "4"), press.replace("PLACE", "7")
    assert window.run(memory) == [["58 GiB", "67.7 GiB", "96 GiB"], "ascending"]
    assert window.run(memory) == [["96 GiB", "67.7 GiB", "58 GiB"], "descending"]
    assert window.run(energy)[0][-1] == "n/a"
    assert window.run(energy)[0][-1] == "n/a"
    assert window.run(f"return {heads}.filter(head => head.hasAttribute('aria-sort')).length") == 1


def test_it_prints_on_a4_with_nothing_cut(window, url):
    window.open(url, PAPER, "dark", "print")
    assert window.run(OVERFLOW) <= 0
    assert window.run(CUT) == []
    assert window.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    printed = window.paper()
    boxes = set(re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", printed))
    assert {(round(float(w)), round(float(h))) for w, h in boxes} == {(595, 842)} or not boxes
    assert printed.startswith(b"%PDF")
    assert len(printed) > 50_000


@pytest.fixture(scope="module")
def axe(request) -> str:
    """The text of axe-core, kept in the cache of the tests, never in the repository."""
    folder = request.config.cache.mkdir("axe-core")
    if not list(folder.glob("*.tgz")):
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("no npm to fetch axe-core with")
        try:
            subprocess.run([npm, "pack", "axe-core@4"], cwd=folder, check=True, capture_output=True, timeout=60)
        except (subprocess.SubprocessError, OSError):
            pytest.skip("axe-core cannot be fetched")
    with tarfile.open(next(iter(folder.glob("*.tgz")))) as archive:
        return archive.extractfile("package/axe.min.js").read().decode()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (400, "light")])
def test_axe_finds_nothing(window, url, axe, width, scheme):
    window.open(url, width, scheme)
    window.devtools("Runtime.evaluate", expression=axe)
    window.run("document.querySelectorAll('details').forEach((part, i) => { part.open = i < 2; })")
    assert window.wait_for(AXE) == []
