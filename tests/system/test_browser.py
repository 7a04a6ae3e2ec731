"""The discussion's page in a real browser, against a real running system."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.chromium import chromium

pytestmark = pytest.mark.browser

WAIT_S = 20


class RunningSystem(Protocol):
    """What these tests need of the fixture `system`."""

    @property
    def url(self) -> str:
        """Where the page is."""
        ...


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """The system's own Chromium: nothing is downloaded."""
    with chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


class Tab:
    """One tab with the page."""

    def __init__(self, browser: Chrome, url: str) -> None:
        browser.switch_to.new_window("tab")
        self._browser = browser
        self._handle = browser.current_window_handle
        self._url = url
        self.load()

    def load(self) -> None:
        """Load the page anew, and wait until it is live."""
        self.show()
        self._browser.get(f"{self._url}/")
        self.wait(lambda: self.text("#state") == "Live")

    def show(self) -> None:
        """Bring it to the front."""
        self._browser.switch_to.window(self._handle)

    def close(self) -> None:
        """Close it."""
        self.show()
        self._browser.close()

    def find(self, selector: str) -> WebElement:
        """Return the first element, which must be there."""
        return self._browser.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """Return the text of the first element."""
        text: str = self.find(selector).text
        return text

    def script(self, script: str, *arguments: object) -> Any:
        """Run a script in the page."""
        return self._browser.execute_script(script, *arguments)

    def wait(self, condition: Callable[[], object]) -> None:
        """Wait until something holds, with the tab in front."""
        self.show()
        WebDriverWait(self._browser, WAIT_S, poll_frequency=0.05).until(lambda _: condition())

    def write(self, author: str, text: str) -> None:
        """Post a comment through the form."""
        self.show()
        for selector, content in (("#author", author), ("#text", text)):
            self.find(selector).clear()
            self.find(selector).send_keys(content)
        self.find("#send").click()
        self.wait(lambda: not self.find("#text").get_attribute("value"))

    @contextmanager
    def without(self, *urls: str) -> Iterator[None]:
        """Let requests to some addresses fail; what the console says of it is forgotten."""
        try:
            self._block(*urls)
            yield
        finally:
            self._block()
            self._browser.get_log("browser")  # type: ignore[no-untyped-call]  # Selenium's

    def _block(self, *urls: str) -> None:
        self._browser.execute_cdp_cmd("Network.enable", {})
        self._browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": urls})

    def comment(self, text: str) -> WebElement:
        """Return the comment with this text, once it is there."""
        found: list[WebElement] = []

        def look() -> bool:
            found[:] = [
                item
                for item in self._browser.find_elements(By.CSS_SELECTOR, "#comments > li")
                if text in item.find_element(By.CSS_SELECTOR, ".text").text
            ]
            return bool(found)

        self.wait(look)
        return found[0]

    def up(self, text: str) -> str:
        """Return how many votes a comment has for it."""
        found: str = self.comment(text).find_element(By.CSS_SELECTOR, "[data-vote='1'] .n").text
        return found


@pytest.fixture
def tabs(browser: Chrome, system: RunningSystem) -> Iterator[tuple[Tab, Tab]]:
    """Two tabs with the page."""
    start = browser.current_window_handle
    both = Tab(browser, system.url), Tab(browser, system.url)
    yield both
    for tab in both:
        tab.close()
    browser.switch_to.window(start)


@pytest.fixture
def unique(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return a word that no earlier run has written."""
    return f"{request.node.name}-{tmp_path.parent.name}"


def test_comment_in_one_tab_appears_in_the_other(tabs: tuple[Tab, Tab], unique: str) -> None:
    """With author, safe emphasis and mood, and marked as new."""
    one, two = tabs
    one.write("Ada", f"What a <b>wonderful</b> idea, {unique}")
    item = two.comment(unique)
    assert item.find_element(By.CSS_SELECTOR, ".author").text == "Ada"
    assert item.find_element(By.CSS_SELECTOR, ".text b").text == "wonderful"
    assert item.find_element(By.CSS_SELECTOR, ".mood").text == "glad"
    assert "new" in (item.get_attribute("class") or "").split()
    one.comment(unique)


def test_vote_in_one_tab_is_counted_in_the_other(tabs: tuple[Tab, Tab], unique: str) -> None:
    """Once: the button is done with, in this tab and after a reload."""
    one, two = tabs
    one.write("Ada", unique)
    two.comment(unique)
    one.show()
    button = one.comment(unique).find_element(By.CSS_SELECTOR, "[data-vote='1']")
    button.click()
    button.click()
    two.wait(lambda: two.up(unique) == "1")
    one.load()
    one.wait(lambda: one.up(unique) == "1")
    button = one.comment(unique).find_element(By.CSS_SELECTOR, "[data-vote='1']")
    assert button.get_attribute("aria-pressed") == "true"


def test_script_in_a_comment_is_harmless(tabs: tuple[Tab, Tab], unique: str) -> None:
    """Nothing of it runs, in whatever clothes it comes."""
    one, two = tabs
    evil = "window.broken = true"
    one.write(
        f"<script>{evil}</script>Eve",
        f"<script>{evil}</script><img src=x onerror='{evil}'>"
        f"<a href='javascript:{evil}' onclick='{evil}'>{unique}</a>",
    )
    item = two.comment(unique)
    assert item.find_element(By.CSS_SELECTOR, ".author").text == "Eve"
    item.find_element(By.CSS_SELECTOR, ".text a").click()
    assert not two.script("return window.broken === true")
    assert (
        two.script("return arguments[0].querySelector('script, img, [onclick], a[href]')", item)
        is None
    )


def test_reload_shows_what_was_there(tabs: tuple[Tab, Tab], unique: str) -> None:
    """The latest first; it is not new any more."""
    one, _ = tabs
    one.write("Ada", f"first {unique}")
    one.write("Ada", f"second {unique}")
    one.comment(f"second {unique}")
    one.load()
    item = one.comment(f"first {unique}")
    assert "new" not in (item.get_attribute("class") or "").split()
    texts = [line.text for line in item.parent.find_elements(By.CSS_SELECTOR, "#comments .text")]
    assert texts[:2] == [f"second {unique}", f"first {unique}"]


def test_readers_are_counted(tabs: tuple[Tab, Tab]) -> None:
    """Both tabs see two; one that loads anew leaves, and comes again."""
    one, two = tabs
    for tab in tabs:
        tab.wait(lambda tab=tab: tab.text("#readers") == "2 readers online")  # type: ignore[misc]  # bound at once
    two.show()
    two.script("dispatchEvent(new Event('pagehide'))")
    one.wait(lambda: one.text("#readers") == "1 reader online")


def test_what_fails_is_said_where_the_reader_looks(tabs: tuple[Tab, Tab], unique: str) -> None:
    """A vote's error stands at its comment, and a line that is lost hides what is not known."""
    one, _ = tabs
    one.write("Ada", unique)
    item = one.comment(unique)
    button = item.find_element(By.CSS_SELECTOR, "[data-vote='1']")
    with one.without("*/discussion/votes", "*/connection/uni_sse*"):
        button.click()
        one.wait(lambda: "cannot be reached" in item.text)
        assert button.get_attribute("aria-pressed") == "false"
        one.script("dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))")
        one.wait(lambda: one.text("#state") == "Connection lost")
        assert not one.find("#readers").is_displayed()
    one.find("#retry").click()
    one.wait(lambda: one.text("#state") == "Live" and one.find("#readers").is_displayed())
    button.click()
    one.wait(lambda: one.up(unique) == "1")
    assert "cannot be reached" not in item.text


def test_page_says_nothing_in_the_console(tabs: tuple[Tab, Tab], browser: Chrome) -> None:
    """No error, no resource that the policy refused."""
    tabs[0].load()
    entries: list[dict[str, Any]] = browser.get_log("browser")  # type: ignore[no-untyped-call]  # Selenium's
    assert [entry["message"] for entry in entries if entry["level"] == "SEVERE"] == []
