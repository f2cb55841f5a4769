"""YAML, JSON and CSV of others: what is bounded, what is typed, and what comes back as it was written."""

import csv
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnexp.data.check.manifest import write_csv as write_manifest_csv
from cnnexp.errors import UserError
from cnnexp.formats import (
    MOST_VALUES,
    csv_bytes,
    csv_rows,
    csv_text,
    number,
    parse_json,
    parse_yaml,
    read_csv,
    read_json,
    read_yaml,
)
from cnnexp.report.mistakes import read_mistakes, write_mistakes
from cnnexp.report.predictions import read_predictions, write_predictions

MERGES = "z0: &z0 {" + ", ".join(f"k{n}: {n}" for n in range(10)) + "}\n"
MERGES += "".join(f"z{n}: &z{n} {{<<: [{', '.join([f'*z{n - 1}'] * 8)}]}}\n" for n in range(1, 30))
WIDE = "a: &a {" + ", ".join(f"k{n}: {n}" for n in range(10_000)) + "}\nb: {<<: [" + "*a, " * 20_000 + "]}\n"
ALIASES = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
PAIRS = "a0: &a0 [x: 1]\n" + "".join(
    f"a{n}: &a{n} !!pairs [{', '.join([f'k: *a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
HOSTILE = {
    "merges": MERGES,
    "a wide merge": WIDE,
    "aliases": ALIASES,
    "pairs": PAIRS,
    "itself": "a: &a [*a]",
    "merges itself": "a: &a {<<: *a}",
    "many values": f"[{'x, ' * (MOST_VALUES + 1)}]",
    "deep": "[" * 5000,
    "a number to the base of 60": "a: " + "1" + ":1" * 400_000,
    "a long number": "a: " + "1" * 5000,
    "a call": "!!python/object/apply:os.system [ls]",
    "no date": "a: 2000-13-45",
    "long": "a" * 1_000_001,
    "no text": "a: \x00",
    "two documents": "a: 1\n---\nb: 2",
}


@pytest.mark.parametrize("merges", [True, False])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_yaml_is_one_line_within_seconds(name: str, merges: bool) -> None:
    began = time.monotonic()
    with pytest.raises(UserError, match=r"^x\.yaml: ") as caught:
        parse_yaml(HOSTILE[name], "x.yaml", merges)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
    assert time.monotonic() - began < 20


def test_merge_keys_are_for_files_that_people_write() -> None:
    text = "base: &base {a: 1, b: 2}\nother:\n  <<: *base\n  b: 3\n"
    assert parse_yaml(text, "x", merges=True)["other"] == {"a": 1, "b": 3}
    with pytest.raises(UserError, match=r"x: merge keys \(<<\) have no place here; refused"):
        parse_yaml(text, "x")


def test_plain_yaml_comes_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: [1, 2.5, null, true, é]\nb: &b {c: d}\ne: *b\nf: 190:20\n")
    found = {"a": [1, 2.5, None, True, "é"], "b": {"c": "d"}, "e": {"c": "d"}, "f": 11420}
    assert read_yaml(tmp_path / "a.yaml") == found
    with pytest.raises(UserError, match=r"missing\.yaml: cannot be read: No such file"):
        read_yaml(tmp_path / "missing.yaml")


# ---------------------------------------------------------------------------------------------------- JSON


@dataclass
class Shape:
    name: str
    seeds: list[int]
    share: float | None = None
    place: str | Path | None = None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no JSON"),
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("null", "holds None in place of keys"),
        ("[]", r"holds \[\] in place of keys"),
        ('{"seeds": []}', "has no 'name'"),
        ('{"name": 5, "seeds": []}', "'name' is 5, which is no str"),
        ('{"name": "a", "seeds": null}', r"'seeds' is None, which is no list\[int\]"),
        ('{"name": "a", "seeds": [true]}', r"'seeds' is \[True\]"),
        ('{"name": "a", "seeds": [1.5]}', r"'seeds' is \[1.5\]"),
        ('{"name": "a", "seeds": [], "share": "x"}', "'share' is 'x', which is no float | None"),
        ('{"name": "a", "seeds": [], "place": 1}', "'place' is 1"),
        ('{"name": "a", "seeds": [], "colour": 1}', "'colour' is no key of this version"),
    ],
)
def test_json_of_another_shape_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=rf"a\.json: {said}"):
        read_json(tmp_path / "a.json", Shape)


def test_json_of_the_shape_is_read() -> None:
    assert parse_json('{"name": "a", "seeds": [1], "share": 1}', "x", Shape) == Shape("a", [1], 1)
    assert parse_json('{"a": NaN}', "x", dict[str, Any])["a"] != 0
    with pytest.raises(UserError, match="x: is no dict"):
        parse_json("[]", "x", dict[str, Any])


def test_numbers_of_records() -> None:
    assert [number(text, int) for text in ("3", 3.0, "3.5", "x", "", None, float("nan"), 1e400)] == [3, 3, *[None] * 6]
    assert [number(text, float) for text in ("0.5", "1e-3", "nan", "inf", "abc", "null")] == [0.5, 0.001, *[None] * 4]


# ----------------------------------------------------------------------------------------------------- CSV

FORMULAS = ["=1+1", "+b", "-x", "@SUM(1)", "\tx", "\rx", "\n=1"]
NAMES = [*FORMULAS, "a", "'a", "'=1", "''+b", "", "caf\udce9", "a,b", 'say "x"', "a\nb"]


def test_no_cell_is_a_formula_and_each_comes_back(tmp_path: Path) -> None:
    content = csv_bytes([["name", "figure"], *([name, -0.5] for name in NAMES)])
    raw = list(csv.reader(content.decode("utf-8", "surrogateescape").splitlines(keepends=True)))
    assert not [cell for cell, _ in raw if cell[:1] in ("=", "+", "-", "@", "\t", "\r", "\n")]
    assert [figure for _, figure in raw[1:]] == ["-0.5"] * len(NAMES)  # a number stays one
    assert csv_rows(content) == [["name", "figure"], *([name, "-0.5"] for name in NAMES)]
    (tmp_path / "a.csv").write_bytes(content)
    assert read_csv(tmp_path / "a.csv") == csv_rows(content)


def test_what_was_written_before_is_read_as_it_stands() -> None:
    assert csv_rows(b"file,truth\r\n=1+1.jpg,+b\r\n'a,b\r\n") == [["file", "truth"], ["=1+1.jpg", "+b"], ["'a", "b"]]
    assert csv_text([["a", None, 1]], end="\n") == "a,,1\n"


def test_predictions_mistakes_and_manifest_have_no_formulas(tmp_path: Path) -> None:
    ids, classes = ("=HYPERLINK(1).jpg", "+b/x.jpg"), ("=1+1", "+b")
    probabilities = np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)
    write_predictions(tmp_path / "p.csv", ids, np.array([0, 1]), (probabilities.argmax(axis=1), probabilities), classes)
    text = (tmp_path / "p.csv").read_text()
    assert "\n'=HYPERLINK(1).jpg,'=1+1,'+b,0.25,0.75" in text.replace("\r", "")
    found = read_predictions(tmp_path / "p.csv")
    assert (found.ids, found.class_names) == (ids, classes)
    write_mistakes(tmp_path / "m.zip", ids, classes, classes[::-1], [np.zeros((8, 8, 3), np.uint8)] * 2)
    kept = read_mistakes(tmp_path / "m.zip", {ids[0]})
    assert (kept[ids[0]].truth, kept[ids[0]].predicted) == ("=1+1", "+b")
    write_manifest_csv(tmp_path / "files.csv", [("+b/=1.jpg", "train", "+b", "", 8, 8, "PNG", "", "", "")])
    assert (tmp_path / "files.csv").read_text().splitlines()[1] == "'+b/=1.jpg,train,'+b,,8,8,PNG,,,"
