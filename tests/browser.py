"""A headless Chromium for tests: opens pages, says what they ask for and complain of, evaluates, takes pictures.

It is driven over a pipe by the Chrome DevTools Protocol, so that no package and no port is needed. Use:

    needs_browser = pytest.mark.skipif(find_chromium() is None, reason=NO_BROWSER)

    with Browser(tmp_path) as browser:
        browser.open((tmp_path / "page.html").as_uri())
        assert not browser.complaints and browser.evaluate("document.title") == "..."
"""

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "headless_shell")
NO_BROWSER = f"no browser: none of {', '.join(NAMES)} is installed"
LOADED = "document.readyState == 'complete'"
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # it opens pages of ours alone, and Chromium has no sandbox for root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-proxy-server",
    "--password-store=basic",
    "--use-mock-keychain",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
    "--remote-debugging-pipe",
)


class Message(NamedTuple):
    """A line of the browser's console."""

    level: str  # log, info, debug, warning, error, ...
    text: str
    url: str  # of the page or file that it is about, if that is known


class PageError(RuntimeError):
    """What was asked of the page cannot be done there, or not yet."""


def find_chromium() -> str | None:
    """The path of an installed Chromium or Chrome."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """A browser with one tab, from an empty profile, that reaches no other machine. Closed at the end of `with`.

    Args:
        folder: its profile is made there.
        timeout: seconds after which an answer is overdue.

    Attributes:
        console: what pages wrote to the console, exceptions and failed requests included, since the last `open`.
        requests: every address that was asked for since the last `open`, `data:` among them.
    """

    def __init__(self, folder: Path, timeout: float = 60.0) -> None:
        self.profile = folder / "chromium"
        self.timeout = timeout
        self.console: list[Message] = []
        self.requests: list[str] = []
        self._received = b""
        self._number = 0
        self._answers: dict[int, dict[str, Any]] = {}
        self._session = ""

    def __enter__(self) -> "Browser":
        program = find_chromium()
        assert program is not None, NO_BROWSER
        inward, outward = _pipe(), _pipe()  # (read end, write end); Chromium reads from 3 and writes to 4

        def connect() -> None:
            os.dup2(inward[0], 3)
            os.dup2(outward[1], 4)

        self.profile.mkdir(parents=True, exist_ok=True)
        with open(self.profile / "stderr.txt", "wb") as stderr:
            command = [program, *FLAGS, f"--user-data-dir={self.profile}", "about:blank"]
            self._process = subprocess.Popen(
                command, stdout=stderr, stderr=stderr, pass_fds=(3, 4), preexec_fn=connect, start_new_session=True
            )
        os.close(inward[0])
        os.close(outward[1])
        self._write, self._read = inward[1], outward[0]
        try:
            target = self.send("Target.createTarget", url="about:blank")["targetId"]
            self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            self.send("Runtime.evaluate", expression="0")  # answered after all that `_on_attached` asked for
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._write)  # Chromium ends when its pipe does
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self._read)

    # ------------------------------------------------------------------------------------------------- pages

    def open(self, url: str, wait: str = LOADED) -> None:
        """Go to `url` and wait until the JavaScript expression `wait` holds there."""
        self.console.clear()
        self.requests.clear()
        answer = self.send("Page.navigate", url=url)
        if "errorText" in answer:
            raise PageError(f"{url}: {answer['errorText']}")
        self.wait_for(wait)

    def wait_for(self, expression: str) -> None:
        """Wait until a JavaScript expression holds; one that throws does not hold."""
        end = time.monotonic() + self.timeout
        while not self._holds(expression):
            assert time.monotonic() < end, f"not within {self.timeout} s: {expression}; console: {self.console}"
            time.sleep(0.05)

    def _holds(self, expression: str) -> bool:
        try:
            return bool(self.evaluate(f"Boolean({expression})"))
        except PageError:  # also where the page is just being replaced by the next
            return False

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page, as JSON would carry it; promises are awaited."""
        arguments = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        answer = self.send("Runtime.evaluate", **arguments)
        if "exceptionDetails" in answer:
            raise PageError(f"{expression}: {_exception(answer['exceptionDetails'])}")
        return answer["result"].get("value")

    def resize(self, width: int, height: int) -> None:
        """Give the page `width` x `height` CSS pixels, of one pixel each."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **metrics)

    def screenshot(self, path: Path, width: int = 1200, height: int | None = None) -> None:
        """Write the page as a PNG, laid out `width` pixels wide; all of it where `height` is None."""
        self.resize(width, height or 800)
        whole = height or max(800, self.evaluate("Math.ceil(document.documentElement.getBoundingClientRect().height)"))
        self.resize(width, min(int(whole), 16000))
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    @property
    def complaints(self) -> list[Message]:
        """The warnings and errors of `console`."""
        return [message for message in self.console if message.level in ("warning", "error", "assert")]

    @property
    def outside(self) -> list[str]:
        """The `requests` that left this machine, or would have."""
        own = ("data:", "blob:", "file:", "about:", "chrome:", "http://127.0.0.1", "http://localhost")
        return [url for url in self.requests if not url.startswith(own)]

    # ---------------------------------------------------------------------------------------------- protocol

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the DevTools Protocol (in the tab, once there is one) and return its result."""
        number = self._post(self._session, method, **parameters)
        end = time.monotonic() + self.timeout
        while number not in self._answers:
            self._receive(end - time.monotonic())
        answer = self._answers.pop(number)
        if "error" in answer:
            raise PageError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _post(self, session: str, method: str, **parameters: Any) -> int:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        text = json.dumps(message | ({"sessionId": session} if session else {}))
        rest = memoryview(text.encode() + b"\0")
        while rest:
            rest = rest[os.write(self._write, rest) :]
        return self._number

    def _listen(self, session: str) -> None:
        """Hear of everything in a tab, frame or worker, and of the frames and workers that it opens."""
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._post(session, f"{domain}.enable")  # a worker has no Page and answers with an error: no matter
        self._post(session, "Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=True, flatten=True)
        self._post(session, "Runtime.runIfWaitingForDebugger")

    def _receive(self, seconds: float) -> None:
        """Read what has come, waiting at most so long."""
        ready, _, _ = select.select([self._read], [], [], max(seconds, 0))
        assert ready, f"the browser does not answer within {self.timeout} s"
        part = os.read(self._read, 1 << 20)
        assert part, f"the browser ended: {(self.profile / 'stderr.txt').read_text(errors='replace')[-2000:]}"
        *messages, self._received = (self._received + part).split(b"\0")
        for text in messages:
            message = json.loads(text)
            if "id" in message:
                self._answers[message["id"]] = message
            elif message["method"] in EVENTS:
                EVENTS[message["method"]](self, message["params"])


def _pipe() -> tuple[int, int]:
    """A pipe whose ends have numbers above those that the child gives them."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return high[0], high[1]


def _exception(details: dict[str, Any]) -> str:
    return str(details.get("exception", {}).get("description") or details["text"])


# -------------------------------------------------------------------------------------------------- events


def _on_request(browser: Browser, event: dict[str, Any]) -> None:
    browser.requests.append(event["request"]["url"])


def _on_console(browser: Browser, event: dict[str, Any]) -> None:
    words = [str(item.get("value", item.get("description", item["type"]))) for item in event["args"]]
    frames = event.get("stackTrace", {}).get("callFrames", [])
    browser.console.append(Message(event["type"], " ".join(words), frames[0]["url"] if frames else ""))


def _on_exception(browser: Browser, event: dict[str, Any]) -> None:
    details = event["exceptionDetails"]
    browser.console.append(Message("error", _exception(details), details.get("url", "")))


def _on_log(browser: Browser, event: dict[str, Any]) -> None:
    entry = event["entry"]
    browser.console.append(Message(entry["level"], entry["text"], entry.get("url", "")))


def _on_attached(browser: Browser, event: dict[str, Any]) -> None:
    browser._listen(event["sessionId"])


EVENTS: dict[str, Callable[[Browser, dict[str, Any]], None]] = {
    "Network.requestWillBeSent": _on_request,
    "Runtime.consoleAPICalled": _on_console,
    "Runtime.exceptionThrown": _on_exception,
    "Log.entryAdded": _on_log,
    "Target.attachedToTarget": _on_attached,
}
