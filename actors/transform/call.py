"""Calling a transform, and checking what it returns: no error of the user's gets past here."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final

import msgspec

from actors.errors import MessageError
from actors.message import Message
from actors.transform.load import Transform
from actors.transform.time_limit import TimeLimit, TimeLimitError

ASYNC_CALLS_MAX: Final = 64
"""Calls of an async transform that are under way at once."""


class Failed(msgspec.Struct, frozen=True):
    """What stands in the place of a result that there is not."""

    error: BaseException


Made = Message | list[Message] | Failed
"""What became of one message; an empty list: it is dropped."""


def call_each(transform: Transform, messages: Sequence[Message], limit: TimeLimit) -> list[Made]:
    """Call a plain transform for one message after the other."""
    call = transform.call
    made = []
    for message in messages:
        limit.begin()
        made.append(_guarded(call, message))
    limit.end()
    return made


async def call_concurrently(
    transform: Transform, messages: Sequence[Message], limit: TimeLimit
) -> list[Made]:
    """Call an async transform for all messages, `ASYNC_CALLS_MAX` at once; results in order."""
    gate = asyncio.Semaphore(ASYNC_CALLS_MAX)

    async def call(message: Message) -> Made:
        async with gate:
            try:
                return _checked(await limit.bounded(transform.call(message)))
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001  as in _guarded; nobody cancels this task
                return Failed(error)

    return await asyncio.gather(*map(call, messages))


def call_batch(
    transform: Transform,
    messages: Sequence[Message],
    limit: TimeLimit,
    on_loop: Callable[[Coroutine[Any, Any, Any]], Any],
) -> list[Made]:
    """Call a transform's batch form. Where it fails as a whole, every message has failed.

    Args:
        transform: One whose form is BATCH.
        messages: In order.
        limit: For the call as a whole, generators among its results included.
        on_loop: Runs a coroutine to its end.
    """
    limit.begin()
    try:
        # A list of its own: the user's code may do with it what it likes.
        made = transform.call(list(messages))
        if transform.is_async:
            limit.begin(2)  # `bounded` comes first, unless the event loop itself is blocked
            made = on_loop(limit.bounded(awaited(made)))
        return [_looked_through(result) for result in _one_each(made, len(messages))]
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  the messages are tried alone
        return [Failed(error)] * len(messages)
    finally:
        limit.end()


async def awaited(work: Any) -> Any:
    """Return what `work` returns.

    Raises:
        RuntimeError: It raised SystemExit, which would end the event loop.
    """
    try:
        return await work
    except SystemExit as error:
        raise RuntimeError(f"SystemExit: {error}") from error


def _guarded(call: Callable[[Any], Any], message: Any) -> Made:
    try:
        # The check is inside: a generator runs, and may fail, only when it is looked through.
        return _checked(call(message))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  SystemExit and panics of Rust code, too: tried again, then a dead letter
        return Failed(error)


def _looked_through(result: object) -> Made:
    """Return one result of a batch, which may be a generator and fail alone."""
    try:
        return _checked(result)
    except (KeyboardInterrupt, TimeLimitError):  # the limit is that of the batch as a whole
        raise
    except BaseException as error:  # noqa: BLE001  as in _guarded
        return Failed(error)


def _checked(result: object) -> Message | list[Message]:
    """Return what a transform made of one message.

    Raises:
        MessageError: It is not a message, None, or an iterable of messages; or the channel of one
            is no text.
    """
    if isinstance(result, Message):
        return _addressed(result)
    if result is None:
        return []
    if inspect.iscoroutine(result):
        result.close()
        raise MessageError("the transform returned a coroutine: declare it with async def")
    if not isinstance(result, Iterable) or isinstance(result, str | bytes | dict):
        raise MessageError(
            f"the transform returned {_named(result)}: return a Message, None, or several messages"
        )
    messages = list(result)
    for message in messages:
        if not isinstance(message, Message):
            raise MessageError(f"the transform returned {_named(message)} among its messages")
        _addressed(message)
    return messages


def _addressed(message: Message) -> Message:
    # Structs do not check their fields, and the next transform's pattern takes text only.
    if not isinstance(message.channel, str):
        raise MessageError(f"channel is {_named(message.channel)}, not text")
    return message


def _one_each(results: Any, count: int) -> list[Any]:
    if not isinstance(results, Iterable) or isinstance(results, Message | str | bytes | dict):
        raise MessageError(f"batch returned {_named(results)}: return a list")
    made = list(results)
    if len(made) != count:
        raise MessageError(f"batch returned {len(made)} results for {count} messages")
    return made


def _named(value: object) -> str:
    return "None" if value is None else f"an object of type {type(value).__name__}"
