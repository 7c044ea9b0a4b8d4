"""The commands and their flags."""

from __future__ import annotations

import sys
from typing import Any

import typer

from hwsim import __version__
from hwsim.cli import catalog, estimate, planning
from hwsim.errors import HwsimError

CommandLineError: Any = typer.BadParameter.__mro__[2]
"""Base of typer's errors about flags: typer brings its own click or uses the installed one."""
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
models = typer.Typer(no_args_is_help=True, help="List, show and check models.", context_settings=CONTEXT)
hardware = typer.Typer(no_args_is_help=True, help="List, show and check hardware profiles.", context_settings=CONTEXT)

app.command("plan")(planning.plan)
estimates.command("train")(estimate.train)
app.command("explain")(estimate.explain)
for group, kind in ((models, catalog.MODELS), (hardware, catalog.HARDWARE)):
    group.command("list")(kind.list)
    group.command("show")(kind.show)
    group.command("check")(kind.check)
app.add_typer(estimates, name="estimate")
app.add_typer(models, name="models")
app.add_typer(hardware, name="hardware")


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


def run(arguments: list[str], *, debug: bool) -> int:
    """Run one command line and give its exit code."""
    try:
        result: Any = app(args=arguments, standalone_mode=False, prog_name="hwsim")
    except HwsimError as error:
        if debug:
            raise
        typer.echo(f"hwsim: {error}", err=True)
        return error.exit_code
    except CommandLineError as error:
        error.show()
        return int(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("hwsim: interrupted", err=True)
        return 130
    except BrokenPipeError:
        return 0
    except Exception as error:  # the last resort: a bug in hwsim
        if debug:
            raise
        kind = type(error).__name__
        typer.echo(
            f"hwsim: a bug in hwsim: {kind}: {error} (run again with --debug and report the traceback)", err=True
        )
        return 1
    return result if isinstance(result, int) else 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], debug=False))
