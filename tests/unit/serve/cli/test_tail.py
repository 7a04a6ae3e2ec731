"""`raywire tail`: positions, gaps and repeats, without a socket and with one."""

import asyncio
import io
import json
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
import typer
from rich.console import Console
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from actors.errors import MessageError, RaywireError, SettingsError, UnavailableError
from serve.cli.tail import _followed, websocket_url
from serve.cli.tail_client import PATH, Tail
from serve.cli.tail_print import Shown, TerminalPrinter
from serve.cli.tail_protocol import Followed, Position, Publication, Step, Subscriber


def _frame(*replies: dict[str, Any]) -> bytes:
    return b"\n".join(json.dumps(reply).encode() for reply in replies)


def _pub(offset: int) -> dict[str, Any]:
    return {"data": {"n": offset}, "offset": offset}


def _push(offset: int, channel: str = "news") -> dict[str, Any]:
    return {"push": {"channel": channel, "pub": _pub(offset)}}


def _offsets(step: Step) -> list[int]:
    return [publication.offset for _, publication in step.publications]


def _sent(step: Step) -> list[dict[str, Any]]:
    return [json.loads(command) for command in step.send]


class _Talk:
    """A subscriber of one channel, and a server that answers what the test says."""

    def __init__(self, followed: Followed, **how: bool) -> None:
        self.subscriber = Subscriber([followed], **how)
        self.command: dict[str, Any] = {}

    def connect(self) -> Step:
        self.command = json.loads(self.subscriber.connect("token"))
        return self.answer(connect={"client": "c", "ping": 25, "pong": True})

    def answer(self, **result: Any) -> Step:
        step = self.subscriber.receive(_frame({"id": self.command["id"], **result}))
        self.command = _sent(step)[0] if step.send else {}
        return step

    def push(self, *offsets: int) -> Step:
        return self.subscriber.receive(_frame(*map(_push, offsets)))


def test_a_channel_is_followed_from_now_on() -> None:
    """The position in the reply is where a later connection goes on."""
    talk = _Talk(Followed("news"))
    talk.connect()
    assert talk.command["subscribe"] == {"channel": "news", "recoverable": True}
    talk.answer(subscribe={"recoverable": True, "offset": 7, "epoch": "e"})
    assert _offsets(talk.push(8, 9)) == [8, 9]

    talk.connect()
    assert talk.command["subscribe"] == {
        "channel": "news", "recoverable": True, "recover": True, "offset": 9, "epoch": "e",
    }  # fmt: skip


def test_recovery_brings_what_was_missed_once() -> None:
    """Recovered publications come first; what is pushed again is not shown again."""
    talk = _Talk(Followed("news", 5, "e"))
    talk.connect()
    step = talk.answer(
        subscribe={
            "recoverable": True, "recovered": True, "offset": 5, "epoch": "e",
            "publications": [_pub(6), _pub(7)],
        }
    )  # fmt: skip
    assert _offsets(step) == [6, 7]
    assert step.notices == []
    assert _offsets(talk.push(6, 7, 8)) == [8]


def test_a_token_that_names_the_channel_needs_no_subscribe() -> None:
    """The server subscribes us, and recovers by the position that connect gave."""
    subscriber = Subscriber([Followed("news", 5, "e")], in_token=True)
    command = json.loads(subscriber.connect("t"))
    assert command["connect"]["subs"]["news"]["offset"] == 5
    result = {"recovered": True, "offset": 5, "epoch": "e", "publications": [_pub(6)]}
    step = subscriber.receive(_frame({"id": 1, "connect": {"subs": {"news": result}}}))
    assert _offsets(step) == [6]
    assert step.send == []


def test_what_recovery_cannot_bring_is_read_from_history_in_pages() -> None:
    """Live publications wait meanwhile, so that order holds."""
    talk = _Talk(Followed("news", 2, "e"))
    talk.connect()
    talk.answer(subscribe={"recovered": False, "offset": 6, "epoch": "e"})
    assert talk.command["history"]["since"] == {"offset": 2, "epoch": "e"}
    assert _offsets(talk.push(7)) == []
    page = {"publications": [_pub(3), _pub(4)], "offset": 7, "epoch": "e"}
    assert _offsets(talk.answer(history=page)) == [3, 4]
    assert talk.command["history"]["since"] == {"offset": 4, "epoch": "e"}
    page = {"publications": [_pub(5), _pub(6), _pub(7)], "offset": 7, "epoch": "e"}
    step = talk.answer(history=page)
    assert _offsets(step) == [5, 6, 7]
    assert step.notices == []
    assert _offsets(talk.push(8)) == [8]


def test_what_history_has_lost_is_said() -> None:
    """A gap is never silent."""
    talk = _Talk(Followed("news", 2, "e"))
    talk.connect()
    talk.answer(subscribe={"recovered": False, "offset": 9, "epoch": "e"})
    step = talk.answer(history={"publications": [_pub(8), _pub(9)], "offset": 9, "epoch": "e"})
    assert _offsets(step) == [8, 9]
    assert "5 publications before offset 8 are lost" in step.notices[0]


def test_history_that_has_expired_altogether_is_said() -> None:
    """The channel's top is known even where nothing is kept."""
    talk = _Talk(Followed("news", 2, "e"))
    talk.connect()
    talk.answer(subscribe={"recovered": False, "offset": 9, "epoch": "e"})
    step = talk.answer(history={"publications": [], "offset": 9, "epoch": "e"})
    assert "7 publications before offset 10 are lost" in step.notices[0]
    assert _offsets(talk.push(10)) == [10]


def test_position_beyond_the_end_is_said_and_left() -> None:
    """Else everything up to there would be taken for seen, in silence."""
    talk = _Talk(Followed("news", 999))
    talk.connect()
    talk.answer(subscribe={"recovered": False, "offset": 3, "epoch": "e"})
    assert _offsets(talk.push(4)) == []
    step = talk.answer(history={"publications": [], "offset": 3, "epoch": "e"})
    assert "there is no offset 999" in step.notices[0]
    assert _offsets(step) + _offsets(talk.push(5)) == [4, 5]


def test_asking_for_all_calls_nothing_lost() -> None:
    """With `--all`, what history no longer has was not asked for."""
    talk = _Talk(Followed("news", 0, whole=True))
    talk.connect()
    talk.answer(subscribe={"recovered": False, "offset": 9, "epoch": "e"})
    step = talk.answer(history={"publications": [_pub(8), _pub(9)], "offset": 9, "epoch": "e"})
    assert _offsets(step) == [8, 9]
    assert step.notices == []


def test_a_history_made_anew_is_read_from_its_start() -> None:
    """Offsets of another epoch say nothing about this one."""
    talk = _Talk(Followed("news", 50, "old"))
    talk.connect()
    step = talk.answer(subscribe={"recovered": False, "offset": 2, "epoch": "new"})
    assert "made anew" in step.notices[0]
    assert talk.command["history"]["since"] == {"offset": 0, "epoch": "new"}
    page = {"publications": [_pub(1), _pub(2)], "offset": 2, "epoch": "new"}
    assert _offsets(talk.answer(history=page)) == [1, 2]


def test_without_permission_for_history_a_gap_is_possible() -> None:
    """What waited meanwhile is shown all the same."""
    talk = _Talk(Followed("news", 5, "e"))
    talk.connect()
    talk.answer(subscribe={"recovered": False})
    talk.push(9)
    step = talk.answer(error={"code": 103, "message": "permission denied"})
    assert _offsets(step) == [9]
    assert "gap is possible" in step.notices[0]


def test_history_that_the_server_withholds_is_read_aside_where_we_may() -> None:
    """Whoever can read Valkey needs no permission of the edge's."""
    talk = _Talk(Followed("news", 5, "e"), reads_aside=True)
    talk.connect()
    talk.answer(subscribe={"recovered": False})
    talk.push(8)
    step = talk.answer(error={"code": 103, "message": "permission denied"})
    assert step.reads == [("news", 5)]
    page = Position(offset=7, epoch="e", publications=[Publication(offset=6)])
    step = talk.subscriber.was_read("news", page)
    assert _offsets(step) == [6]
    assert step.reads == [("news", 6)]
    page = Position(offset=7, epoch="e", publications=[Publication(offset=7)])
    assert _offsets(talk.subscriber.was_read("news", page)) == [7, 8]


def test_a_second_connection_without_a_position_may_have_a_gap() -> None:
    """A channel without history gives no position."""
    talk = _Talk(Followed("news"))
    talk.connect()
    assert talk.answer(subscribe={}).notices == []
    assert len(talk.push(0, 0).publications) == 2
    talk.connect()
    assert "gap is possible" in talk.answer(subscribe={}).notices[0]


def test_a_quiet_channel_goes_on_where_it_was_read_aside() -> None:
    """Where the server gives no position, what comes during a break is not lost all the same."""
    talk = _Talk(Followed("news"), reads_aside=True)
    talk.connect()
    assert talk.answer(subscribe={}).reads == [("news", None)]
    talk.subscriber.was_read("news", Position(offset=7, epoch="e"))

    talk.connect()
    assert talk.command["subscribe"]["offset"] == 7
    assert talk.answer(subscribe={"recovered": False}).notices == []
    step = talk.answer(error={"code": 103, "message": "permission denied"})
    assert step.reads == [("news", 7)]
    page = Position(offset=8, epoch="e", publications=[Publication(offset=8)])
    assert _offsets(talk.subscriber.was_read("news", page)) == [8]


def test_a_position_that_was_read_aside_hides_nothing() -> None:
    """What was on its way when it was read is shown, and later connections go on after it."""
    talk = _Talk(Followed("news"), reads_aside=True)
    talk.connect()
    talk.answer(subscribe={})
    talk.subscriber.was_read("news", Position(offset=8, epoch="e"))
    assert _offsets(talk.push(8)) == [8]
    talk.connect()
    assert talk.command["subscribe"]["offset"] == 8


def test_pings_are_answered_only_where_the_server_wants_it() -> None:
    """A pong that nobody asked for breaks the protocol (3501)."""
    talk = _Talk(Followed("news"))
    talk.connect()
    assert talk.subscriber.receive(b"{}").send == [b"{}"]
    silent = Subscriber([])
    silent.connect("")
    silent.receive(_frame({"id": 1, "connect": {"client": "c"}}))
    assert silent.receive(b"{}").send == []
    assert silent.silence_max_s is None


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 102, "message": "unknown channel"}, MessageError),
        ({"code": 103, "message": "permission denied"}, SettingsError),
        ({"code": 109, "message": "token expired"}, UnavailableError),
        ({"code": 100, "message": "internal", "temporary": True}, UnavailableError),
    ],
)
def test_a_refusal_says_what_to_do(error: dict[str, Any], kind: type[RaywireError]) -> None:
    """Passing errors are tried again, others end with a line that names the channel."""
    talk = _Talk(Followed("news"))
    talk.connect()
    with pytest.raises(kind, match="news"):
        talk.answer(error=error)


@pytest.mark.parametrize(("code", "kind"), [(2000, MessageError), (2500, UnavailableError)])
def test_an_ended_subscription_is_judged_by_its_code(code: int, kind: type[RaywireError]) -> None:
    """From 2500 on, a client subscribes again."""
    talk = _Talk(Followed("news"))
    talk.connect()
    unsubscribe = {"code": code, "reason": "why"}
    with pytest.raises(kind, match="why"):
        talk.subscriber.receive(_frame({"push": {"channel": "news", "unsubscribe": unsubscribe}}))


def test_what_is_not_json_is_an_error_of_the_connection() -> None:
    """Another connection may do better."""
    with pytest.raises(UnavailableError, match="odd"):
        Subscriber([]).receive(b"<html>")


def test_a_terminal_gets_no_control_characters_of_others() -> None:
    """Data may not move the cursor, turn text round, or become markup."""
    out = io.StringIO()
    printer = TerminalPrinter(Console(file=out, width=200), clock=lambda: 0.5)
    data = '"\x9b2J \u202e[red]:smile:"'.encode()
    publication = Publication(data=msgspec.Raw(data), offset=3, tags={"k": "v\x1b[2J"})
    printer.show([("news", publication)])
    text = out.getvalue()
    assert "\\u009b2J \\u202e[red]:smile:" in text
    assert "k=v\\u001b[2J" in text
    assert "\x1b" not in text
    assert ".500 news 3 " in text


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("ws://0.0.0.0:8000", "ws://127.0.0.1:8000/connection/websocket"),
        ("ws://[::]:8000", "ws://[::1]:8000/connection/websocket"),
        ("example.org:8000", "ws://example.org:8000/connection/websocket"),
        ("https://example.org/", "wss://example.org/connection/websocket"),
        ("ws://h:1/other?x=1", "ws://h:1/other?x=1"),
    ],
)
def test_an_address_is_completed(given: str, url: str) -> None:
    """Scheme and path may be left out."""
    assert websocket_url(given) == url


def test_positions_are_checked() -> None:
    """A position belongs to one channel."""
    assert _followed(["a"], "7:abc", all_=False) == [Followed("a", 7, "abc")]
    assert _followed(["a", "b"], None, all_=True)[1] == Followed("b", 0, whole=True)
    for channels, since in ((["a", "b"], "7"), (["a"], "x"), (["a"], "-1")):
        with pytest.raises(typer.BadParameter):
            _followed(channels, since, all_=False)


class _Kept:
    """Keeps what is shown."""

    def __init__(self) -> None:
        self.offsets: list[int] = []

    def show(self, publications: Shown) -> None:
        self.offsets += [publication.offset for _, publication in publications]


async def _tail(
    serve_one: Callable[[ServerConnection], Awaitable[None]], *, count: int
) -> tuple[list[int], list[str]]:
    """Run a tail against a server until it has shown so much."""
    printer, notices = _Kept(), list[str]()
    async with asyncio.timeout(10), serve(serve_one, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        tail = Tail(
            f"ws://127.0.0.1:{port}/",
            Subscriber([Followed("news")]),
            printer,
            count=count,
            token=lambda: "",
            notify=notices.append,
        )
        await tail.run()
    return printer.offsets, notices


async def test_a_broken_connection_is_replaced_without_gap_or_repeat() -> None:
    """The second connection goes on at the last offset of the first."""
    positions: list[Any] = []

    async def serve_one(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(_frame({"id": len(positions) * 2 + 1, "connect": {}}).decode())
        command = json.loads(await socket.recv())
        positions.append(command["subscribe"].get("offset"))
        first = len(positions) == 1
        result = {"recovered": not first, "offset": 0 if first else 2, "epoch": "e"}
        pushes = [_push(1), _push(2)] if first else [_push(2), _push(3), _push(4)]
        frame = _frame({"id": command["id"], "subscribe": result}, *pushes)
        await socket.send(frame.decode())
        if first:
            await socket.close(3001, "shutdown")
        else:
            await socket.wait_closed()

    offsets, notices = await _tail(serve_one, count=3)

    assert offsets == [1, 2, 3]
    assert positions == [None, 2]
    assert "shutdown (3001)" in notices[0]


async def test_a_close_for_good_ends_it() -> None:
    """Codes 3500 to 3999 say: do not come back."""

    async def serve_one(socket: ServerConnection) -> None:
        await socket.close(3500, "invalid token")

    with pytest.raises(SettingsError, match="invalid token"):
        await _tail(serve_one, count=1)


async def test_a_wrong_path_is_suspected() -> None:
    """Of an address that answers, but is no edge's, the path may be what is wrong."""

    def refuse(connection: ServerConnection, _request: Request) -> Response:
        return connection.respond(403, "no")

    async with asyncio.timeout(10), serve(_never, "127.0.0.1", 0, process_request=refuse) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        for path, hint in (("/foo", "/foo may be the wrong path"), (PATH, "status 403$")):
            tail = Tail(
                f"ws://127.0.0.1:{port}{path}",
                Subscriber([]),
                _Kept(),
                count=1,
                token=lambda: "",
                notify=lambda _: None,
            )
            with pytest.raises(SettingsError, match=hint):
                await tail.run()


async def _never(_socket: ServerConnection) -> None:
    raise AssertionError("it was refused")
