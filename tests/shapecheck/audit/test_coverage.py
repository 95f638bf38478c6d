"""Which contracts of a package a run has asked: from recordings, on the command line, for packages and for all."""

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

torch = pytest.importorskip("torch")

from shapecheck import cli, install_import_hook
from shapecheck.audit import BoundaryRecord, Covered, Recording, coverage, record

SOURCE = {
    "__init__.py": "",
    "used.py": """
from dataclasses import dataclass
from jaxtyping import Float32
from torch import Tensor
from shapecheck import contract

@contract
def asked(x: Float32[Tensor, "n 2"]) -> Float32[Tensor, "n 2"]:
    return x

@contract
def refusing(x: Float32[Tensor, "n 2"]) -> None: ...

@contract
def traced(x: Float32[Tensor, "n 2"]) -> Float32[Tensor, "n 2"]:
    return x + 1

@contract
@dataclass
class Pair:
    left: Float32[Tensor, " n"]
    right: Float32[Tensor, " n"]

def bare(x: Float32[Tensor, "n 2"], n: int) -> None: ...

def plain(x: Tensor, y: Tensor) -> Tensor: ...

def _inside(x: Tensor) -> Tensor: ...
""",
    "idle.py": """
from jaxtyping import Float32
from torch import Tensor
from shapecheck import contract

@contract
def forgotten(x: Float32[Tensor, "n 2"]) -> None: ...
""",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Writes a package that can be imported, and imports a module of it."""
    for name, source in SOURCE.items():
        (tmp_path / "prisms").mkdir(exist_ok=True)
        (tmp_path / "prisms" / name).write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield lambda name: importlib.import_module(f"prisms.{name}")
    for name in [name for name in sys.modules if name.split(".")[0] == "prisms"]:
        del sys.modules[name]


def run(used: ModuleType) -> Recording:
    with record() as recording:
        used.asked(torch.zeros(3, 2))
        used.asked(torch.zeros(4, 2))
        used.Pair(torch.zeros(3), torch.zeros(3))
        with pytest.raises(TypeError):
            used.refusing(torch.zeros(3))
        torch.compile(used.traced, backend="eager")(torch.zeros(3, 2))
    torch.compiler.reset()
    return recording


@pytest.mark.violation
def test_every_contract_is_listed_with_how_it_was_asked(package: Callable[[str], ModuleType]) -> None:
    covered = coverage(run(package("used")), "prisms")
    outcomes = {one.name.removeprefix("prisms."): (one.outcome, one.calls) for one in covered.contracts}
    assert outcomes == {
        "idle.forgotten": ("never called", 0),
        "used.Pair": ("accepted calls", 1),
        "used.asked": ("accepted calls", 2),
        "used.refusing": ("only rejected calls", 1),
        "used.traced": ("only while torch traced it", 0),
    }
    assert (covered.exercised, covered.percent) == (4, 80.0)
    assert covered.summary() == "5 contracts defined, 4 exercised, 1 never exercised (80 %)"
    assert covered.of("never called") == [Covered("prisms.idle.forgotten", "prisms/idle.py:6", "never called", 0)]
    assert covered.unchecked == (
        "prisms.used.bare: x (the function has no contract)",
        "prisms.used.plain: x, y, return (Tensor says nothing of the axes)",
    )
    assert covered.unchecked_inside == 1


@pytest.mark.violation
def test_the_report_says_what_is_not_as_it_should_be_the_worst_first(package: Callable[[str], ModuleType]) -> None:
    text = str(coverage(run(package("used")), "prisms"))
    assert text.splitlines() == [
        "5 contracts defined, 4 exercised, 1 never exercised (80 %)",
        "  never called: prisms.idle.forgotten (prisms/idle.py:6)",
        "  only rejected calls: prisms.used.refusing (prisms/used.py:11)",
        "  only while torch traced it: prisms.used.traced (prisms/used.py:14)",
        "  shape not checked: prisms.used.bare: x (the function has no contract)",
        "  shape not checked: prisms.used.plain: x, y, return (Tensor says nothing of the axes)",
        "  shape not checked: 1 private function, for which its callers answer",
    ]


@pytest.mark.violation
def test_where_everything_is_asked_there_is_nothing_to_report(package: Callable[[str], ModuleType]) -> None:
    idle = package("idle")
    with record() as recording:
        idle.forgotten(torch.zeros(3, 2))
    covered = coverage(recording, "prisms.idle")
    assert str(covered) == "1 contract defined, 1 exercised, 0 never exercised (100 %)"
    assert str(coverage(Recording())) == "0 contracts defined, 0 exercised, 0 never exercised (100 %)"


@pytest.mark.violation
def test_without_a_package_the_report_is_about_what_was_recorded(package: Callable[[str], ModuleType]) -> None:
    recording = run(package("used"))
    names = {one.name for one in coverage(recording).contracts}
    assert names == recording.boundaries.keys()
    assert coverage(recording).unchecked == ()


@pytest.mark.violation
@pytest.mark.filterwarnings("ignore::shapecheck.ContractWarning")
def test_what_the_import_hook_could_not_contract_is_listed_with_the_reason(
    package: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    (tmp_path / "prisms" / "strange.py").write_text(
        'from jaxtyping import Float32\nfrom torch import Tensor\ndef odd(x: Float32[Tensor, "n>1"]): return x\n'
    )
    with install_import_hook("prisms.strange"), record() as recording:
        package("strange")
    covered = coverage(recording, "prisms.strange")
    assert list(covered.refused) == ["prisms.strange.odd"]
    assert covered.findings()[0].startswith("no contract: prisms.strange.odd: Malformed axis 'n>1'")
    assert coverage(recording, "prisms.used").refused == {}


def test_only_all_is_a_hundred_percent() -> None:
    boundaries = {f"a.f{index}": BoundaryRecord(f"a.f{index}", calls=index) for index in range(200)}
    assert coverage(Recording(boundaries)).summary().endswith("(99 %)")


def test_names_that_only_begin_alike_belong_to_other_packages() -> None:
    names = ["json", "json.f", "json.sub.f", "json (batch)", "jsonl.f", "my.json.f"]
    recording = Recording({name: BoundaryRecord(name, calls=1) for name in names})
    assert [one.name for one in coverage(recording, "json").contracts] == sorted(names[:4])


# --- the command --------------------------------------------------------------------------------------------
@pytest.fixture
def recorded(package: Callable[[str], ModuleType], tmp_path: Path) -> list[str]:
    """Two recordings, of which each has seen a part."""
    used = package("used")
    with record() as one:
        used.asked(torch.zeros(2, 2))
    with record() as other:
        used.Pair(torch.zeros(3), torch.zeros(3))
    files = [str(tmp_path / "one.json"), str(tmp_path / "other.json")]
    one.save(files[0])
    other.save(files[1])
    return files


@pytest.mark.violation
@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        ([], 0, "5 contracts defined, 2 exercised, 3 never exercised (40 %)"),
        (["--at-least", "40"], 0, "(40 %)"),
        (["--at-least", "40.5"], 1, "Expected at least 40.5 % of the contracts to be exercised, got 40 %."),
        (["--distinct"], 1, "prisms.used.asked (prisms/used.py:7): n was 2, as the axis beside it always is"),
    ],
    ids=["report", "enough", "not enough", "distinct"],
)
def test_the_command_adds_recordings_up_and_its_status_says_whether_that_is_enough(
    recorded: list[str], capsys: pytest.CaptureFixture[str], options: list[str], status: int, said: str
) -> None:
    assert cli.main(["coverage", *recorded, "--package", "prisms", *options]) == status
    assert said in capsys.readouterr().out


@pytest.mark.violation
def test_dims_that_were_told_apart_in_one_of_several_runs_are_distinct(
    recorded: list[str], package: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    with record() as third:
        package("used").asked(torch.zeros(5, 2))
    third.save(tmp_path / "third.json")
    assert cli.main(["coverage", *recorded, str(tmp_path / "third.json"), "--distinct"]) == 0


@pytest.mark.violation
def test_the_same_is_written_as_json(recorded: list[str], tmp_path: Path) -> None:
    assert cli.main(["coverage", *recorded, "--package", "prisms.used", "--json", str(tmp_path / "out.json")]) == 0
    data = json.loads((tmp_path / "out.json").read_text())
    assert (data["exercised"], data["percent"], data["packages"]) == (2, 50.0, ["prisms.used"])
    assert data["contracts"][0] == {
        "name": "prisms.used.Pair",
        "place": "prisms/used.py:18",
        "outcome": "accepted calls",
        "calls": 1,
    }
    assert data["coincidences"][0]["dims"] == ["n", "2"]


@pytest.mark.violation
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.json"], "Expected 'none.json' to be a recording, got no such file"),
        (["bad.json"], "Expected 'bad.json' to be a recording, got: Expecting value"),
        (["one.json", "--package", "nowhere"], "No module named 'nowhere'"),
    ],
    ids=["missing", "no recording", "no package"],
)
@pytest.mark.usefixtures("recorded")
def test_what_cannot_be_read_is_said_with_status_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "bad.json").write_text("none")
    assert cli.main(["coverage", *arguments]) == 2
    assert message in capsys.readouterr().err
