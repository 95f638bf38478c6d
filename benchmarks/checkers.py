"""The same seven contracts in the words of six checkers, each in its own best spelling.

A contract that a checker cannot express is a sentence that says why. Nothing of a checker is imported before its
function is called.
"""

import functools
import importlib
import sys
import types
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple, TypedDict

import torch
from jaxtyping import Float32, jaxtyped
from torch import Tensor

from shapecheck import contract

Checked = Callable[..., Any] | str  # what checks a call, or why nothing can


class Batch(TypedDict):
    images: Float32[Tensor, "B C N N"]
    offsets: Float32[Tensor, "B C 1 2"]


def annotated(decorate: Callable[[Any], Any]) -> dict[str, Checked]:
    """Spell the contracts for the two checkers that share jaxtyping's annotations."""

    def checked(function: Any) -> Any:
        function.__module__, function.__qualname__ = "optics", function.__name__
        return decorate(function)

    @checked
    def merge(images: Float32[Tensor, "B C N N"], offsets: Float32[Tensor, "B C 1 2"]) -> None: ...
    @checked
    def scale(images: Float32[Tensor, "B N N"]) -> None: ...
    @checked
    def weigh(values: Float32[Tensor, "n d"], weights: Float32[Tensor, " n"]) -> None: ...
    @checked
    def collate(samples: list[Float32[Tensor, "3 h w"]]) -> None: ...
    @checked
    def train(batch: Batch) -> None: ...
    @checked
    def reduce(images: Float32[Tensor, "B N N"], dims: tuple[int, ...]) -> Float32[Tensor, " B"]:
        return images.mean(dims)

    class Merger:
        gridsize = 2

        @checked
        def configured(self, images: Float32[Tensor, "B {self.gridsize**2} N N"]) -> None: ...

    return {**_by_name(merge, scale, weigh, collate, train, reduce), "configured": Merger().configured}


def with_shapecheck() -> dict[str, Checked]:
    return annotated(contract)


def with_jaxtyping() -> dict[str, Checked]:
    from beartype import beartype

    return annotated(jaxtyped(typechecker=beartype))


def with_dltype() -> dict[str, Checked]:
    dltype: Any = importlib.import_module("dltype")
    pydantic: Any = importlib.import_module("pydantic")
    kind = dltype.Float32Tensor

    @dltype.dltyped()
    def merge(images: Annotated[Tensor, kind["B C N N"]], offsets: Annotated[Tensor, kind["B C 1 2"]]) -> None: ...
    @dltype.dltyped()
    def scale(images: Annotated[Tensor, kind["B N N"]]) -> None: ...
    @dltype.dltyped()
    def weigh(values: Annotated[Tensor, kind["n d"]], weights: Annotated[Tensor, kind["n"]]) -> None: ...
    @dltype.dltyped()
    def reduce(images: Annotated[Tensor, kind["B N N"]], dims: Any) -> Annotated[Tensor, kind["B"]]:
        return images.mean(dims)

    class BatchModel(pydantic.BaseModel):
        images: Annotated[Tensor, kind("B C N N")]
        offsets: Annotated[Tensor, kind("B C 1 2")]

    class Merger:
        gridsize = 2

        def get_dltype_scope(self) -> dict[str, int]:
            return {"C": self.gridsize**2}

        @dltype.dltyped("self")
        def configured(self, images: Annotated[Tensor, kind["B C N N"]]) -> None: ...

    return {
        **_by_name(merge, scale, weigh, reduce),
        "collate": "it looks into tuples, not into lists",
        "train": lambda batch: BatchModel(**batch),
        "configured": Merger().configured,
    }


def with_eincheck() -> dict[str, Checked]:
    check_func: Any = importlib.import_module("eincheck").check_func
    check_shapes: Any = importlib.import_module("eincheck").check_shapes

    @check_func("B C N N, B C 1 2 ->")
    def merge(images: Tensor, offsets: Tensor) -> None: ...
    @check_func("B N N ->")
    def scale(images: Tensor) -> None: ...
    @check_func("n d, n ->")
    def weigh(values: Tensor, weights: Tensor) -> None: ...
    @check_func(**{"batch.images": "B C N N", "batch.offsets": "B C 1 2"})
    def train(batch: dict[str, Tensor]) -> None: ...
    @check_func("B N N -> B")
    def reduce(images: Tensor, dims: tuple[int, ...]) -> Tensor:
        return images.mean(dims)

    def collate(samples: list[Tensor]) -> None:
        check_shapes(**{f"samples{index}": (sample, "3 h w") for index, sample in enumerate(samples)})

    def configured(images: Tensor, gridsize: int = 2) -> None:
        check_shapes((images, ["B", gridsize**2, "N", "N"]))

    return _by_name(merge, scale, weigh, train, reduce, collate, configured)


def with_tensor_shape_assert() -> dict[str, Checked]:
    if sys.version_info < (3, 12):  # a class that is only there for static checkers is written in newer syntax
        sys.modules["array_api"] = types.ModuleType("array_api")
        sys.modules["array_api._2024_12"] = types.SimpleNamespace(Array=object)
    library: Any = importlib.import_module("tensor_shape_assert")
    checked, shaped = library.check_tensor_shapes, library.ShapedTensor

    @checked()
    def merge(images: shaped["float32 B C N N"], offsets: shaped["float32 B C 1 2"]) -> None: ...
    @checked()
    def scale(images: shaped["float32 B N N"]) -> None: ...
    @checked()
    def weigh(values: shaped["float32 n d"], weights: shaped["float32 n"]) -> None: ...
    @checked()
    def collate(samples: list[shaped["float32 3 h w"]]) -> None: ...
    @checked()
    def reduce(images: shaped["float32 B N N"], dims: tuple[int, ...]) -> shaped["float32 B"]:
        return images.mean(dims)

    @checked(constraints=["C == gridsize ** 2"])
    def configured(images: shaped["float32 B C N N"], gridsize: int = 2) -> None: ...

    return {
        "merge": merge,
        "scale": scale,
        "weigh": weigh,
        "collate": collate,
        "reduce": reduce,
        "train": "it knows NamedTuples, whose missing fields Python itself refuses, and no dicts",
        "configured": functools.partial(configured, gridsize=2),
    }


def with_pandera() -> dict[str, Checked]:
    library: Any = importlib.import_module("pandera.tensordict")
    bundle: Any = importlib.import_module("tensordict").TensorDict

    def schema(**shapes: tuple[int | None, ...]) -> Any:
        keys = {name: library.Tensor(dtype=torch.float32, shape=shape) for name, shape in shapes.items()}
        return library.TensorDictSchema(keys=keys)

    batch_schema = schema(images=(None, None, None, None), offsets=(None, None, 1, 2))
    result_schema = schema(result=(None,))

    def validated(shapes: Any, tensors: Mapping[str, Any], axes: int) -> None:
        sizes = next(iter(tensors.values())).shape[:axes]
        shapes.validate(bundle(dict(tensors), batch_size=sizes))

    def merge(images: Any, offsets: Any) -> None:
        validated(batch_schema, {"images": images, "offsets": offsets}, 1)

    def scale(images: Any) -> None:
        validated(schema(images=(None, None, None)), {"images": images}, 1)

    def weigh(values: Any, weights: Any) -> None:
        validated(schema(values=(None, None), weights=(None,)), {"values": values, "weights": weights}, 1)

    def train(batch: Any) -> None:
        validated(batch_schema, batch, 1)

    def collate(samples: Any) -> None:
        named = {f"sample{index}": sample for index, sample in enumerate(samples)}
        validated(schema(**dict.fromkeys(named, (3, None, None))), named, 0)

    def reduce(images: Any, dims: Any) -> None:
        validated(result_schema, {"result": images.mean(dims)}, 1)

    def configured(images: Any, gridsize: int = 2) -> None:
        validated(schema(images=(None, gridsize**2, None, None)), {"images": images}, 1)

    return _by_name(merge, scale, weigh, train, collate, reduce, configured)


def _by_name(*functions: Any) -> dict[str, Checked]:
    return {function.__name__: function for function in functions}


class Checker(NamedTuple):
    """A column: what to call it, what to install, how it spells the contracts."""

    name: str
    distributions: tuple[str, ...]
    contracts: Callable[[], dict[str, Checked]]


OURS = "shapecheck"
CHECKERS = [
    Checker(OURS, (), with_shapecheck),
    Checker("jaxtyping + beartype", ("jaxtyping", "beartype"), with_jaxtyping),
    Checker("dltype", ("dltype", "pydantic"), with_dltype),
    Checker("eincheck", ("eincheck",), with_eincheck),
    Checker("tensor-shape-assert", ("tensor-shape-assert",), with_tensor_shape_assert),
    Checker("pandera", ("pandera", "tensordict"), with_pandera),
]
