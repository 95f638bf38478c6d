"""The watch: functions that tell of their calls and are otherwise the functions that they were."""

import importlib
import inspect
import json
import sys
import threading
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from projects import Project

from shapecheck._watching.calls import Call, Function, Run, load_runs, run_from_json, save_runs
from shapecheck._watching.forms import (
    ArrayForm,
    Form,
    MappingForm,
    PlainForm,
    SequenceForm,
    UnreadableError,
    decoded,
    encoded,
    form_of,
)
from shapecheck.audit import watch_calls

torch = pytest.importorskip("torch")

MODULE = '''"""Doc."""
from __future__ import annotations

import functools
import sys


class Base:
    def __init__(self, __x):
        """Keep it."""
        self.__x = __x

    def get(self):
        return self.__x


class Derived(Base):
    def __init__(self, x):
        super().__init__(x)

    @functools.cached_property
    def twice(self):
        return 2 * self.get()


def caller():
    return sys._getframe(1).f_code.co_name


def fails(x):
    return x.missing


def echo(first):
    """Give back what is sent."""
    try:
        sent = yield first
        while True:
            sent = yield sent
    except KeyError as error:
        yield repr(error)
    return "the end"


def nothing(flag):
    if flag:
        return 1


def nested(x):
    def inner(y):
        return y
    return [inner(x) for _ in range(2)], (lambda y: y)(x)
'''


@pytest.fixture
def project(tmp_path: Path) -> Project:
    found = Project(tmp_path, "watched_module")
    found.write(MODULE)
    return found


def results(run: Run, name: str) -> list[Form]:
    return [call.result for function, calls in run.calls.items() if function.name == name for call in calls]


def test_a_watched_function_does_what_it_did_in_its_own_frame(project: Project) -> None:
    def use(module: Any) -> None:
        assert module.__doc__ == "Doc."
        assert module.echo.__doc__ == "Give back what is sent."
        assert module.Derived(3).twice == 6
        assert module.caller() == "use"
        assert str(inspect.signature(module.Base)) == "(_Base__x)"
        assert module.nested(3) == ([3, 3], 3)
        with pytest.raises(AttributeError) as caught:
            module.fails(1)
        (*_, frame) = traceback.extract_tb(caught.value.__traceback__)
        assert (frame.name, frame.line) == ("fails", "return x.missing")

    run = project.watched(use)
    assert results(run, "Base.get") == [PlainForm("int")]
    assert results(run, "fails") == [], "a call that raises has no result"
    assert not any("inner" in function.name for function in run.calls)


def test_a_watched_generator_takes_what_is_sent_and_thrown(project: Project) -> None:
    def use(module: Any) -> None:
        echo = module.echo("a")
        assert inspect.isgenerator(echo)
        assert (next(echo), echo.send(2), echo.throw(KeyError(3))) == ("a", 2, "KeyError(3)")
        with pytest.raises(StopIteration) as stopped:
            next(echo)
        assert stopped.value.value == "the end"

    assert results(project.watched(use), "echo") == [PlainForm("str"), PlainForm("int")]


def test_a_body_that_ends_without_return_gives_none(project: Project) -> None:
    run = project.watched(lambda module: [module.nothing(flag) for flag in (True, False)])
    assert results(run, "nothing") == [PlainForm("int"), PlainForm("None")]


def test_calls_are_counted_from_all_threads_and_not_after_the_block(project: Project) -> None:
    with project.importable():
        with watch_calls("watched_module") as run:
            module = importlib.import_module("watched_module")
            threads = [threading.Thread(target=lambda: [module.nested(1) for _ in range(50)]) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        module.nested("later")
    assert run.count == 200


def test_what_cannot_be_watched_is_listed(project: Project) -> None:
    with project.importable():
        importlib.import_module("watched_module")
        with watch_calls("watched_module", "_json") as run:
            sys.modules.pop("_json", None)
            importlib.import_module("_json")
    assert run.skipped["watched_module"] == "it was imported before the watch began"
    assert run.skipped["_json"].endswith("not from Python source alone")


def test_many_calls_are_told_apart_by_shape_and_not_by_every_number(project: Project) -> None:
    run = project.watched(lambda module: [module.nothing(number) for number in range(1000)])
    assert run.count == 1000
    assert len(results(run, "nothing")) == 257, "256 of them, and all others as one"


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (None, PlainForm("None")),
        (True, PlainForm("bool")),
        (3, PlainForm("int", 3)),
        (2.5, PlainForm("float")),
        ("a", PlainForm("str")),
        pytest.param(object(), PlainForm("object"), id="object"),
        (np.float64(2), PlainForm("float")),
        (np.zeros((2, 3), np.float32), ArrayForm("ndarray", "float32", (2, 3))),
        (torch.zeros(2, 3, dtype=torch.int64), ArrayForm("Tensor", "int64", (2, 3))),
        (torch.nn.Parameter(torch.zeros(2)), ArrayForm("Tensor", "float32", (2,))),
        (torch.zeros(4, device="meta"), ArrayForm("Tensor", "float32", (4,))),
        ((1, "a"), SequenceForm("tuple", (PlainForm("int"), PlainForm("str")), True)),
        ([1, 2, None], SequenceForm("list", (PlainForm("int"), PlainForm("None")), False)),
        (tuple(range(9)), SequenceForm("tuple", (PlainForm("int"),), False)),
        ({"a": 1, 2: 3}, MappingForm(("int", "str"), (PlainForm("int"),))),
    ],
    ids=lambda value: "".join(f"{value!s:.60}".split()),
)
def test_a_form_says_what_a_value_is_from_outside(value: Any, form: Form) -> None:
    assert form_of(value) == form


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_symbolic_and_ragged_sizes_are_no_form() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    real = torch.empty(3, 4)
    with FakeTensorMode(shape_env=ShapeEnv()) as fake:
        symbolic = fake.from_tensor(real, static_shapes=False)
        with pytest.raises(UnreadableError):
            form_of(symbolic)
        assert form_of(torch.empty(3, 4)) == ArrayForm("Tensor", "float32", (3, 4))
    for layout in (torch.strided, torch.jagged):
        ragged = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=layout)
        with pytest.raises(UnreadableError):
            form_of(ragged)


arrays = st.builds(
    ArrayForm, st.sampled_from(["Tensor", "ndarray"]), st.text(), st.tuples(st.integers(0), st.integers(0))
)
plain = st.builds(PlainForm, st.text(), st.none() | st.integers())
forms = st.recursive(
    arrays | plain,
    lambda inner: (
        st.builds(SequenceForm, st.text(), st.tuples(inner, inner), st.booleans())
        | st.builds(MappingForm, st.tuples(st.text()), st.tuples(inner))
    ),
    max_leaves=4,
)


@given(forms)
def test_every_form_comes_back_from_a_file(form: Form) -> None:
    assert decoded(json.loads(json.dumps(encoded(form)))) == form


def test_runs_come_back_from_a_file(tmp_path: Path) -> None:
    run = Run(names={"x": ["n 2"]}, skipped={"a.b": "why"}, dropped=3)
    call = Call((("x", ArrayForm("Tensor", "float32", (3, 2))),), PlainForm("None"))
    run.add(Run({Function("a.py", "a", "f"): Counter({call: 2})}))
    run.add(Run({Function("a.py", "a", "f"): Counter({call: 5})}, names={"x": ["m 2"]}))
    assert (run.count, run.names) == (7, {"x": ["m 2", "n 2"]})
    save_runs([run, Run()], tmp_path / "runs.json")
    assert load_runs(tmp_path / "runs.json") == [run, Run()]
    assert run_from_json(run.as_json()) == run
