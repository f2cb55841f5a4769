"""Writes requirements.lock: all that cnnexp and its extras dev, bundled-weights, heif, joblib, optuna, slurm
and postgresql need, pinned.

Run by `make lock`. Asks pip for the newest set that fits pyproject.toml, without installing it, and writes
names and versions only: no address of a package index, no file name. Further arguments go to pip: after
`--constraint requirements.lock`, for one, only what pyproject.toml has new is added.
"""

import json
import os
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = "dev,bundled-weights,heif,joblib,optuna,postgresql,slurm"
PYTHONS = ("3.11", "3.12", "3.13")
HEADER = f"""\
# The exact packages that `make` installs into .venv: cnnexp with its extras {EXTRAS.replace(",", ", ")}.
# Written by `make lock`, which takes the newest versions that pyproject.toml allows; do not edit by hand.
# For Python {", ".join(PYTHONS)}.
"""


def resolve(arguments: list[str]) -> list[dict]:
    """What pip would install into an empty environment: the items of its installation report."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
        pip += ["--dry-run", "--ignore-installed", "--report", str(report)]
        subprocess.run([*pip, *arguments, f"{ROOT}[{EXTRAS}]"], check=True)
        return json.loads(report.read_text())["install"]


def missing(items: list[dict]) -> list[str]:
    """What a dependency needs on another Python version, and pip did not choose on this one."""
    names = {canonicalize_name(item["metadata"]["name"]) for item in items}
    lines = []
    for item in items:
        metadata, extras = item["metadata"], ["", *item.get("requested_extras", [])]
        for requirement in map(Requirement, metadata.get("requires_dist", [])):
            if canonicalize_name(requirement.name) in names:
                continue
            for python, extra in product(PYTHONS, extras):
                environment = {"python_version": python, "python_full_version": f"{python}.0", "extra": extra}
                if requirement.marker is None or requirement.marker.evaluate(environment):
                    lines.append(f"{metadata['name']} on Python {python} needs {requirement}")
    return lines


def main() -> None:
    items = resolve(sys.argv[1:])
    if lines := missing(items):
        sys.exit("requirements.lock was not written: these are not pinned yet\n" + "\n".join(lines))
    pins = sorted(
        f"{canonicalize_name(item['metadata']['name'])}=={item['metadata']['version']}"
        for item in items
        if item["metadata"]["name"] != "cnnexp"
    )
    lock = ROOT / "requirements.lock"
    part = lock.with_suffix(".part")
    part.write_text(HEADER + "\n".join(pins) + "\n")
    os.replace(part, lock)
    print(f"requirements.lock: {len(pins)} packages")


if __name__ == "__main__":
    main()
