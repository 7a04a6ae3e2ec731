"""`raywire publish`: lines from standard input become messages on the queue."""

import asyncio
import signal
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from os import fstat
from typing import Annotated, Any, Final

import typer

from actors.errors import MessageError, UnavailableError
from actors.message import check_channel
from actors.partition import partition_of
from serve.cli.options import DataOption, JsonOption, RedisOption, SettingsOption
from serve.cli.output import (
    Exit,
    err,
    print_error,
    print_json,
    print_text,
    print_warning,
    wants_json,
)
from serve.cli.publish_display import Display
from serve.cli.publish_job import OneLine, Order, Publishing
from serve.cli.publish_lines import Form, LineReader
from serve.cli.publish_sender import Sender
from serve.cli.system import System, find_system

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
# Blanks around JSON do not count; a longer line is too long whatever the rest of it is.
_LINE_MARGIN_BYTES: Final = 1024


def command(
    channel: Annotated[str, typer.Argument(help="Channel to publish to.", show_default=False)],
    *,
    message: Annotated[
        str | None,
        typer.Option("--message", "-m", metavar="TEXT", help="Publish this instead of lines."),
    ] = None,
    text: Annotated[
        bool, typer.Option("--text", help="Make every line a JSON string, also JSON.")
    ] = False,
    only_json: Annotated[
        bool, typer.Option("--only-json", help="Refuse lines that are not JSON.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="End at the first line that cannot be published.")
    ] = False,
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="KEY=VALUE", help="Label every message. Repeatable."),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option("--rate", metavar="N", help="Messages per second at most.", min=0.001),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Return when subscribers have been sent all of it.")
    ] = False,
    skip: Annotated[
        int, typer.Option("--skip", metavar="LINES", help="Leave out lines at the start.", min=0)
    ] = 0,
    producer: Annotated[
        str | None,
        typer.Option(
            "--producer",
            metavar="NAME",
            help="Number the messages under this name: the same input sent again within an hour "
            "is not published twice.",
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option("--timeout", metavar="SECONDS", help="How long Valkey may be away.", min=0),
    ] = 30.0,
    settings: SettingsOption = None,
    data: DataOption = None,
    redis: RedisOption = None,
    json: JsonOption = False,
) -> None:
    """Publish the lines of standard input, in order, each once.

    A line that is JSON is sent as it is; any other becomes a JSON string. Lines that cannot be
    published (empty, not UTF-8, too long) are named on stderr, and the rest goes on.

    Exit codes: 0 all published; 3 Valkey could not be reached, with how to go on; 4 some lines
    could not be published; 130 interrupted, what was accepted stays.
    """
    check_channel(channel)
    if text and only_json:
        raise typer.BadParameter("choose one of --text and --only-json")
    system = find_system(settings, data, redis)
    order = Order(
        channel=channel,
        form=Form.TEXT if text else Form.JSON if only_json else Form.AUTO,
        bytes_max=system.settings.queue.message_bytes_max,
        tags=dict(_pair(each) for each in tag or ()),
        rate=rate,
        skip=skip,
        keep_numbers=producer is not None,
        strict=strict,
        wait=wait,
    )
    _warn(system, channel)
    code = asyncio.run(
        publish(
            system,
            order,
            message=message,
            producer=producer or "",
            timeout_s=timeout,
            as_json=wants_json(asked=json),
        )
    )
    raise typer.Exit(code)


async def publish(
    system: System,
    order: Order,
    *,
    message: str | None,
    producer: str,
    timeout_s: float,
    as_json: bool,
) -> Exit:
    """Publish, print the summary, and return the exit code."""
    console = err()
    partition = partition_of(order.channel, system.partitions)
    store = system.store()
    stopping = asyncio.Event()
    lines = OneLine(message) if message is not None else _standard_input(order)
    # What is drawn again and again would erase what is being typed.
    typed = message is None and sys.stdin.isatty()
    start_s = time.monotonic()
    failure: UnavailableError | MessageError | None = None
    try:
        with Display(console, live=console.is_terminal and not typed) as display:
            sender = Sender(
                store,
                display.waits,
                partition=partition,
                entries_max=system.settings.queue.entries_max,
                timeout_s=timeout_s,
                stopping=stopping,
                producer=producer,
            )
            job = Publishing(order, sender, display, store, partition=partition)
            with _stopped_by_signals(stopping, lines):
                try:
                    await job.run(lines, stopping)
                except (UnavailableError, MessageError) as error:
                    failure = error
    finally:
        await store.close()
    seconds = time.monotonic() - start_s
    summary: dict[str, Any] = {
        "channel": order.channel,
        "accepted": job.accepted,
        "refused": display.refused,
        "seconds": round(seconds, 3),
        "per_s": round(job.accepted / seconds, 1) if seconds > 0 else 0.0,
        "lines": job.line,
        "interrupted": stopping.is_set(),
    }
    if failure is not None:
        print_error(str(failure))
    if isinstance(failure, UnavailableError) and message is None:
        summary["go_on"] = {"skip": job.line, "producer": sender.producer}
        _say_how_to_go_on(job, sender, order.channel)
    if as_json:
        print_json(summary)
    else:
        print_text(_sentence(summary))
    return _code(failure, interrupted=stopping.is_set(), refused=display.refused)


def _code(failure: Exception | None, *, interrupted: bool, refused: int) -> Exit:
    if interrupted:
        return Exit.INTERRUPTED
    if isinstance(failure, UnavailableError):
        return Exit.UNAVAILABLE
    return Exit.MESSAGE if refused else Exit.DONE


def _sentence(summary: dict[str, Any]) -> str:
    refused = f"; {summary['refused']:,} lines refused" if summary["refused"] else ""
    interrupted = " (interrupted)" if summary["interrupted"] else ""
    return (
        f"{summary['accepted']:,} messages accepted for {summary['channel']} in "
        f"{summary['seconds']:.1f} s ({summary['per_s']:,.0f}/s){refused}{interrupted}"
    )


def _say_how_to_go_on(job: Publishing, sender: Sender, channel: str) -> None:
    doubt = "; whether the block after it was, is not known" if sender.uncertain else ""
    print_warning(
        f"everything up to line {job.line} was accepted or refused{doubt}. Within an hour, this "
        f"goes on without loss or repeats, with the same input and options: "
        f"raywire publish {channel} --skip {job.line} --producer {sender.producer}"
    )


def _standard_input(order: Order) -> LineReader:
    descriptor = sys.stdin.fileno()
    if stat.S_ISCHR(fstat(descriptor).st_mode) and sys.stdin.isatty():
        err().print("reading lines from the terminal; Ctrl-D ends them")
    reader = LineReader(descriptor, line_bytes_max=order.bytes_max + _LINE_MARGIN_BYTES)
    reader.start()
    return reader


@contextmanager
def _stopped_by_signals(stopping: asyncio.Event, lines: LineReader | OneLine) -> Iterator[None]:
    """Finish the block under way on the first signal; end at once on the second."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        stopping.set()
        lines.stop()
        for each in _SIGNALS:
            loop.remove_signal_handler(each)

    for each in _SIGNALS:
        loop.add_signal_handler(each, stop)
    try:
        yield
    finally:
        for each in _SIGNALS:
            loop.remove_signal_handler(each)


def _warn(system: System, channel: str) -> None:
    """Say what may be meant otherwise; the settings seen here may not be the system's."""
    if system.settings.channel_settings(channel) is None:
        print_warning(
            f"the namespace of {channel} is not in the settings seen here: unless the running "
            "system knows it, messages will become dead letters"
        )
    if system.running is None:
        print_warning("the system does not run here: messages wait in the queue until it does")


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise typer.BadParameter(f"--tag {text}: write it as KEY=VALUE")
    return key, value
