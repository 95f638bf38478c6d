"""The pages about errors are true: every program on them is run, and what it prints is what stands there."""

import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from shapecheck.errors import DIAGNOSES

REPOSITORY = Path(__file__).parents[2]
ERRORS = (REPOSITORY / "docs/errors.md").read_text()
COMPARISON = (REPOSITORY / "docs/comparison.md").read_text()


@pytest.fixture
def gallery(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    import error_gallery

    return error_gallery


@pytest.fixture
def comparison(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    import error_comparison

    return error_comparison


def without_counts(text: str) -> str:
    """Forget how many frames other packages have: that changes with their versions."""
    return re.sub(r"\.\.\. \d+ frames", "... frames", text)


@pytest.mark.violation
@pytest.mark.slow
def test_every_program_prints_what_stands_below_it(gallery: ModuleType) -> None:
    assert without_counts(gallery.refreshed(ERRORS)) == without_counts(ERRORS)


def test_the_runner_of_programs_can_fail(gallery: ModuleType) -> None:
    assert (
        gallery.refreshed("```python\nprint(1)\n```\n\n```text\n2\n```\n")
        == "```python\nprint(1)\n```\n\n```text\n1\n```\n"
    )
    assert gallery.refreshed("```py\nprint(1)\n```\n") == "```py\nprint(1)\n```\n\n```text\n1\n```\n"
    assert gallery.refreshed("```python\nx = 1\n```\n\n```sh\nls\n```\n") == "```python\nx = 1\n```\n\n```sh\nls\n```\n"


def diagnoses() -> Iterator[tuple[str, str]]:
    sections = re.split(r"^##", ERRORS.partition("\n## Diagnoses\n")[2].partition("\n## ")[0], flags=re.MULTILINE)
    for section in sections[1:]:
        title, _, body = section.partition("\n")
        yield title.removeprefix("# "), body


def test_every_diagnosis_is_shown_and_has_a_word_of_explanation() -> None:
    shown = dict(diagnoses())
    assert shown.keys() == DIAGNOSES.keys()
    for name, body in shown.items():
        prose = re.sub(r"^```.*?^```$", "", body, flags=re.DOTALL | re.MULTILINE)
        assert f"\nContractError [{name}]: " in body, name
        assert len(prose.split()) > 4, name


def test_no_output_holds_an_address_or_a_path_of_some_machine(gallery: ModuleType) -> None:
    for _, _, printed in gallery.outputs(ERRORS):
        assert not re.search(r"\b0x[0-9a-f]{4,}|site-packages|/tmp/|/home/", printed)


def test_no_program_prints_more_than_it_should(gallery: ModuleType) -> None:
    for kind, code, printed in gallery.outputs(ERRORS):
        errors = max(1, printed.count("ContractError ["))
        workers = "raised in" in printed or "in thread" in printed or "While handling" in printed
        if kind == "py" and "mode(" not in code:
            assert len(printed.splitlines()) <= errors * (13 if workers else 12), printed


@pytest.mark.violation
def test_what_this_package_says_in_the_comparison_is_true(comparison: ModuleType) -> None:
    assert comparison.missing_rows(COMPARISON) == []
    assert comparison.missing_rows(COMPARISON.replace("optics.merge", "optics.other")) != []


def test_every_checker_and_every_bug_is_in_the_comparison(comparison: ModuleType) -> None:
    assert len(comparison.BUGS) == 10
    for checker in comparison.CHECKERS:
        assert COMPARISON.count(f"\n| {checker.name} | ") == len(comparison.BUGS)
        assert all(f"{name} " in COMPARISON for name in checker.distributions)


def test_a_checker_that_is_not_installed_is_named_with_the_reason(comparison: ModuleType) -> None:
    def missing() -> dict[str, object]:
        import no_such_checker

        return vars(no_such_checker)

    said = comparison.answers(comparison.Checker("some", ("no-such-checker",), missing))
    assert said == "not installed: No module named 'no_such_checker'"
    assert comparison.version_of(comparison.Checker("some", ("no-such-checker",), missing)) == "some (not installed)"
