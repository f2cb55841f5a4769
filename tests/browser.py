"""A headless Chromium for tests: opens pages, says what they ask for and complain of, evaluates, takes pictures.

Playwright drives the Chromium or Chrome that is installed. Use:

    needs_browser = pytest.mark.skipif(find_chromium() is None, reason=NO_BROWSER)

    with Browser() as browser:
        browser.open((tmp_path / "page.html").as_uri())
        assert not browser.complaints and browser.evaluate("document.title") == "..."
"""

import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple

from playwright.sync_api import ConsoleMessage, Error, Page, Request, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "headless_shell")
NO_BROWSER = f"no browser: none of {', '.join(NAMES)} is installed"
LOADED = "document.readyState == 'complete'"
FLAGS = [
    "--no-sandbox",  # it opens pages of ours alone, and Chromium has no sandbox for root
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]
OWN = ("data:", "blob:", "file:", "about:", "chrome:", "http://127.0.0.1", "http://localhost")
PageError = Error  # what was asked of the page cannot be done there, or not yet


class Message(NamedTuple):
    """A line of the browser's console."""

    level: str  # log, info, debug, warning, error, ...
    text: str
    url: str  # of the page or file that it is about, if that is known


def find_chromium() -> str | None:
    """The path of an installed Chromium or Chrome."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """A browser with one tab, from an empty profile, that reaches no other machine. Closed at the end of `with`.

    Args:
        timeout: seconds after which an answer is overdue.

    Attributes:
        console: what pages wrote to the console, exceptions and failed requests included, since the last `open`.
        requests: every address that was asked for since the last `open`, `data:` among them.
    """

    def __init__(self, timeout: float = 60.0) -> None:
        self.timeout_ms = 1000 * timeout
        self.console: list[Message] = []
        self.requests: list[str] = []

    def __enter__(self) -> "Browser":
        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        self.page: Page = self._browser.new_page(viewport={"width": 1200, "height": 800})
        self.page.set_default_timeout(self.timeout_ms)
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.console.append(Message("error", str(error), self.page.url)))
        self.page.on("request", self._requested)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._browser.close()
        self._playwright.stop()

    def _heard(self, message: ConsoleMessage) -> None:
        self.console.append(Message(message.type, message.text, message.location["url"]))

    def _requested(self, request: Request) -> None:
        self.requests.append(request.url)

    def open(self, url: str, wait: str = LOADED) -> None:
        """Go to `url` and wait until the JavaScript expression `wait` holds there."""
        self.console.clear()
        self.requests.clear()
        self.page.goto(url)
        self.wait_for(wait)

    def wait_for(self, expression: str) -> None:
        """Wait until a JavaScript expression holds; one that throws does not hold."""
        self.page.wait_for_function(f"() => {{ try {{ return Boolean({expression}) }} catch (e) {{ return false }} }}")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page; promises are awaited."""
        return self.page.evaluate(expression)

    def resize(self, width: int, height: int) -> None:
        """Give the page `width` x `height` CSS pixels, of one pixel each."""
        self.page.set_viewport_size({"width": width, "height": height})

    def colour_scheme(self, scheme: Literal["light", "dark"] | None) -> None:
        """What the page is told of the user's preference; None: nothing."""
        self.page.emulate_media(color_scheme=scheme)

    def screenshot(self, path: Path, width: int = 1200, height: int | None = None) -> None:
        """Write the page as a PNG, laid out `width` pixels wide; all of it where `height` is None."""
        self.resize(width, height or 800)
        self.page.screenshot(path=path, full_page=height is None)

    @property
    def complaints(self) -> list[Message]:
        """The warnings and errors of `console`."""
        return [message for message in self.console if message.level in ("warning", "error", "assert")]

    @property
    def outside(self) -> list[str]:
        """The `requests` that left this machine, or would have."""
        return [url for url in self.requests if not url.startswith(OWN)]
