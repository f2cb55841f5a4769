"""What a run records, as plain strings."""

import getpass
import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

from cnnexp.console import redact

MAX_NAME = 250  # characters of a name that the store takes
MAX_VALUE = 6000  # characters of a parameter that the store keeps; it would cut the rest without a word
MAX_TAG = 8000  # characters of a tag
REUSED_FROM = "reused_from"  # the tag that leads from a job to the finished run that was taken for it; "" for none
PACKAGES = {  # tag -> the names under which the package may be installed
    "cnnexp": ("cnnexp",),
    "tensorflow": ("tensorflow",),
    "keras": ("keras",),
    "numpy": ("numpy",),
    "opencv": ("opencv-python", "opencv-python-headless", "opencv-contrib-python"),
    "hydra": ("hydra-core",),
    "mlflow": ("mlflow",),
}


# ------------------------------------------------------------------------------------------------ the config


def flatten(config: Mapping[str, Any]) -> dict[str, str]:
    """A nested config as one level of strings.

    `{"a": {"b": None, "c": [1, 2]}, "d": True}` becomes `{"a.b": "null", "a.c": "[1,2]", "d": "true"}`;
    an empty mapping is `"{}"`. A password inside a URI is left out.
    """
    return {key: redact(_canonical(value) if _is_plain(value) else str(value)) for key, value in leaves(config).items()}


def leaves(config: Mapping[str, Any]) -> dict[str, Any]:
    """Every value of a nested config by its dotted key; an empty mapping is a value."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        below = leaves(value) if isinstance(value, Mapping) else {}
        found |= {f"{key}.{name}": one for name, one in below.items()} if below else {str(key): value}
    return found


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | list | tuple | Mapping)


def config_hash(config: Mapping[str, Any]) -> str:
    """16 hex digits that name what a job computes: SHA-256 of its config without what only says where and when.

    That is `paths`, `tracking`, `sweep` and `trainer.resume`, and the secrets in addresses.
    """
    decisive = {key: value for key, value in config.items() if key not in ("paths", "tracking", "sweep")}
    if isinstance(trainer := decisive.get("trainer"), Mapping):
        decisive["trainer"] = {key: value for key, value in trainer.items() if key != "resume"}
    return hashlib.sha256(_canonical(redacted(decisive)).encode()).hexdigest()[:16]


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)


def redacted(value: Any) -> Any:
    """Nested values with every text `redact`ed."""
    if isinstance(value, Mapping):
        return {key: redacted(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(below) for below in value]
    return redact(value) if isinstance(value, str) else value


# -------------------------------------------------------------------------------------- names and long values


def storable(values: Mapping[str, str], limit: int = MAX_VALUE) -> dict[str, str]:
    """`values` under names and with lengths that the store takes; two names never become one.

    Args:
        values: parameters or tags.
        limit: the longest value; a longer one is shortened and ends with its SHA-256.
    """
    kept: dict[str, str] = {}
    for key, value in values.items():
        name = storable_name(key)
        if name in kept:
            name = f"{name[: MAX_NAME - 9]}_{_digest(key)[:8]}"
        kept[name] = _shortened(str(value), limit)
    return kept


def storable_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """`storable` with the limit of tags."""
    return storable(tags, MAX_TAG)


def storable_name(key: str) -> str:
    """`key` with `_` for all but `A-Z a-z 0-9 _ - . / :` and space, and without empty path parts."""
    parts = re.sub(r"[^A-Za-z0-9_\-. /:]", "_", key).split("/")
    name = "/".join(part for part in parts if part not in ("", ".", "..")) or "_"
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 9]}_{_digest(key)[:8]}"


def _shortened(value: str, limit: int) -> str:
    if len(value) <= limit:
        return value
    end = f"... ({len(value)} characters, sha256 {_digest(value)})"
    return value[: limit - len(end)] + end


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def run_tags(tags: Mapping[str, str], parent_run_id: str | None) -> dict[str, str]:
    """`tags` with those that MLflow's UI reads: whose run it is, where it comes from, and its parent."""
    own = {"mlflow.source.name": "cnnexp", "mlflow.source.type": "LOCAL", "mlflow.user": user()}
    if parent_run_id is not None:
        own["mlflow.parentRunId"] = parent_run_id
    if "git_commit" in tags:
        own["mlflow.source.git.commit"] = tags["git_commit"]
    return storable_tags({**own, **tags})


def user() -> str:
    """Who runs this process, as MLflow's own client finds it; "unknown" where the system has no name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"


def dataset_entries(
    name: str, digest: str, source: str, splits: Mapping[str, int | Mapping[str, int]], channels: int | None
) -> dict[str, dict[str, str]]:
    """The fields of one MLflow data set for each split, by the split's name; its digest has 36 characters.

    Schema and profile are JSON as MLflow writes it; see `RunWriter.log_input` for the arguments.
    """
    kind, place = ("http", "url") if source.startswith(("http://", "https://")) else ("local", "uri")
    return {
        split: {
            "name": f"{name}/{split}",
            "digest": digest[:36],
            "source_type": kind,
            "source": json.dumps({place: redact(source)}),
            "profile": json.dumps(_profile(count)),
            **({} if channels is None else {"schema": json.dumps({"mlflow_tensorspec": _tensors(channels)})}),
        }
        for split, count in splits.items()
    }


def _profile(count: int | Mapping[str, int]) -> dict[str, Any]:
    return {"num_rows": count} if isinstance(count, int) else {"num_rows": sum(count.values()), "classes": dict(count)}


def _tensors(channels: int) -> dict[str, str]:
    """What a data set gives, as `mlflow.types.Schema.to_json` writes it: images of any size, and class numbers."""

    def tensor(dtype: str, *shape: int) -> str:
        return json.dumps([{"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}}])

    return {"features": tensor("uint8", -1, -1, -1, channels), "targets": tensor("int64", -1)}


# ------------------------------------------------------------------------------------------- the environment


def environment_tags() -> dict[str, str]:
    """What a run ran on: `python`, the versions of the packages that compute, `processor`, `cores`, `git_commit`,
    `git_dirty`. `cores` are those that this process may use.

    The commit is that of the checkout that cnnexp runs from. Installed as a package it has none; then it is
    the commit of the working directory, which holds the user's own config and functions. `git_dirty` is
    "true" where a file that git tracks has changed. Without git, working tree or commit both are left out.
    """
    tags = {"python": platform.python_version(), "processor": processor(), "cores": str(cores())}
    for tag, names in PACKAGES.items():
        found = next((v for name in names if (v := installed_version(name))), None)
        if found:
            tags[tag] = found
    folder = code_folder()
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    if commit is not None and changed is not None:
        tags |= {"git_commit": commit, "git_dirty": "true" if changed else "false"}
    return tags


def code_folder() -> Path:
    """A folder of the repository that `git_commit` is of, see `environment_tags`."""
    source = Path(__file__).resolve()
    checkout = _git(source.parent, "ls-files", "--error-unmatch", source.name) is not None
    return source.parent if checkout else Path.cwd()


def processor() -> str:
    """The name of the processor's model, or of its kind where the system does not tell."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def cores() -> int:
    """How many of the machine's cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _git(folder: Path, *arguments: str) -> str | None:
    found = run_git(folder, *arguments)
    return None if found is None else found.strip()


def run_git(folder: Path, *arguments: str) -> str | None:
    """What git prints, bytes that are no UTF-8 as surrogates, or None where it fails, hangs or is missing."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True, timeout=20, check=True, env=environment,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "surrogateescape")


def installed_version(name: str) -> str | None:
    """The version of an installed distribution, found without importing it."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def pins(*names: str) -> list[str]:
    """`name==version` of those that are installed."""
    return [f"{name}=={found}" for name in names if (found := installed_version(name))]


@cache
def requirements_text() -> str:
    """Every installed distribution as `name==version`, one a line, sorted by name without regard to case."""
    found: dict[str, str] = {}
    for distribution in distributions():  # in the order of sys.path: the first of a name is imported
        if name := distribution.metadata["Name"]:
            found.setdefault(name, distribution.version)
    return "".join(f"{name}=={found[name]}\n" for name in sorted(found, key=str.lower))
