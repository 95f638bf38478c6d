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
    _add_infer(commands)
    _add_coverage(commands)
    _add_verify(commands)
    _add_report(commands)
    _add_strength(commands)
    _add_explain(commands)
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


def _for_contracts() -> argparse.ArgumentParser:
    """Return the options of every command about contracts."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "--hook", action="store_true", help="put contracts on what is annotated, as the import hook does"
    )
    options.add_argument("--json", metavar="FILE", help="write everything there as well, as JSON")
    return options


def _on_package() -> argparse.ArgumentParser:
    """Return the arguments of every command about the contracts of one package."""
    options = argparse.ArgumentParser(add_help=False, parents=[_for_contracts()])
    options.add_argument(
        "package", metavar="PACKAGE", help="name of a package or module that can be imported from here"
    )
    return options


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


# --- verify -------------------------------------------------------------------------------------------
def _add_verify(commands: Any) -> None:
    verify = commands.add_parser(
        "verify",
        parents=[_on_package()],
        help="run the contracted functions of a package on fake tensors",
        description="Run every contracted function of a package that can be run on fake tensors: no data, no "
        "accelerator, no memory, dims of pairwise distinct sizes. What could not be run is listed with the reason. "
        "Files, network and other programs are refused to what is run. Exit status: 0 nothing found, 1 a contract or "
        "a shape is broken, 2 it could not begin.",
    )
    verify.add_argument("--only", type=names, default=[], metavar="NAMES", help="functions, classes or modules to run")
    verify.add_argument("--skip", type=names, default=[], metavar="NAMES", help="functions, classes or modules to skip")
    verify.add_argument("--sizes", type=_sizes, default={}, metavar="DIM=SIZE,...", help="sizes of some dims: C=2,N=64")
    verify.add_argument(
        "--with",
        dest="factories",
        action="append",
        default=[],
        metavar="MODULE:FACTORY",
        help="makes an instance of a class that methods or parameters need; its own parameters are dims; repeatable",
    )
    verify.add_argument("--limit", type=float, default=10.0, metavar="SECONDS", help="for one call (default: 10)")
    verify.set_defaults(handler=_verify)


def _sizes(text: str) -> dict[str, int]:
    """Read ``C=2,N=64``."""
    pairs = [name.partition("=") for name in names(text)]
    if not all(dim.strip().isidentifier() and size.strip().isdecimal() for dim, _, size in pairs):
        msg = f"expected sizes of dims such as C=2,N=64, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return {dim.strip(): int(size) for dim, _, size in pairs}


def _verify(options: argparse.Namespace) -> int:
    from .audit._dry.command import verify_package

    return verify_package(
        options.package,
        only=options.only,
        skip=options.skip,
        sizes=options.sizes,
        factories=options.factories,
        limit_s=options.limit,
        hook=options.hook,
        json_file=options.json,
    )


# --- report -------------------------------------------------------------------------------------------
def _add_report(commands: Any) -> None:
    report = commands.add_parser(
        "report",
        parents=[_on_package()],
        help="write one HTML page of what is known of the contracts of a package",
        description="Write one HTML page of every boundary of a package: its contract, which wrong calls it catches and "
        "which not, and, from recorded runs, how often it was called, with which shapes, and how tensors flow. "
        "The page is one file and needs no network. Exit status: 0 it was written, 2 it could not be.",
    )
    report.add_argument(
        "--recording",
        action="append",
        default=[],
        metavar="FILE",
        help="a recorded run, as SHAPECHECK_RECORD=FILE writes it; repeatable, numbers are added up",
    )
    report.add_argument(
        "--accept", metavar="FILE", help="holes that are left open on purpose, a TOML file of [[accepted]]"
    )
    report.add_argument("--output", default="report.html", metavar="FILE", help="the page (default: report.html)")
    report.add_argument("--written", default="", metavar="TEXT", help="when the page is written, for its last line")
    report.set_defaults(handler=_report)


def _report(options: argparse.Namespace) -> int:
    from .audit._page.command import report_package

    return report_package(
        options.package,
        recordings=options.recording,
        accepted=options.accept,
        output=options.output,
        json_file=options.json,
        hook=options.hook,
        written=options.written,
    )


# --- coverage -----------------------------------------------------------------------------------------
def _add_coverage(commands: Any) -> None:
    coverage = commands.add_parser(
        "coverage",
        parents=[_for_contracts()],
        help="say which contracts a recorded run has exercised",
        description="Say which contracts recorded runs have exercised, and which dims they never told apart. "
        "Record any program with SHAPECHECK_RECORD=FILE, or a test session with pytest --shapecheck-report=FILE. "
        "Exit status: 0 it is enough, 1 it is not, 2 it could not be found out.",
    )
    coverage.add_argument("recordings", nargs="+", metavar="RECORDING", help="a recorded run; several are added up")
    coverage.add_argument(
        "--package",
        dest="packages",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="package or module to report on, which is imported: what was never imported was never called; repeatable",
    )
    coverage.add_argument(
        "--at-least", type=float, default=0.0, metavar="PERCENT", help="how many of the contracts must be exercised"
    )
    coverage.add_argument("--distinct", action="store_true", help="fail, too, where two dims were never told apart")
    coverage.set_defaults(handler=_coverage)


def _coverage(options: argparse.Namespace) -> int:
    from .audit._coverage_command import report_coverage

    return report_coverage(
        options.recordings,
        packages=options.packages,
        hook=options.hook,
        at_least=options.at_least,
        distinct=options.distinct,
        json_file=options.json,
    )


# --- strength -----------------------------------------------------------------------------------------
def _add_strength(commands: Any) -> None:
    strength = commands.add_parser(
        "strength",
        parents=[_on_package()],
        help="measure what the contracts of a package would notice",
        description="Change a valid call of each contract in one place at a time (axes in another order, another "
        "dtype, a missing key, ...) and count what the contract notices; say what it does not, and what would. Nothing "
        "is run but imports. Exit status: 0 good, 1 too little is caught or a hole is not accepted, 2 it could not begin.",
    )
    strength.add_argument("--function", metavar="NAME", help="measure this one only, and say all of it")
    strength.add_argument("--at-least", type=float, metavar="PERCENT", help="fail if less of all mutants is caught")
    strength.add_argument(
        "--accept", metavar="FILE", help="TOML file of the holes that are left open, with reasons; fail on any other"
    )
    strength.set_defaults(handler=_strength)


def _strength(options: argparse.Namespace) -> int:
    from .audit._strength_command import measure_package

    return measure_package(
        options.package,
        function=options.function,
        at_least=options.at_least,
        accept=options.accept,
        json_file=options.json,
        hook=options.hook,
    )


# --- infer --------------------------------------------------------------------------------------------
def _add_infer(commands: Any) -> None:
    infer = commands.add_parser(
        "infer",
        usage="%(prog)s [-h] [--packages NAMES] [--record FILE] [--from FILE ...] [--output FILE] [-- COMMAND ...]",
        help="propose annotations from the shapes of a run, as a diff",
        description="Run a command of Python or pytest, record which arrays the functions of some packages are given and "
        "give back, and propose annotations as a unified diff, with what could not be known in comments. Nothing is "
        "applied. Run it several times with different sizes (--record), then propose from all of them (--from).",
        epilog="example: shapecheck infer --packages optics -- pytest tests > optics.patch",
    )
    infer.add_argument(
        "--packages",
        type=names,
        default=[],
        metavar="NAMES",
        help="comma-separated packages to watch, besides a script",
    )
    infer.add_argument("--record", metavar="FILE", help="add what is seen to a file, and propose nothing yet")
    infer.add_argument(
        "--from", dest="recordings", nargs="+", default=[], metavar="FILE", help="propose from what was recorded before"
    )
    infer.add_argument("--output", metavar="FILE", help="write the proposal to a file, such as optics.patch")
    infer.add_argument("program", nargs="*", metavar="COMMAND", help="behind --: python script.py, pytest tests, ...")
    infer.set_defaults(handler=_infer)


def _infer(options: argparse.Namespace) -> int:
    from .audit._inference.command import infer_from_command

    return infer_from_command(options.program, options.packages, options.record, options.recordings, options.output)


# --- explain ------------------------------------------------------------------------------------------
def _add_explain(commands: Any) -> None:
    explain = commands.add_parser(
        "explain",
        help="say what a shape specification means, and whether shapes fit it",
        description="Say what 'B C 1 2' means; whether shapes such as 4,1,2,1 fit it, axis by axis, and what would; or, "
        "with --diff, what has changed between two signatures. A signature is the dims of one tensor, 'img: B C H W, "
        "mask: B H W' for several, or module:function. Exit status: 0 it fits, 1 it does not, 2 it makes no sense.",
    )
    explain.add_argument("spec", metavar="SPEC", help="a signature")
    explain.add_argument("others", nargs="*", metavar="SHAPE", help="a shape for each tensor; with --diff, the new one")
    explain.add_argument("--dims", type=_sizes, default={}, metavar="DIM=SIZE,...", help="sizes that dims must have")
    explain.add_argument("--diff", action="store_true", help="compare SPEC with a second one")
    explain.set_defaults(handler=_explain)


def _explain(options: argparse.Namespace) -> int:
    from .audit._explaining.command import explain_text

    return explain_text(options.spec, options.others, dims=options.dims, is_diff=options.diff)
