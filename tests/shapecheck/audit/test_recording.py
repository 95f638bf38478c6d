"""Recordings as data: written, read and added up, also those that the processes of a program leave beside a file."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import shapecheck
from shapecheck.audit import BoundaryRecord, Flow, Recording
from shapecheck.cli import main


# --- files --------------------------------------------------------------------------------------------------
def make_recording(calls: int = 3, **changes: Any) -> Recording:
    known: dict[str, Any] = {
        "place": "a.py:1",
        "calls": calls,
        "rejected": 1,
        "annotations": {"x": 'Float32[Tensor, "n m 2"]'},
        "shapes": {"x": {"f32[3,3,2]": calls - 1}},
        "sizes": {"n": [3], "m": [3]},
        "bound": {"n": calls - 1, "m": calls - 1},
        "always_equal": [("m", "n")],
        "told_apart": [("m", "2"), ("n", "2")],
    }
    one = BoundaryRecord("a.f", **{**known, **changes})
    return Recording({"a.f": one}, [Flow("a.f", "a.g", "x", "f32[3]", calls)], {"a.h": "refused"})


def test_a_recording_is_read_as_it_was_written_and_written_alike_every_time(tmp_path: Path) -> None:
    recording = make_recording()
    recording.boundaries["a.e"] = BoundaryRecord("a.e")
    for name in ("one.json", "two.json"):
        recording.save(tmp_path / name)
    assert Recording.load(tmp_path / "one.json") == recording
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert Recording.from_json(json.loads(json.dumps(recording.as_json()))) == recording
    assert json.loads((tmp_path / "one.json").read_text())["format"] == "shapecheck-recording"


def test_numbers_are_added_up_and_dims_are_equal_where_no_recording_tells_them_apart() -> None:
    other = make_recording(5, sizes={"n": [7], "m": [2]}, always_equal=[("m", "2")], told_apart=[("m", "n")])
    merged = Recording.merged([make_recording(), other])
    known = merged.boundaries["a.f"]
    assert (known.calls, known.rejected, known.accepted) == (8, 2, 6)
    assert (known.sizes, known.bound) == ({"n": [3, 7], "m": [2, 3]}, {"n": 6, "m": 6})
    assert known.shapes == {"x": {"f32[3,3,2]": 6}}
    assert (known.always_equal, known.told_apart) == ([], [("m", "2"), ("m", "n"), ("n", "2")])
    assert merged.flows == [Flow("a.f", "a.g", "x", "f32[3]", 8)]
    alone = Recording.merged([make_recording(), Recording({"a.f": BoundaryRecord("a.f")})]).boundaries["a.f"]
    assert alone.always_equal == [("m", "n")]
    assert Recording.merged([]) == Recording()


def test_of_many_shapes_the_most_frequent_are_kept_and_none_is_lost() -> None:
    shapes = {f"f32[{size}]": size for size in range(1, 12)}
    merged = Recording.merged([make_recording(shapes={"x": shapes}), make_recording(shapes={"x": {"f32[1]": 11}})])
    kept = merged.boundaries["a.f"].shapes["x"]
    assert list(kept) == [*(f"f32[{size}]" for size in (1, 11, 10, 9, 8, 7, 6, 5)), "..."]
    assert sum(kept.values()) == sum(shapes.values()) + 11
    again = Recording.merged([merged, make_recording(shapes={"x": {"f32[99]": 100}})]).boundaries["a.f"].shapes["x"]
    assert next(iter(again)) == "f32[99]"
    assert sum(again.values()) == sum(kept.values()) + 100


def test_boundaries_can_be_left_out_with_everything_that_is_known_of_them() -> None:
    recording = Recording.merged([make_recording(), Recording({"a.g": BoundaryRecord("a.g")})])
    rest = recording.without(["a.f", "a.h"])
    assert (list(rest.boundaries), rest.flows, rest.skipped) == (["a.g"], [], {})


def test_files_of_several_processes_are_read_as_one_and_others_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "run[1].json"
    for name in ("run[1].json", "run[1].json.17-2", "run[1].json.18-3", "run[1].json.bak", "run1.json.19-4"):
        make_recording().save(tmp_path / name)
    assert Recording.load(path).boundaries["a.f"].calls == 9
    path.unlink()
    assert Recording.load(path).boundaries["a.f"].calls == 6


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no JSON", "Expecting value"),
        ("[]", "got 'list'"),
        ('{"format": "other"}', "got 'other'"),
        ('{"format": "shapecheck-recording", "version": 99}', "version 1, got 'shapecheck-recording', version 99"),
        ('{"format": "shapecheck-recording", "version": 1}', "got: 'boundaries'"),
    ],
    ids=["text", "list", "other", "version", "incomplete"],
)
def test_what_is_no_recording_is_refused_by_name(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"Expected '.*run.json' to be a recording") as caught:
        Recording.load(path)
    assert reason in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"Expected '.*none.json' to be a recording, got no such file"):
        Recording.load(tmp_path / "none.json")


# --- processes ----------------------------------------------------------------------------------------------
SCRIPT = """
import multiprocessing, sys
import numpy as np
from jaxtyping import Float32
from shapecheck import contract

@contract
def scale(x: Float32[np.ndarray, "n d"], y: Float32[np.ndarray, " d"]) -> Float32[np.ndarray, "n d"]:
    return x * y

@contract
def never(x: Float32[np.ndarray, " n"]): ...

def work(n):
    scale(np.zeros((n, 4), np.float32), np.zeros(4, np.float32))

if __name__ == "__main__":
    work(2)
    worker = multiprocessing.get_context(sys.argv[1]).Process(target=work, args=(3,))
    worker.start()
    worker.join()
    sys.exit(worker.exitcode)
"""


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    (tmp_path / "program.py").write_text(SCRIPT)

    def run(method: str, **environment: str) -> subprocess.CompletedProcess[str]:
        known = {name: value for name, value in os.environ.items() if name != "SHAPECHECK"}
        path = str(Path(shapecheck.__file__).parents[1])
        return subprocess.run(
            [sys.executable, "program.py", method],
            cwd=tmp_path,
            env={**known, "PYTHONPATH": path, **environment},
            capture_output=True,
            text=True,
            check=True,
        )

    return run


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_program_and_its_workers_are_recorded_beside_the_file_that_the_environment_names(
    program: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, method: str
) -> None:
    program(method, SHAPECHECK_RECORD="out/run.json")
    assert len(list((tmp_path / "out").iterdir())) == 2
    recording = Recording.load(tmp_path / "out" / "run.json")
    assert recording.boundaries["__main__.scale"].sizes == {"n": [2, 3], "d": [4]}
    assert recording.boundaries["__main__.scale"].calls == 2
    assert recording.boundaries["__main__.never"].calls == 0
    assert sorted(recording.boundaries) == ["__main__.never", "__main__.scale"]  # the worker calls itself otherwise


def test_what_an_earlier_run_has_left_is_added_up_and_the_commands_say_so(
    program: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    program("spawn", SHAPECHECK_RECORD="run.json")
    assert main(["coverage", "run.json"]) == 0
    assert capsys.readouterr().err == ""  # a worker belongs to the run of the process that started it
    program("spawn", SHAPECHECK_RECORD="run.json")
    assert main(["coverage", "run.json"]) == 0
    assert re.fullmatch(
        r"shapecheck: run\.json holds 2 runs, the first of \d{4}(-\d\d){2} \d\d:\d\d: "
        r"delete run\.json\.\* to begin anew\.\n",
        capsys.readouterr().err,
    )
    assert Recording.load("run.json").boundaries["__main__.scale"].calls == 4


def test_nothing_is_recorded_with_checks_off_or_without_being_asked(
    program: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    program("fork", SHAPECHECK_RECORD="run.json", SHAPECHECK="off")
    program("fork")
    assert [path.name for path in tmp_path.iterdir()] == ["program.py"]
