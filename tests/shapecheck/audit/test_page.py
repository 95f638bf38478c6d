"""The page is one correct HTML file that needs nothing else, shows everything, and cannot be injected into."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("jinja2")

from overviews import (
    HOSTILE,
    OVERVIEWS,
    coverage_of,
    hostile_overview,
    large_overview,
    recording,
    small_overview,
    strength_of,
)

import shapecheck
from shapecheck.audit import Overview, Strength, page, strength
from shapecheck.audit._accepted import Accepted
from shapecheck.audit._page.overview import assembled
from shapecheck.cli import main

VOID = {"meta", "link", "input", "br", "img", "hr"}


class Parsed(HTMLParser):
    """Tags with their attributes, and the text of each kind of element; refuses what is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute of <{tag}> is given twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._open[-1] if self._open else "", []).append(data)

    def values(self, attribute: str) -> list[str]:
        return [attributes[attribute] or "" for _, attributes in self.tags if attribute in attributes]

    def text(self, tag: str) -> str:
        return " ".join(self.texts.get(tag, []))


@pytest.fixture(params=OVERVIEWS, scope="module")
def known(request: pytest.FixtureRequest) -> Overview:
    return OVERVIEWS[request.param]()


@pytest.fixture(scope="module")
def text(known: Overview) -> str:
    return page(known)


@pytest.fixture(scope="module")
def parsed(text: str) -> Parsed:
    return Parsed(text)


def test_the_page_is_correct_html(text: str) -> None:
    html5lib = pytest.importorskip("html5lib")
    parser = html5lib.HTMLParser(strict=True)
    assert parser.parse(text) is not None


def test_every_element_is_closed_in_order_and_the_check_of_that_can_fail(parsed: Parsed) -> None:
    assert parsed.tags
    with pytest.raises(AssertionError):
        Parsed("<p><b></p></b>")


def test_ids_are_unique_and_every_link_leads_to_one(parsed: Parsed) -> None:
    ids = parsed.values("id")
    assert len(set(ids)) == len(ids)
    links = parsed.values("href")
    assert all(link.startswith("#") for link in links)
    assert {link[1:] for link in links} <= set(ids)
    assert set(" ".join(parsed.values("aria-labelledby")).split()) <= set(ids)


def test_nothing_is_loaded_from_anywhere(text: str, parsed: Parsed) -> None:
    assert not [
        tag for tag, _ in parsed.tags if tag in {"link", "img", "iframe", "object", "embed", "base", "image", "use"}
    ]
    assert not {"src", "srcset", "data", "poster", "action", "xlink:href"} & {
        name for _, given in parsed.tags for name in given
    }
    assert "url(" not in text
    assert "@import" not in text
    assert not re.search(r"https?:|//[a-z]", text)


def test_its_policy_lets_only_its_own_style_and_script_work(parsed: Parsed) -> None:
    policy = next(
        given["content"] for tag, given in parsed.tags if given.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert "default-src 'none'" in policy
    for tag in ("style", "script"):
        assert [name for name, _ in parsed.tags].count(tag) == 1
        digest = base64.b64encode(hashlib.sha256("".join(parsed.texts[tag]).encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert "style" not in {name for _, given in parsed.tags for name in given}
    assert not {name for _, given in parsed.tags for name in given if name.startswith("on")}


def test_every_boundary_is_on_the_page_with_what_is_known_of_it(known: Overview, parsed: Parsed) -> None:
    everything = " ".join(
        text for tag, texts in parsed.texts.items() if tag not in {"script", "style"} for text in texts
    )
    for entry in known.entries:
        assert entry.title in everything
        assert entry.place in everything
        assert entry.skipped in everything
        assert all(annotation in everything for annotation in entry.annotations.values())
        for finding in entry.findings:
            assert finding.what in everything
            assert finding.cure in everything
            assert not finding.passing or finding.passing[0] in everything
        for family, (caught, total) in (entry.strength.families if entry.strength else {}).items():
            assert f"{family} {caught}/{total}" in everything
    cards = [given for tag, given in parsed.tags if tag == "article"]
    assert len(cards) == len(known.entries)


def test_the_same_overview_gives_the_same_bytes(known: Overview, text: str) -> None:
    assert page(known) == text


def test_hostile_names_are_text_and_nothing_else() -> None:
    parsed = Parsed(page(hostile_overview()))
    assert [tag for tag, _ in parsed.tags].count("script") == 1
    assert "alert" not in parsed.text("script")
    assert HOSTILE in parsed.text("code")
    assert HOSTILE in parsed.text("title")
    assert "49" not in parsed.text("h1")


def test_two_names_that_differ_only_in_odd_characters_have_different_anchors() -> None:
    names = ["a.<f>", "a.(f)", "a.f"]
    known = assembled("a", [], [strength_of(name, "") for name in names], coverage_of({}, "a"), None)
    parsed = Parsed(page(known))
    cards = [given["id"] for tag, given in parsed.tags if tag == "article"]
    assert len(set(cards)) == 3


# --- the summary -------------------------------------------------------------------------------------------
def unmeasured_overview() -> Overview:
    skipped = Strength("a.f", "", skipped="no annotation in it speaks of a tensor")
    return assembled("a", [], [skipped], coverage_of({"a.f": 1}, "a"), recording({"a.f": 1}))


def explained_overview() -> Overview:
    reason = Accepted("a.f", "*", "seen and left")
    return assembled(
        "a", [], [strength_of("a.f", "", missed=1)], coverage_of({"a.f": 1}, "a"), recording({"a.f": 1}), (reason,)
    )


def numbers_of(known: Overview) -> dict[str, str]:
    parsed = Parsed(page(known))
    first = next(index for index, text in enumerate(parsed.texts["dt"]) if text == "Boundary")  # of the words
    return dict(zip(parsed.texts["dt"][:first], parsed.texts["dd"], strict=False))


def test_the_summary_has_the_numbers_that_matter() -> None:
    assert numbers_of(small_overview()) == {
        "boundaries under contract": "5",
        "of wrong calls caught (28 of 31)": "90.3 %",
        "holes that an annotation closes": "1",
        "blind spots that none closes": "1",
        "exercised by the recorded runs": "4/5",
        "coincidences: dims that never differed": "0",
        "parameters whose shape nobody checks": "2",
    }


def test_a_hundred_per_cent_is_only_said_of_all() -> None:
    nearly = assembled("a", [], [strength_of("a.f", "", caught=4000, missed=1)], coverage_of({}, "a"), None)
    assert numbers_of(nearly)["of wrong calls caught (4,003 of 4,004)"] == "99.9 %"
    fully = assembled("a", [], [strength_of("a.f", "")], coverage_of({}, "a"), None)
    assert numbers_of(fully)["of wrong calls caught (7 of 7)"] == "100 %"


@pytest.mark.parametrize(
    ("overview", "lead", "step"),
    [
        (small_overview, "2 of 5 contracts accept some wrong calls and 1 was not exercised", "Close 1 hole:"),
        (lambda: small_overview(recorded=False), "2 of 5 contracts accept some wrong calls.", "Record a run"),
        (unmeasured_overview, "Nothing could be measured of these contracts", "see “Not measured”"),
        (explained_overview, "that were tried, but for what is left open on purpose; every", "Nothing."),
        (OVERVIEWS["empty"], "No boundary of this package is under contract", "Decorate functions with @contract"),
        (
            lambda: large_overview(1, 3),
            "No contract accepts any of the wrong calls",
            "Nothing.",
        ),
    ],
)
def test_the_page_begins_with_a_verdict_and_with_what_to_do(overview, lead, step) -> None:
    parsed = Parsed(page(overview()))
    assert lead in parsed.text("p")
    assert step in parsed.text("li")


def test_it_says_when_it_was_written_only_if_it_is_told() -> None:
    assert " on " not in Parsed(page(small_overview())).text("footer")
    assert "on 3 May" in Parsed(page(small_overview(), written="3 May")).text("footer")


# --- the command -------------------------------------------------------------------------------------------
PACKAGE = """
from jaxtyping import Float32
from torch import Tensor
from shapecheck import contract

def plain(image: Float32[Tensor, "h w"]) -> Float32[Tensor, "h"]: ...

def odd(image: Float32[Tensor, "n h>w"]) -> None: ...

@contract
def lonely(image: Float32[Tensor, "n h w"]) -> None: ...
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "reported.py").write_text(PACKAGE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # PYTHONSAFEPATH may keep the current folder off the path
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "reported", raising=False)
    return tmp_path


@pytest.mark.violation
def test_the_command_writes_the_page_and_its_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording({"reported.lonely": 3}).save(folder / "run.json")
    assert main(["report", "reported", "--recording", "run.json", "--json", "page.json"]) == 0
    measured = strength(sys.modules["reported"].lonely)
    assert capsys.readouterr().out == (
        f"reported: 1 boundary, {measured.caught} of {measured.total} wrong calls caught, 1 hole, "
        "0 blind spots, 0 not exercised, 0 coincidences\nwritten to report.html\n"
    )
    assert "lonely" in Parsed((folder / "report.html").read_text()).text("code")
    (entry,) = json.loads((folder / "page.json").read_text())["entries"]
    assert (entry["name"], entry["record"]["calls"]) == ("reported.lonely", 3)


@pytest.mark.violation
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["no_such_package"], "No module named 'no_such_package'"),
        (["reported", "--recording", "no.json"], "'no.json' to be a recording, got no such file"),
        (["reported", "--recording", "reported.py"], "'reported.py' to be a recording"),
        (["reported", "--accept", "no.toml"], "no.toml"),
        (["reported", "--output", "no/folder/page.html"], "no/folder/page.html"),
    ],
)
def test_the_command_says_in_one_line_why_it_wrote_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert main(["report", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("shapecheck report: ")
    assert says in printed.err
    assert printed.err.count("\n") == 1
    assert not list(folder.glob("*.html"))


def report(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {name: value for name, value in os.environ.items() if name not in {"SHAPECHECK", "JAXTYPING_DISABLE"}}
    variables = {**known, "PYTHONPATH": str(Path(shapecheck.__file__).parents[1]), **environment}
    command = [sys.executable, "-m", "shapecheck", "report", "reported", *arguments]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)


@pytest.mark.violation
def test_with_the_hook_annotations_are_contracts_and_another_process_writes_the_same_bytes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "reported", "--hook"]) == 0
    assert capsys.readouterr().out.startswith("reported: 2 boundaries, ")
    done = report(folder, "--hook", "--output", "other.html", PYTHONHASHSEED="1")
    assert (done.returncode, done.stderr) == (0, "")
    text = (folder / "report.html").read_text()
    assert text == (folder / "other.html").read_text()
    assert "reported.odd" in Parsed(text).text("code")
    assert "Malformed axis" in Parsed(text).text("td")
