"""A document as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hwsim.report.document import Block, Code, Document, Facts, Figure, Paragraph, Section, Table
from hwsim.report.html import as_cells, numbers, paragraphs
from hwsim.report.style import clean

SPECIAL = re.compile(r"([\\`*_\[\]|~#!$])")
LEADING = re.compile(r"^(\s*)([-+=>]|\d+(?=[.)](?:\s|$)))")
"""What begins a list, a heading's underline or a quotation."""


def to_markdown(document: Document, assets: str | None = None) -> str:
    """The document as Markdown; figures link into the folder `assets` or, without one, show their data."""
    lines = [f"# {plain(document.title)}", ""]
    lines += [plain(document.subtitle), ""] if document.subtitle else []
    for place, line in enumerate(document.answer):
        lines += [f"> {f'**{plain(line)}**' if not place else plain(line)}", ">"]
    lines[-1] = ""
    for section in document.sections:
        lines += _section(section, assets)
    lines += ["## Reproduce", "", *_code(Code(document.reproduce.command, "bash"))]
    lines += _code(Code(document.reproduce.python, "python")) if document.reproduce.python else []
    lines += _facts(Facts(tuple((name, str(value)) for name, value in document.provenance.items())))
    return "\n".join(lines).rstrip("\n") + "\n"


def plain(text: str) -> str:
    """Text on one line that Markdown and HTML show as it is.

    Examples
    --------
    >>> plain("<b> a|b `c`")
    '&lt;b&gt; a\\\\|b \\\\`c\\\\`'
    """
    text = " ".join(clean(text).split())
    text = SPECIAL.sub(r"\\\1", text.replace("&", "&amp;")).replace("<", "&lt;").replace(">", "&gt;")
    return LEADING.sub(_escaped_lead, text).replace("://", ":\u200b//").replace("www.", "www\u200b.")


def _escaped_lead(found: re.Match[str]) -> str:
    mark = found.group(2)
    return f"{mark}\\" if mark.isdigit() else f"\\{mark}"


def _section(section: Section, assets: str | None) -> Iterator[str]:
    yield from (f"## {plain(section.title)}", "")
    yield from (plain(section.lead), "") if section.lead else ()
    for block in section.blocks:
        yield from _block(block, assets)


def _block(block: Block, assets: str | None) -> Iterator[str]:
    if isinstance(block, Paragraph):
        for part in paragraphs(block.text):
            yield from (plain(part), "")
    elif isinstance(block, Facts):
        yield from _facts(block)
    elif isinstance(block, Table):
        yield from _table(block)
    elif isinstance(block, Code):
        yield from _code(block)
    else:
        yield from _figure(block, assets)


def _facts(facts: Facts) -> Iterator[str]:
    for name, value in facts.pairs:
        yield f"- **{plain(name) or '-'}**: {plain(value)}"
    yield ""


def _code(code: Code) -> Iterator[str]:
    """Code between fences longer than any in it."""
    text = clean(code.text)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    yield from (f"{fence}{re.sub('[^a-z]', '', code.language)}", text, fence, "")


def _figure(figure: Figure, assets: str | None) -> Iterator[str]:
    if assets is None:
        yield from (f"**{plain(figure.title)}**", "", plain(figure.alt), "")
        yield from _table(numbers(figure), captioned=False)
    else:
        yield from (f"**{plain(figure.title)}**", "", f"![{plain(figure.alt)}]({_link(assets)}/{figure.name}.png)", "")
    yield from (plain(figure.caption), "") if figure.caption else ()


def _link(folder: str) -> str:
    """A folder as the target of a link."""
    from urllib.parse import quote

    return quote(folder.replace("\\", "/").rstrip("/"))


def _table(table: Table, captioned: bool = True) -> Iterator[str]:
    yield from (f"**{plain(table.caption)}**", "") if captioned else ()
    heads = [plain(f"{column.name} [{column.unit}]" if column.unit else column.name) for column in table.columns]
    yield f"| {' | '.join(heads)} |"
    yield f"| {' | '.join('---:' if column.kind == 'number' else '---' for column in table.columns)} |"
    for row in table.rows:
        yield f"| {' | '.join(plain(cell.text) for cell in as_cells(row))} |"
    yield ""
    for note in table.notes:
        yield from (plain(note), "")
