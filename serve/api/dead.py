"""The server API for dead letters. Ours: Centrifugo has none."""

from typing import Any, Final

from actors.errors import MessageError, QueueFullError
from actors.message import DeadLetter
from actors.settings.tree import Settings
from actors.store.dead_letter import parse_letter_id
from actors.store.interface import EdgeStore
from serve.api.shapes import (
    ApiError,
    DeadDropRequest,
    DeadListRequest,
    DeadReplayRequest,
    DeadShowRequest,
)
from serve.dead.actions import Drop, Replay, Tally, Wanted, find
from serve.dead.facts import Facts, facts_of, summary_of
from serve.protocol.messages import ErrorCode

LETTERS_MAX: Final = 1000
"""Letters that one `dead_list` returns, and ids that one call may name."""
_LETTERS: Final = 100


class DeadCalls:
    """The calls. Each returns the member `result` of the answer, or raises.

    Raises:
        RaywireError: From every call; `as_api_error` says what it means to the caller.
    """

    def __init__(self, settings: Settings, store: EdgeStore) -> None:
        self._settings = settings
        self._letters = store.dead_letters
        self._partitions = range(settings.queue.partitions)

    async def dead_list(self, request: DeadListRequest) -> dict[str, Any]:
        """List dead letters, newest first; data, tags, info and traceback are in `dead_show`."""
        limit = _LETTERS if request.limit is None else request.limit
        if not 0 <= limit <= LETTERS_MAX:
            raise MessageError(f"limit is not within 0 and {LETTERS_MAX}")
        counts = await self._letters.count(self._partitions)
        found = find(
            self._letters,
            self._partitions,
            Wanted(request.channel, request.stage),
            limit=limit,
            oldest_first=bool(request.oldest_first),
        )
        return {
            "letters": [summary_of(record) async for record in found],
            "total": sum(counts.values()),
        }

    async def dead_show(self, request: DeadShowRequest) -> Facts:
        """Return everything about one dead letter."""
        record = await self._letters.get(*parse_letter_id(request.id))
        if record is None:
            raise ApiError(ErrorCode.NOT_AVAILABLE, f"there is no dead letter {request.id}")
        return facts_of(record)

    async def dead_replay(self, request: DeadReplayRequest) -> dict[str, Any]:
        """Put dead letters into the queue again, each once; those that would only die stay."""
        _check_selection(request)
        tally = Tally()
        entries_max = self._settings.queue.entries_max
        replay = Replay(self._letters, tally, entries_max=entries_max, check=self._check)
        if request.ids is not None:
            await replay.by_ids(request.ids)
        else:
            await replay.wanted(self._partitions, Wanted(request.channel, request.stage))
        if tally.full and not tally.done:
            raise QueueFullError("nothing was replayed: the queue is full")
        return {
            "replayed": tally.done,
            "gone": tally.gone,
            "refused": tally.refused,
            "reasons": [{"id": letter_id, "reason": why} for letter_id, why in tally.reasons],
            "full": sorted(tally.full),
        }

    async def dead_drop(self, request: DeadDropRequest) -> dict[str, Any]:
        """Delete dead letters for good."""
        _check_selection(request)
        tally = Tally()
        drop = Drop(self._letters, tally)
        if request.ids is not None:
            await drop.by_ids(request.ids)
        else:
            await drop.wanted(self._partitions, Wanted(request.channel, request.stage))
        return {"dropped": tally.done, "gone": tally.gone}

    def _check(self, letter: DeadLetter) -> None:
        """Refuse what these settings, which are the pipeline's, do not let through."""
        if self._settings.channel_settings(letter.channel) is None:
            raise MessageError(f"channel {letter.channel}: unknown namespace")
        if len(letter.data.encode()) > self._settings.queue.message_bytes_max:
            raise MessageError("data is larger than queue.message_bytes_max")


def _check_selection(request: DeadReplayRequest | DeadDropRequest) -> None:
    """Take one way to say which letters, and none by accident."""
    filtered = request.channel is not None or request.stage is not None
    if sum((request.ids is not None, filtered, bool(request.all))) != 1:
        raise MessageError("say which: ids, or channel and stage, or all")
    if request.ids is not None and len(request.ids) > LETTERS_MAX:
        raise MessageError(f"more than {LETTERS_MAX} ids")
