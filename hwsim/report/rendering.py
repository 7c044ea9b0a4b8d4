"""Figures as SVG for a page, and as SVG and PNG files."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from hwsim.report.style import LARGE, LIGHT, NORMAL, SCREEN, SMALL, Theme, as_variables, clean, fit

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas
    from matplotlib.transforms import BboxBase

    from hwsim.report.document import Figure

DPI = 200
FACE = "&#x27;DejaVu Sans&#x27;"
FONT = re.compile("font-family: [^;]*;? ?")
"""In a page, its own font is used: narrower than the one that places were worked out with."""
TITLE_WIDTHS = (13.0, 11.0, 9.0, 7.0, 5.0)
"""Characters of a title per inch, as letters are narrow or wide."""


@contextmanager
def house_style(theme: Theme) -> Iterator[None]:
    """Matplotlib's settings for one figure, whatever the caller's own are."""
    import matplotlib as mpl

    settings = {
        "font.family": "DejaVu Sans", "font.size": NORMAL, "axes.labelsize": NORMAL, "axes.titlesize": NORMAL,
        "xtick.labelsize": SMALL, "ytick.labelsize": SMALL, "text.color": theme.ink, "axes.labelcolor": theme.muted,
        "xtick.color": theme.muted, "ytick.color": theme.muted, "axes.edgecolor": theme.muted, "grid.color": theme.grid,
        "axes.facecolor": "none", "figure.facecolor": "none", "axes.spines.top": False, "axes.spines.right": False,
        "axes.axisbelow": True, "axes.linewidth": 0.7, "grid.linewidth": 0.7, "xtick.major.width": 0.7,
        "ytick.major.size": 0, "legend.frameon": False, "legend.fontsize": SMALL, "lines.linewidth": 1.8,
        "svg.fonttype": "none", "svg.hashsalt": "hwsim", "text.parse_math": False,
        "hatch.color": theme.muted, "path.simplify": True,
    }  # fmt: skip
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(settings)  # type: ignore[arg-type]
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


def drawn(figure: Figure, theme: Theme, titled: bool) -> Canvas:
    """A figure laid out on a canvas of its size, with its title above if it is to stand alone."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    width, height = figure.size
    canvas = Canvas(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(canvas)
    if titled:
        _set_title(canvas, figure.title)
    figure.draw(canvas, theme)
    return canvas


def _set_title(canvas: Canvas, text: str) -> None:
    """The finding above the picture, in at most two lines as wide as it, on room of their own."""
    width, height = canvas.get_size_inches()
    for letters in TITLE_WIDTHS:
        title = canvas.suptitle(fit(text, int(width * letters), 2), x=0.01, ha="left", fontsize=LARGE, weight="bold")
        if title.get_window_extent().x1 <= 0.99 * width * canvas.dpi:
            break
    canvas.set_size_inches(width, height + 0.1 + 0.17 * (1 + title.get_text().count("\n")))


def text_boxes(canvas: Canvas) -> list[tuple[str, BboxBase]]:
    """Every text that is seen, and where it is, in pixels; for checks that none leaves the canvas or covers another."""
    from matplotlib.text import Text

    canvas.draw_without_rendering()
    texts = [text for text in canvas.findobj(Text) if isinstance(text, Text) and text.get_visible() and text.get_text()]
    found = [(text.get_text(), Text.get_window_extent(text)) for text in texts if _seen(text)]
    return list(dict.fromkeys(found))


def _seen(text: object) -> bool:
    """Whether a text is drawn: ticks outside the limits of their axis are not."""
    from matplotlib.axis import Axis

    axes = getattr(text, "axes", None)
    if axes is None:
        return True
    for axis in (axes.xaxis, axes.yaxis):
        ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()] if isinstance(axis, Axis) else []
        for tick in ticks:
            if text in (tick.label1, tick.label2):
                low, high = sorted(axis.get_view_interval())
                inside = low - 1e-9 * abs(low) <= tick.get_loc() <= high + 1e-9 * abs(high)
                return bool(inside and axes.axison)
    return True


def png(figure: Figure, theme: Theme = LIGHT) -> bytes:
    """A figure as a picture that stands alone."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    target = io.BytesIO()
    with house_style(theme):
        canvas = drawn(figure, theme, True)
        canvas.set_facecolor(theme.paper)
        canvas.set_dpi(DPI)
        FigureCanvasAgg(canvas).print_png(target, metadata={"Software": None})  # type: ignore[no-untyped-call]
    return target.getvalue()


def svg(figure: Figure, theme: Theme = LIGHT) -> str:
    """A figure as an SVG file that stands alone."""
    root = _tree(figure, theme, True)
    _name_parts(root, figure)
    width, height = root.attrib["viewBox"].split()[2:]
    head = {"xmlns": "http://www.w3.org/2000/svg", "width": f"{width}pt", "height": f"{height}pt"}
    root.attrib.update(head)
    _describe(root, figure)
    text = _markup(root).replace(FACE, f"{FACE}, Verdana, sans-serif")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def inline_svg(figure: Figure) -> str:
    """A figure as part of a page: its colours are the page's variables, its ids begin with its name."""
    root = _tree(figure, SCREEN, False)
    _name_parts(root, figure)
    _describe(root, figure)
    for element in root.iter():
        if "style" in element.attrib:
            element.set("style", FONT.sub("", as_variables(element.attrib["style"])).removesuffix("; "))
    return _markup(root)


def _tree(figure: Figure, theme: Theme, titled: bool) -> ElementTree.Element:
    """The SVG without its preamble, metadata, name spaces and size."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    target = io.StringIO()
    with house_style(theme):
        canvas = drawn(figure, theme, titled)
        canvas.set_facecolor(theme.paper if titled else "none")
        write = FigureCanvasSVG(canvas).print_svg  # draws once, where savefig draws twice
        write(target, metadata={"Date": None, "Creator": None})  # type: ignore[no-untyped-call]
    root = ElementTree.fromstring(target.getvalue())
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for name in [name for name in element.attrib if "}" in name]:
            element.set(name.rpartition("}")[2], element.attrib.pop(name))
    for parent in root.iter():
        for child in [child for child in parent if child.tag == "metadata"]:
            parent.remove(child)
    for element in root.iter("image"):
        element.set("href", "".join(element.get("href", "").split()))
    for element in root.iter("text"):
        if element.get("transform", "").startswith("rotate(-0 "):
            del element.attrib["transform"]
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    return root


def _name_parts(root: ElementTree.Element, figure: Figure) -> None:
    """Keep the ids that are referred to, under the figure's name; put hover text on the marks."""
    used = {part for element in root.iter() for part in _references(element)}
    for element in root.iter():
        own = element.attrib.pop("id", "")
        if own in used:
            element.set("id", f"{figure.name}-{own}")
        if own.startswith("mark-") and int(own[5:]) < len(figure.hover):
            title = ElementTree.Element("title")
            title.text = clean(figure.hover[int(own[5:])])
            element.insert(0, title)
            element.set("class", "mark")
        for name, value in element.attrib.items():
            if name == "href" and value.startswith("#"):
                element.set(name, f"#{figure.name}-{value[1:]}")
            elif "url(#" in value:
                element.set(name, value.replace("url(#", f"url(#{figure.name}-"))


def _references(element: ElementTree.Element) -> Iterator[str]:
    for name, value in element.attrib.items():
        if name == "href" and value.startswith("#"):
            yield value[1:]
        elif "url(#" in value:
            yield from (part.partition(")")[0] for part in value.split("url(#")[1:])


def _describe(root: ElementTree.Element, figure: Figure) -> None:
    """Name and description for those who hear the page."""
    for place, (tag, text) in enumerate((("title", figure.title), ("desc", figure.alt))):
        element = ElementTree.Element(tag, {"id": f"{figure.name}-{tag}"})
        element.text = clean(text)
        root.insert(place, element)
    root.attrib.update({"role": "img", "aria-labelledby": f"{figure.name}-title {figure.name}-desc"})


def _markup(element: ElementTree.Element) -> str:
    """An element as text that both XML and HTML parsers read alike."""
    parts: list[str] = []
    _write(element, parts.append)
    return "".join(parts)


def _write(element: ElementTree.Element, put: Callable[[str], None]) -> None:
    values = "".join(f' {name}="{escape(value.strip())}"' for name, value in element.attrib.items())
    put(f"<{element.tag}{values}>")
    put(escape(element.text or "", quote=False) if (element.text or "").strip() else "")
    for child in element:
        _write(child, put)
        put(escape(child.tail or "", quote=False) if (child.tail or "").strip() else "")
    put(f"</{element.tag}>")
