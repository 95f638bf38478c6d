"""The framework on NumPy alone: nothing here needs torch, and the environments `numpy` of tox do not have it."""

import dataclasses
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
import pytest
from jaxtyping import Complex64, Float, Float32, Int64

import shapecheck
from shapecheck import Axes, ContractDefinitionError, ContractError, check, contract


class Fields(TypedDict):
    images: Float32[np.ndarray, "B N N"]
    positions: Float32[np.ndarray, "B 2"]


class Pair(NamedTuple):
    image: Float32[np.ndarray, "h w"]
    mask: Float32[np.ndarray, "h w"]


@contract(dims={"N": "size"})
def crop(
    fields: Fields, size: int, *extra: Complex64[np.ndarray, "N N"], half: Float[np.ndarray, " B//2"] | None = None
) -> Float32[np.ndarray, "B N"]:
    """Use every kind of axis that a file may have."""
    del extra, half, size
    return fields["images"].sum(-1)


def make_fields(B: int = 6, N: int = 5, **changes: Any) -> Any:
    return {"images": np.zeros((B, N, N), np.float32), "positions": np.zeros((B, 2), np.float32), **changes}


PROBE = np.zeros((5, 5), np.complex64)


@pytest.mark.violation
def test_no_other_library_is_needed() -> None:
    code = (
        "import jaxtyping, numpy, shapecheck, sys;"
        "shapecheck.check(numpy.zeros(3), jaxtyping.Float64[numpy.ndarray, ' n']);"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


LENSES = """
import numpy as np
from jaxtyping import Float32
from shapecheck import contract

@contract
def flip(x: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "w h"]: return x.T

def bare(x): return x
"""
HIDDEN = "import sys; sys.modules['torch'] = None  # also where it is installed\n"
TOOLS = """
import numpy as np
from shapecheck import audit

with audit.watch_calls("lenses") as calls:
    import lenses
    with audit.record() as recording:
        lenses.bare(lenses.flip(np.zeros((3, 2), np.float32)))
print(audit.coverage(recording, "lenses").summary())
print(audit.coincidences(recording), recording.boundaries["lenses.flip"].calls)
print([entry.how for entry in audit.enforcement("lenses")])
print(audit.strength(lenses.flip).caught == audit.overview("lenses", recording).caught > 0)
print(audit.infer(calls).proposals[-1].annotations["x"])
"""


def run_without_torch(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    (folder / "lenses.py").write_text(LENSES)
    environment = {**os.environ, "SHAPECHECK": "on", "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    command = [sys.executable, "-c", HIDDEN + code]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_the_tools_that_run_nothing_on_torch_need_none(tmp_path: Path) -> None:
    done = run_without_torch(tmp_path, TOOLS)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "1 contract defined, 1 exercised, 0 never exercised (100 %)",
        "[] 1",
        "['compiled', 'compiled', 'no contract']",
        "True",
        'Float32[np.ndarray, "h w"]',
    ]


@pytest.mark.parametrize("command", [["explain", "B C"], ["verify", "lenses"]], ids=lambda command: command[0])
def test_a_command_that_needs_torch_says_so_in_one_line(tmp_path: Path, command: list[str]) -> None:
    done = run_without_torch(tmp_path, f"from shapecheck.cli import main; sys.exit(main({command}))")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"shapecheck {command[0]}: ")
    assert "torch" in done.stderr
    assert done.stderr.count("\n") == 1


def test_calls_that_keep_the_contract_return_what_the_function_returns() -> None:
    assert crop(make_fields(), 5).shape == (6, 5)
    assert crop(make_fields(B=1), 5, PROBE, PROBE).shape == (1, 5)
    assert crop(make_fields(), 5, PROBE, half=np.zeros(3)).shape == (6, 5)


@pytest.mark.violation
@pytest.mark.parametrize(
    ("call", "path", "kind"),
    [
        (lambda: crop(make_fields(), 4), "fields['images']", "tied-dim"),
        (lambda: crop(make_fields(positions=np.zeros((2, 6), np.float32)), 5), "fields['positions']", "axis-order"),
        (lambda: crop(make_fields(images=np.zeros((6, 5, 5))), 5), "fields['images']", "dtype"),
        (lambda: crop(make_fields(), 5, PROBE, PROBE[1:]), "extra[1]", "tied-dim"),
        (lambda: crop(make_fields(), 5, half=np.zeros(4)), "half", "axis-size"),
        (lambda: crop({"images": np.zeros((6, 5, 5), np.float32)}, 5), "fields", "missing-key"),
        (lambda: check([1], list[str]), "value[0]", "type"),
    ],
    ids=["tied dim", "order", "dtype", "star", "symbolic", "key", "plain"],
)
def test_calls_that_break_it_are_diagnosed(call: Any, path: str, kind: str) -> None:
    with pytest.raises(ContractError) as caught:
        call()
    assert [(violation.parameter, violation.id) for violation in caught.value.violations] == [(path, kind)]
    assert pickle.loads(pickle.dumps(caught.value)).violations == caught.value.violations


@pytest.mark.violation
def test_a_hint_names_what_numpy_calls_it() -> None:
    with pytest.raises(ContractError, match=r"fields\['positions'\]\.transpose\(1, 0\) satisfies the contract"):
        crop(make_fields(positions=np.zeros((2, 6), np.float32)), 5)


@pytest.mark.violation
def test_records_are_checked_when_built() -> None:
    @contract
    @dataclasses.dataclass(frozen=True)
    class Scan:
        members: Int64[np.ndarray, "G C"]
        pair: Pair

    image = np.zeros((5, 6), np.float32)
    assert Scan(np.zeros((2, 4), np.int64), Pair(image, image)).members.shape == (2, 4)
    with pytest.raises(ContractError, match=r"parameter 'pair\.mask'"):
        Scan(np.zeros((2, 4), np.int64), Pair(image, image.T))


@pytest.mark.violation
def test_definitions_that_mean_nothing_are_refused() -> None:
    def misspelt(x: Float32[np.ndarray, "B bacth"]) -> None:
        del x

    with pytest.raises(ContractDefinitionError, match="did you mean 'batch'"):
        contract(axes=Axes(B="groups", batch="images"))(misspelt)
    contract(axes=Axes(B="groups", bacth="as misspelt"))(misspelt)(np.zeros((2, 3), np.float32))


def test_off_leaves_the_function_alone() -> None:
    def function(x: Float32[np.ndarray, " n"]) -> None:
        del x

    with shapecheck.mode("off"):
        assert contract(function) is function
