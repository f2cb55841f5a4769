"""Every file of a data set looked at before anything is done with it: bad files, duplicates, leaks between splits."""

import errno
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cnnexp.config.data import ImageFilesConfig
from cnnexp.config.limits import check_keywords
from cnnexp.console import progress, warn_once
from cnnexp.data.check.duplicates import originals
from cnnexp.data.check.look import FileInspection, look_at, thumbnails
from cnnexp.data.check.manifest import Manifest, manifest_file, read_manifest, stamp, write_csv, write_manifest
from cnnexp.data.images import refusal
from cnnexp.data.splits import SPLITS, THREADS, LabelledFiles
from cnnexp.errors import UserError

NAMED = 50  # files, or pairs, that get a line of their own


@dataclass(frozen=True)
class PreflightPolicy:
    """What a source does about what is found; the keys `on_bad` and `on_leak` of the config group `dataset`."""

    on_bad: str = ImageFilesConfig.on_bad  # error or skip
    on_leak: str = ImageFilesConfig.on_leak  # warn, error or ignore
    manifests: Path | None = None  # folder in which what was found is kept; None: it is not
    trains: bool = True  # otherwise there are no leaks, and a class may lose all its images

    def __post_init__(self) -> None:
        check_keywords("dataset.", ImageFilesConfig, {"on_bad": self.on_bad, "on_leak": self.on_leak})


@dataclass
class SplitReport:
    """What was found in a split; `duplicates` counts images that are like an earlier one of the same split."""

    images: int = 0  # that can be used
    bad: int = 0
    exact_duplicates: int = 0
    near_duplicates: int = 0
    leaks: int = 0  # images that are like one of an earlier split
    notes: Counter[str] = field(default_factory=Counter)  # by kind


@dataclass(frozen=True)
class Report:
    """What the preflight found; the splits in the order train, validation, test."""

    splits: dict[str, SplitReport]
    two_labels: int  # images that are like one of another class
    looked_at: int  # files; what was found in the others was known from before
    table: Path | None  # a CSV file with a row for each file
    left_aside: int = 0  # files beside them that are no images


class PreflightError(UserError):
    """Bad files or leaks; `report` tells all of them."""

    def __init__(self, message: str, report: Report | None = None) -> None:
        super().__init__(message)
        self.report = report


@dataclass(frozen=True)
class PreflightResult:
    """What the preflight leaves: the usable images of each split with the SHA-256 of each, and the report."""

    listings: dict[str, LabelledFiles]
    contents: dict[str, list[bytes]]
    report: Report


@dataclass(frozen=True)
class _Files:
    """All files, one list a column, the splits in the order train, validation, test."""

    root: Path
    source: Path  # the folder, or the table
    class_names: Sequence[str]
    names: list[str]
    splits: list[str]
    labels: list[int]
    looks: list[FileInspection]
    originals: list[int]  # the position of the first file with the same picture; -1: there is none

    def path(self, number: int) -> str:
        return str(self.root / self.names[number])

    def bad(self) -> list[int]:
        return [number for number, found in enumerate(self.looks) if found.problem]

    def pairs(self, *, splits: bool) -> list[tuple[int, int]]:
        """Files and their originals in another split, or in the same split but of another class."""
        both = [(original, number) for number, original in enumerate(self.originals) if original >= 0]
        if splits:
            return [(a, b) for a, b in both if self.splits[a] != self.splits[b]]
        return [(a, b) for a, b in both if self.labels[a] != self.labels[b]]

    def same_bytes(self, a: int, b: int) -> bool:
        return self.looks[a].digest == self.looks[b].digest


def preflight(
    root: Path,
    class_names: Sequence[str],
    parts: dict[str, LabelledFiles],
    rules: PreflightPolicy,
    source: Path | None = None,
) -> PreflightResult:
    """Look at every file, name what is wrong on standard error, and leave out what cannot be used.

    A file that was looked at before, by its name, size and times, is not read again. Duplicates are found by
    `duplicates.originals`; a leak is an image that is like one of an earlier split (train, validation, test).

    Args:
        root: the data set's folder.
        class_names: for messages.
        parts: the images of each split.
        rules: what to do about bad files and leaks.
        source: a table in that folder that lists them; each has a manifest of its own.

    Raises:
        PreflightError: bad files with `on_bad="error"`, or leaks with `on_leak="error"`.
        UserError: of a class, a split has no image that can be used.
    """
    names = [name for split in SPLITS if split in parts for name in parts[split].ids]
    splits = [split for split in SPLITS if split in parts for _ in parts[split].ids]
    labels = [int(label) for split in SPLITS if split in parts for label in parts[split].labels]
    source = source or root
    manifest = manifest_file(rules.manifests, source) if rules.manifests else None
    looks, looked_at = _look(root, names, manifest)
    files = _Files(root, source, class_names, names, splits, labels, looks, _originals(looks))
    table = manifest.with_suffix(".csv") if manifest else None
    if table:
        write_csv(table, _rows(files))
    report = _report(files, looked_at, table)
    _judge_bad(files, rules, report)
    if rules.trains and rules.on_leak != "ignore":
        _judge_leaks(files, rules, report)
    return PreflightResult(*_kept(files, parts, rules.trains), report)


def _look(root: Path, names: list[str], file: Path | None) -> tuple[list[FileInspection], int]:
    """What each file holds, and how many were read for it; `file` is the manifest."""
    known: Manifest = read_manifest(file) if file else {}
    stamps = [stamp(str(root / name)) for name in names]
    looks = [
        known[name][1] if name in known and known[name][0] == s else None for name, s in zip(names, stamps, strict=True)
    ]
    new = [number for number, found in enumerate(looks) if found is None]
    found = look_at([str(root / names[number]) for number in new], THREADS)
    for number, one in zip(new, progress(found, "looking at images", len(new)), strict=True):
        looks[number] = one
        mark = stamps[number]
        if mark and one.digest:
            known[names[number]] = (mark, one)
    if new and file:
        write_manifest(file, known)
    return [found for found in looks if found is not None], len(new)


def _originals(looks: list[FileInspection]) -> list[int]:
    if all(found.problem for found in looks):
        return [-1] * len(looks)
    good = np.array([number for number, found in enumerate(looks) if not found.problem], np.int64)
    chosen = [looks[number] for number in good]
    bits = np.array([found.bits for found in chosen], np.uint64)
    found = originals([found.digest for found in chosen], bits, thumbnails(chosen))
    all_found = np.full(len(looks), -1, np.int64)
    all_found[good] = np.where(found >= 0, good[found], -1) if len(good) else found
    return [int(number) for number in all_found]


def _rows(files: _Files) -> list[tuple[str | int, ...]]:
    return [
        (
            name,
            files.splits[number],
            files.class_names[files.labels[number]],
            found.digest,
            found.width,
            found.height,
            found.format,
            "; ".join(found.notes),
            found.problem,
            files.names[files.originals[number]] if files.originals[number] >= 0 else "",
        )
        for number, (name, found) in enumerate(zip(files.names, files.looks, strict=True))
    ]


def _report(files: _Files, looked_at: int, table: Path | None) -> Report:
    splits = {split: SplitReport() for split in SPLITS if split in files.splits}
    for number, found in enumerate(files.looks):
        split, original = splits[files.splits[number]], files.originals[number]
        split.bad += bool(found.problem)
        split.images += not found.problem
        if not found.problem:
            split.notes.update(note.partition(":")[0] for note in found.notes)
        if original < 0:
            continue
        if files.splits[original] != files.splits[number]:
            split.leaks += 1
        elif files.same_bytes(original, number):
            split.exact_duplicates += 1
        else:
            split.near_duplicates += 1
    return Report(splits, len(files.pairs(splits=False)), looked_at, table)


# ------------------------------------------------------------------------------------------------ judgement


def _judge_bad(files: _Files, rules: PreflightPolicy, report: Report) -> None:
    bad = files.bad()
    reasons = [str(refusal(files.path(number), files.looks[number].problem)) for number in bad]
    advice = f"dataset.on_bad=skip leaves {'it' if len(bad) == 1 else 'them'} out{_listed(report)}"
    problems = Counter(files.looks[number].problem for number in bad)
    if len(problems) == 1 and len(bad) == len(files.names) > 1:
        is_missing = os.strerror(errno.ENOENT) in problems
        mend = f"names in it start from {files.root}" if is_missing else "get the images themselves"
        raise PreflightError(
            f"dataset.path={files.source}: none of its {len(bad):,} files can be used, as {files.names[0]}: "
            f"{min(problems)}; {mend}",
            report,
        )
    if rules.on_bad == "error" and len(bad) == 1:
        raise PreflightError(f"{reasons[0]}; {advice}", report)
    _name(reasons, "left out" if rules.on_bad == "skip" else "bad", report)
    if bad and rules.on_bad == "error":
        raise PreflightError(
            f"dataset.path={files.source}: {len(bad)} of {len(files.names)} files cannot be used; {advice}", report
        )


def _judge_leaks(files: _Files, rules: PreflightPolicy, report: Report) -> None:
    leaks, labels = files.pairs(splits=True), files.pairs(splits=False)

    def pair(a: int, b: int, what: Sequence[str]) -> str:
        how = "the same bytes" if files.same_bytes(a, b) else "the same to look at"
        return f"{files.names[a]} ({what[a]}) and {files.names[b]} ({what[b]}): {how}"

    lines = [pair(a, b, files.splits) for a, b in leaks]
    if len(leaks) == 1 and rules.on_leak == "warn":
        warn_once(f"leak: {lines[0]} (dataset.on_leak=error refuses it, ignore says nothing)")
    else:
        _name(lines, "leak", report)
    _name([pair(a, b, [files.class_names[n] for n in files.labels]) for a, b in labels], "two labels", report)
    of = ", ".join(f"{split.leaks} of {split.images} {name}" for name, split in report.splits.items() if split.leaks)
    found = f"dataset.path={files.source}: {of} images are also in an earlier split"
    if leaks and rules.on_leak == "error":
        raise PreflightError(
            f"{found}; take them away, or dataset.on_leak=warn goes on with them{_listed(report)}", report
        )
    if len(leaks) > 1:
        warn_once(f"{found}, so that their accuracy says too much; dataset.on_leak=error refuses them{_listed(report)}")


def _name(lines: list[str], what: str, report: Report) -> None:
    for line in lines[:NAMED]:
        warn_once(f"{what}: {line}")
    if len(lines) > NAMED:
        warn_once(f"{what}: ... and {len(lines) - NAMED} more{_listed(report)}")


def _listed(report: Report) -> str:
    return f" (all files are listed in {report.table})" if report.table else ""


def _kept(
    files: _Files, parts: dict[str, LabelledFiles], trains: bool
) -> tuple[dict[str, LabelledFiles], dict[str, list[bytes]]]:
    listings, contents, start = {}, {}, 0
    for split in SPLITS:
        if split not in parts:
            continue
        images = parts[split]
        looks = files.looks[start : start + len(images.ids)]
        start += len(images.ids)
        good = images.take(np.flatnonzero([not found.problem for found in looks]))
        for label in set(images.labels) - set(good.labels) if trains else ():
            raise UserError(
                f"dataset.path={files.source}: class '{files.class_names[label]}' has no {split} image that can be "
                "read; put some into it or take it away"
            )
        listings[split] = good
        contents[split] = [bytes.fromhex(found.digest) for found in looks if not found.problem]
    return listings, contents
