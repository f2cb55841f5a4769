"""The code that a run was made by: kept with the run, and compared with what is here. None of it is ever run.

`code.patch` is what differs from the commit in files that git tracks, in the repository that the tag `git_commit` is
of; `code/` holds, whole, the files of functions of the user's own as `code/package/module.py`, and as `code/conf/`
those of `--config-dir` that the config was composed from.
"""

import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnexp.console import redact, say, warn
from cnnexp.errors import UserError
from cnnexp.files import write_atomic
from cnnexp.runs.job import Job
from cnnexp.tracking.protocols import RunLog, RunStore
from cnnexp.tracking.record import code_folder, run_git

if TYPE_CHECKING:
    from cnnexp.tracking.info import RunInfo

PATCH, CODE = "code.patch", "code"
MOST_BYTES = 1_000_000  # of the patch, and of each file
DIFF = (  # the same everywhere, whatever the user has set, so that two can be compared
    "--no-color",
    "--no-ext-diff",
    "--no-textconv",
    "--no-renames",
    "--no-relative",
    "--full-index",
    "--binary",
    "--unified=3",
    "--diff-algorithm=myers",
    "--src-prefix=a/",
    "--dst-prefix=b/",
)
COMPUTING = ("tensorflow", "keras", "numpy", "opencv")  # packages of `PACKAGES` whose versions decide digits
OURS = ("cnnexp", *COMPUTING)  # whose code is told by their versions
MOST_NAMED = 8


# ---------------------------------------------------------------------------------------------------- kept


def record_code(tracker: RunLog, job: Job, anew: bool) -> None:
    """Keep the code of a run in its folder and in the store.

    Args:
        tracker: with the run open.
        job: its `config.tracking.code` says whether.
        anew: whether the run begins; one that goes on keeps what it began with.
    """
    folder = job.folder.path
    if anew:
        (folder / PATCH).unlink(missing_ok=True)
        shutil.rmtree(folder / CODE, ignore_errors=True)
    if not job.config.tracking.code or (folder / PATCH).exists() or (folder / CODE).exists():
        return
    patch = patch_since("HEAD")
    texts = {f"{CODE}/{name}": redact(_read(path)) for name, path in kept_files(job).items()}
    if patch and len(_bytes(patch)) > MOST_BYTES:
        warn(f"cnnexp: {PATCH} would have {len(_bytes(patch)):,} bytes, more than {MOST_BYTES:,}: it is not recorded")
    elif patch:
        texts[PATCH] = patch
    for name, text in texts.items():
        write_atomic(folder / name, _bytes(text))
        tracker.log_artifact(folder / name, folder=str(Path(name).parent) if "/" in name else None)


def kept_files(job: Job) -> dict[str, Path]:
    """The files that took part and are of the user's own, by their names in `code/`; those that are too long are left
    out, which is said."""
    found = {f"conf/{name}": path for name, path in job.config_files.items()} | target_files(job.resolved)
    long = [name for name, path in found.items() if path.stat().st_size > MOST_BYTES]
    if long:
        warn(f"cnnexp: not kept in {CODE}/, since longer than {MOST_BYTES:,} bytes: {', '.join(long)}")
    return {name: path for name, path in found.items() if name not in long}


def target_files(values: Mapping[str, Any]) -> dict[str, Path]:
    """The files of the user's own modules that a config names, as `package/module.py`."""
    found: dict[str, Path] = {}
    for target in own_targets(values):
        module = target.rpartition(".")[0]
        if not module:
            continue
        try:
            spec = find_spec(module)
        except (ImportError, ValueError, AttributeError):
            continue
        if spec and spec.origin and spec.origin.endswith(".py"):
            path = module.replace(".", "/")
            found[f"{path}/__init__.py" if spec.submodule_search_locations else f"{path}.py"] = Path(spec.origin)
    return found


def own_targets(values: Mapping[str, Any]) -> list[str]:
    """The targets of a config that neither cnnexp nor a package of `COMPUTING` defines, sorted."""
    return sorted({target for target in _targets(values) if target.partition(".")[0] not in OURS})


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == "_target_" and isinstance(value, str):
                yield value
            else:
                yield from _targets(value)


def _read(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def patch_since(commit: str) -> str | None:
    """What differs from a commit in files that git tracks, without passwords; None without git or the commit."""
    found = run_git(code_folder(), "diff", *DIFF, commit, "--")
    return None if found is None else redact(found)


# ---------------------------------------------------------------------------------------------------- compared


def show_changes(tracker: RunStore, run: "RunInfo", values: Mapping[str, Any], cache: Path) -> None:
    """Name the files that are not as they were when a run was made, and print the lines that restore them.

    Args:
        tracker: on the store.
        run: a run.
        values: its config, of which the targets are checked.
        cache: `paths.cache`, where the lines take what the run kept from.
    """
    kept, place = read_kept(tracker, run.run_id), cache.resolve() / "code" / run.run_id
    lines = _show_tracked(run.tags, kept.patch, place)
    lines += _show_own(kept.files, target_files(values), run.tags.get("config_dir"), place)
    if lines:
        say("as it was then:")
    for line in lines:
        say(f"  {shlex.join(line)}")


def _show_tracked(tags: Mapping[str, str], patch: str, place: Path) -> list[list[str]]:
    commit = tags.get("git_commit", "")
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", commit):
        return []
    top, head = (run_git(code_folder(), "rev-parse", what) for what in ("--show-toplevel", "HEAD"))
    if top is None or head is None:
        return []
    git, now = ["git", "-C", top.strip()], patch_since(commit)
    if now is None:
        say(f"code: the commit {commit[:12]} is not in {top.strip()}, so that no files can be compared")
        return [[*git, "fetch", "origin", commit]]
    if tags.get("git_dirty") == "true" and not patch:
        say(f"code: the run has no {PATCH}, so that what was not committed then cannot be compared")
    names = changed_files(patch, now)
    if not names:
        return []
    say(f"code: files that differ: {_some(names)}")
    lines = [[*git, "stash"]] if patch_since("HEAD") else []
    if head.strip() != commit:
        lines.append([*git, "checkout", commit])
    if patch:
        write_atomic(place / PATCH, _bytes(patch))
        lines.append([*git, "apply", str(place / PATCH)])
    return lines


def _show_own(
    kept: Mapping[str, str], targets: Mapping[str, Path], config_dir: str | None, place: Path
) -> list[list[str]]:
    here = dict(targets)
    if config_dir:
        here |= {name: Path(config_dir) / name.removeprefix("conf/") for name in kept if name.startswith("conf/")}
    differing = sorted(name for name, text in kept.items() if name in here and _now(here[name]) != text)
    if differing:
        say(f"code: files of your own that differ: {_some(differing)}")
    for name in differing:
        write_atomic(place / CODE / name, _bytes(kept[name]))
    return [["cp", str(place / CODE / name), str(here[name])] for name in differing]


def _now(path: Path) -> str | None:
    return redact(_read(path)) if path.is_file() else None


def _some(names: list[str]) -> str:
    return ", ".join(names[:MOST_NAMED]) + (f", and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else "")


@dataclass(frozen=True)
class Kept:
    """What a run kept of its code: the patch, and the files of `code/` by their names there."""

    patch: str
    files: dict[str, str]


def read_kept(tracker: RunStore, run_id: str) -> Kept:
    """Read it from the store, as text."""
    with tempfile.TemporaryDirectory() as folder:
        texts = {}
        for name in _names(tracker, run_id):
            try:
                path = tracker.download(run_id, name, folder)
            except UserError:
                continue
            if path.is_file() and path.stat().st_size <= 2 * MOST_BYTES:
                texts[name] = _read(path)
    return Kept(texts.pop(PATCH, ""), {name.removeprefix(f"{CODE}/"): text for name, text in texts.items()})


def _names(tracker: RunStore, run_id: str) -> list[str]:
    waiting, found = [""], list[str]()
    while waiting and len(found) < 200:
        for name in tracker.artifacts(run_id, waiting.pop()):
            if name == PATCH or re.fullmatch(rf"{CODE}(/\w[\w. -]*)+\.(py|yaml)", name):
                found.append(name)
            elif name == CODE or name.startswith(f"{CODE}/"):
                waiting.append(name)
    return found


def changed_files(then: str, now: str) -> list[str]:
    """The files in which two patches of one commit differ."""
    first, second = _by_file(then), _by_file(now)
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))


def _by_file(patch: str) -> dict[str, str]:
    plain = re.sub(r"^index [0-9a-f]+\.\.[0-9a-f]+.*\n", "", patch, flags=re.MULTILINE)  # where passwords were left out
    parts = re.split(r"^diff --git ", plain, flags=re.MULTILINE)[1:]
    return {_name(part.partition("\n")[0]): part for part in parts}


def _name(header: str) -> str:
    """Of `a/FILE b/FILE`, where git quotes what is odd; from a patch of others, so nothing can reach the terminal."""
    half = header[: len(header) // 2]
    name = half.removeprefix('"').removeprefix("a/").rstrip('"')
    return name if name.isprintable() else ascii(name)
