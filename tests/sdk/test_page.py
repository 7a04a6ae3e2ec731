"""The JavaScript SDK in a real browser: a page of one origin, an edge of another."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.support.ui import WebDriverWait

from tests.chromium import chromium
from tests.sdk.client import WAIT_S
from tests.sdk.client_javascript import HERE, OPTIONS, node, transports
from tests.sdk.journey import SETTINGS
from tests.two_edges import Two, two_edges

pytestmark = [pytest.mark.sdk, pytest.mark.browser]

FROM_PAGES = SETTINGS.model_copy(
    update={
        "client": SETTINGS.client.model_copy(update={"allowed_origins": ("http://localhost:*",)})
    }
)


class Files(SimpleHTTPRequestHandler):
    """The page and the SDK. What is asked for is not told on stderr."""

    extensions_map = {  # noqa: RUF012  # as the standard library has it
        **SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
    }

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def page() -> Iterator[str]:
    """The address of the page."""
    node()  # The SDK has to be there.
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(HERE))) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"http://localhost:{server.server_port}/page.html"
        server.shutdown()
        serving.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """A browser for all transports."""
    with chromium(tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.fixture
async def two() -> AsyncIterator[Two]:
    """Two edges that let the page in."""
    async with two_edges(FROM_PAGES) as pair:
        yield pair


class Page:
    """The page, each step in a thread: Selenium blocks, and the edges are in this process."""

    def __init__(self, browser: Chrome) -> None:
        self._browser = browser

    async def load(self, url: str, found: list[dict[str, str]], options: dict[str, Any]) -> None:
        """Load it and make a client."""
        await asyncio.to_thread(self._browser.get, url)
        await self.wait(lambda: self._browser.execute_script("return 'start' in window"))
        script = "start(arguments[0], arguments[1])"
        await asyncio.to_thread(self._browser.execute_script, script, found, options)

    async def call(self, *arguments: Any) -> Any:
        """Call a method, as in `drive.mjs`; an error is a text."""
        script = "const done = arguments[1]; call(...arguments[0]).then(done, e => done(String(e)))"
        return await asyncio.to_thread(self._browser.execute_async_script, script, arguments)

    async def hear(self, name: str, count: int = 1) -> Any:
        """Wait for the `count`th event of a kind."""
        script = "return told.filter(event => event.name === arguments[0])[arguments[1]]"
        return await self.wait(lambda: self._browser.execute_script(script, name, count - 1))

    async def wait(self, condition: Callable[[], Any]) -> Any:
        """Wait until something is there, and return it."""
        until = WebDriverWait(self._browser, WAIT_S, poll_frequency=0.02).until
        return await asyncio.to_thread(until, lambda _: condition())


@pytest.mark.parametrize("transport", ["websocket", "http_stream", "sse"])
async def test_page_connects_and_talks(
    two: Two, browser: Chrome, page: str, transport: str
) -> None:
    """Connect, subscribe, publish, receive, presence, be sent away: nothing in the console."""
    found = transports(two.clients.address, transport)
    emulation = f"http://{two.asked.address}/emulation"
    tab = Page(browser)
    await tab.load(
        page, found, OPTIONS | {"token": two.token("ann"), "emulationEndpoint": emulation}
    )
    await tab.call("connect")
    assert (await tab.hear("connected"))["transport"] == transport
    await tab.call("subscribe", "news", {"join_leave": True})
    assert (await tab.hear("subscribed"))["channel"] == "news"
    assert (await tab.hear("join"))["info"]["user"] == "ann"
    assert await tab.call("publish", "news", {"n": 1}) == {}
    assert (await tab.hear("publication"))["data"] == {"n": 1}
    await two.call("publish", channel="news", data={"n": 2})
    assert (await tab.hear("publication", 2))["offset"] == 2
    assert await tab.call("presence_stats", "news") == {"numClients": 1, "numUsers": 1}
    await two.call("disconnect", user="ann")
    assert (await tab.hear("disconnected"))["code"] == 3503
    log = await asyncio.to_thread(browser.get_log, "browser")
    assert [entry["message"] for entry in log if entry["level"] == "SEVERE"] == []


async def test_page_falls_back_to_a_transport_that_works(
    two: Two, browser: Chrome, page: str
) -> None:
    """Where no WebSocket comes through, the next of the list is tried by the SDK itself."""
    nowhere = transports("127.0.0.1:9", "websocket")
    found = nowhere + transports(two.clients.address, "http_stream")
    emulation = f"http://{two.clients.address}/emulation"
    tab = Page(browser)
    await tab.load(
        page, found, OPTIONS | {"token": two.token("ann"), "emulationEndpoint": emulation}
    )
    await tab.call("connect")
    assert (await tab.hear("connected"))["transport"] == "http_stream"
