"""The benchmark suite in small: what it counts, what it prints and what it writes. No speed is asserted."""

import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from bench import fixed, history, memory, profiles, progression, run, start, store
from bench.photos import class_folders, describe
from bench.table import Row, machine, show, take_turns, write_json

from cnnexp.config.composition import load_config

BASELINE, FROZEN_AUGMENTED, FINETUNED = 3_453_121, 2_097_665, 9_177_089  # parameters that the tutorial trains
ROW = Row("data/x", "peer", ours_each=[1.0, 2.0, 4.0], peer_each=[2.0, 8.0, 12.0], images=300, note="and so on")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty drawn photos of 40 pixels in two class folders."""
    return class_folders(None, 20, tmp_path_factory.mktemp("bench") / "photos", size=40)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Where `run.main` writes its figures and its history."""
    monkeypatch.setattr(run, "OUTPUT", tmp_path / "outputs" / "bench.json")
    monkeypatch.setattr(history, "FILE", tmp_path / "history.jsonl")
    return run.OUTPUT, history.FILE


# --------------------------------------------------------------------------------------- rows, table and files


def test_a_row_counts_by_hand():
    assert ROW.ratios == [2.0, 4.0, 3.0]
    facts = ROW.as_json()
    assert (facts["ratio"], facts["ratio_min"], facts["ratio_max"]) == (3.0, 2.0, 4.0)
    assert (facts["ours"], facts["peers"], facts["unit"]) == (150.0, 37.5, "images/s")  # 300 in 2 s, in 8 s
    seconds = Row("start/x", "peer", ROW.ours_each, ROW.peer_each).as_json()
    assert (seconds["ours"], seconds["peers"], seconds["unit"], seconds["ratio"]) == (2.0, 8.0, "s", 3.0)
    other = Row("x", "peer", [2.0, 1.0], [3.0, 3.0], measure="cpu s").as_json()
    assert (other["unit"], other["ratio"], other["ours_cpu_s"], other["peer_cpu_s"]) == ("cpu s", 2.25, [2, 1], [3, 3])


def test_ours_and_the_peer_take_turns():
    calls: list[str] = []
    results = take_turns("x", 2, lambda: calls.append("ours") or 1, lambda: calls.append("peer") or 2)
    assert calls == ["ours", "peer", "ours", "peer"]
    assert results == ([1, 1], [2, 2])


def test_table_and_json(tmp_path, capsys):
    facts = {"machine": machine(), "repetitions": 3, "quick": False, "photos": "300 JPEGs"}
    show(facts, [ROW])
    write_json(tmp_path / "outputs" / "bench.json", facts, [ROW])
    before, _, table = capsys.readouterr().out.partition("what")
    assert "300 JPEGs" in before and f"{facts['machine']['cores']} cores" in before
    assert "numpy " + np.__version__ in before
    cells = re.split(r"\s{2,}", table.split("data/x")[1].splitlines()[0].strip())
    assert cells[:6] == ["peer", "images/s", "150", "37.5", "3", "2 to 4"]
    assert "data/x: and so on" in table and "median of up to 3 pairs" in table
    assert json.loads((tmp_path / "outputs" / "bench.json").read_text()) == {**facts, "rows": [ROW.as_json()]}
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["bench.json"]


def test_a_quick_run(files, monkeypatch, capsys):
    one = profiles.Profile("baseline", 2, 0.5, 0.75, {"Conv2D": 0.6, "MaxPool": 0.4})
    monkeypatch.setattr(run, "QUICK_PHOTOS", 4)
    monkeypatch.setattr(start, "ANSWERS", {"start/help": (["--help"], 0)})
    monkeypatch.setattr(start, "first_step", lambda repetitions: ROW)
    monkeypatch.setattr(profiles, "of_variants", lambda photos, quick: [one])
    assert run.main(["--quick", "--only", "start", "--only", "profile"]) == 0
    printed = capsys.readouterr().out
    assert "photos: 4 JPEGs, the first 360 x 360 pixels" in printed
    assert "start/help" in printed and "python -c pass" in printed
    assert "Conv2D 60%, MaxPool 40%, others 0%" in printed
    written = json.loads(files[0].read_text())
    assert (written["quick"], written["repetitions"], written["own_photos"]) == (True, 2, False)
    assert written["profiles"] == [one.as_json()]
    row, last = written["rows"]
    assert last == ROW.as_json()
    assert (row["name"], row["peer"], row["unit"]) == ("start/help", "python -c pass", "s")
    ratios = [peer / ours for ours, peer in zip(row["ours_s"], row["peer_s"], strict=True)]
    assert len(ratios) == 2 and (row["ratio_min"], row["ratio_max"]) == (min(ratios), max(ratios))
    assert not files[1].exists()  # quick figures are not kept


def test_full_runs_are_kept_line_by_line_and_a_worse_one_has_a_mark(files, monkeypatch, capsys):
    measured = [ROW]
    monkeypatch.setattr(start, "rows", lambda repetitions: measured)
    monkeypatch.setattr(run, "machine", lambda: machine() | {"cpu": "a cpu", "cores": 2, "load": 0.5})

    def row_printed() -> list[str]:
        assert run.main(["--only", "start"]) == 0
        table = capsys.readouterr().out.split("beside the last time on this processor")[1]
        return next(line for line in table.splitlines() if "data/x" in line).split()

    assert row_printed() == ["data/x", "images/s", "150", "3", "never"]
    (line,) = files[1].read_text().splitlines()
    date = json.loads(line)["date"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", date)
    assert line.replace(date, "DATE") == (  # there is no git in the folder
        '{"date": "DATE", "commit": null, "dirty": null, "cpu": "a cpu", "cores": 2, "load": 0.5, "photos": "drawn", '
        '"group": "start", "name": "data/x", "unit": "images/s", "ours": 150.0, "peer": 37.5, '
        '"ratio": 3.0, "ratio_min": 2.0, "ratio_max": 4.0, "repetitions": 3, "quick": false}'
    )
    measured[:] = [Row("data/x", "peer", [1.0], [2.3], images=300)]  # 2.3 is 23 % less than 3
    assert row_printed() == ["data/x", "images/s", "300", "2.3", "150", "3", date[:10], "WORSE"]
    measured[:] = [Row("data/x", "peer", [1.0], [1.9], images=300)]  # and this 17 % less than 2.3
    assert row_printed()[-1] == date[:10]
    monkeypatch.setattr(run, "machine", lambda: machine() | {"cpu": "another cpu"})
    assert row_printed()[-1] == "never"
    assert [line["ratio"] for line in history.read(files[1])] == [3.0, 2.3, 1.9, 1.9]


def test_own_photos_go_into_two_class_folders(photos, tmp_path):
    (flat := tmp_path / "flat").mkdir()
    for number, path in enumerate(sorted(photos.glob("*/*.jpg"))):
        (flat / f"{number:02}.JPG").write_bytes(path.read_bytes())
    (flat / "notes.txt").write_text("no photo")
    folder = class_folders(flat, 10, tmp_path / "photos")
    assert [path.name for path in sorted(folder.glob("even/*"))] == [f"{n:02}.JPG" for n in (0, 2, 4, 6, 8)]
    assert [path.name for path in sorted(folder.glob("odd/*"))] == [f"{n:02}.JPG" for n in (1, 3, 5, 7, 9)]
    assert describe(folder).startswith("10 JPEGs, the first 40 x 40 pixels")


def test_too_few_photos_are_refused(files, tmp_path, capsys):
    assert run.main(["--only", "data", "--photos", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"bench: --photos {tmp_path}: has 0 JPEGs; give a folder with 20 or more in it\n"
    assert not any(file.exists() for file in files)


@pytest.mark.parametrize(
    "process", [lambda line: start.run(line, expected=0), memory.peak_gib, fixed.run], ids=["start", "memory", "fixed"]
)
def test_a_process_that_fails_is_not_measured(process: Callable[[list[str]], object]) -> None:
    with pytest.raises(AssertionError, match="too bad"):
        process(["-c", "raise SystemExit('too bad')"])


def test_the_peak_is_that_of_the_process() -> None:
    held = "x = bytearray(2**28); x[::4096] = b'1' * len(x[::4096])"  # a quarter of a GiB, every page of it
    assert 0.25 < memory.peak_gib(["-c", held]) < 0.4


# ------------------------------------------------------------------------------------------- beside training

TWO_JOBS = """
import time
from pathlib import Path
runs, kept = Path({runs!r}), []
for job in range(2):
    kept.append(b"1" * 2**26)  # 64 MiB
    folder = runs / "now_sweep" / str(job)
    folder.mkdir(parents=True)
    (folder / "result.json").touch()
    while not (runs / f"seen{{job}}").exists():
        time.sleep(0.01)
while time.process_time() < 0.3:
    pass
time.sleep(0.3)
"""


def test_a_process_is_watched_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look, looks = fixed.resident_mib, count()
    monkeypatch.setattr(fixed, "resident_mib", lambda pid: (look(pid), (tmp_path / f"seen{next(looks)}").touch())[0])
    spent = fixed.run(["-c", TWO_JOBS.format(runs=str(tmp_path))], tmp_path)
    assert spent.cpu >= 0.3 and spent.wall >= 0.6  # it computed, then slept
    if Path("/proc/self/status").exists():
        first, second = spent.resident
        assert 60 < second - first < 80


def test_a_job_is_told_by_two_sweeps() -> None:
    def swept(jobs: int, wall: float, cpu: float, training: float, *resident: float) -> fixed.Sweep:
        return fixed.Sweep(jobs, fixed.Spent(wall, cpu, 0.0, list(resident)), training)

    short, longer = swept(2, 30, 20, 6, 500, 510), swept(8, 90, 68, 24, 1, 2, 3, 4, 5, 600, 606, 620)
    job = fixed.a_job(short, longer)
    assert job == fixed.Job(wall=10, cpu=8, training=3)  # 60, 48 and 18 s for six jobs
    assert fixed.shares([job]) == "training 30%, rest 70%"
    assert "noise" in fixed.shares([fixed.Job(wall=2, cpu=8, training=3)])
    (row,) = fixed.memory_rows("x", [longer])
    assert (row.ours_each, row.peer_each, row.peer) == ([620], [600], "the same after job 6 of 8")
    assert row.note == "+10.0 MiB a job from job 6 to job 8"
    assert fixed.memory_rows("x", [swept(2, 30, 20, 6)]) == []  # a system that does not tell it


def test_a_sweep_and_an_end_are_read_from_what_runs_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[list[str]] = []

    def trained(line: list[str], runs: Path | None = None) -> fixed.Spent:
        lines.append(line)
        root = Path(next(given for given in line if given.startswith("paths.root=")).removeprefix("paths.root="))
        with closing(sqlite3.connect(root / "mlflow.db")) as db:
            db.executescript(
                "CREATE TABLE IF NOT EXISTS latest_metrics (run_uuid, key, value);"
                "CREATE TABLE IF NOT EXISTS metrics (key, timestamp);"
                "INSERT INTO latest_metrics VALUES ('0', 'time/train_s', 1.5), ('1', 'time/train_s', 2), ('9', 'x', 9);"
                "INSERT INTO metrics VALUES ('val/acc', 1000), ('val/acc', 4000), ('test/acc', 5000);"
            )
        for job in "01" if runs else "":
            folder = runs / "now_sweep" / job
            folder.mkdir(parents=True)
            (folder / "result.json").write_text(json.dumps({"run_id": job}))
        return fixed.Spent(10.0, 5.0, ended=7.0, resident=[])

    monkeypatch.setattr(fixed, "run", trained)
    swept = fixed.sweep(tmp_path, ["a=1", f"paths.root={tmp_path}"], 2)
    assert (swept.jobs, swept.training) == (2, 3.5)
    assert lines[0][:5] == [*fixed.TRAIN, "-m", "a=1"] and lines[0][-1] == "optimizer.learning_rate=1e-5,2e-5"
    monkeypatch.setattr(fixed, "take_turns", lambda name, repetitions, ours, peer: ([ours()], [0.5]))
    row = fixed.end_row(1)
    assert (row.ours_each, row.peer_each) == ([3.0], [0.5])  # from 4000 ms to 7 s
    assert load_config(lines[1][len(fixed.TRAIN) :]).tracking.explain is True


# -------------------------------------------------------------------------------------------- what is timed


def test_every_pass_gives_every_photo_once_and_augmented(photos, monkeypatch):
    """Ours and the peers deliver the same: otherwise their times could not be compared."""
    from bench import data

    monkeypatch.setattr(data, "SIZE", 50)
    split = data.split_of(photos)
    passes = {
        "ours, from files": data.ours(split, keep=False),
        "ours, decoded": data.ours(split, keep=True),
        "ours, one thread": data.ours(split, keep=False, threads=1),
        "generator, from files": data.generator_from_files(photos),
        "generator, decoded": data.generator_from_arrays(split),
        "tf.data, from files": data.tf_data(photos, cached=False),
        "tf.data, decoded": data.tf_data(photos, cached=True),
    }
    for name, take in passes.items():
        first, two = list(take(1)), list(take(2))
        assert sum(len(x) for x, _ in two) == 40 and len(two) == 2 * len(first), name
        for batches in (first, second := two[len(first) :]):
            images = np.concatenate([np.asarray(x) for x, _ in batches])
            labels = np.concatenate([np.asarray(y).ravel() for _, y in batches])
            assert images.shape == (20, data.SIZE, data.SIZE, 3), name
            assert images.dtype == (np.uint8 if name.startswith("ours") else np.float32), name
            assert images.min() >= 0 and 100 < images.max() <= 255.5, name
            assert np.bincount(labels.astype(int)).tolist() == [10, 10], name
        ordered = [np.sort(np.concatenate([np.asarray(x).mean((1, 2, 3)) for x, _ in p])) for p in (first, second)]
        assert np.abs(ordered[0] - ordered[1]).max() > 0.01, f"{name}: the passes are not augmented anew"


@pytest.mark.parametrize("keep", [True, False])
def test_files_are_decoded_again_in_each_pass_only_without_a_cache(keep, photos, monkeypatch):
    from bench import data

    from cnnexp.data import images

    decoded: list[str] = []
    original = images.decode_image
    monkeypatch.setattr(
        images, "decode_image", lambda path, *more, **named: decoded.append(path) or original(path, *more, **named)
    )
    split = data.split_of(photos)
    passes = data.ours(split, keep=keep)
    assert [data.consume(passes, 1), data.consume(passes, 2)] == [20, 40]
    assert sorted(decoded) == sorted([*split.paths] * (1 if keep else 3))


def test_an_epoch_and_a_sweep_of_the_features_group(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench import training

    monkeypatch.setattr(training, "HEADS", [(4, 0.0), (8, 0.0)])
    monkeypatch.setattr(training, "STEPS", 4)
    seen: list[list[str]] = []
    monkeypatch.setattr(training, "train", lambda folder, given: seen.append(given) or [{"time/epoch_s": 2.0}] * 3)
    row = training.epoch_row("augmented", photos, ["trainer.augmented_passes=1"], repetitions=2, steps=1, epochs=2)
    assert row.ours_each == [2.0, 2.0] and row.peer_each == [8.0, 8.0]  # one of four steps was measured
    full = ("trainer.feature_cache=false", "trainer.augmented_passes=null")
    assert [[key in given for key in full] for given in seen] == [[False, False], [True, True]] * 2
    seen.clear()
    training.sweep_row(photos, size=32, limit=4)
    heads, roots = ([next(o for o in given if key in o) for given in seen] for key in ("head.units=", "paths.root="))
    assert heads == ["head.units=4", "head.units=8", "head.units=8"]  # all of them, then the one in the middle
    assert len(roots) == 3 and roots[0] == roots[1] != roots[2]  # one cache for both, then one run with its own


def test_the_bare_fit_is_that_of_the_network(photos: Path) -> None:
    from bench import overhead

    line = [*overhead.LINE, "dataset=folder", f"dataset.path={photos}"]
    model, (images, labels), _ = overhead.compiled(load_config(line))
    assert model.count_params() == BASELINE and images.shape == (10, 150, 150, 3) and labels.shape == (10, 1)
    assert load_config(line).tracking == load_config([]).tracking  # nothing that is recorded by default is left out


def test_a_store_is_filled_with_copies_of_a_sweep(tmp_path):
    from cnnexp.tracking.mlflow import Tracker

    outputs = tmp_path / "outputs"
    tracker = Tracker(f"sqlite:///{outputs}/mlflow.db", "cnnexp", str(outputs / "mlartifacts"))
    parent = tracker.start_run("sweep", {}, {"sweep": "parent"})
    tracker.end_run("FINISHED")
    folder = outputs / "runs" / "now_sweep"
    for number in range(2):
        tracker.start_run(f"job {number}", {"seed": str(number)}, {"sweep_id": parent}, parent)
        tracker.log_metrics({"test/acc": 0.5}, step=0)
        tracker.end_run("FINISHED")
        (folder / str(number)).mkdir(parents=True)
        for name in store.LEFT_FOR_LATER:
            (folder / str(number) / name).write_text("{}")
    (folder / "sweep.json").write_text("{}")
    store.fill(outputs, 20)
    sweeps = tracker.sweeps(100)
    jobs = {run.run_id: tracker.children(run.run_id) for run in sweeps}
    assert sweeps[0].run_id == parent and len(jobs[parent]) == 2  # it stays the newest
    assert sorted(len(children) for children in jobs.values()) == [2, 7, 8]  # with their parents 3 + 8 + 9 = 20 runs
    copied_sweep, copied = next((run, children) for run, children in jobs.items() if len(children) == 8)
    assert {run.tags["sweep_id"] for run in copied} == {copied_sweep}
    assert {run.metrics["test/acc"] for run in copied} == {0.5} and {run.params["seed"] for run in copied} == {"0", "1"}
    assert len(list((outputs / "runs").glob("*/*/run.json"))) == 2 + 8 + 7


# ------------------------------------------------------------------------------------ profiles and progression


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ("StatefulPartitionedCall/small_1/conv/Relu:_MklNativeFusedConv2D", "FusedConv2D"),
        ("gradient_tape/small_1/pool/MaxPool2d/MaxPoolGrad:MaxPoolGrad", "MaxPoolGrad"),
        ("StatefulPartitionedCall:StatefulPartitionedCall", None),
        ("ExecutorState::Process", None),
        ("CpuExecutable::ExecuteAsyncOnStream", "update (XLA)"),
        ("multiply_add_fusion", None),  # a part of the update
        ("end: multiply_add_fusion", None),
        ("StatefulPartitionedCall/small_1/conv/Relu:_FusedConv2D", "FusedConv2D"),  # without oneDNN
    ],
)
def test_events_of_a_profile_are_told_apart(event, kind):
    assert profiles.kind_of(event) == kind


def test_a_profile_of_a_variant(photos):
    found = profiles.profile("baseline", photos, quick=True)
    assert found.steps == 2 and found.seconds > 0 and 0 < found.busy < 2
    assert sum(found.operations.values()) == pytest.approx(1)
    assert {"FusedConv2D", "Conv2DBackpropFilterWithBias"} & set(found.operations)


def test_what_a_schedule_costs_is_counted_by_hand(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 4 epochs of 100 steps, 1000 photos and what comes once an epoch, then 1000 photos once more
    cost = progression.Cost(step_s=0.5, photo_s=0.01, epoch_s=3, first_s=7)
    assert cost.of(progression.Schedule(4, 20)) == pytest.approx(7 + 4 * (50 + 10 + 3) + 10)
    # two trainings tell what an epoch costs beside its photos: 0.9 s for 180 of them
    beside = {200: progression.Training(0.5, 2.0, 200, 7.0), 20: progression.Training(0.6, 1.1, 20, 8.0)}
    monkeypatch.setattr(progression, "training", lambda name, photos, limit: beside[limit])
    cost = progression.ours("baseline", photos)
    assert cost == progression.Cost(step_s=0.5, photo_s=pytest.approx(0.005), epoch_s=pytest.approx(1.0), first_s=7.0)
    found = {"a": Row("a", "", [1.0, 2.0], [10.0, 30.0]), "b": Row("b", "", [3.0, 4.0], [20.0, 50.0])}
    row = progression.total("sum", found)
    assert (row.name, row.ours_each, row.peer_each) == ("progression/sum", [4.0, 6.0], [30.0, 80.0])


@pytest.mark.parametrize(
    ("name", "trainable"),
    [("augmented", BASELINE), ("frozen_augmented", FROZEN_AUGMENTED), ("finetuned", FINETUNED)],
)
def test_the_script_trains_the_networks_of_the_tutorial(name: str, trainable: int) -> None:
    model = progression.network(progression.SCHEDULES[name])
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == trainable
