"""What is proposed for the physics of `ptycho_torch` without its annotations, compared with what its authors wrote."""

import ast
import importlib
import inspect
import shutil
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from projects import Project

torch = pytest.importorskip("torch")
pytest.importorskip("lightning", reason="the pipeline needs it")

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git applies the proposal")

COPY = "stripped_ptycho"
FEW = ((3, 4, 2, 16, 26), (2, 3, 4, 10, 21))
MORE = ((5, 2, 3, 12, 30), (4, 6, 1, 9, 24), (2, 7, 5, 20, 29))

KINDS = "its author also says which quantity it is (Annotated), which no shape shows"
NO_TENSORS = "no array goes through it"


def without_annotations(source: str) -> str:
    """A module without the annotations of its functions and without `@contract`, all else as it stands."""
    text = source.encode()
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    cuts = [
        tuple(starts[line - 1] + column for line, column in places)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef)
        for places in _cuts(node)
    ]
    for begin, end in sorted(cuts, reverse=True):
        is_result = text[:begin].rstrip().endswith(b"->")
        text = (text[:begin].rstrip().removesuffix(b"->").rstrip() if is_result else text[:begin]) + text[end:]
    return text.decode()


def _cuts(node: ast.FunctionDef) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    for inner in ast.walk(node.args):
        if isinstance(inner, ast.arg) and inner.annotation is not None:
            name_ends = inner.col_offset + len(inner.arg)
            yield (inner.lineno, name_ends), (inner.end_lineno, inner.end_col_offset)
    if node.returns is not None:
        returns = node.returns
        yield (returns.lineno, returns.col_offset), (returns.end_lineno, returns.end_col_offset)
    for decorator in node.decorator_list:
        if ast.unparse(decorator).startswith("contract"):
            yield (decorator.lineno, 0), (decorator.end_lineno + 1, 0)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of the package under another name, its physics stripped."""
    monkeypatch.chdir(tmp_path)
    import ptycho_torch

    found = Project(tmp_path, COPY)
    folder = Path(ptycho_torch.__file__).parent
    for path in folder.rglob("*.py"):
        source = path.read_text().replace("ptycho_torch", COPY)
        stripped = path.stem in {"helper", "_shift"}
        found.write(without_annotations(source) if stripped else source, f"{COPY}/{path.relative_to(folder)}")
    found.write("[tool.ruff]\nline-length = 120\n", "pyproject.toml")
    return found


def use(helper: Any, sizes: tuple[tuple[int, ...], ...]) -> None:
    def waves(*shape: int) -> Any:
        return torch.randn(shape, dtype=torch.complex64)

    for B, C, P, N, M in sizes:
        offsets, patches, probe = torch.zeros(B, C, 1, 2), waves(B, C, N, N), waves(B, C, P, N, N)
        helper.Translation(torch.zeros(B * C, N + 1, N + 5), torch.zeros(B * C, 1, 2))
        helper.Translation(waves(B * C, N + 1, N + 5), torch.zeros(B * C, 1, 2), 0.5)
        helper.reassemble_patches_position_real(patches, offsets, M)
        helper.reassemble_patches_position_real(patches, offsets, M, helper.probe_weights(probe))
        helper.extract_channels_from_region(waves(B, 1, M, M), offsets, N)
        helper.diffract(helper.illuminate(patches, probe))
        helper.check_offsets_fit(offsets, N, M)
        helper.padded_size(N, 2, 3.0)


def few(helper: Any) -> None:
    use(helper, FEW)


def more(helper: Any) -> None:
    use(helper, MORE)


def plain(hint: Any) -> Any:
    """An annotation without what stands behind it in `Annotated`."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint


def written(hint: Any, names: dict[str, str]) -> str:
    """An annotation as text in which the dims of a function are numbered in the order in which they appear."""
    hint = plain(hint)
    if hasattr(hint, "dim_str"):
        dims = [dim if dim.isdigit() else names.setdefault(dim, f"d{len(names)}") for dim in hint.dim_str.split()]
        return f"{hint.dtype.__name__}[{hint.array_type.__name__}, {' '.join(dims)}]"
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return " | ".join(written(member, names) for member in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return f"tuple[{', '.join(written(item, names) for item in typing.get_args(hint))}]"
    return "None" if hint in {None, types.NoneType} else hint.__name__


def signature(function: Any) -> dict[str, Any]:
    function = inspect.unwrap(function)
    names = [*inspect.signature(function).parameters, "return"]
    return {name: function.__annotations__[name] for name in names if name in function.__annotations__}


def differences(originals: Any, copies: Any) -> dict[tuple[str, str], str]:
    """Where a proposal differs from what its author wrote, and why; dims may have other names."""
    found: dict[tuple[str, str], str] = {}
    for function in originals.__all__:
        original, proposed = signature(getattr(originals, function)), signature(getattr(copies, function))
        names: tuple[dict[str, str], dict[str, str]] = {}, {}
        for parameter, hint in original.items():
            if not proposed:
                found[function, parameter] = NO_TENSORS
            elif (author := written(hint, names[0])) != (machine := written(proposed[parameter], names[1])):
                found[function, parameter] = f"{author} is not {machine}"
            elif plain(hint) is not hint:
                found[function, parameter] = KINDS
    return found


def test_the_original_contracts_are_proposed_but_for_what_no_shape_shows(project: Project) -> None:
    originals = importlib.import_module("ptycho_torch.helper")
    found = project.inferred(few, more, module=f"{COPY}.helper")
    project.applied(found)
    with project.importable():
        different = differences(originals, importlib.import_module(f"{COPY}.helper"))
    assert different == {
        ("Translation", "offset"): KINDS,
        ("check_offsets_fit", "offsets"): KINDS,
        ("diffract", "return"): KINDS,
        ("extract_channels_from_region", "offsets"): KINDS,
        ("padded_size", "patch_size"): NO_TENSORS,
        ("padded_size", "gridsize"): NO_TENSORS,
        ("padded_size", "max_neighbor_distance"): NO_TENSORS,
        ("padded_size", "return"): NO_TENSORS,
        ("reassemble_patches_position_real", "offsets"): KINDS,
    }
    assert "Shapes show neither kinds" in str(found)


def test_the_proposal_holds_in_the_runs_that_it_came_from(project: Project) -> None:
    project.applied(project.inferred(few, more, module=f"{COPY}.helper"))
    project.used_under_contract(few, more, module=f"{COPY}.helper")


def test_one_run_leaves_open_what_it_cannot_know_and_says_so(project: Project) -> None:
    found = project.inferred(few, module=f"{COPY}.helper")
    (proposal,) = [proposal for proposal in found.proposals if proposal.function.name == "Translation"]
    texts = [proposal.annotations["offset"], *proposal.notes[:2]]
    one, two = texts[0].split('"')[1].split()[1:]
    assert one.isidentifier()
    assert two.isidentifier()
    assert texts[1:] == [
        (
            f"{one} (offset axis 1, return axis 1) were all 1 in all 4 calls of 1 run: "
            "whether they are one dim, several or the number 1 is not known, run once more with other sizes"
        ),
        (
            f"{two} (offset axis 2) was 2 in all 4 calls of 1 run: "
            "run once more with another size, or write 2 if that is meant"
        ),
    ]
