"""README and guide say what is true: links, pictures, lengths, and every line of commands is tried."""

import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from cnnexp.commands.arguments import parse_hydra
from cnnexp.commands.guide import FOLDER, KEYS, TOPICS, title
from cnnexp.config import SCHEMAS, Config
from cnnexp.config.keys import all_keys, find_keys
from cnnexp.errors import UserError
from cnnexp.runs.planning import check_line

Run = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted(FOLDER.glob("*.md"))]


# -------------------------------------------------------------------------------------------------- pages


def test_the_topics_are_the_pages() -> None:
    assert sorted(TOPICS) == sorted([*(page.stem for page in PAGES[1:]), KEYS])
    assert all(title(topic) and not title(topic).startswith("#") for topic in TOPICS)


def test_the_readme_is_read_in_five_minutes() -> None:
    text = PAGES[0].read_text()
    assert len(text.splitlines()) <= 150
    assert len(text.split()) <= 1500


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_are_there(page: Path) -> None:
    linked = re.findall(r"\]\(([^)#\s]+)\)", page.read_text())
    missing = [link for link in linked if not link.startswith("http") and not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_only_topics_and_files_that_are_there(page: Path) -> None:
    text = page.read_text()
    topics = set(re.findall(r"`cnnexp guide ([a-z-]+)[` ]", text))
    assert topics <= set(TOPICS)
    files = re.findall(r"`((?:tests|conf|cnnexp)/[\w./-]+\.\w+)`", text)
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_the_example_of_a_rare_class_is_what_was_measured() -> None:
    measured = json.loads((ROOT / "tests/bench/rare_class.json").read_text())["remedies"]
    text = (FOLDER / "figures.md").read_text()
    for name, row in measured.items():
        low, high = row["recall_interval"]
        cells = f"{row['recall']:.3f} ({low:.3f} to {high:.3f}) | {row['precision']:.3f} | {row['f1_macro']:.3f}"
        assert f"| {name if name == 'none' else f'`{name}`'} | {cells} | {row['acc']:.3f} |" in text


# ------------------------------------------------------------------------------------------------ command


def test_the_readme_has_the_figures_that_the_sweep_wrote() -> None:
    """Of `tests/bench/progression.jsonl`: the tutorial's figure, ours with its interval, minutes."""
    jobs = [json.loads(line) for line in (ROOT / "tests/bench/progression.jsonl").read_text().splitlines()]
    assert len(jobs) == len({job["variant"] for job in jobs}) == 7 and len({job["dtype_policy"] for job in jobs}) == 1
    rows = {
        cells[1].strip(" `"): [cell.strip() for cell in cells[3:6]]
        for cells in (line.split("|") for line in (ROOT / "README.md").read_text().splitlines())
        if len(cells) == 7
    }
    for job in jobs:
        tutorial = "" if job["tutorial"] is None else f"{job['tutorial']:.3f}"
        low, high = job["interval"]
        ours = f"{job['test_acc']:.3f} ({low:.3f} to {high:.3f})"
        assert rows[job["variant"]] == [tutorial, ours, f"{job['seconds'] / 60:.0f}"]


def test_guide_lists_shows_and_refuses(cnnexp: Run) -> None:
    code, out, _ = cnnexp("guide")
    assert code == 0 and all(topic in out for topic in TOPICS)
    code, out, _ = cnnexp("guide", "sweeps")
    assert (code, out) == (0, (FOLDER / "sweeps.md").read_text())
    code, _, err = cnnexp("guide", "sweps")
    assert code == 2 and "there are sweeps" in err
    code, _, err = cnnexp("guide", "sweeps", "photos")
    assert code == 2 and "one topic" in err


def test_guide_keys_shows_sentence_type_range_and_default(cnnexp: Run) -> None:
    code, out, _ = cnnexp("guide", "keys", "batch_size")
    assert code == 0
    assert out.splitlines() == [
        "trainer.batch_size = 20",
        "    Images of a training step, over all devices together.",
        "    int, at least 1",
        "trainer.evaluation_batch_size = 64",
        "    Images that are evaluated at a time; decides no figure but in its last digits.",
        "    int, at least 1",
    ]
    assert "with optimizer=rmsprop" in cnnexp("guide", "keys", "optimizer.rho")[1]
    code, _, err = cnnexp("guide", "keys", "bacth_size")
    assert code == 2 and "trainer.batch_size" in err


# --------------------------------------------------------------------------------------------------- keys


def nodes(kind: Any) -> Iterator[type]:
    """A dataclass of the schema and all below it."""
    yield kind
    for item in fields(kind):
        inner = [item.type, *getattr(item.type, "__args__", ())]
        for part in inner:
            if isinstance(part, type) and is_dataclass(part):
                yield from nodes(part)


def test_every_field_of_the_schema_has_its_sentence() -> None:
    roots = [Config, *(kind for group in SCHEMAS.values() for kind in group.values())]
    kinds = {node for root in roots for node in nodes(root)}
    without = [f"{kind.__name__}.{f.name}" for kind in kinds for f in fields(kind) if not f.metadata.get("doc")]
    assert not without
    assert all(re.fullmatch(r"[A-Za-z].*\.", key.doc) for key in all_keys())


def test_keys_of_some_options_name_them() -> None:
    (momentum, *others) = find_keys("optimizer.momentum")
    assert {key.only for key in (momentum, *others)} == {"with optimizer=rmsprop", "with optimizer=sgd"}
    assert {key.default for key in (momentum, *others)} == {"0.0", "0.9"}
    with pytest.raises(UserError, match="no key has this"):
        find_keys("momentumm")


# ------------------------------------------------------------------------------------------------- blocks


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of a language; one behind the comment `<!-- not run: REASON -->` is left out."""
    text = re.sub(r"<!-- not run: [^\n]+ -->\n+```.*?```", "", page.read_text(), flags=re.DOTALL)
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def lines_of(page: Path) -> list[str]:
    """The lines of shell blocks that call cnnexp, without their comments."""
    joined = "\n".join(blocks(page, "sh")).replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.startswith("cnnexp ")]


EVERY_LINE = sorted({line for page in PAGES for line in lines_of(page)})
COMPOSED = ("train", "plan", "summary", "prepare")  # what takes the overrides of a config


def test_there_are_lines_to_try() -> None:
    assert len(EVERY_LINE) > 35
    assert all(blocks(page, "sh") for page in PAGES if page.stem in ("README", "photos", "sweeps", "components"))


@pytest.mark.parametrize("line", EVERY_LINE)
def test_every_line_is_one_that_its_command_takes(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mine: Path
) -> None:
    """It is parsed, and composed where it has a config; the tests below run some of them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    command, *arguments = shlex.split(line, comments=True)[1:]
    module = import_module(f"cnnexp.commands.{command}")
    given = parse_hydra(arguments) if command == "train" else module.parser().parse(arguments)
    if command not in COMPOSED:
        return
    overrides = given.overrides
    if command == "prepare":
        overrides = [f"dataset={given.names[0]}", *overrides]
    needs = ["hydra/sweeper=optuna"] if "search_" in line else []
    if needs or "optuna" in line:
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    check_line(overrides, bool(getattr(given, "multirun", False)), None, "config")


@pytest.fixture(scope="session")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The module of the page on own components."""
    folder = tmp_path_factory.mktemp("mine")
    (text,) = blocks(FOLDER / "components.md", "python")
    (folder / "mine.py").write_text(text)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    sys.modules.pop("mine", None)


@pytest.mark.trains
@pytest.mark.slow
@pytest.mark.parametrize("line", lines_of(FOLDER / "components.md"))
def test_own_components_train(line: str, cnnexp: Run, tmp_path: Path, mine: Path, drawn_root: Path) -> None:
    smoke = ["debug=smoke", "tracking=none", f"paths.data={drawn_root}"]
    code, out, err = cnnexp(*shlex.split(line)[1:], *smoke)
    assert code == 0, err
    assert "epoch   2/2" in out


@pytest.mark.trains
@pytest.mark.long
def test_the_readme_on_ones_own_photos(cnnexp: Run, tmp_path: Path, drawn_root: Path, no_training: None) -> None:
    """Line after line, with a trainer that trains nothing and the networks of a smoke run."""
    drawn = next(drawn_root.rglob("train"))
    for kind, name in (("cat", "apple"), ("dog", "pear")):
        shutil.copytree(drawn / kind, tmp_path / "photos" / name)
    shutil.copy(next((drawn / "cat").glob("*.jpg")), tmp_path / "photo.jpg")
    smoke = ["debug=smoke", "tracking.explain=true", "backbone.weights=null", "dataset.on_leak=ignore"]
    (own,) = [block for block in blocks(PAGES[0], "sh") if block.startswith("cnnexp prepare folder")]
    tried = []
    for line in own.splitlines():
        command, *arguments = shlex.split(line.replace("seed=0,1,2", "seed=0"), comments=True)[1:]
        if command == "ui":  # tests/test_ui_browser.py opens it
            continue
        more = {"train": smoke, "prepare": ["dataset.on_leak=ignore"]}.get(command, [])
        code, out, err = cnnexp(command, *arguments, *more)
        assert code == 0, (line, out, err)
        tried.append(command)
    assert tried == ["prepare", "train", "predict", "explain", "train", "compare", "reproduce"]
