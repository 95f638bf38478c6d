"""The command line: ``python -m shapecheck``. Arguments and exit codes only."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import get_args

from ._settings import Mode


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m shapecheck", description="Contracts for tensors.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        help="run a script or module with its annotated functions under contract",
        description="Run a script or module. Its own annotated functions, and those of the packages that are named, "
        "are under contract; what cannot be is said at the end.",
    )
    run.add_argument("--packages", default="", metavar="NAMES", help="comma-separated packages, besides what is run")
    run.add_argument("--mode", choices=get_args(Mode), help="mode of all contracts; SHAPECHECK says it otherwise")
    run.add_argument("--report", action="store_true", help="list everything that is not under contract, on stderr")
    run.add_argument("-m", dest="is_module", action="store_true", help="run a module, as python -m does")
    run.add_argument("target", metavar="SCRIPT", help="path of a script, or with -m the name of a module or package")
    run.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="arguments of what is run")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Command line, without the program; that of the process by default.
    """
    options = build_parser().parse_args(arguments)
    if options.mode is not None:
        os.environ["SHAPECHECK"] = options.mode
    from ._run import run_program  # after the mode is set

    packages = [name for name in options.packages.split(",") if name]
    return run_program(options.target, options.arguments, packages, options.is_module, options.report)


if __name__ == "__main__":
    sys.exit(main())
