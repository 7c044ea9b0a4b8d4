"""The questions everybody asks of a model, for people: in the terminal, and as a section of a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hwsim.report.document import Column, Section, Table

if TYPE_CHECKING:
    from hwsim.scenarios.faq import Faq


def faq_view(found: Faq) -> list[Any]:
    """Question, answer, and the formula behind it."""
    from rich.table import Table as Grid
    from rich.text import Text

    from hwsim.report.terminal import plain

    view: list[Any] = [f"[bold]{plain(found.model)} on {found.devices:,} × {plain(found.hardware)}[/bold]"]
    for item in found.items:
        lines = Grid.grid(padding=(0, 0, 0, 2))
        lines.add_column(overflow="fold")
        lines.add_row(Text(item.answer))
        for text in (item.formula, f"({item.source})"):
            lines.add_row(Text(text, style="dim"))
        view += ["", f"[bold]{item.question}[/bold]", lines]
    if found.serving.why_not:
        view += ["", f"Inference: {plain(found.serving.why_not)}"]
    return view


def faq_section(found: Faq) -> Section:
    """The same as a table."""
    columns = (Column("question"), Column("answer"), Column("how"), Column("source"))
    rows = tuple((item.question, item.answer, item.formula, item.source) for item in found.items)
    return Section(
        "Your questions answered", (Table(f"{found.model} on {found.devices:,} × {found.hardware}", columns, rows),)
    )
