"""`hwsim models` and `hwsim hardware`: list, show, check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from hwsim.cli import options as o
from hwsim.cli.output import emit

NameArgument = Annotated[str, typer.Argument(help="Preset, alias or file.")]
PathArgument = Annotated[str, typer.Argument(help="File to check.")]


@dataclass(frozen=True)
class Catalog:
    """The three commands of one kind of preset."""

    list: Callable[..., None]
    show: Callable[..., None]
    check: Callable[..., None]


def list_models(out: o.FormatFlag = o.Format.TABLE, as_json: o.JsonFlag = False, output: o.OutFlag = None) -> None:
    """List the model presets with their shapes and parameter counts. Example: hwsim models list"""
    from hwsim.report import catalog

    _emit_rows("models", catalog.model_rows(), catalog.MODEL_COLUMNS, (out, as_json, output))


def list_hardware(
    profiles: o.ProfilesFlag = None,
    out: o.FormatFlag = o.Format.TABLE,
    as_json: o.JsonFlag = False,
    output: o.OutFlag = None,
) -> None:
    """List the accelerators with what is measured, inherited or data sheet. Example: hwsim hardware list"""
    from hwsim.report import catalog

    _emit_rows("hardware", catalog.hardware_rows(profiles), catalog.HARDWARE_COLUMNS, (out, as_json, output))


def show_model(
    name: NameArgument, out: o.FormatFlag = o.Format.TABLE, as_json: o.JsonFlag = False, output: o.OutFlag = None
) -> None:
    """Show a model's shape and exact parameter counts. Example: hwsim models show 70b"""
    from hwsim.report import catalog
    from hwsim.report.terminal import plain

    values = catalog.model_values(name)
    title = f"[bold]{plain(values['title'] or values['name'])}[/bold] ({values['name']})"
    emit(lambda: values, lambda: [values], lambda: [title, catalog.sheet(values)], (out, as_json, output))


def show_hardware(
    name: NameArgument,
    profiles: o.ProfilesFlag = None,
    out: o.FormatFlag = o.Format.TABLE,
    as_json: o.JsonFlag = False,
    output: o.OutFlag = None,
) -> None:
    """Show every value of an accelerator or cluster with its unit and source.

    Example: hwsim hardware show h100-sxm-80
    """
    from hwsim.report import catalog

    files, rows = catalog.hardware_values(name, profiles)
    data = {"schema_version": 1, "name": name, "files": files, "values": rows}
    emit(lambda: data, lambda: rows, lambda: catalog.sourced_sheet(files, rows), (out, as_json, output))


def check_model(
    path: PathArgument, out: o.FormatFlag = o.Format.TABLE, as_json: o.JsonFlag = False, output: o.OutFlag = None
) -> None:
    """Check a model YAML or config.json. Example: hwsim models check ./config.json"""
    import hwsim

    model = hwsim.load_model(path)
    counts = hwsim.count_parameters(model)
    found = {"path": path, "ok": True, "name": model.name, "parameters": counts.total}
    _emit_check("model check", found, f"{counts.total:,} parameters", (out, as_json, output))


def check_hardware(
    path: PathArgument,
    profiles: o.ProfilesFlag = None,
    out: o.FormatFlag = o.Format.TABLE,
    as_json: o.JsonFlag = False,
    output: o.OutFlag = None,
) -> None:
    """Check a hardware YAML. Example: hwsim hardware check my-chip.yaml"""
    import hwsim

    machine = hwsim.load_hardware(path, profiles)
    device, cluster = machine.accelerator.name, machine.cluster.name
    found = {"path": path, "ok": True, "accelerator": device, "cluster": cluster}
    _emit_check("hardware check", found, f"accelerator {device} in cluster {cluster}", (out, as_json, output))


def _economy(kind: str, what: str, example: str) -> Catalog:
    """The three commands of grids, or of price books."""

    def list_all(
        profiles: o.ProfilesFlag = None,
        out: o.FormatFlag = o.Format.TABLE,
        as_json: o.JsonFlag = False,
        output: o.OutFlag = None,
    ) -> None:
        from hwsim.report import catalog

        rows = catalog.economy_rows(kind, profiles)
        _emit_rows(kind, rows, catalog.ECONOMY_COLUMNS[kind], (out, as_json, output))

    def show(
        name: NameArgument,
        profiles: o.ProfilesFlag = None,
        out: o.FormatFlag = o.Format.TABLE,
        as_json: o.JsonFlag = False,
        output: o.OutFlag = None,
    ) -> None:
        from hwsim.report import catalog

        files, rows = catalog.economy_values(kind, name, profiles)
        data = {"schema_version": 1, "name": name, "files": files, "values": rows}
        emit(lambda: data, lambda: rows, lambda: catalog.sourced_sheet(files, rows), (out, as_json, output))

    def check(
        path: PathArgument,
        profiles: o.ProfilesFlag = None,
        out: o.FormatFlag = o.Format.TABLE,
        as_json: o.JsonFlag = False,
        output: o.OutFlag = None,
    ) -> None:
        import hwsim

        spec = hwsim.load_grid(path, profiles) if kind == "grids" else hwsim.load_prices(path, profiles)
        _emit_check(f"{kind} check", {"path": path, "ok": True, "name": spec.name}, spec.name, (out, as_json, output))

    list_all.__doc__ = f"List every {what}. Example: hwsim {kind} list"
    show.__doc__ = f"Show every value of a {what} with its range and source. Example: hwsim {kind} show {example}"
    check.__doc__ = f"Check the YAML of a {what}. Example: hwsim {kind} check mine.yaml"
    return Catalog(list_all, show, check)


def _emit_check(kind: str, found: dict[str, Any], said: str, wanted: tuple[o.Format, bool, str | None]) -> None:
    """What a check found: one line for people."""
    from rich.text import Text

    data = {"schema_version": 1, "kind": kind, **found}
    emit(lambda: data, lambda: [data], lambda: [Text(f"{found['path']}: ok ({said})")], wanted)


def _emit_rows(kind: str, rows: list[dict[str, Any]], columns: Any, wanted: tuple[o.Format, bool, str | None]) -> None:
    from hwsim.report import catalog

    emit(lambda: {"schema_version": 1, kind: rows}, lambda: rows, lambda: catalog.table(rows, columns), wanted)


MODELS = Catalog(list_models, show_model, check_model)
HARDWARE = Catalog(list_hardware, show_hardware, check_hardware)
GRIDS = _economy("grids", "grid", "france")
PRICES = _economy("prices", "price book", "market-2026-11")
