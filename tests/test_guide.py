"""README and guide say what is true: links, pictures, lengths, and every line of commands is tried."""

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import Run

from cnnexp.commands.guide import FOLDER, KEYS, TOPICS, title
from cnnexp.config import SCHEMAS, Config
from cnnexp.config.keys import all_keys, find_keys
from cnnexp.errors import UserError

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


# ------------------------------------------------------------------------------------------------ command


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


EVERY_LINE = [(page.name, line) for page in PAGES for line in lines_of(page)]


def test_there_are_lines_to_try() -> None:
    assert len(EVERY_LINE) > 40
