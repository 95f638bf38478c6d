"""What the user sees of a traceback: the own call last, no frame of ours, at most 12 lines in a plain script."""

import asyncio
import dataclasses
import os
import pty
import re
import subprocess
import sys
import textwrap
import threading
import traceback
import types
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from jaxtyping import Float32
from torch import Tensor, nn

import shapecheck
from shapecheck import ContractError, check, contract
from shapecheck._traceback import describe, install

pytestmark = pytest.mark.violation

CONTRACT = """
import sys, threading
import numpy as np
from jaxtyping import Float32
from shapecheck import ContractError, contract


@contract
def shift(img: Float32[np.ndarray, "n h w"], offset: Float32[np.ndarray, "n 1 2"]) -> Float32[np.ndarray, "n h w"]:
    return img


def wrong():
    shift(np.zeros((4, 5, 6), "float32"), np.zeros((4, 2, 1), "float32"))
"""
REPORT = """ContractError [axis-order]: __main__.shift, parameter 'offset': f32[4,2,1] (numpy) for Float32[ndarray, "n 1 2"], offset.transpose(0, 2, 1) fits
  expected   Float32[ndarray, "n 1 2"]
  got        f32[4,2,1] (numpy)
  because    axis 1 is 2, the contract says 1; axis 2 is 1, the contract says 2
  bindings   n=4 (from 'img', axis 0)
  hint       the axes look permuted: offset.transpose(0, 2, 1) satisfies the contract
  defined    script.py:7     called script.py:13
"""


class Script(NamedTuple):
    """A program in a folder of its own, where its frames are the user's."""

    folder: Path

    def run(self, body: str, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        self.write(body)
        command = command or ("script.py",)
        return subprocess.run(
            [sys.executable, *command],
            capture_output=True,
            text=True,
            env=self.environment(environment),
            check=False,
            cwd=self.folder,
        )

    def write(self, body: str) -> None:
        (self.folder / "script.py").write_text(CONTRACT.lstrip() + "\n\n" + textwrap.dedent(body).lstrip())

    def environment(self, changes: dict[str, str]) -> dict[str, str]:
        ours = ("SHAPECHECK", "NO_COLOR", "PYTHONSAFEPATH")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return {**kept, "PYTHONPATH": str(Path(shapecheck.__file__).parents[1]), **changes}

    def printed(self, body: str, **environment: str) -> str:
        done = self.run(body, **environment)
        assert done.returncode == 1, done.stderr
        return done.stderr.replace(f"{self.folder}{os.sep}", "")


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path)


# --- a plain script -------------------------------------------------------------------------------
@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_a_plain_script_ends_with_the_users_call_and_the_report_in_12_lines(script: Script, engine: str) -> None:
    printed = script.printed("wrong()", SHAPECHECK_ENGINE=engine)
    frames = """Traceback (most recent call last):
  File "script.py", line 16, in <module>
    wrong()
  File "script.py", line 13, in wrong
    shift(np.zeros((4, 5, 6), "float32"), np.zeros((4, 2, 1), "float32"))
"""
    assert printed == frames + REPORT
    assert len(printed.splitlines()) == 12


DEEP = """
def a(): b()
def b(): c()
def c(): wrong()
try:
    {}["fast"]
except KeyError:
    a()
"""


def test_a_deep_script_is_cut_to_12_lines_and_says_so(script: Script) -> None:
    printed = script.printed(DEEP)
    assert len(printed.splitlines()) == 12
    assert printed.startswith(
        "While handling KeyError: 'fast'\nTraceback (most recent call last):\n  ... 4 frames of script.py "
    )
    assert printed.endswith('    shift(np.zeros((4, 5, 6), "float32"), np.zeros((4, 2, 1), "float32"))\n' + REPORT)


def test_on_demand_everything_is_shown(script: Script) -> None:
    printed = script.printed(DEEP, SHAPECHECK_TRACEBACK="full")
    assert printed.count('  File "script.py"') == 6  # one of them in the KeyError's own traceback
    assert '"<contract __main__.shift #0>"' in printed
    assert printed.endswith(REPORT)


def test_an_unknown_extent_is_reported_and_hides_nothing(script: Script) -> None:
    printed = script.printed("wrong()", SHAPECHECK_TRACEBACK="tiny")
    expected = "Expected the environment variable SHAPECHECK_TRACEBACK to be one of short, full, got 'tiny'.\n"
    assert printed.startswith(expected)
    assert '"<contract __main__.shift #0>"' in printed


def test_the_text_depends_neither_on_hashes_nor_on_addresses(script: Script) -> None:
    body = """
    from typing import TypedDict
    from shapecheck import check

    class Batch(TypedDict):
        images: Float32[np.ndarray, "B N N"]
        probe: Float32[np.ndarray, "N N"] | set[int]

    check({"imges": np.zeros((2, 3, 3), "float32"), "probe": object(), "z": {3}, "y": lambda: 0}, Batch, "batch")
    """
    texts = {script.printed(body, PYTHONHASHSEED=seed) for seed in ("0", "1", "2")}
    assert len(texts) == 1
    assert "0x" not in texts.pop()


def test_notes_stand_below_the_report(script: Script) -> None:
    printed = script.printed(
        """
        try:
            wrong()
        except ContractError as error:
            error.add_note("seen in epoch 3")
            raise
        """
    )
    assert printed.endswith(REPORT + "seen in epoch 3\n")


def test_threads_and_tasks_print_the_same_report(script: Script) -> None:
    done = script.run("thread = threading.Thread(target=wrong, name='loader'); thread.start(); thread.join()")
    assert done.stderr.startswith(
        "Exception in thread loader:\nTraceback (most recent call last):\n  ... 2 frames of threading"
    )
    assert done.stderr.endswith(REPORT)
    body = """
    import asyncio
    async def task():
        await asyncio.sleep(0)
        wrong()
    asyncio.run(task())
    """
    printed = script.printed(body)
    assert len(printed.splitlines()) == 12
    assert '  File "script.py", line 19, in task\n  File "script.py", line 13, in wrong\n    shift(' in printed
    assert "asyncio" in printed.splitlines()[1]
    assert printed.endswith(REPORT)


# --- the hooks of others --------------------------------------------------------------------------
def test_no_hook_is_installed_before_the_first_error(script: Script) -> None:
    body = """
    def untouched():
        return (sys.excepthook is sys.__excepthook__, threading.excepthook is threading.__excepthook__)

    shift(np.zeros((4, 5, 6), "float32"), np.zeros((4, 1, 2), "float32"))
    print(untouched())
    try:
        wrong()
    except TypeError:
        print(untouched())
    """
    assert script.run(body).stdout == "(True, True)\n(False, False)\n"
    assert script.run(body.replace("wrong()", "raise TypeError")).stdout == "(True, True)\n(True, True)\n"
    assert script.run(body, SHAPECHECK="off").stdout.splitlines()[0] == "(True, True)"


FAIL = """
def fail():
    try:
        wrong()
    except TypeError:
        pass
    raise ValueError("not a contract")
"""


def test_every_other_error_is_printed_by_python(script: Script) -> None:
    printed = script.printed(FAIL + "fail()")
    assert printed.startswith("Traceback (most recent call last):\n")
    assert printed.endswith("ValueError: not a contract\n")
    done = script.run(FAIL + "thread = threading.Thread(target=fail, name='t'); thread.start(); thread.join()")
    assert done.stderr.startswith("Exception in thread t:\n")
    assert done.stderr.endswith("ValueError: not a contract\n")


COLLECTOR = """
import traceback

def collect(kind, error, trace):
    print(kind.__name__, error.__traceback__ is trace, [frame.name for frame in traceback.extract_tb(trace)])

def collect_from_thread(failed):
    collect(failed.exc_type, failed.exc_value, failed.exc_traceback)
"""


def test_an_error_collector_that_was_there_before_gets_the_error_without_our_frames(script: Script) -> None:
    done = script.run(COLLECTOR + "sys.excepthook = collect\nwrong()")
    assert (done.stdout, done.stderr) == ("ContractError True ['<module>', 'wrong']\n", "")
    threads = "thread = threading.Thread(target=wrong); thread.start(); thread.join()"
    done = script.run(COLLECTOR + f"threading.excepthook = collect_from_thread\n{threads}")
    assert (done.stdout, done.stderr) == ("ContractError True ['_bootstrap_inner', 'run', 'wrong']\n", "")


def test_a_hook_that_is_set_later_has_the_last_word(script: Script) -> None:
    later = FAIL.replace("raise ValueError", "sys.excepthook = collect; wrong(); raise ValueError")
    done = script.run(COLLECTOR + later + "fail()")
    assert done.stdout.startswith("ContractError True ['<module>', 'fail', 'wrong', '_sc_checked'")


def test_hooks_are_installed_once() -> None:
    install(ContractError)
    hooks = (sys.excepthook, threading.excepthook)
    install(ContractError)
    assert (sys.excepthook, threading.excepthook) == hooks


# --- terminals ------------------------------------------------------------------------------------
def printed_in_terminal(script: Script, **environment: str) -> str:
    script.write("wrong()")
    master, slave = pty.openpty()
    command = [sys.executable, "script.py"]
    changes = {"TERM": "xterm", **environment}
    with subprocess.Popen(command, stderr=slave, cwd=script.folder, env=script.environment(changes)) as process:
        os.close(slave)
        printed = b""
        while chunk := _read(master):
            printed += chunk
        process.wait()
    os.close(master)
    return printed.decode().replace("\r\n", "\n").replace(f"{script.folder}{os.sep}", "")


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # so Linux says that the other end is closed
        return b""


def test_a_terminal_gets_the_same_words_in_colour_if_rich_is_installed(script: Script) -> None:
    plain = script.printed("wrong()")
    styled = printed_in_terminal(script)
    assert re.sub(r"\x1b\[[\d;]*m", "", styled) == plain
    assert ("\x1b[" in styled) == (find_spec("rich") is not None)


def test_a_terminal_without_colours_gets_plain_text(script: Script) -> None:
    assert printed_in_terminal(script, NO_COLOR="1") == script.printed("wrong()")


# --- who prints for themselves: logging, pytest, IPython ---------------------------------------------
def test_logging_shows_two_frames_of_ours_and_no_other_errors(script: Script) -> None:
    body = """
    import logging
    try:
        shift(np.zeros((4, 5, 6), "float32"), np.zeros((4, 2), "float32"))
    except TypeError:
        logging.exception("failed")
    """
    printed = script.run(body).stderr
    assert printed.startswith("ERROR:root:failed\nTraceback (most recent call last):\n")
    assert printed.count("Traceback") == 1
    assert len(re.findall(r'^  File ".*(?:<contract |shapecheck)', printed, re.MULTILINE)) == 2
    assert printed.splitlines()[-1].startswith("  defined ")
    assert len(printed.splitlines()) <= 25


@pytest.mark.parametrize("style", ["short", "auto"])
def test_pytest_shows_the_users_call_and_the_report(script: Script, style: str) -> None:
    options = ("-m", "pytest", "-x", f"--tb={style}", "-p", "no:cacheprovider", "-q", "script.py")
    printed = script.run("def test_shift():\n    wrong()\n", *options).stdout
    assert "script.py:13: " in printed
    assert re.search(r"^E +shapecheck.ContractError: ContractError \[axis-order\]: script.shift", printed, re.MULTILINE)
    assert "_guard.py" not in printed
    assert "<contract " not in printed


def test_ipython_prints_the_users_frames_and_the_report(script: Script) -> None:
    pytest.importorskip("IPython")
    code = "get_ipython().run_cell('from script import wrong; wrong()')"
    options = ("-m", "IPython", "--colors=NoColor", "--no-banner", "--quick", "-c", code)
    printed = script.run("", *options).stdout.partition("Out[")[0]
    lines = printed.strip().splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[2] == "    from script import wrong; wrong()"
    assert lines[4] == '    shift(np.zeros((4, 5, 6), "float32"), np.zeros((4, 2, 1), "float32"))'
    assert lines[5:] == REPORT.replace("__main__", "script").splitlines()


def test_what_ipython_asks_the_error_for_is_what_a_script_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    error = raised_by(check, torch.zeros(2), Image)
    assert error._render_traceback_() == describe(error, error.__traceback__)
    monkeypatch.setenv("SHAPECHECK_TRACEBACK", "full")
    assert len(error._render_traceback_()) > len(describe(error, error.__traceback__))


# --- every kind of boundary -----------------------------------------------------------------------
Image = Float32[Tensor, "n h w"]


def make_boundaries() -> dict[str, Callable[[Tensor], Any]]:
    """Define a boundary of each kind, each of which refuses what is no image."""

    @contract
    def function(img: Image) -> Image:
        return img

    @contract
    def result(img: Tensor) -> Image:
        return img

    @contract
    async def coroutine(img: Image) -> Image:
        return img

    @contract
    class Module(nn.Module):
        def forward(self, img: Image) -> Image:
            return img

    class Plain:
        @contract
        def method(self, img: Image) -> Image:
            return img

        @contract
        @staticmethod
        def static(img: Image) -> Image:
            return img

    @contract
    @dataclasses.dataclass
    class Record:
        img: Image

    @contract
    class Pair(NamedTuple):
        img: Image

    return {
        "function": function,
        "result": result,
        "coroutine": lambda img: asyncio.run(coroutine(img)),
        "module": Module(),
        "method": Plain().method,
        "static method": Plain.static,
        "dataclass": Record,
        "NamedTuple": Pair,
        "check": lambda img: check(img, Image),
        "compiled": torch.compile(lambda img: function(img) + 1, fullgraph=True, backend="eager"),
    }


def raised_by(call: Callable[..., Any], *arguments: Any) -> ContractError:
    with pytest.raises(ContractError) as caught:
        call(*arguments)
    return caught.value


@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_every_frame_of_ours_is_hidden_and_no_error_of_ours_is_chained(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHAPECHECK_ENGINE", engine)
    for kind, boundary in make_boundaries().items():
        boundary(torch.zeros(2, 3, 4))
        error = raised_by(boundary, torch.zeros(2, 3))
        own = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if is_own(frame)]
        assert own, kind
        assert [frame.f_code.co_name for frame in own if "__tracebackhide__" not in frame.f_locals] == [], kind
        assert error.__cause__ is None, kind
        assert error.__context__ is None or error.__suppress_context__, kind


def is_own(frame: types.FrameType) -> bool:
    path = frame.f_code.co_filename
    return path.startswith(("<contract ", str(Path(shapecheck.__file__).parent)))


USERS_CALLS = {
    "coroutine": '"coroutine": lambda img: asyncio.run(coroutine(img)),',
    "check": '"check": lambda img: check(img, Image),',
    "compiled": '"compiled": torch.compile(lambda img: function(img) + 1, fullgraph=True, backend="eager"),',
}  # where it is not the one in the test


def test_the_last_line_before_the_report_is_the_users_call_at_every_boundary() -> None:
    for kind, boundary in make_boundaries().items():

        def users_call(boundary: Callable[[Tensor], Any] = boundary) -> None:
            boundary(torch.zeros(2, 3))

        error = raised_by(users_call)
        lines = describe(error, error.__traceback__)
        report = str(error).splitlines()
        assert lines[-len(report) :] == report, kind
        assert lines[-len(report) - 1].strip() == USERS_CALLS.get(kind, "boundary(torch.zeros(2, 3))")
        assert len(lines) <= 12, kind


# --- frames of installed packages -----------------------------------------------------------------
def make_package(folder: Path, name: str, body: str) -> types.ModuleType:
    """Import a module from a folder that looks like one of installed packages."""
    path = folder / "site-packages" / name / "__init__.py"
    path.parent.mkdir(parents=True)
    path.write_text(body)
    module = types.ModuleType(name)
    module.__file__ = str(path)
    exec(compile(body, str(path), "exec"), vars(module))  # noqa: S102
    return module


CALLER = "def run(call, depth):\n    return run(call, depth - 1) if depth else call()\n"


def test_frames_of_installed_packages_are_counted(tmp_path: Path) -> None:
    trainer = make_package(tmp_path, "trainer", CALLER)
    tools = make_package(tmp_path, "tools", CALLER)

    def users_call() -> None:
        check(torch.zeros(2), Image)

    error = raised_by(lambda: trainer.run(lambda: tools.run(users_call, 2), 7))
    lines = describe(error, error.__traceback__)
    assert [line for line in lines if line.startswith("  ...")] == [
        "  ... 11 frames of test_tracebacks.py, tools and trainer (SHAPECHECK_TRACEBACK=full shows all)"
    ] or len(lines) <= 12
    error = raised_by(lambda: trainer.run(users_call, 7))
    assert "  ... 8 frames of trainer (SHAPECHECK_TRACEBACK=full shows all)" in describe(error, error.__traceback__)


def test_an_installed_package_whose_contract_is_broken_is_the_users(tmp_path: Path) -> None:
    body = (
        "import torch\nfrom jaxtyping import Float32\nfrom torch import Tensor\nfrom shapecheck import contract\n"
        "@contract\ndef inner(img: Float32[Tensor, 'n h w']) -> None: ...\n\ndef outer():\n    inner(torch.zeros(2))\n"
    )
    package = make_package(tmp_path, "optics", body)
    error = raised_by(package.outer)
    assert describe(error, error.__traceback__)[-len(str(error).splitlines()) - 1] == "    inner(torch.zeros(2))"


def test_where_nothing_is_the_users_the_last_frame_is_shown(tmp_path: Path) -> None:
    package = make_package(tmp_path, "optics", "def outer(call):\n    call(0)\n")
    error = raised_by(lambda: package.outer(lambda _: check(torch.zeros(2), Image)))
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_name != "outer":
        trace = trace.tb_next
    assert trace is not None
    alone = types.TracebackType(None, trace.tb_frame, trace.tb_lasti, trace.tb_lineno)
    assert describe(error, alone)[2] == "    call(0)"


# --- tensors without data -------------------------------------------------------------------------
def test_meta_and_fake_tensors_give_the_text_of_real_ones() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    real = str(raised_by(check, torch.zeros(2, 3), Image))
    meta = str(raised_by(check, torch.zeros(2, 3, device="meta"), Image))
    with FakeTensorMode():
        fake = str(raised_by(check, torch.zeros(2, 3), Image))
    assert meta == real.replace("f32[2,3]", "f32[2,3] meta")
    assert fake == real
