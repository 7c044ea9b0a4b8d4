"""What reports of served models share: how near predictions of serving have been to published runs."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

from hwsim.report.document import Cell, Column, Paragraph, Section, Table
from hwsim.specs.library import DATA
from hwsim.validation.serving import serving_facts

if TYPE_CHECKING:
    from hwsim.analytic.serving import Served

SCORES = DATA / "validation" / "serving_scores.csv"


def accuracy_section(served: Served) -> Section:
    """The tables of the serving scoreboard: how far predictions were off, and how many figures are of this device."""
    device, facts = served.hardware.accelerator.name, serving_facts()
    rows: list[tuple[Cell | str, ...]] = []
    with SCORES.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            here = sum(fact.group == row["group"] and fact.hardware == device for fact in facts)
            shares = (float(row[name]) for name in ("mean", "median"))
            bias = float(row["bias"])
            rows.append(
                (
                    row["group"].removeprefix("Serving").strip(", "), Cell(f"{int(row['rows']):,}", float(row["rows"])),
                    Cell(f"{here:,}", float(here)), *(Cell(f"{share:.1%}", share) for share in shares),
                    Cell(f"{bias:+.1%}".replace("-", "−"), bias),
                )
            )  # fmt: skip
    numbers = ("published figures", "of this device", "mean error", "median error", "bias")
    columns = (Column("what is predicted"), *(Column(name, kind="number") for name in numbers))
    here = sum(fact.hardware == device for fact in facts)
    said = (
        f"Of {len(facts):,} published figures of served models {here:,} are of {device}. Its kernel curves are "
        f"{served.hardware.accelerator.kernels.status}. Constants of engines were chosen on such runs: no figure "
        "out of sample is claimed."
    )
    notes = (
        "Mean: of groups of one source, model and device, each by its median. Bias above 0: predicted slower than "
        "published.",
    )
    table = Table("Predictions of serving against published measurements", columns, tuple(rows), notes)
    text = Paragraph("hwsim validate published --group serving prints every row, predicted and published.")
    return Section("How accurate predictions like this have been", (table, text), said)
