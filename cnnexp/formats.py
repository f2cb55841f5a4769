"""YAML, JSON and CSV that others may have written, or changed: bounded while it is read, typed, or one clear error;
and the keys of overrides, as they are typed and recorded."""

import csv
import io
import json
import math
import re
import types
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from cnnexp.errors import UserError
from cnnexp.files import read_file

T = TypeVar("T")

MOST_BYTES = 1_000_000  # of YAML; ours has a few thousand
MOST_VALUES = 100_000  # of YAML, those counted again that an alias or a merge repeats
MOST_LEVELS = 20
LONGEST_NUMBER = 400  # characters; YAML has numbers to the base of 60, which take long to compute
MOST_BYTES_OF_JSON = 100_000_000
MOST_BYTES_OF_CSV = 1_000_000_000


# ---------------------------------------------------------------------------------------------------- YAML


class _BoundedLoader(yaml.SafeLoader):
    """Plain values alone, and not many: a short text can stand for more of them than any memory holds."""

    merges = True

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.values = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.count(1)
        return super().compose_node(parent, index)

    def compose_scalar_node(self, anchor: Any) -> Any:
        node = super().compose_scalar_node(anchor)
        if node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float") and len(node.value) > LONGEST_NUMBER:
            raise UserError(f"a number of {len(node.value):,} characters; refused")
        return node

    def flatten_mapping(self, node: Any) -> None:
        for _, value in [(key, value) for key, value in node.value if key.tag == "tag:yaml.org,2002:merge"]:
            if not self.merges:
                raise UserError("merge keys (<<) have no place here; refused")
            for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if isinstance(merged, yaml.MappingNode):
                    self.flatten_mapping(merged)
                    self.count(len(merged.value))
        super().flatten_mapping(node)

    def count(self, values: int) -> None:
        self.values += values
        if self.values > MOST_VALUES:
            raise UserError(_too_much())


class _RecordLoader(_BoundedLoader):
    """What a program wrote has no merge keys."""

    merges = False


def parse_yaml(text: str, where: str, merges: bool = False) -> Any:
    """The plain values of a YAML text: no tags of Python, no more than MOST_VALUES in MOST_LEVELS.

    Args:
        text: of one document.
        where: names it in messages.
        merges: whether `<<` may stand in it, as in files that people write.

    Raises:
        UserError: it is none, or more than that.
    """
    try:
        if len(text) > MOST_BYTES:
            raise UserError(f"has more than {MOST_BYTES:,} characters; refused")
        values = yaml.load(text, _BoundedLoader if merges else _RecordLoader)
        for _ in walk(values):
            pass
        return values
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    except RecursionError as error:
        raise UserError(f"{where}: {_too_much()}") from error
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        tab = "; indent with spaces" if "'\\t'" in str(error.problem) else ""
        raise UserError(f"{where}: {line}{error.problem or 'is no YAML'}{tab}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the latter of numbers and dates
        raise UserError(f"{where}: cannot be read: {' '.join(str(error).split())[:200]}") from error


def read_yaml(file: Path) -> Any:
    """`parse_yaml` of a file.

    Raises:
        UserError: it cannot be read, or as `parse_yaml`.
    """
    return parse_yaml(_text(file, MOST_BYTES), str(file))


def read_text(file: Path) -> str:
    """The text of a YAML file that a person wrote; a mark of its byte order is none of it.

    Raises:
        UserError: it cannot be read, or is not in UTF-8.
    """
    try:
        return read_file(file, MOST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{file}: line {where}: is not in UTF-8; save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror or error}") from error


def walk(values: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every value below `values` with the keys that lead to it, without recursion: YAML can nest without end.

    Raises:
        UserError: there are more than MOST_VALUES, or MOST_LEVELS.
    """
    waiting: list[tuple[tuple[Any, ...], Any]] = [((), values)]
    for _ in range(MOST_VALUES):
        if not waiting:
            return
        path, value = waiting.pop()
        if len(path) > MOST_LEVELS:
            break
        yield path, value
        if isinstance(value, dict):
            waiting += [((*path, key), below) for key, below in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [((*path, number), below) for number, below in enumerate(value)]
    raise UserError(_too_much())


def _too_much() -> str:
    return f"has more than {MOST_VALUES:,} values or {MOST_LEVELS} levels; refused"


# ---------------------------------------------------------------------------------------------------- JSON


def read_json(file: Path, shape: type[T]) -> T:
    """What a JSON file holds, of the types that `shape` says.

    Args:
        file: in UTF-8.
        shape: a dataclass, whose fields are the keys; or a plain type as `dict[str, Any]`.

    Raises:
        UserError: there is no such file, or something else is in it.
    """
    return parse_json(_text(file, MOST_BYTES_OF_JSON), str(file), shape)


def parse_json(text: str, where: str, shape: type[T]) -> T:
    """`read_json` of a text; `where` names it in messages."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: is no JSON ({error})") from error
    if not is_dataclass(shape):
        if not _fits(found, shape):
            raise UserError(f"{where}: is no {_kind(shape)}")
        return found
    if not isinstance(found, dict):
        raise UserError(f"{where}: holds {_shown(found)} in place of keys with values")
    kinds = _kinds(shape)
    known = {item.name: item for item in fields(shape)}
    for name, item in known.items():
        needed = item.default is MISSING and item.default_factory is MISSING
        if needed and name not in found:
            raise UserError(f"{where}: has no {name!r}")
        if name in found and not _fits(found[name], kinds[name]):
            raise UserError(f"{where}: {name!r} is {_shown(found[name])}, which is no {_kind(kinds[name])}")
    unknown = next((name for name in found if name not in known), None)
    if unknown is not None:
        raise UserError(f"{where}: {unknown!r} is no key of this version")
    return shape(**found)


@cache
def _kinds(shape: type) -> dict[str, Any]:
    """The types of a dataclass's fields; they are looked up by their names, which takes longer than a small file."""
    return get_type_hints(shape)


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value of JSON is of a type; an int is a float, too, and no bool is a number."""
    if kind is Any:
        return True
    origin, below = get_origin(kind) or kind, get_args(kind)
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in below)
    if origin is list:
        return isinstance(value, list) and (not below or all(_fits(item, below[0]) for item in value))
    if origin is dict:
        return isinstance(value, dict) and (not below or all(_fits(item, below[1]) for item in value.values()))
    if kind in (int, float):
        return isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    return isinstance(value, str if kind is Path else origin)


def _kind(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)


def _shown(value: Any) -> str:
    return repr(value)[:60]


def number(text: str | float | None, kind: type[int] | type[float]) -> int | float | None:
    """A finite number that was recorded, as text or as a float; None where it is none."""
    try:
        value = float(text)  # type: ignore[arg-type]
        if not math.isfinite(value) or (kind is int and value != int(value)):
            return None
        return kind(text) if isinstance(text, str) else kind(value)
    except (TypeError, ValueError):
        return None


# ----------------------------------------------------------------------------------------------------- CSV

# A spreadsheet takes a cell that begins like this for a formula, and computes it (OWASP, "CSV Injection"); a quote
# before it makes it text. One that stood there already is kept by another one.
FORMULA = re.compile(r"'*[=+\-@\t\r\n]")


def csv_text(rows: Iterable[Iterable[object]], end: str = "\r\n") -> str:
    """Rows as CSV, which `csv_rows` reads back. Numbers stand as they are; text is never a formula.

    Args:
        rows: the header first; None is an empty cell.
        end: of a line.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=end)
    writer.writerows([_quoted(cell) for cell in row] for row in rows)
    return text.getvalue()


def csv_bytes(rows: Iterable[Iterable[object]], end: str = "\r\n") -> bytes:
    """`csv_text` in UTF-8; bytes of a name that are none stand as they are."""
    return csv_text(rows, end).encode("utf-8", "surrogateescape")


def _quoted(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell


def csv_rows(content: bytes) -> list[list[str]]:
    """The rows that `csv_bytes` wrote.

    Raises:
        csv.Error: it is no CSV.
    """
    lines = io.StringIO(content.decode("utf-8", "surrogateescape"), newline="")
    return [[_unquoted(cell) for cell in row] for row in csv.reader(lines)]


def _unquoted(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def read_csv(file: str | Path) -> list[list[str]]:
    """`csv_rows` of a file.

    Raises:
        OSError: it cannot be read.
        csv.Error: it is no CSV.
    """
    return csv_rows(read_file(file, MOST_BYTES_OF_CSV))


def _text(file: Path, most_bytes: int) -> str:
    try:
        return read_file(file, most_bytes).decode("utf-8", "replace")
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror or error}") from error


# ------------------------------------------------------------------------------------------------- overrides


def bare_key(override: str) -> str:
    """The key of an override, without the signs that add it or take it away."""
    return override.lstrip("+~").split("=")[0]


def override_group(override: str) -> str:
    """The key or group that an override sets, without the place that it is put at: of `optimizer@phases.a=adam` the
    first word."""
    return bare_key(override).partition("@")[0]
