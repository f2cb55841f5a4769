"""MLflow's UI in a browser, on a recorded sweep: its views, the parent and its children, curves, pictures."""

import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator

import numpy as np
import pytest
from browser import NO_BROWSER, Browser, find_chromium

from cnnexp.data.opencv import cv2
from cnnexp.tracking.mlflow import Tracker
from cnnexp.tracking.notes import describing_tags, sweep_note

pytestmark = [
    pytest.mark.browser,
    pytest.mark.long,
    pytest.mark.skipif(find_chromium() is None, reason=NO_BROWSER),
]
CHILDREN = {"baseline": 0.7, "augmented": 0.8, "frozen seed=1": 0.95}
TEXT = "document.body.innerText"


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    """A store with a sweep of three runs, made up."""
    folder = tmp_path_factory.mktemp("ui")
    tracker = Tracker(f"sqlite:///{folder}/mlflow.db", "cnnexp", str(folder / "artifacts"))
    cv2.imwrite(str(folder / "curves.png"), np.full((60, 90, 3), 200, np.uint8))
    parent = tracker.start_run("three variants", {}, {"sweep": "parent"})
    rows = []
    for name, accuracy in CHILDREN.items():
        config = {"name": name.split()[0], "seed": 1, "dataset": {"name": "pets"}, "backbone": {"name": "vgg16"}}
        run_id = tracker.start_run(name, {"seed": "1"}, describing_tags(config), parent)
        for epoch in range(1, 4):
            tracker.log_metrics({"train/acc": accuracy - 0.1 / epoch, "val/acc": accuracy - 0.2 / epoch}, epoch)
        tracker.log_metrics({"test/acc": accuracy, "final/val_acc": accuracy + 0.01}, step=0)
        tracker.log_artifact(folder / "curves.png")
        tracker.end_run("FINISHED")
        rows.append((name, tracker.run_link(run_id), [f"{accuracy:.4f}", "", "", "", ""]))
    tracker._run_id = parent
    tracker.set_tags({"mlflow.note.content": sweep_note(["experiment=a,b"], "outputs/runs/1", rows)})
    tracker.end_run("FINISHED")
    return tracker


@pytest.fixture(scope="module")
def address(tracker: Tracker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the server that `cnnexp ui` starts answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    with open(tmp_path_factory.mktemp("server") / "log", "wb") as log:
        server = subprocess.Popen([*tracker.ui_command(), "--port", str(port)], stdout=log, stderr=log, env=environment)
        try:
            _wait_until_it_answers(f"http://127.0.0.1:{port}/health", server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(timeout=60)


def _wait_until_it_answers(url: str, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 240
    while True:
        try:
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5).close()
            return
        except OSError:
            assert server.poll() is None, "the server ended"
            assert time.monotonic() < end, "the server does not answer"
            time.sleep(0.5)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser(timeout=120) as started:
        started.resize(1400, 800)
        yield started


def shows(*texts: str) -> str:
    return " && ".join(f"{TEXT}.includes({text!r})" for text in texts)


def test_the_best_run_stands_first(browser: Browser, tracker: Tracker, address: str) -> None:
    """Without a click: parent and children in one table, sorted by validation accuracy, with their columns."""
    browser.open(tracker.view_links(address)["Best first"], shows(*CHILDREN, "three variants", "0.95", "0.96", "vgg16"))
    text = browser.evaluate(TEXT)
    assert text.index("frozen seed=1") < text.index("augmented") < text.index("baseline") < text.index("three variants")
    assert "final/val_acc" in text and "test/acc" in text and "Best first" in text
    assert browser.outside == []


def test_children_lie_below_their_sweep(browser: Browser, tracker: Tracker, address: str) -> None:
    browser.open(tracker.view_links(address)["Sweeps"], shows("three variants", "final/val_acc"))
    assert not browser.evaluate(shows("augmented"))
    browser.evaluate("""[...document.querySelectorAll('.ag-row button')].at(0).click()""")
    browser.wait_for(shows(*CHILDREN, "0.95"))
    assert browser.outside == []


def test_curves_and_pictures(browser: Browser, tracker: Tracker, address: str) -> None:
    (child,) = [run for run in tracker.find_runs() if run.name == "augmented"]
    page = f"{address}/{tracker.run_link(child.run_id)}"
    browser.resize(1400, 3000)  # a chart is drawn once it is in sight
    browser.open(f"{page}/model-metrics", shows("(train/acc)", "(val/acc)"))
    browser.wait_for("document.querySelectorAll('.scatterlayer path.js-line').length >= 2")
    browser.resize(1400, 800)
    browser.open(f"{page}/artifacts/curves.png", shows("curves.png"))
    browser.wait_for("[...document.images].some(i => i.naturalWidth == 90)")
    assert browser.outside == []


def test_the_sweeps_note_is_a_table(browser: Browser, tracker: Tracker, address: str) -> None:
    (parent,) = tracker.sweeps(1)
    browser.open(
        f"{address}/{tracker.run_link(parent.run_id)}", shows("95 % interval", "cnnexp train -m experiment=a,b")
    )
    links = browser.evaluate("[...document.querySelectorAll('table a')].map(a => a.textContent)")
    assert list(CHILDREN) == [link for link in links if link in CHILDREN][:3]
