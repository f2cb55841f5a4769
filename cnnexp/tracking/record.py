"""What a run records, as plain strings, and how it is read back. Imports no MLflow."""

import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

MAX_NAME = 250  # characters of a name that the store takes
MAX_VALUE = 6000  # characters of a parameter that the store keeps; it would cut the rest without a word
MAX_TAG = 8000  # characters of a tag
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

    `{"a": {"b": None, "c": [1, 2]}, "d": True}` becomes `{"a.b": "null", "a.c": "[1,2]", "d": "true"}`; an empty
    mapping is `"{}"`. A password inside a URI is left out.
    """
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= {f"{key}.{below}": text for below, text in flatten(value).items()}
        else:
            plain = value is None or isinstance(value, bool | int | float | list | tuple | Mapping)
            flat[str(key)] = redact(_canonical(value) if plain else str(value))
    return flat


def config_hash(config: Mapping[str, Any]) -> str:
    """16 hex digits that name what a job computes: the SHA-256 of its config without `paths` and `tracking`."""
    decisive = {key: value for key, value in config.items() if key not in ("paths", "tracking")}
    return hashlib.sha256(_canonical(decisive).encode()).hexdigest()[:16]


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)


def redact(text: str) -> str:
    """`text` with the password of every URI in it replaced by `***`, in `//user:password@` and `?password=`."""
    text = re.sub(r"""(://[^\s:/@]*):[^\s"']*@""", r"\1:***@", text)
    return re.sub(r"""(?i)([?&](?:password|passwd|pwd|token)=)[^\s&"']*""", r"\1***", text)


# --------------------------------------------------------------------------------------- names and long values


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


def storable_name(key: str) -> str:
    """`key` with characters other than `A-Z a-z 0-9 _ - . / :` and space replaced by `_`, and no empty path part."""
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


def run_tags(tags: Mapping[str, str], parent_run_id: str | None, description: str | None) -> dict[str, str]:
    """`tags` with those that MLflow's UI reads: where the run comes from, its parent, its description."""
    own = {"mlflow.source.name": "cnnexp", "mlflow.source.type": "LOCAL"}
    if parent_run_id is not None:
        own["mlflow.parentRunId"] = parent_run_id
    if description is not None:
        own["mlflow.note.content"] = description
    return storable({**own, **tags}, MAX_TAG)


def dataset_entries(
    name: str, digest: str, source: str, split_counts: Mapping[str, int]
) -> dict[str, dict[str, str]]:
    """The fields of one MLflow data set for each split, by the split's name; the digest is cut to 36 characters."""
    kind, place = ("http", "url") if source.startswith(("http://", "https://")) else ("local", "uri")
    return {
        split: {
            "name": f"{name}/{split}",
            "digest": digest[:36],
            "source_type": kind,
            "source": json.dumps({place: redact(source)}),
            "profile": json.dumps({"num_rows": count}),
        }
        for split, count in split_counts.items()
    }


# ------------------------------------------------------------------------------------------- the environment


def environment_tags() -> dict[str, str]:
    """What the code ran on: `python`, the versions of the packages that compute, `git_commit` and `git_dirty`.

    The commit is that of the checkout that cnnexp runs from. Installed as a package it has none; then it is the
    commit of the working directory, which holds the user's own config and functions. `git_dirty` is "true" where
    a file that git tracks has changed. Without git, a working tree or a commit both are left out.
    """
    tags = {"python": platform.python_version()}
    for tag, names in PACKAGES.items():
        found = next((v for name in names if (v := installed_version(name))), None)
        if found:
            tags[tag] = found
    source = Path(__file__).resolve()
    checkout = _git(source.parent, "ls-files", "--error-unmatch", source.name) is not None
    folder = source.parent if checkout else Path.cwd()
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    if commit is not None and changed is not None:
        tags |= {"git_commit": commit, "git_dirty": "true" if changed else "false"}
    return tags


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints, or None where it fails, hangs or is missing."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True, text=True, timeout=20, check=True, env=environment,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def installed_version(name: str) -> str | None:
    """The version of an installed distribution, found without importing it."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def requirements_text() -> str:
    """Every installed distribution as `name==version`, one a line, sorted by name without regard to case."""
    found: dict[str, str] = {}
    for distribution in distributions():  # in the order of sys.path, so that the first of a name is the one imported
        if name := distribution.metadata["Name"]:
            found.setdefault(name, distribution.version)
    return "".join(f"{name}=={found[name]}\n" for name in sorted(found, key=str.lower))


# ---------------------------------------------------------------------------------------------- reading runs


@dataclass(frozen=True)
class RunInfo:
    """A run as it is read back; `metrics` holds the last value of each, times are in UTC."""

    run_id: str
    name: str
    status: str  # RUNNING, SCHEDULED, FINISHED, FAILED or KILLED
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]
    start_time: datetime
    end_time: datetime | None
    artifact_uri: str
    parent_run_id: str | None

    @classmethod
    def from_mlflow(cls, run: Any) -> "RunInfo":
        """From an `mlflow.entities.Run`."""
        info, tags = run.info, dict(run.data.tags)
        return cls(
            run_id=info.run_id,
            name=info.run_name or "",
            status=info.status,
            params=dict(run.data.params),
            metrics=dict(run.data.metrics),
            tags=tags,
            start_time=datetime.fromtimestamp(info.start_time / 1000, UTC),
            end_time=datetime.fromtimestamp(info.end_time / 1000, UTC) if info.end_time else None,
            artifact_uri=info.artifact_uri,
            parent_run_id=tags.get("mlflow.parentRunId"),
        )


class RunReader(ABC):
    """Finds the runs of one experiment."""

    uri: str
    experiment: str
    artifact_root: str

    @abstractmethod
    def client(self) -> Any:
        """An `mlflow.MlflowClient` on the store."""

    def ui_command(self) -> list[str]:
        """The command that serves MLflow's UI on this store, to this machine only."""
        store = ["--backend-store-uri", self.uri, "--default-artifact-root", self.artifact_root]
        return [sys.executable, "-m", "mlflow", "ui", *store, "--host", "127.0.0.1", "--port", "5000", "--workers", "1"]

    def find_run(self, text: str) -> RunInfo:
        """The run that `text` means: a run id, a prefix that only one has, or `latest`.

        `latest` is the run that finished last, parents of sweeps left out.

        Raises:
            UserError: there is none, or several.
        """
        if text == "latest":
            finished = self._search("attributes.status = 'FINISHED'", "attributes.end_time DESC")
            found = [run for run in finished if run.tags.get(PARENT_TAG[0]) != PARENT_TAG[1]][:1]
        elif re.fullmatch(r"[0-9a-f]{1,32}", text):
            found = list(islice(self._search(f"attributes.run_id LIKE '{text}%'"), 4))
        else:
            raise UserError(f"{text}: not a run; give a run id, the beginning of one, or `latest`")
        if len(found) > 1:
            ids = ", ".join(run.run_id[: len(text) + 4] for run in found[:3])
            raise UserError(f"{text}: several runs begin like this ({ids}, ...); give more of the run id")
        if not found:
            what = "finished run" if text == "latest" else "such run"
            raise UserError(f"{text}: no {what} in tracking.experiment={self.experiment} of tracking.uri={redact(self.uri)}")
        return found[0]

    def find_runs(
        self, tags: Mapping[str, str] | None = None, status: str | None = None, limit: int | None = None
    ) -> list[RunInfo]:
        """The runs with all these tags and this status, the newest first, `limit` of them at most."""
        conditions = [f"tags.`{key}` = {_quoted(value)}" for key, value in (tags or {}).items()]
        if status is not None:
            conditions.append(f"attributes.status = {_quoted(status)}")
        return list(islice(self._search(" AND ".join(conditions)), limit))

    def children(self, parent_run_id: str) -> list[RunInfo]:
        """The runs of a sweep in the order in which they were created."""
        return self.find_runs({"mlflow.parentRunId": parent_run_id})[::-1]

    def sweeps(self, limit: int) -> list[RunInfo]:
        """The parent runs of sweeps, the newest first."""
        return self.find_runs(dict([PARENT_TAG]), limit=limit)

    def _search(self, condition: str, order: str = "attributes.start_time DESC") -> Iterator[RunInfo]:
        client, token = self.client(), None
        experiment = client.get_experiment_by_name(self.experiment)
        if experiment is None:
            return
        while True:
            page = client.search_runs(
                [experiment.experiment_id], condition, order_by=[order], max_results=RUNS_PER_PAGE, page_token=token
            )
            yield from map(RunInfo.from_mlflow, page)
            token = page.token
            if not token:
                return


def _quoted(value: str) -> str:
    if "'" not in value:
        return f"'{value}'"
    if '"' not in value:
        return f'"{value}"'
    raise UserError(f"{value}: a tag with both kinds of quotation marks cannot be searched for")
