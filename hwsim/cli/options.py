"""Flags that several commands share, and completion of names."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer


class Format(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def complete_models(incomplete: str) -> list[str]:
    """Names of models that begin so."""
    from hwsim.specs.library import MODELS, aliases, names

    return [name for name in (*names(MODELS), *aliases()) if name.startswith(incomplete.lower())]


def complete_hardware(incomplete: str) -> list[str]:
    """Names of accelerators and clusters that begin so."""
    from hwsim.specs.library import ACCELERATORS, CLUSTERS, names

    return [name for kind in (ACCELERATORS, CLUSTERS) for name in names(kind) if name.startswith(incomplete.lower())]


def complete_scenarios(incomplete: str) -> list[str]:
    """Names of shipped scenarios that begin so."""
    from hwsim.scenario_api import shipped_scenarios

    return [name for name in shipped_scenarios() if name.startswith(incomplete)]


def count(flag: str, text: str | None) -> float | None:
    """Read 15T, 300B, 1.5e12 as a number."""
    from hwsim.errors import UsageError
    from hwsim.units import parse

    if text is None:
        return None
    try:
        return parse(text, "count")
    except ValueError as error:
        msg = f"{flag}: {error}"
        raise UsageError(msg) from None


WORK, MACHINE, JOB, OUTPUT = "Model and machine", "Strategy", "Job", "Output"

_MODEL = typer.Option(
    "--model",
    "-m",
    help="Preset, alias, model YAML, or Hugging Face config.json.",
    autocompletion=complete_models,
    rich_help_panel=WORK,
)
_HARDWARE = typer.Option(
    "--hardware",
    help="Accelerator or cluster preset, or a YAML.",
    autocompletion=complete_hardware,
    rich_help_panel=WORK,
)
ModelFlag = Annotated[str, _MODEL]
MaybeModelFlag = Annotated[str | None, _MODEL]
HardwareFlag = Annotated[str, _HARDWARE]
MaybeHardwareFlag = Annotated[str | None, _HARDWARE]
HardwaresFlag = Annotated[
    list[str],
    typer.Option(
        "--hardware",
        help="Accelerator or cluster preset, or a YAML. Repeatable: compared.",
        autocompletion=complete_hardware,
        rich_help_panel=WORK,
    ),
]
GpusFlag = Annotated[
    int, typer.Option("--gpus", "--devices", "--chips", help="How many devices.", rich_help_panel=WORK)
]
SetFlag = Annotated[
    list[str],
    typer.Option(
        "--set",
        help='Override a field: accelerator.memory.bandwidth="4 TB/s", model.layers=40. Repeatable.',
        rich_help_panel=WORK,
    ),
]
ProfilesFlag = Annotated[
    str | None, typer.Option("--profiles", help="Folder of hardware profiles to look in first.", rich_help_panel=WORK)
]
FrameworkFlag = Annotated[
    str | None, typer.Option("--framework", help="Training software assumed: megatron, ...", rich_help_panel=JOB)
]
PrecisionFlag = Annotated[
    str | None, typer.Option("--precision", help="Format: fp32 tf32 bf16 fp16 fp8 fp4 int8.", rich_help_panel=JOB)
]
BatchFlag = Annotated[
    int | None,
    typer.Option(
        "--global-batch", help="Sequences per optimizer step (default: about 4 Mi tokens).", rich_help_panel=JOB
    ),
]
SeqFlag = Annotated[
    int | None,
    typer.Option("--seq-len", help="Tokens per sequence (default: 8192 or the model's).", rich_help_panel=JOB),
]
AttentionFlag = Annotated[str | None, typer.Option("--attention", help="flash or unfused.", rich_help_panel=JOB)]
OptimizerFlag = Annotated[
    str | None,
    typer.Option("--optimizer", help="adam, adam8bit, adafactor, muon, momentum or sgd.", rich_help_panel=JOB),
]
MethodFlag = Annotated[
    str | None, typer.Option("--method", help="What is trained: full, lora or qlora.", rich_help_panel=JOB)
]
RankFlag = Annotated[int | None, typer.Option("--rank", help="Of the adapters (default: 16).", rich_help_panel=JOB)]
FrozenFlag = Annotated[
    str | None, typer.Option("--frozen", help="Stacks that are not trained: vision,encoder.", rich_help_panel=JOB)
]
OffloadFlag = Annotated[
    str | None,
    typer.Option("--offload", help="Kept in the host's memory: optimizer,activations,weights.", rich_help_panel=JOB),
]
SourceFlag = Annotated[
    int | None, typer.Option("--source-len", help="Tokens an encoder reads per sequence.", rich_help_panel=JOB)
]
ImagesFlag = Annotated[
    float | None,
    typer.Option("--images", help="Images per sequence (default: 1), or request (none).", rich_help_panel=JOB),
]
ImbalanceFlag = Annotated[
    float | None,
    typer.Option("--imbalance", help="Tokens of the busiest device's experts over the mean.", rich_help_panel=JOB),
]
CapacityFlag = Annotated[
    float | None,
    typer.Option("--capacity", help="Capacity factor of experts (default: dropless).", rich_help_panel=JOB),
]
GraphsFlag = Annotated[
    bool | None, typer.Option("--graphs/--no-graphs", help="Launch kernels from CUDA graphs.", rich_help_panel=JOB)
]
ReportFlag = Annotated[
    str | None,
    typer.Option(
        "--report",
        help="Write a report: one page (.html) or Markdown (.md). In Python: hwsim.write_report.",
        rich_help_panel=OUTPUT,
    ),
]
AssetsFlag = Annotated[
    str | None,
    typer.Option("--assets", help="Folder for the report's figures as PNG, SVG and CSV.", rich_help_panel=OUTPUT),
]
ReportOutFlag = Annotated[
    str, typer.Option("-o", "--output", help="File to write: one page (.html) or Markdown (.md).",
                      rich_help_panel=OUTPUT)
]  # fmt: skip
FormatFlag = Annotated[Format, typer.Option("--format", help="How to print.", rich_help_panel=OUTPUT)]
JsonFlag = Annotated[bool, typer.Option("--json", help="Short for --format json.", rich_help_panel=OUTPUT)]
OutFlag = Annotated[
    str | None, typer.Option("-o", "--output", help="Write to a file instead of stdout (-).", rich_help_panel=OUTPUT)
]


def given(**values: Any) -> dict[str, Any]:
    """Keep the flags that were given."""
    return {name: value for name, value in values.items() if value is not None}
