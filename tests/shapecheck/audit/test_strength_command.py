"""The contracts of a whole package, measured: the table, the threshold, and the holes that are left open on purpose."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")

from shapecheck.audit import strengths
from shapecheck.cli import main

pytestmark = pytest.mark.violation  # with checking off there are no contracts to measure

SOURCE = """
import dataclasses
from typing import TypedDict
from jaxtyping import Float32
from torch import Tensor
from shapecheck import contract
from shapecheck.data import BatchContract

@contract
def lone(x: Float32[Tensor, "n h w"]): raise AssertionError

@contract
def tied(x: Float32[Tensor, "n h w"], y: Float32[Tensor, "h w"]): raise AssertionError

@contract
def plain(n: int) -> str: raise AssertionError

def uncontracted(x: Float32[Tensor, "n h w"]): raise AssertionError

@contract
@dataclasses.dataclass
class Record:
    x: Float32[Tensor, "n k"]

BATCH = BatchContract(Float32[Tensor, "n 3"])
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "measured_package.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "measured_package"
    sys.modules.pop("measured_package", None)


def test_every_contract_of_a_package_is_measured_or_listed(package: str) -> None:
    found = {one.name.rpartition(".")[2]: one for one in strengths(package)}
    assert list(found)[:4] == ["lone", "tied", "plain", "Record"]
    assert len(found) == 5
    assert [name for name, one in found.items() if one.skipped] == ["plain"]
    assert found["lone"].place == "measured_package.py:9"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str]]:
    status = main(["strength", *arguments])
    output = capsys.readouterr()
    return status, [*output.out.splitlines(), *output.err.splitlines()]


def test_the_table_begins_with_the_weakest_and_ends_with_the_sum(
    package: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, lines = run(capsys, package)
    assert status == 0
    assert lines[1] == " 72.2 %     13 of    18      1  measured_package.lone"
    assert lines[-1].endswith("mutants caught by 4 contracts; 2 holes; 1 contract not measured")
    at = lines.index("hole: n, h and w are interchangeable")
    assert lines[at + 1 : at + 3] == [
        "  repair: bind h and w in another argument, or make them literal",
        "  measured_package.lone: x",
    ]
    assert lines[lines.index("not measured: no annotation in it speaks of a tensor") + 1] == "  measured_package.plain"


def test_one_function_is_said_in_full(package: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, lines = run(capsys, package, "--function", "lone")
    assert status == 0
    assert lines == str(next(iter(strengths(package)))).splitlines()


def test_a_threshold_fails_below_and_not_above(package: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, package, "--at-least", "80")[0] == 0
    status, lines = run(capsys, package, "--at-least", "100")
    assert status == 1
    assert lines[-1].startswith("Expected at least 100 % of the mutants to be caught, got 9")


def accepting(tmp_path: Path, *entries: tuple[str, str, str]) -> str:
    path = tmp_path / "accepted.toml"
    keys = ("contract", "hole", "reason")
    tables = ["\n".join(f"{key} = '{text}'" for key, text in zip(keys, entry, strict=True)) for entry in entries]
    path.write_text("".join(f"[[accepted]]\n{table}\n" for table in tables))
    return str(path)


def test_a_hole_that_is_not_accepted_fails_and_so_does_an_entry_that_accepts_none(
    package: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = ("measured_package.Record", "x: n and k are interchangeable", "one array of points")
    lone = ("*.lone", "*: n, h and w are interchangeable", "an image in itself")
    assert run(capsys, package, "--accept", accepting(tmp_path, record, lone))[0] == 0
    status, lines = run(capsys, package, "--accept", accepting(tmp_path, lone))
    assert status == 1
    assert lines[-1].startswith("Unexplained hole of measured_package.Record: x: n and k are interchangeable. Close it")
    status, lines = run(capsys, package, "--accept", accepting(tmp_path, record, lone, ("*.tied", "*", "old")))
    assert status == 1
    assert lines[-1] == "Nothing is left open by contract = '*.tied', hole = '*': remove that entry."


@pytest.mark.parametrize(
    "text", ["[[accepted]]\ncontract='a'\nhole='b'", "[[accepted]]\ncontract='a'\nhole='b'\nreason=' '", "x = 1", "[["]
)
def test_a_file_of_accepted_holes_without_reasons_is_refused(
    package: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (tmp_path / "accepted.toml").write_text(text)
    status, lines = run(capsys, package, "--accept", str(tmp_path / "accepted.toml"))
    assert status == 2
    assert lines[-1].startswith("shapecheck strength: Expected")


def test_what_is_written_for_machines_holds_every_mutant(
    package: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, package, "--json", str(tmp_path / "strength.json"))
    lone = json.loads((tmp_path / "strength.json").read_text())[0]
    assert (lone["caught"], lone["total"], len(lone["mutants"])) == (13, 18, 18)
    assert lone["families"]["permuted"] == [0, 5]
    assert lone["holes"][0]["targets"] == ["x"]


def test_what_cannot_begin_says_what_to_do(package: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, lines = run(capsys, package, "--function", "tiet")
    assert (status, lines[-1]) == (
        2,
        "shapecheck strength: Expected a contract of measured_package, got 'tiet': did you mean 'tied'?",
    )
    assert run(capsys, "there_is_no_such_package")[0] == 2
    status, lines = run(capsys, "json.decoder")
    assert (status, lines[-1]) == (
        2,
        "shapecheck strength: json.decoder has no contracts: put @contract on its functions, or try --hook.",
    )


def test_annotations_without_contracts_are_measured_through_the_import_hook(
    package: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, lines = run(capsys, package, "--hook")
    assert status == 0
    assert any(line.endswith("  measured_package.uncontracted") for line in lines)
