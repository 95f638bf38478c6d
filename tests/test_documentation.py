"""The documentation tells the truth: snippets run and print what stands beside them, options and names exist."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

from ptycho_torch.cli import build_parser

REPOSITORY = Path(__file__).parents[1]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PAGES = [
    path
    for path in (REPOSITORY / "README.md", *sorted(REPOSITORY.glob("docs/*.md")))
    if "```python" in path.read_text()
]


def snippets(text: str) -> list[tuple[str, str | None]]:
    """Python blocks, each with what it prints where the next block says so."""
    blocks = FENCE.findall(text)
    following = [*blocks[1:], ("", "")]
    return [
        (code, after if kind_after == "text" else None)
        for (kind, code), (kind_after, after) in zip(blocks, following, strict=True)
        if kind == "python"
    ]


def run_snippet(code: str, names: dict[str, Any], *, may_raise: bool) -> str:
    """Run as a file `example.py` would; what it raises counts as printed."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            exec(compile(code, "example.py", "exec"), names)  # noqa: S102 - the snippets are our own
        except (TypeError, ValueError) as error:  # what contracts and configurations raise
            if not may_raise:
                raise
            named = "" if str(error).startswith("ContractError [") else f"{type(error).__name__}: "
            print(f"{named}{error}")
    return printed.getvalue()


def page_parameter(path: Path) -> Any:
    needs_checking = any(
        sign in path.read_text() for sign in ("ContractError [", "Unknown dim", "shapecheck.audit import")
    )
    return pytest.param(path, id=path.name, marks=[pytest.mark.violation] if needs_checking else [])


@pytest.mark.parametrize("page", [page_parameter(path) for path in PAGES])
def test_every_snippet_prints_what_stands_beside_it(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for code, expected in snippets(page.read_text()):
        printed = run_snippet(code, names, may_raise=expected is not None)
        assert printed == (expected or ""), code


def test_the_runner_of_snippets_can_fail():
    assert snippets("```python\nprint(1)\n```\n\n```text\n2\n```\n") == [("print(1)\n", "2\n")]
    assert snippets("```python\nprint(1)\n```\n\n```sh\nls\n```\n") == [("print(1)\n", None)]
    assert run_snippet("print(1)", {}, may_raise=False) == "1\n"
    with pytest.raises(ValueError, match="invalid literal"):
        run_snippet("int('x')", {}, may_raise=False)


def test_the_first_screen_of_the_readme_holds_contract_error_install_switch_and_documentation():
    screen = "\n".join((REPOSITORY / "README.md").read_text().splitlines()[:40])
    for needed in ("@contract", "ContractError [", "pip install shapecheck-torch", "SHAPECHECK=off", "docs/index.md"):
        assert needed in screen
    contract, _ = snippets(screen)[0]
    assert len([line for line in contract.splitlines() if line]) <= 8


def test_every_option_of_the_command_line_is_documented_and_no_other():
    page = (REPOSITORY / "docs/cli.md").read_text()
    commands = build_parser()._subparsers._group_actions[0].choices  # noqa: SLF001 - argparse has no other way
    sections = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    assert [section.split("\n", 1)[0] for section in sections] == list(commands)
    for section, parser in zip(sections, commands.values(), strict=True):
        listed = {
            option
            for row in re.findall(r"^\| (`--.*?) \|", section, re.MULTILINE)
            for option in re.findall(r"--[\w-]+", row)
        }
        options = {option for option in parser._option_string_actions if option.startswith("--")}  # noqa: SLF001
        assert listed == options - {"--help", "--quiet"}


def test_every_module_of_the_pipeline_is_in_its_api_page():
    page = (REPOSITORY / "docs/api/ptycho_torch.md").read_text()
    modules = {path.stem for path in (REPOSITORY / "ptycho_torch").glob("*.py") if not path.stem.startswith("_")}
    assert set(re.findall(r"^::: ptycho_torch\.(\w+)$", page, re.MULTILINE)) == modules
