"""Downloads from a server on loopback that cuts, lies, changes its mind or answers with errors."""

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from cnnexp.data.fetch import dogs_vs_cats, download
from cnnexp.data.fetch.dogs_vs_cats import ANIMALS, prepare_dogs_vs_cats
from cnnexp.data.fetch.download import ExpectedFile, file_name, is_url, shown
from cnnexp.data.opencv import cv2
from cnnexp.data.sources import folder
from cnnexp.errors import UserError

DATA = np.random.default_rng(0).integers(0, 256, 300_000, np.uint8).tobytes()
DIGEST = hashlib.sha256(DATA).hexdigest()


class Server:
    """What it does next is in its attributes; what it was asked for is in `asked`."""

    def __init__(self) -> None:
        self.data = DATA
        self.ranges = True  # whether it can go on in the middle
        self.tag: str | None = '"one"'
        self.cut_after: list[int] = []  # so many bytes of each of the next answers
        self.length: int | None = None  # what it says
        self.answers: list[tuple[int, dict[str, str]]] = []  # before any data
        self.pause_s = 0.0  # after each part
        self.asked: list[dict[str, str]] = []
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.url = f"http://127.0.0.1:{self.http.server_port}/photos.zip"

    def handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(
                    {"path": self.path, **{name.lower(): value for name, value in self.headers.items()}}
                )
                if server.answers:
                    code, headers = server.answers.pop(0)
                    self.send_response(code)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self.answer()

            def answer(self) -> None:
                data, start = server.data, 0
                match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
                current = self.headers.get("If-Range") in (None, server.tag)
                if match and server.ranges and current:
                    start = int(match[1])
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
                else:
                    self.send_response(200)
                if server.tag:
                    self.send_header("ETag", server.tag)
                said = len(data) - start if server.length is None else server.length
                if said >= 0:
                    self.send_header("Content-Length", str(said))
                self.end_headers()
                end = min(len(data), start + (server.cut_after.pop(0) if server.cut_after else len(data)))
                for position in range(start, end, 8192):
                    self.wfile.write(data[position : min(position + 8192, end)])
                    time.sleep(server.pause_s)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "WAITS_S", (0.01,) * 4)
    made = Server()
    thread = Thread(target=made.http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield made
    made.http.shutdown()
    made.http.server_close()


def entries(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.suffix != ".lock")


# ------------------------------------------------------------------------------------------- the right data


def test_it_comes_once(server: Server, tmp_path: Path) -> None:
    for _ in range(2):
        download.download(server.url, tmp_path / "x.zip", ExpectedFile(len(DATA), DIGEST))
    assert (tmp_path / "x.zip").read_bytes() == DATA and entries(tmp_path) == ["x.zip"]
    assert len(server.asked) == 1 and "range" not in server.asked[0]


@pytest.mark.parametrize("seed", range(4))
def test_a_cut_connection_is_taken_up_where_it_ended(
    server: Server, tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    cuts = np.random.default_rng(seed).integers(1, 90_000, 3).tolist()
    server.cut_after = list(cuts)
    download.download(server.url, tmp_path / "x.zip", ExpectedFile(sha256=DIGEST))
    assert (tmp_path / "x.zip").read_bytes() == DATA
    starts = [int(re.findall(r"\d+", asked.get("range", "bytes=0-"))[0]) for asked in server.asked]
    assert starts == [0, *np.cumsum(cuts)]
    assert capsys.readouterr().err.count("trying again") == 3


@pytest.mark.parametrize("promise", [ExpectedFile(), ExpectedFile(sha256=DIGEST)])
def test_a_server_that_cannot_go_on_in_the_middle_begins_anew(
    server: Server, tmp_path: Path, promise: ExpectedFile
) -> None:
    server.ranges, server.cut_after = False, [100_000]
    download.download(server.url, tmp_path / "x.zip", promise)
    assert (tmp_path / "x.zip").read_bytes() == DATA


def test_a_file_that_has_changed_meanwhile_comes_anew(server: Server, tmp_path: Path) -> None:
    server.cut_after = [100_000]

    class Changed(list[int]):
        def pop(self, index: Any = -1) -> int:
            value = super().pop(index)
            server.data, server.tag = DATA[::-1], '"two"'  # while the first answer is on its way
            return value

    server.cut_after = Changed([100_000])
    download.download(server.url, tmp_path / "x.zip")
    assert (tmp_path / "x.zip").read_bytes() == DATA[::-1]
    assert [asked.get("if-range") for asked in server.asked][1] == '"one"'


def test_an_answer_of_a_moment_is_waited_for(server: Server, tmp_path: Path) -> None:
    server.answers = [(503, {}), (429, {}), (302, {"Location": "/elsewhere.zip"})]
    download.download(server.url, tmp_path / "x.zip")
    assert (tmp_path / "x.zip").read_bytes() == DATA and server.asked[-1]["path"] == "/elsewhere.zip"


def test_without_a_length_the_end_is_the_end(server: Server, tmp_path: Path) -> None:
    server.length = -1
    download.download(server.url, tmp_path / "x.zip", ExpectedFile(sha256=DIGEST))
    assert (tmp_path / "x.zip").read_bytes() == DATA


def test_a_killed_download_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    server.pause_s = 0.02
    script = (
        "import sys\nfrom pathlib import Path\nfrom cnnexp.data.fetch.download import download\n"
        "download(sys.argv[1], Path(sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", script, server.url, str(tmp_path / "x.zip")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    part = tmp_path / "x.zip.part"
    deadline = time.monotonic() + 60
    while not part.exists() or part.stat().st_size < 50_000:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "x.zip").exists()
    there = part.stat().st_size
    server.pause_s = 0.0
    download.download(server.url, tmp_path / "x.zip", ExpectedFile(sha256=DIGEST))
    assert (tmp_path / "x.zip").read_bytes() == DATA and entries(tmp_path) == ["x.zip"]
    assert server.asked[-1]["range"] == f"bytes={there}-"


# ------------------------------------------------------------------------------------------------ one line


@pytest.mark.parametrize(
    ("promise", "said"),
    [
        (ExpectedFile(sha256="0" * 64), f"{DIGEST}, not {'0' * 64}"),
        (ExpectedFile(size=len(DATA) + 1), "has 300,000 bytes, not 300,001: it is another file now"),
    ],
)
def test_other_data_than_promised_is_deleted(server: Server, tmp_path: Path, promise: ExpectedFile, said: str) -> None:
    with pytest.raises(UserError, match=said):
        download.download(server.url, tmp_path / "x.zip", promise)
    assert entries(tmp_path) == []


def test_a_server_that_always_cuts_is_given_up_and_what_came_is_kept(server: Server, tmp_path: Path) -> None:
    server.cut_after = [50_000] + [0] * 20
    with pytest.raises(UserError, match=r"at 50,000 of 300,000 bytes; the same line again goes on from there"):
        download.download(server.url, tmp_path / "x.zip")
    assert entries(tmp_path) == ["x.zip.part", "x.zip.part.json"]
    server.cut_after = []
    download.download(server.url, tmp_path / "x.zip")
    assert (tmp_path / "x.zip").read_bytes() == DATA


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((404, {}), "the server answers 404"),
        ((403, {}), "the server answers 403"),
        ((302, {"Location": "ftp://example.org/x.zip"}), "leads to ftp://example.org/x.zip, which is no http"),
    ],
)
def test_a_refusal_is_final(server: Server, tmp_path: Path, answer: tuple[int, dict[str, str]], said: str) -> None:
    server.answers = [answer]
    with pytest.raises(UserError, match=said) as refused:
        download.download(f"{server.url}?key=secret", tmp_path / "x.zip")
    assert len(server.asked) == 1 and "secret" not in str(refused.value)


def test_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "WAITS_S", ())
    with pytest.raises(UserError, match=r"the connection was lost \(Connection refused\)"):
        download.download("http://127.0.0.1:9/x.zip", tmp_path / "x.zip")


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="only root may mount a small disk")
def test_a_full_disk_is_one_line_before_anything_comes(server: Server, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "none", tmp_path / "disk"], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"no small disk: {mounted.stderr.decode().strip()}")
    try:
        with pytest.raises(UserError, match=r"disk: 0 MB are needed, 0 MB are free; make room"):
            download.download(server.url, tmp_path / "disk/x.zip")
        server.length = -1  # nobody knows beforehand
        with pytest.raises(UserError, match=r"cannot be filled .*No space left on device"):
            download.download(server.url, tmp_path / "disk/x.zip")
    finally:
        subprocess.run(["umount", tmp_path / "disk"], check=True)


def test_urls() -> None:
    assert is_url("https://example.org/x.zip") and is_url("ftp://x") and not is_url("C:/x.zip") and not is_url("x.zip")
    assert shown("https://user:secret@example.org/a/x.zip?key=secret") == "https://example.org/a/x.zip"
    assert file_name("https://example.org/a/x%20y.zip?k=1", ExpectedFile(sha256="a" * 64)) == "aaaaaaaa-x_y.zip"
    assert re.fullmatch(r"[0-9a-f]{8}-x\.zip", file_name("https://example.org/x.zip", ExpectedFile()))
    with pytest.raises(UserError, match="cannot be downloaded; give an address that begins with http"):
        download.download("ftp://example.org/x.zip", Path("x.zip"))


# ------------------------------------------------------------------------------------------- whole data sets


@pytest.fixture
def zipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sixteen photos in Microsoft's layout."""
    monkeypatch.setattr(dogs_vs_cats, "NUMBERS", {"train": range(4), "validation": range(4, 6), "test": range(6, 8)})
    with zipfile.ZipFile(tmp_path / "served.zip", "w") as archive:
        for number in range(8):
            for animal in ANIMALS:
                picture = np.full((8, 8, 3), (20 * number, 100, 200 * (animal == "dog")), np.uint8)
                archive.writestr(
                    f"PetImages/{animal.capitalize()}/{number}.jpg", cv2.imencode(".png", picture)[1].tobytes()
                )
    return tmp_path / "served.zip"


def test_the_photos_from_a_server_that_cuts(server: Server, zipped: Path, tmp_path: Path) -> None:
    server.data, server.cut_after = zipped.read_bytes(), [700]
    for _ in range(2):
        prepare_dogs_vs_cats(server.url, tmp_path / "set", tmp_path / "downloads")
    assert len(list(tmp_path.glob("set/*/*/*.jpg"))) == 16
    assert entries(tmp_path / "downloads") == [] and len(server.asked) == 2


def test_a_wrong_archive_becomes_no_data_set(server: Server, zipped: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(zipped, "a") as archive:
        archive.writestr("../evil.jpg", b"evil")
    whole = zipped.read_bytes()
    for served, said in ((whole, "leads out of the archive"), (DATA, "is neither a folder nor an archive")):
        server.data = served
        with pytest.raises(UserError, match=said):
            prepare_dogs_vs_cats(server.url, tmp_path / "set", tmp_path / "downloads")
        assert not (tmp_path / "set").exists() and not list(tmp_path.rglob("evil.jpg"))
        assert entries(tmp_path / "downloads") == []
    with pytest.raises(UserError, match="what came is another file than expected"):
        prepare_dogs_vs_cats(server.url, tmp_path / "set", tmp_path / "downloads", ExpectedFile(sha256="0" * 64))
    assert not (tmp_path / "set").exists()


def test_class_folders_from_a_server(server: Server, zipped: Path, tmp_path: Path) -> None:
    fractions: dict[str, Any] = {"validation_fraction": 0.25, "test_fraction": 0.25, "split_seed": 0}
    local = folder(path=str(zipped), downloads=str(tmp_path / "unpacked"), on_leak="ignore", **fractions)
    server.data = zipped.read_bytes()
    for _ in range(2):
        served = folder(path=server.url, downloads=str(tmp_path / "downloads"), on_leak="ignore", **fractions)
        assert served.digest == local.digest and served.class_names == ("Cat", "Dog")
    assert len(server.asked) == 1
    with pytest.raises(UserError, match="another file than expected"):
        folder(path=server.url, downloads=str(tmp_path / "more"), sha256="0" * 64, **fractions)


# ----------------------------------------------------------------------------------- addresses with a password


def authorization(server: Server) -> list[str | None]:
    return [asked.get("authorization") for asked in server.asked]


def with_user(server: Server, who: str, host: str = "127.0.0.1") -> str:
    return f"http://{who}@{host}:{server.http.server_port}/photos.zip"


@pytest.mark.parametrize(
    ("who", "told"),
    [
        ("user:PASSWORD", "dXNlcjpQQVNTV09SRA=="),
        ("us%40er:p%40ss%3Aw%2F", "dXNAZXI6cEBzczp3Lw=="),  # us@er:p@ss:w/
        ("user", "dXNlcjo="),
        ("m%C3%BCller:%C3%A4", "bcO8bGxlcjrDpA=="),
    ],
)
def test_user_and_password_are_sent_as_basic_authorization(
    server: Server, tmp_path: Path, who: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.cut_after = [100_000]
    download.download(with_user(server, who), tmp_path / "a", ExpectedFile(len(DATA), DIGEST))
    assert (tmp_path / "a").read_bytes() == DATA
    assert authorization(server) == [f"Basic {told}"] * 2  # also where it goes on
    assert who not in "".join(capsys.readouterr())


def test_a_password_goes_along_with_a_redirection_on_the_same_host_alone(server: Server, tmp_path: Path) -> None:
    url = with_user(server, "user:PASSWORD")
    server.answers = [(302, {"Location": "/other.zip"})]
    download.download(url, tmp_path / "a")
    assert authorization(server) == ["Basic dXNlcjpQQVNTV09SRA=="] * 2
    server.asked.clear()
    server.answers = [(302, {"Location": server.url.replace("127.0.0.1", "localhost")})]
    download.download(url, tmp_path / "b")
    assert authorization(server) == ["Basic dXNlcjpQQVNTV09SRA==", None]
    server.asked.clear()
    server.answers = [(302, {"Location": with_user(server, "a:b", "localhost")})]
    download.download(url, tmp_path / "c")
    assert authorization(server) == ["Basic dXNlcjpQQVNTV09SRA==", "Basic YTpi"]


def test_a_refused_password_is_not_shown(server: Server, tmp_path: Path) -> None:
    server.answers = [(401, {})]
    with pytest.raises(UserError, match="answers 401") as caught:
        download.download(with_user(server, "user:PASSWORD"), tmp_path / "a")
    assert "PASSWORD" not in str(caught.value) and "user" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://user:SECRET@[::1", "http://u:SECRET@host:port/x.zip", "http://h:99999/x"])
def test_half_an_address_is_one_line(url: str, tmp_path: Path) -> None:
    for call in (lambda: download.download(url, tmp_path / "a"), lambda: shown(url)):
        with pytest.raises(UserError, match=r"^http://\.\.\.: is no address") as caught:
            call()
        assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("to", "said"), [("ftp://host/x.zip", "which is no http or https address"), ("http://[::1", "is no address")]
)
def test_a_redirection_to_another_kind_is_said_as_such(server: Server, tmp_path: Path, to: str, said: str) -> None:
    server.answers = [(302, {"Location": to})]
    with pytest.raises(UserError, match=said) as caught:
        download.download(server.url, tmp_path / "a")
    assert str(caught.value).count("is no address") <= 1 and len(server.asked) == 1


@pytest.mark.parametrize("note", ["null", "[]", '{"url": 5}', "{}", "\xff"])
def test_a_damaged_note_begins_anew(server: Server, tmp_path: Path, note: str) -> None:
    (tmp_path / "a.part").write_bytes(b"xyz")
    (tmp_path / "a.part.json").write_bytes(note.encode("latin-1"))
    download.download(server.url, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == DATA
