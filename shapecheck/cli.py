"""The command line: ``shapecheck``, or ``python -m shapecheck``. Arguments and exit codes only."""

import argparse
import os
from collections.abc import Sequence
from typing import Any, get_args

from ._settings import Mode


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="shapecheck", description="Contracts for tensors.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_run(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Command line, without the program; that of the process by default.

    Returns:
        The exit status; 2 is that of a command line that is not understood.
    """
    options = build_parser().parse_args(arguments)
    return options.handler(options)


def names(text: str) -> list[str]:
    """Return what stands between the commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


# --- run ----------------------------------------------------------------------------------------------
def _add_run(commands: Any) -> None:
    run = commands.add_parser(
        "run",
        help="run a script or module with its annotated functions under contract",
        description="Run a script or module. Its own annotated functions, and those of the packages that are named, "
        "are under contract; what cannot be is said at the end.",
    )
    run.add_argument(
        "--packages", type=names, default="", metavar="NAMES", help="comma-separated packages, besides what is run"
    )
    run.add_argument("--mode", choices=get_args(Mode), help="mode of all contracts; SHAPECHECK says it otherwise")
    run.add_argument("--report", action="store_true", help="list everything that is not under contract, on stderr")
    run.add_argument("-m", dest="is_module", action="store_true", help="run a module, as python -m does")
    run.add_argument("target", metavar="SCRIPT", help="path of a script, or with -m the name of a module or package")
    run.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="arguments of what is run")
    run.set_defaults(handler=_run)


def _run(options: argparse.Namespace) -> int:
    if options.mode is not None:
        os.environ["SHAPECHECK"] = options.mode
    from ._packages.run import run_program  # after the mode is set

    return run_program(options.target, options.arguments, options.packages, options.is_module, options.report)
