"""The benchmark suite in small: what it counts, what it prints and what it writes. No speed is asserted."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from bench import profiles, run, start, store
from bench.photos import class_folders, describe
from bench.table import Row, machine, show, take_turns, write_json

from cnnexp.composition import load_config
from cnnexp.errors import UserError


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty drawn photos of 40 pixels in two class folders."""
    return class_folders(None, 20, tmp_path_factory.mktemp("bench") / "photos", size=40)


ROW = Row("data/x", "peer", ours_each=[1.0, 2.0, 4.0], peer_each=[2.0, 8.0, 12.0], images=300)


def test_a_row_counts_by_hand():
    assert ROW.ratios == [2.0, 4.0, 3.0]
    facts = ROW.as_json()
    assert (facts["ratio"], facts["ratio_min"], facts["ratio_max"]) == (3.0, 2.0, 4.0)
    assert (facts["ours"], facts["peers"], facts["unit"]) == (150.0, 37.5, "images/s")  # 300 in 2 s, in 8 s
    seconds = Row("start/x", "peer", ROW.ours_each, ROW.peer_each).as_json()
    assert (seconds["ours"], seconds["peers"], seconds["unit"]) == (2.0, 8.0, "s")
    assert seconds["ratio"] == 3.0


def test_ours_and_the_peer_take_turns():
    calls: list[str] = []
    results = take_turns("x", 2, lambda: calls.append("ours") or 1, lambda: calls.append("peer") or 2)
    assert calls == ["ours", "peer", "ours", "peer"]
    assert results == ([1, 1], [2, 2])


def test_table_and_json(tmp_path, capsys):
    facts = {"machine": machine(), "repetitions": 3, "quick": False, "photos": "300 JPEGs"}
    show(facts, [ROW])
    write_json(tmp_path / "outputs" / "bench.json", facts, [ROW])
    printed = capsys.readouterr().out
    before, _, table = printed.partition("what")
    assert "300 JPEGs" in before and f"{facts['machine']['cores']} cores" in before
    assert "numpy " + np.__version__ in before
    cells = re.split(r"\s{2,}", table.split("data/x")[1].splitlines()[0].strip())
    assert cells[:6] == ["peer", "images/s", "150", "37.5", "3", "2 to 4"]
    assert "median of up to 3 pairs" in table
    assert json.loads((tmp_path / "outputs" / "bench.json").read_text()) == {**facts, "rows": [ROW.as_json()]}
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["bench.json"]


def test_drawn_photos_are_described(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "OUTPUT", tmp_path / "bench.json")
    monkeypatch.setattr(run, "QUICK_PHOTOS", 4)
    monkeypatch.setattr(run, "data_rows", lambda photos, repetitions: [])
    assert run.main(["--quick", "--only", "data"]) == 0
    assert "photos: 4 JPEGs, the first 360 x 360 pixels" in capsys.readouterr().out


def test_quick_run_of_the_start_group(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "OUTPUT", tmp_path / "bench.json")
    monkeypatch.setattr(start, "ANSWERS", {"start/help": (["--help"], 0)})
    monkeypatch.setattr(start, "first_step", lambda repetitions: ROW)
    assert run.main(["--quick", "--only", "start"]) == 0
    printed = capsys.readouterr().out
    assert "start/help" in printed and "python -c pass" in printed and "photos:" not in printed
    written = json.loads((tmp_path / "bench.json").read_text())
    assert (written["quick"], written["repetitions"], written["photos"]) == (True, 2, None)
    row, last = written["rows"]
    assert last["name"] == ROW.name
    assert (row["name"], row["peer"], row["unit"]) == ("start/help", "python -c pass", "s")
    assert len(row["ours_s"]) == len(row["peer_s"]) == 2
    ratios = [peer / ours for ours, peer in zip(row["ours_s"], row["peer_s"], strict=True)]
    assert (row["ratio_min"], row["ratio_max"]) == (min(ratios), max(ratios))


def test_an_answer_with_another_exit_code_is_not_timed():
    with pytest.raises(AssertionError):
        start.run(["-c", "raise SystemExit(2)"], expected=0)


# -------------------------------------------------------------------------------------------------- photos


def test_own_photos_go_into_two_class_folders(photos, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(sorted(photos.glob("*/*.jpg"))):
        (flat / f"{number:02}.JPG").write_bytes(path.read_bytes())
    (flat / "notes.txt").write_text("no photo")
    folder = class_folders(flat, 10, tmp_path / "photos")
    assert [path.name for path in sorted(folder.glob("even/*"))] == [f"{n:02}.JPG" for n in (0, 2, 4, 6, 8)]
    assert [path.name for path in sorted(folder.glob("odd/*"))] == [f"{n:02}.JPG" for n in (1, 3, 5, 7, 9)]
    assert describe(folder).startswith("10 JPEGs, the first 40 x 40 pixels")


def test_too_few_photos_are_refused(tmp_path, monkeypatch, capsys):
    with pytest.raises(UserError, match="has 0 JPEGs"):
        class_folders(tmp_path, 10, tmp_path / "photos")
    monkeypatch.setattr(run, "OUTPUT", tmp_path / "bench.json")
    assert run.main(["--only", "data", "--photos", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"bench: --photos {tmp_path}: has 0 JPEGs; give a folder with 20 or more in it\n"
    assert not (tmp_path / "bench.json").exists()


# --------------------------------------------------------------------------------------------- what is timed


def test_every_pass_gives_every_photo_once_and_augmented(photos):
    """Ours and the peers deliver the same: otherwise their times could not be compared."""
    from bench import data

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
        first, second = (list(take(1)) for _ in range(2))
        for batches in (first, second):
            images = np.concatenate([np.asarray(x) for x, _ in batches])
            labels = np.concatenate([np.asarray(y).ravel() for _, y in batches])
            assert images.shape == (20, data.SIZE, data.SIZE, 3), name
            assert images.dtype == (np.uint8 if name.startswith("ours") else np.float32), name
            assert images.min() >= 0 and 100 < images.max() <= 255.5, name
            assert np.bincount(labels.astype(int)).tolist() == [10, 10], name
        ordered = [np.sort(np.concatenate([np.asarray(x).mean((1, 2, 3)) for x, _ in p])) for p in (first, second)]
        assert np.abs(ordered[0] - ordered[1]).max() > 0.01, f"{name}: the passes are not augmented anew"
        two = list(take(2))
        assert sum(len(x) for x, _ in two) == 40 and len(two) == 2 * len(first), name


def test_files_are_decoded_again_in_each_pass_only_without_a_cache(photos, monkeypatch):
    from bench import data

    from cnnexp.data import images

    decoded: list[str] = []
    original = images.read_image
    monkeypatch.setattr(images, "read_image", lambda path, least: decoded.append(path) or original(path, least))
    split = data.split_of(photos)
    passes = data.ours(split, keep=True)
    assert [data.consume(passes, 1), data.consume(passes, 2)] == [20, 40]
    assert sorted(decoded) == sorted(split.paths)
    decoded.clear()
    passes = data.ours(split, keep=False)
    assert [data.consume(passes, 1), data.consume(passes, 1)] == [20, 20]
    assert sorted(decoded) == sorted([*split.paths, *split.paths])


def test_an_epoch_and_a_sweep_of_the_features_group(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench import training

    monkeypatch.setattr(training, "HEADS", [(4, 0.0), (8, 0.0)])
    monkeypatch.setattr(training, "STEPS", 4)
    seen: list[list[str]] = []
    monkeypatch.setattr(training, "train", lambda folder, given: seen.append(given) or [{"time/epoch_s": 2.0}] * 3)
    row = training.epoch_row("augmented", photos, ["trainer.augmented_passes=1"], repetitions=2, steps=1, epochs=2)
    assert row.ours_each == [2.0, 2.0] and row.peer_each == [8.0, 8.0]  # one of four steps was measured
    assert [("trainer.feature_cache=false" in given, "trainer.augmented_passes=null" in given) for given in seen] == [
        (False, False),
        (True, True),
    ] * 2
    seen.clear()
    training.sweep_row(photos, size=32, limit=4)
    heads = [next(o for o in given if o.startswith("head.units=")) for given in seen]
    assert heads == ["head.units=4", "head.units=8", "head.units=8"]  # all of them, then the one in the middle
    roots = [next(o for o in given if o.startswith("paths.root=")) for given in seen]
    assert len(roots) == 3 and roots[0] == roots[1] != roots[2]  # one cache for both, then one run with its own


@pytest.mark.slow
def test_the_features_group_trains(photos: Path, tmp_path: Path) -> None:
    from bench import training

    small = ["experiment=frozen", *training.NETWORK, "dataset.image_size=32", "dataset.limit=4", "head.units=2"]
    assert training.epoch_seconds(photos, [*small, f"paths.root={tmp_path}", "trainer.steps_per_epoch=1"], 2) > 0


@pytest.mark.slow
def test_the_step_group_trains_ours_and_its_peers(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each peer's network is the tutorial's: 3,453,121 parameters."""
    import keras
    from bench import step

    sizes: list[int] = []
    fit = keras.Model.fit

    def counted(model: keras.Model, *arguments: object, **keywords: object) -> object:
        sizes.append(model.count_params())
        return fit(model, *arguments, **keywords)

    monkeypatch.setattr(keras.Model, "fit", counted)
    monkeypatch.setattr(step, "EPOCHS", 2)
    rows = step.rows(photos, repetitions=1)
    assert [row.name for row in rows][:1] == ["step/baseline_keras"] and set(sizes) == {3_453_121}
    assert all(row.images == 10 and min(*row.ours_each, *row.peer_each) > 0 for row in rows)


# ------------------------------------------------------------------------------------------------- full stores


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


# ---------------------------------------------------------------------------------------------------- profiles


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


def test_a_profile_of_a_variant(photos, capsys):
    found = profiles.profile("baseline", photos, quick=True)
    assert found.steps == 2 and found.seconds > 0 and 0 < found.busy < 2
    assert sum(found.operations.values()) == pytest.approx(1)
    assert {"FusedConv2D", "Conv2DBackpropFilterWithBias"} & set(found.operations)
    profiles.show([found])
    printed = capsys.readouterr().out
    assert "baseline" in printed and f"{next(iter(found.operations))} " in printed and "others" in printed


def test_profiles_stand_beside_the_rows(tmp_path, monkeypatch, capsys):
    one = profiles.Profile("baseline", 2, 0.5, 0.75, {"Conv2D": 0.6, "MaxPool": 0.4})
    monkeypatch.setattr(run, "OUTPUT", tmp_path / "bench.json")
    monkeypatch.setattr(run, "QUICK_PHOTOS", 4)
    monkeypatch.setattr(profiles, "of_variants", lambda photos, quick: [one])
    assert run.main(["--quick", "--only", "profile"]) == 0
    assert "Conv2D 60%, MaxPool 40%, others 0%" in capsys.readouterr().out
    written = json.loads((tmp_path / "bench.json").read_text())
    assert written["profiles"] == [one.as_json()] and written["rows"] == []


# ------------------------------------------------------------------------------------------------- progression


def test_a_schedule_is_counted_from_its_parts_by_hand() -> None:
    from bench.progression import Cost, Schedule

    # 4 epochs of 100 steps, 1000 photos and what comes once an epoch, then 1000 photos once more
    cost = Cost(step_s=0.5, photo_s=0.01, epoch_s=3, first_s=7)
    assert cost.of(Schedule(4, 20)) == pytest.approx(7 + 4 * (50 + 10 + 3) + 10)


def test_what_an_epoch_costs_beside_its_photos_is_told_by_two_trainings(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench import progression

    beside = {200: progression.Training(0.5, 2.0, 200, 7.0), 20: progression.Training(0.6, 1.1, 20, 8.0)}
    monkeypatch.setattr(progression, "training", lambda name, photos, limit: beside[limit])
    cost = progression.ours("baseline", photos)  # 0.9 s for 180 photos
    assert cost == progression.Cost(step_s=0.5, photo_s=pytest.approx(0.005), epoch_s=pytest.approx(1.0), first_s=7.0)


def test_the_sum_is_over_all_variants() -> None:
    from bench.progression import total

    found = {"a": Row("a", "", [1.0, 2.0], [10.0, 30.0]), "b": Row("b", "", [3.0, 4.0], [20.0, 50.0])}
    row = total("sum", found)
    assert (row.name, row.ours_each, row.peer_each) == ("progression/sum", [4.0, 6.0], [30.0, 80.0])


@pytest.mark.parametrize(
    ("name", "trainable"), [("augmented", 3_453_121), ("frozen_augmented", 2_097_665), ("finetuned", 9_177_089)]
)
def test_the_script_trains_the_networks_of_the_tutorial(name: str, trainable: int) -> None:
    from bench import progression

    model = progression.network(progression.SCHEDULES[name])
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == trainable


@pytest.mark.slow
def test_the_parts_of_a_schedule_are_measured_on_both_sides(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench import progression

    monkeypatch.setattr(progression, "MEASURED_STEPS", 1)
    monkeypatch.setattr(progression, "MEASURED_PHOTOS", 6)
    monkeypatch.setattr(progression, "FEW_PHOTOS", 2)
    monkeypatch.setattr(progression, "TRAIN", 20)
    monkeypatch.setitem(progression.SCHEDULES, "frozen", progression.Schedule(1, 4, trained_from="head", steps=2))
    for name in ("baseline", "frozen"):
        ours, script = progression.ours(name, photos), progression.script(progression.SCHEDULES[name], photos)
        assert min(ours.step_s, script.step_s, script.photo_s) > 0
        assert (ours.first_s > 0) == (script.first_s > 0) == (name == "frozen")


# --------------------------------------------------------------------------------------------------- overhead


@pytest.mark.slow
def test_an_epoch_beside_a_bare_fit(tmp_path: Path) -> None:
    from bench import overhead

    folder = class_folders(None, 20, tmp_path / "photos", size=40)
    (row,) = overhead.rows(folder, repetitions=1)
    assert row.name == "overhead/baseline" and min(*row.ours_each, *row.peer_each) > 0
    model, (images, labels), _ = overhead.compiled(
        load_config([*overhead.LINE, "dataset=folder", f"dataset.path={folder}"])
    )
    assert model.count_params() == 3_453_121 and images.shape == (10, 150, 150, 3) and labels.shape == (10, 1)


# --------------------------------------------------------------------------------------------------- memory


def test_the_peak_is_that_of_the_process() -> None:
    from bench.memory import peak_gib

    held = "x = bytearray(2**28); x[::4096] = b'1' * len(x[::4096])"  # a quarter of a GiB, every page of it
    assert 0.25 < peak_gib(["-c", held]) < 0.4
    with pytest.raises(AssertionError, match="too bad"):
        peak_gib(["-c", "raise SystemExit('too bad')"])


def test_memory_is_shown_in_its_own_unit() -> None:
    row = Row("memory/x", "peer", [2.0, 1.0], [3.0, 3.0], measure="GiB")
    facts = row.as_json()
    assert (facts["unit"], facts["ratio"], facts["ours_gib"], facts["peer_gib"]) == (
        "GiB",
        2.25,
        [2.0, 1.0],
        [3.0, 3.0],
    )
