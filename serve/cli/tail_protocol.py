"""A subscriber of the client protocol without its socket: keeps positions, heals gaps.

The protocol is Centrifugo's client protocol v2, JSON form:
https://centrifugal.dev/docs/transports/client_protocol
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from actors.errors import MessageError, SettingsError, UnavailableError

PAGE: Final = 300
_UNRECOVERABLE: Final = 112
_PERMISSION_DENIED: Final = 103
_TOKEN_EXPIRED: Final = 109
_UNKNOWN_CHANNEL: Final = 102
_RESUBSCRIBE_FROM: Final = 2500


class Publication(msgspec.Struct, frozen=True, gc=False):
    """A publication as it was received: `data` is its JSON text."""

    data: msgspec.Raw = msgspec.Raw(b"null")
    offset: int = 0
    tags: dict[str, str] = {}


class Error(msgspec.Struct, frozen=True):
    """Why a command failed."""

    code: int = 0
    message: str = ""
    temporary: bool = False


class _Unsubscribe(msgspec.Struct):
    code: int = 0
    reason: str = ""


class _Push(msgspec.Struct):
    channel: str = ""
    pub: Publication | None = None
    unsubscribe: _Unsubscribe | None = None


class Position(msgspec.Struct):
    """A place in a channel, and publications before it: result of `subscribe` and `history`."""

    offset: int = 0
    epoch: str = ""
    publications: list[Publication] = []
    recovered: bool = False


class _Connected(msgspec.Struct):
    ping: int = 0
    pong: bool = False
    subs: dict[str, Position] = {}


class _Reply(msgspec.Struct):
    id: int = 0
    error: Error | None = None
    push: _Push | None = None
    connect: _Connected | None = None
    subscribe: Position | None = None
    history: Position | None = None


_decode: Final = msgspec.json.Decoder(_Reply).decode
_encode: Final = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Followed:
    """One channel, and how far it was followed.

    Attributes:
        channel: Its name.
        offset: Of the last publication seen; None: of none.
        epoch: That the offset belongs to; empty: whatever it is.
        whole: It was asked for from the start: what history has lost before that is no gap.
        begun: It was subscribed before: what is missing now is a gap.
        held: Live publications that wait until history has been read; None: it is not being read.
        read_at: Where the channel was when it was subscribed, which the server did not say: from
            there another connection goes on where nothing was seen. (No bound for what is shown:
            it was read when publications may have been on their way already.)
    """

    channel: str
    offset: int | None = None
    epoch: str = ""
    whole: bool = False
    begun: bool = False
    held: list[Publication] | None = None
    read_at: tuple[int, str] | None = None


@dataclass(slots=True)
class Step:
    """What follows from one frame.

    Attributes:
        send: Commands to be sent, as one frame each.
        publications: (channel, publication) to be shown, in order, none of them twice.
        notices: What the user should know, e.g. of a gap.
        reads: (channel, offset): history after it is to be read in another way, and given to
            `Subscriber.was_read`, since the server does not let us. None: the position alone.
    """

    send: list[bytes] = field(default_factory=list)
    publications: list[tuple[str, Publication]] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    reads: list[tuple[str, int | None]] = field(default_factory=list)


class Subscriber:
    """Follows channels over one connection after the other.

    Publications come in order, none twice. Where some were missed, they are fetched from history;
    where that is not possible, a notice says so.

    Attributes:
        silence_max_s: A connection that says nothing for so long is dead; None: it may be silent.
    """

    def __init__(
        self, followed: Iterable[Followed], *, in_token: bool = False, reads_aside: bool = False
    ) -> None:
        """Prepare to follow channels.

        Args:
            followed: The channels, each with the position to begin after.
            in_token: The token names the channels, so that the server subscribes us.
            reads_aside: There is another way to read history: see `Step.reads`.
        """
        self.silence_max_s: float | None = None
        self._followed = {each.channel: each for each in followed}
        self._in_token = in_token
        self._reads_aside = reads_aside
        self._last_id = 0
        self._asked: dict[int, tuple[str, str]] = {}
        self._pong = False

    def connect(self, token: str) -> bytes:
        """Return the first frame of a new connection."""
        self._asked.clear()
        for each in self._followed.values():
            each.held = None
            if each.offset is None and each.read_at is not None:
                each.offset, each.epoch = each.read_at
        body: dict[str, Any] = {"name": "raywire-tail"}
        if self._in_token:
            body["subs"] = {
                each.channel: {"recoverable": True} | _since(each)
                for each in self._followed.values()
            }
        if token:
            body["token"] = token
        return self._command("connect", body, "")

    def was_read(self, channel: str, page: Position) -> Step:
        """Take history that `Step.reads` asked for."""
        step = Step()
        followed = self._followed[channel]
        if followed.held is not None:
            if followed.epoch and page.epoch != followed.epoch:
                self._anew(followed, page.epoch, step)
                step.reads.append((channel, 0))
            else:
                self._read(followed, page, step, aside=True)
        elif page.epoch:
            followed.read_at = page.offset, page.epoch
        return step

    def receive(self, frame: str | bytes) -> Step:
        """Take one frame.

        Raises:
            MessageError: The channel does not exist, or may not be followed.
            SettingsError: The token was refused.
            UnavailableError: Something passing: connect again.
        """
        step = Step()
        text = frame.encode() if isinstance(frame, str) else frame
        for line in text.split(b"\n"):
            if line.strip():
                self._take(self._decoded(line), step)
        return step

    def _decoded(self, line: bytes) -> _Reply:
        try:
            return _decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UnavailableError(f"the server sent something odd: {error}") from error

    def _take(self, reply: _Reply, step: Step) -> None:
        if reply.push is not None:
            self._pushed(reply.push, step)
        elif reply.id:
            self._answered(reply, *self._asked.pop(reply.id, ("", "")), step)
        elif self._pong:
            step.send.append(b"{}")

    def _answered(self, reply: _Reply, method: str, channel: str, step: Step) -> None:
        if method == "connect":
            self._connected(reply, step)
        elif method == "subscribe":
            if reply.error is not None:
                raise _judged(reply.error, f"channel {channel}")
            self._subscribed(self._followed[channel], reply.subscribe or Position(), step)
        elif method == "history" and self._followed[channel].held is not None:
            # Else the answer comes from before a new subscription, which asks again.
            if reply.error is not None:
                self._history_refused(self._followed[channel], reply.error, step)
            else:
                self._read(self._followed[channel], reply.history or Position(), step)

    def _connected(self, reply: _Reply, step: Step) -> None:
        if reply.error is not None:
            raise _judged(reply.error, f"connect for {', '.join(self._followed)}")
        result = reply.connect or _Connected()
        self._pong = result.pong
        # 10 s is what the protocol's own clients allow beyond the time between two pings.
        self.silence_max_s = result.ping + 10.0 if result.ping else None
        for followed in self._followed.values():
            if followed.channel in result.subs:
                self._subscribed(followed, result.subs[followed.channel], step)
            else:
                step.send.append(self._subscribe(followed))

    def _subscribe(self, followed: Followed) -> bytes:
        body = {"channel": followed.channel, "recoverable": True} | _since(followed)
        return self._command("subscribe", body, followed.channel)

    def _subscribed(self, followed: Followed, result: Position, step: Step) -> None:
        again, followed.begun = followed.begun, True
        if followed.offset is None:
            if again:
                step.notices.append(
                    f"{followed.channel}: a gap is possible: no position to go on from"
                )
            if result.epoch:
                followed.offset, followed.epoch = result.offset, result.epoch
            self._show(followed, result.publications, step)
            if followed.offset is None and self._reads_aside:
                step.reads.append((followed.channel, None))
        elif result.recovered:
            followed.epoch = result.epoch or followed.epoch
            self._show(followed, result.publications, step)
        else:
            followed.held = []
            if followed.epoch and result.epoch and followed.epoch != result.epoch:
                self._anew(followed, result.epoch, step)
            step.send.append(self._history(followed))

    def _history(self, followed: Followed) -> bytes:
        since = {"offset": followed.offset, "epoch": followed.epoch}
        body = {"channel": followed.channel, "limit": PAGE, "since": since}
        return self._command("history", body, followed.channel)

    def _read(self, followed: Followed, page: Position, step: Step, *, aside: bool = False) -> None:
        followed.epoch = page.epoch or followed.epoch
        before = followed.offset
        self._show(followed, page.publications, step)
        offset = followed.offset or 0
        if followed.offset != before and offset < page.offset:
            if aside:
                step.reads.append((followed.channel, offset))
            else:
                step.send.append(self._history(followed))
            return
        if page.offset < offset:
            step.notices.append(
                f"{followed.channel}: there is no offset {offset}: "
                f"what comes after {page.offset}, the latest, is shown"
            )
        self._note_gap(followed, page.offset + 1, step)
        followed.offset = page.offset
        self._release(followed, step)

    def _history_refused(self, followed: Followed, error: Error, step: Step) -> None:
        if error.code == _UNRECOVERABLE:
            self._anew(followed, "", step)
            step.send.append(self._history(followed))
            return
        if error.code == _PERMISSION_DENIED and self._reads_aside:
            step.reads.append((followed.channel, followed.offset or 0))
            return
        if error.temporary:
            raise UnavailableError(f"channel {followed.channel}: {error.message}")
        step.notices.append(
            f"{followed.channel}: what came after offset {followed.offset} cannot be read "
            f"({error.message}): a gap is possible"
        )
        followed.offset = None
        self._release(followed, step)

    def _anew(self, followed: Followed, epoch: str, step: Step) -> None:
        step.notices.append(
            f"{followed.channel}: its history was made anew: what came after offset "
            f"{followed.offset} of the old one may be lost"
        )
        followed.offset, followed.epoch, followed.whole = 0, epoch, True

    def _release(self, followed: Followed, step: Step) -> None:
        held, followed.held = followed.held or [], None
        self._show(followed, held, step)

    def _pushed(self, push: _Push, step: Step) -> None:
        followed = self._followed.get(push.channel)
        if followed is None:
            return
        if push.pub is not None:
            if followed.held is None:
                self._show(followed, [push.pub], step)
            else:
                followed.held.append(push.pub)
        elif push.unsubscribe is not None:
            text = f"channel {push.channel}: the server ended the subscription: " + (
                push.unsubscribe.reason or str(push.unsubscribe.code)
            )
            lost = push.unsubscribe.code >= _RESUBSCRIBE_FROM
            raise UnavailableError(text) if lost else MessageError(text)

    def _show(self, followed: Followed, publications: list[Publication], step: Step) -> None:
        for publication in publications:
            if publication.offset:
                if followed.offset is not None and publication.offset <= followed.offset:
                    continue
                self._note_gap(followed, publication.offset, step)
                followed.offset = publication.offset
            followed.whole = False
            step.publications.append((followed.channel, publication))

    def _note_gap(self, followed: Followed, offset: int, step: Step) -> None:
        """Tell of what lies between the last publication and the one at `offset`, if anything."""
        missing = 0 if followed.offset is None else offset - followed.offset - 1
        if missing > 0 and not followed.whole:
            step.notices.append(
                f"{followed.channel}: {missing} publications before offset {offset} are lost"
            )

    def _command(self, method: str, body: dict[str, Any], channel: str) -> bytes:
        self._last_id += 1
        self._asked[self._last_id] = (method, channel)
        return _encode({"id": self._last_id, method: body})


def _since(followed: Followed) -> dict[str, Any]:
    if followed.offset is None:
        return {}
    return {"recover": True, "offset": followed.offset, "epoch": followed.epoch}


def _judged(error: Error, what: str) -> MessageError | SettingsError | UnavailableError:
    """Return the error that says what to do about a refusal."""
    text = f"{what}: {error.message} ({error.code})"
    if error.temporary or error.code == _TOKEN_EXPIRED:
        return UnavailableError(text)
    if error.code == _UNKNOWN_CHANNEL:
        return MessageError(f"{text}: its namespace is not in the settings of the system")
    return SettingsError(f"{text}: give a token that allows it")
