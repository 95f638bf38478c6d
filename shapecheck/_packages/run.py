"""Runs a script or module as Python would, with its annotated functions under contract."""

import runpy
import sys
import types
from collections.abc import Sequence
from pathlib import Path

from .._settings import enabled
from .._syntax import parse_module
from .hook import hook_report, install_import_hook


def run_program(
    target: str, arguments: Sequence[str], packages: Sequence[str], is_module: bool, lists_everything: bool
) -> int:
    """Run something as ``__main__``.

    Args:
        target: Path of a script, or name of a module.
        arguments: What it finds in ``sys.argv``.
        packages: Packages to hook besides.
        is_module: Whether `target` is a module.
        lists_everything: Whether to list what is not under contract, and not only to count it.
    """
    try:
        hooked = [*packages, *([target] if is_module else [])]
        script = None if is_module else Path(target).read_bytes()
        if not sys.flags.safe_path:
            sys.path[0] = str(Path.cwd()) if is_module else str(Path(target).resolve().parent)
        if hooked:
            install_import_hook(*hooked)
    except (ModuleNotFoundError, OSError) as error:
        sys.stderr.write(f"shapecheck: {error}\n")
        return 2
    sys.argv = [target, *arguments]
    try:
        if script is None:
            runpy.run_module(target, run_name="__main__", alter_sys=True)
        else:
            _run_script(target, script)
    finally:
        _report(lists_everything)
    return 0


def _run_script(path: str, source: bytes) -> None:
    tree = parse_module(source, path)
    if enabled():
        from .rewrite import rewrite

        tree = rewrite(tree)
    module = types.ModuleType("__main__")
    module.__dict__.update(__file__=path, __builtins__=__builtins__)
    sys.modules["__main__"] = module
    exec(compile(tree, path, "exec"), module.__dict__)  # noqa: S102  # what the user asked for


def _report(lists_everything: bool) -> None:
    if not enabled():
        return
    report = hook_report()
    lines = [f"shapecheck: {report.summary()}"]
    if lists_everything:
        lines += [f"  {listed}" for listed in report if listed.outcome != "contracted"]
    elif report.of("refused"):
        lines.append("shapecheck: --report lists what is not under contract, with the reasons")
    sys.stderr.write("\n".join(lines) + "\n")
