"""``python -m shapecheck._watching.program``: Python, with packages under watch; and the plugin that does it in pytest.

Stands where ``python`` stood: what follows are a script, ``-m`` and a module, or ``-c`` and a program, with arguments.
Which packages, and where what was seen goes, the environment says.
"""

import runpy
import sys
import types
from pathlib import Path

from .._syntax import parse_module
from .watch import begin_from_environment, watch


def main() -> None:
    """Run what the command line says."""
    begin_from_environment()
    first, *rest = sys.argv[1:]
    if first == "-m":
        sys.argv = rest
        _put_first("")
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *rest[1:]]
        _put_first("")
        _run(compile(rest[0], "<string>", "exec"), None)
    else:
        sys.argv = [first, *rest]
        _put_first(str(Path(first).resolve().parent))
        tree = watch.instrumented(parse_module(Path(first).read_bytes(), first), "__main__", first)
        _run(compile(tree, first, "exec"), first)


def _put_first(path: str) -> None:
    """Look for modules where Python would, which is not where it was started from."""
    if not sys.flags.safe_path:
        sys.path[0] = path


def _run(code: types.CodeType, file: str | None) -> None:
    module = types.ModuleType("__main__")
    module.__dict__.update(
        {"__builtins__": __builtins__} if file is None else {"__builtins__": __builtins__, "__file__": file}
    )
    sys.modules["__main__"] = module
    exec(code, module.__dict__)  # noqa: S102  # what the user asked for


if __name__ == "__main__":
    main()
else:
    begin_from_environment()  # loaded by pytest, before any conftest


def pytest_sessionfinish() -> None:
    """Write what was seen, also where the process of a worker is about to be ended."""
    watch.save()
