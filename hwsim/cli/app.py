"""The commands and their flags."""

from __future__ import annotations

import re
import sys
from functools import cache
from typing import Any

import typer

from hwsim import __version__
from hwsim.cli import (
    calibrate,
    catalog,
    estimate,
    faq,
    fit,
    infer,
    planning,
    report,
    sensitivity,
    simulate,
    size,
    validate,
    whatif,
)  # fmt: skip
from hwsim.errors import HwsimError, did_you_mean

CommandLineError: Any = typer.BadParameter.__mro__[2]
"""Base of typer's errors about flags: typer brings its own click or uses the installed one."""
NOT_BUILT = ("export",)
"""Commands of the contract that are still to come."""
CLEARER = {
    r"^Invalid value for ": "",
    r"'(--?[\w-]+)'": r"\1",
    r"Value error, ": "",
    r" \(Possible options: (.*)\)$": r" - did you mean \1?",
    r"Input should be a valid integer, .*$": "must be a whole number",
    r"Input should be a valid (number|boolean), .*$": r"must be a \1",
}
"""What typer and pydantic say, and what is said instead."""
LONGEST_LINE = 1000
CONTEXT = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings=CONTEXT,
    help="Will this Transformer fit, how fast will it train, what does it cost, what limits it - on any GPU or TPU "
    "cluster.",
    epilog="Try: hwsim plan --model 70b --gpus 64   |   --debug on any command shows the traceback of an error.",
)
estimates = typer.Typer(no_args_is_help=True, help="Estimate one explicit strategy.", context_settings=CONTEXT)
simulates = typer.Typer(no_args_is_help=True, help="Run the discrete-event models.", context_settings=CONTEXT)
validates = typer.Typer(no_args_is_help=True, help="Hold predictions against measurements.", context_settings=CONTEXT)
models = typer.Typer(no_args_is_help=True, help="List, show and check models.", context_settings=CONTEXT)
news = typer.Typer(no_args_is_help=True, help="Files to start from.", context_settings=CONTEXT)
hardware = typer.Typer(no_args_is_help=True, help="List, show and check hardware profiles.", context_settings=CONTEXT)
grids = typer.Typer(no_args_is_help=True, help="List, show and check grids.", context_settings=CONTEXT)
prices = typer.Typer(no_args_is_help=True, help="List, show and check price books.", context_settings=CONTEXT)

app.command("plan")(planning.plan)
app.command("sensitivity")(sensitivity.sensitivity)
app.command("size")(size.size)
estimates.command("train")(estimate.train)
estimates.command("infer")(infer.infer)
simulates.command("serving")(simulate.serving)
app.command("explain")(estimate.explain)
app.command("whatif")(whatif.whatif)
app.command("faq")(faq.faq)
app.command("report")(report.report)
news.command("scenario")(whatif.new_scenario)
app.command("fit")(fit.fit)
app.command("calibrate")(calibrate.calibrate)
CATALOGS = (
    (models, catalog.MODELS), (hardware, catalog.HARDWARE), (grids, catalog.GRIDS), (prices, catalog.PRICES),
)  # fmt: skip
for group, kind in CATALOGS:
    group.command("list")(kind.list)
    group.command("show")(kind.show)
    group.command("check")(kind.check)
validates.command("published")(validate.published)
validates.command("pytorch")(validate.pytorch)
app.add_typer(estimates, name="estimate")
app.add_typer(simulates, name="simulate")
app.add_typer(validates, name="validate")
app.add_typer(news, name="new")
app.add_typer(models, name="models")
app.add_typer(hardware, name="hardware")
app.add_typer(grids, name="grids")
app.add_typer(prices, name="prices")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"hwsim {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    """Global flags."""


@cache
def _command() -> Any:
    """All commands, made ready once."""
    return typer.main.get_command(app)


def run(arguments: list[str], *, debug: bool) -> int:
    """Run one command line and give its exit code."""
    try:
        result: Any = _command()(args=arguments, standalone_mode=False, prog_name="hwsim")
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except BrokenPipeError:
        return 0
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()  # type: ignore[union-attr]
            return 2
        message, code = _explain(error)
        _say(message)
        return code


def _explain(error: BaseException) -> tuple[str, int]:
    """Message and exit code of an error."""
    if isinstance(error, HwsimError):
        return str(error), error.exit_code
    if isinstance(error, CommandLineError):
        return _unknown_flag(error) or _about_flags(error.format_message()), 2
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return "interrupted", 130
    if isinstance(error, OSError):  # without a file's name it is the output
        return f"{error.filename or 'cannot write to stdout'}: {error.strerror or error}", 2
    kind = type(error).__name__
    return f"a bug in hwsim: {kind}: {error} (run again with --debug and report the traceback)", 1


def _about_flags(message: str) -> str:
    """What typer says about a command line, in one line."""
    command = re.match(r"No such command '(\w+)'", message)
    if command and command[1] in NOT_BUILT:
        return f"{command[1]} is not built yet"
    for pattern, better in CLEARER.items():
        message = re.sub(pattern, better, message, flags=re.DOTALL)
    return " ".join(message.split())


def _unknown_flag(error: Any) -> str:
    """For a flag that a command lacks, the flags like it, else all that there are; nothing for other errors."""
    if type(error).__name__ != "NoSuchOption" or error.ctx is None:
        return ""
    flags = [name for param in error.ctx.command.params for name in param.opts if name.startswith("--")]
    hint = did_you_mean(error.option_name.lstrip("-"), [flag.lstrip("-") for flag in flags])
    hint = (
        hint.replace("mean ", "mean --").replace(", ", ", --")
        or f" ({error.ctx.command_path} takes {', '.join(flags)})"
    )
    return f"No such option: {error.option_name}{hint}"


def _say(message: str) -> None:
    """Print to stderr: no line longer than anyone reads, nothing that a terminal would obey."""
    for line in f"hwsim: {message}".split("\n"):
        short = line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - 200]} … {line[-200:]}"
        typer.echo("".join(c if c.isprintable() else repr(c)[1:-1] for c in short), err=True)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], debug=False))
