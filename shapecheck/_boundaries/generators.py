"""Generators under contract: what they yield, are sent and return.

The dims that the arguments bind hold as long as the generator lives, in a local variable of its own: suspended
generators cannot mix theirs. A dim that only the items have may differ from item to item, as the last batch of an
epoch does; what is sent back shares the dims of the item that it answers.
"""

import functools
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, Literal

from .._annotations.deferred import GeneratorNode
from .._compiler.compile import NOTED
from .._compiler.tracing import TracedContractError, run_while_tracing
from .._settings import is_tracing
from ..errors import ContractError
from .boundary import Verdict
from .call import Before, Call
from .function import FunctionContract
from .provers import proves


class _Conversation:
    """What a generator and its user hand each other, judged one by one.

    Args:
        contract: Contract of the generator function.
        before: What the arguments bind.
        count: How many items there were before.
    """

    def __init__(self, contract: FunctionContract, before: Before, count: int = 0) -> None:
        node = contract.boundary.nodes.get("return")
        self._contract = contract
        self._node = node if isinstance(node, GeneratorNode) else None
        self._before = before
        self._answered: Verdict | None = None
        self._count = count

    def yielded(self, item: Any) -> list[Any]:
        """Judge an item; returns it in a list, to be taken out, so that nothing else holds it while others use it.

        Raises:
            ContractError: It breaks the contract.
        """
        __tracebackhide__ = True
        if self._node is not None:
            self._count += 1
            if self._node.sends is not None or not proves(self._contract.prove_item, self._before.sizes, item):
                visit = (f"yield[{self._count - 1}]", item, self._node.yields)
                self._answered = self._contract.judge(self._before.verdict, [visit])
                _raise(self._answered.error)
        return [item]

    def sent(self, answer: Any) -> Any:
        """Judge what is sent in answer to the last item; None is what `next` sends.

        Raises:
            ContractError: It breaks the contract.
        """
        __tracebackhide__ = True
        if (
            answer is not None
            and self._answered is not None
            and self._node is not None
            and self._node.sends is not None
        ):
            visit = (f"sent[{self._count - 1}]", answer, self._node.sends)
            _raise(self._contract.judge(self._answered, [visit]).error)
        return answer

    def returned(self, result: Any) -> Any:
        """Judge the result.

        Raises:
            ContractError: It breaks the contract.
        """
        __tracebackhide__ = True
        if self._node is not None and self._node.returns is not None:
            _raise(self._contract.judge(self._before.verdict, [("return", result, self._node.returns)]).error)
        return result

    def note(self, error: BaseException) -> None:
        """Tell an error of the body which dims the arguments had bound."""
        self._contract.note(error, self._before)

    def end(self) -> None:
        """Tell the callables among the arguments that the call is over."""
        self._before.is_over = True


def _raise(error: ContractError | None) -> None:
    __tracebackhide__ = True
    if error is not None:
        raise error from None


class _TracedConversation:
    """The same while dynamo traces it: every verdict starts anew from the arguments of the call."""

    def __init__(self, contract: FunctionContract, judge: Callable[..., None], call: Call) -> None:
        node = contract.boundary.nodes.get("return")
        self._returns = isinstance(node, GeneratorNode) and node.returns is not None
        self._judge = judge
        self._call = call
        self._item: Any = None
        self._count = 0

    def yielded(self, item: Any) -> list[Any]:
        self._judge(self._call, "yielded", self._count, item, None)
        self._count += 1
        self._item = item
        return [item]

    def sent(self, answer: Any) -> Any:
        if answer is not None:
            self._judge(self._call, "sent", self._count - 1, self._item, answer)
        return answer

    def returned(self, result: Any) -> Any:
        if self._returns:
            self._judge(self._call, "returned", self._count, result, None)
        return result

    def note(self, error: BaseException) -> None:
        del error

    def end(self) -> None: ...


def _traced_judge(contract: FunctionContract) -> Callable[..., None]:
    """Return what `_TracedConversation` asks."""

    def judge(call: Call, what: Literal["yielded", "sent", "returned"], count: int, value: Any, answer: Any) -> None:
        conversation = _Conversation(contract, contract.enter(*call).before, count)
        try:
            if what == "returned":
                conversation.returned(value)
            else:
                conversation.yielded(value)
            if what == "sent":
                conversation.sent(answer)
        except ContractError as error:
            raise TracedContractError(str(error), error.violations) from None

    return run_while_tracing(judge)


def wrap_generator(contract: FunctionContract) -> Callable[..., Any]:
    """Return the generator function under its contract; the arguments are judged when it is started."""
    function, judge = contract.function, _traced_judge(contract)

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        __tracebackhide__ = True
        if is_tracing():
            call, (args_held, kwargs_held) = contract.enter_traced(args, kwargs)
            conversation = _TracedConversation(contract, judge, call)
        else:
            entered = contract.enter(args, kwargs)
            _raise(entered.before.error)
            args_held, kwargs_held = entered.call
            conversation = _Conversation(contract, entered.before)
        generator = function(*args_held, **kwargs_held)
        try:  # everything between the generator and its user is passed on, as `yield from` does, and looked at
            items = conversation.yielded(next(generator))
            while True:
                try:
                    answer = yield items.pop()
                except BaseException as error:  # noqa: BLE001  # also that it is closed
                    items = conversation.yielded(generator.throw(error))
                else:
                    items = conversation.yielded(generator.send(conversation.sent(answer)))
        except StopIteration as stop:  # the generator's own: one that is thrown into it comes back as a RuntimeError
            return conversation.returned(stop.value)
        except NOTED as error:
            conversation.note(error)
            raise
        finally:
            conversation.end()
            generator.close()

    return checked


def wrap_async_generator(contract: FunctionContract) -> Callable[..., Any]:
    """Return the asynchronous generator function under its contract; the arguments are judged when it is started."""
    function = contract.function

    @functools.wraps(function)
    async def checked(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        __tracebackhide__ = True
        entered = contract.enter(args, kwargs)
        _raise(entered.before.error)
        conversation = _Conversation(contract, entered.before)
        generator = function(*entered.call[0], **entered.call[1])
        try:
            items = conversation.yielded(await anext(generator))
            while True:
                try:
                    answer = yield items.pop()
                except BaseException as error:  # noqa: BLE001  # likewise
                    items = conversation.yielded(await generator.athrow(error))
                else:
                    items = conversation.yielded(await generator.asend(conversation.sent(answer)))
        except StopAsyncIteration:  # likewise the generator's own
            return
        except NOTED as error:
            conversation.note(error)
            raise
        finally:
            conversation.end()
            await generator.aclose()

    return checked
