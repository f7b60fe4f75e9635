"""The command `flaneur`: finds the sub-command, and turns what a user can mend into one sentence.

Sub-commands live in `cli`, one module for each, and only the one asked for is imported.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.main import get_command

from cli.report import Interrupted, say_error
from engine.errors import EngineError

COMMANDS = {
    "play": "cli.play",
    "replay": "cli.replay",
    "track": "cli.track",
    "world": "cli.world",
    "describe": "cli.describe",
    "export": "cli.export",
    "data": "cli.data",
    "train": "cli.train",
    "eval": "cli.eval",
    "bench-set": "cli.bench_set",
    "bench": "cli.bench",
    "doctor": "cli.doctor",
}
"""Module of each sub-command; each has `register(app)`."""

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130

# The base of all complaints about a command line: click's class or, in later versions, typer's copy of it.
_UsageProblem: type[Exception] = typer.BadParameter.__mro__[2]


def main() -> None:
    """Run the command line and exit."""
    # A terminal of an ASCII locale cannot show every title and path; the others must not end in a traceback.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run the command line; return the exit status."""
    arguments = list(arguments) or ["--help"]
    debug = "--debug" in arguments
    try:
        status = _run(arguments)
    except (KeyboardInterrupt, typer.Abort):
        status = EXIT_INTERRUPTED
    except Interrupted as stop:
        say_error(str(stop))
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output is gone; Python would complain again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except _UsageProblem as error:
        say_error(_usage_sentence(error))
        return EXIT_USER_ERROR
    except (ValueError, EngineError, OSError) as error:
        if debug:
            raise
        say_error(_sentence(error))
        return EXIT_USER_ERROR
    # Some versions of typer raise upon Ctrl-C, others return this status.
    if status == EXIT_INTERRUPTED:
        say_error("interrupted; nothing half-written was left behind")
    return status


def _run(arguments: list[str]) -> int:
    app = typer.Typer(
        name="flaneur",
        help="Walk through generated worlds, in real time.",
        no_args_is_help=True,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
    )
    app.callback()(_global_options)
    asked = next((word for word in arguments if not word.startswith("-")), "")
    for name in [asked] if asked in COMMANDS else COMMANDS:
        importlib.import_module(COMMANDS[name]).register(app)
    result = get_command(app).main(args=arguments, prog_name="flaneur", standalone_mode=False)
    return result if isinstance(result, int) else 0


def _print_version(asked: bool) -> None:
    if asked:
        from engine.machine.installing import app_version

        print(f"flaneur {app_version()}")
        raise typer.Exit


def _global_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Walk through generated worlds, in real time."""


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'the system'}: {error.strerror}"
    return " ".join(str(error).split())


def _usage_sentence(error: Exception) -> str:
    message = getattr(error, "format_message", lambda: str(error))()
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "flaneur"
    return f"{' '.join(message.split()).rstrip('.')}; see `{path} --help`"


if __name__ == "__main__":
    main()
