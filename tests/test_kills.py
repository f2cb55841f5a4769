"""Processes that are killed: none outlives its command, what it left is told from what is not ours, locks say who."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from cnnexp.errors import UserError
from cnnexp.files import atomic_file, find_left, is_left, unfinished
from cnnexp.process import guarded, identity, lives
from cnnexp.runs import sweep_job
from cnnexp.runs.folder import RunFolder

Run = Callable[..., tuple[int, str, str]]
Start = Callable[..., "subprocess.Popen[str]"]

WITHIN_S = 20.0  # for a machine that is busy; it takes a second, or GRACE_S for what does not listen

WORKER = """
    import multiprocessing, os, time
    from cnnexp.process import begin_worker, lead

    def work(at, stubborn):
        begin_worker()
        try:
            os.write(1, b"%d\\n" % os.getpid())  # in one go, beside those of others
            time.sleep(600)
        except KeyboardInterrupt:
            print("closed", file=open(at, "w"), flush=True)
            if stubborn:
                time.sleep(600)

    if __name__ == "__main__":
        lead()
        method, at, stubborn = sys.argv[1:]
        process = multiprocessing.get_context(method).Process(target=work, args=(at, stubborn == "true"))
        process.start()
        process.join()
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a script in a process of its own."""
    begun = []

    def run(script: str, *arguments: object, **named: object) -> subprocess.Popen[str]:
        file = tmp_path / f"script{len(begun)}.py"
        file.write_text("import sys\n" + textwrap.dedent(script))
        line = [sys.executable, str(file), *map(str, arguments)]
        begun.append(subprocess.Popen(line, stdout=subprocess.PIPE, text=True, **named))  # type: ignore[call-overload]
        return begun[-1]  # type: ignore[no-any-return]

    yield run
    for process in begun:
        process.kill()
        process.wait()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def gone(number: int, within_s: float) -> bool:
    until = time.monotonic() + within_s
    while lives(f"{number}-") and time.monotonic() < until:
        time.sleep(0.05)
    return not lives(f"{number}-")


# --------------------------------------------------------------------------------------------------- processes


@pytest.mark.parametrize(("method", "stubborn"), [("forkserver", "false"), ("spawn", "false"), ("spawn", "true")])
def test_a_worker_ends_with_its_command(start: Start, tmp_path: Path, method: str, stubborn: str) -> None:
    command = start(WORKER, method, tmp_path / "closed", stubborn)
    worker = int(line_of(command))
    assert lives(f"{worker}-")
    command.send_signal(signal.SIGKILL)
    assert gone(worker, WITHIN_S)
    assert (tmp_path / "closed").read_text() == "closed\n"  # it was interrupted, and could close what it was at


def test_a_worker_of_a_worker_that_was_killed_ends(start: Start, tmp_path: Path) -> None:
    """The command lives on; the process of a launcher between them is gone."""
    between = start(WORKER, "spawn", tmp_path / "closed", "false", env={**os.environ, "CNNEXP_COMMAND": identity()})
    worker = int(line_of(between))
    between.send_signal(signal.SIGKILL)
    assert gone(worker, WITHIN_S)


def test_workers_of_joblib_end_with_the_command(start: Start) -> None:
    pytest.importorskip("joblib")
    command = start(
        """
        from joblib import Parallel, delayed
        from cnnexp.process import begin_worker, lead

        def work():
            import os, time
            begin_worker()
            os.write(1, b"%d\\n" % os.getpid())  # in one go, beside those of others
            time.sleep(600)

        lead()
        Parallel(2)([delayed(work)(), delayed(work)()])
        """
    )
    workers = [int(line_of(command)) for _ in range(2)]
    command.send_signal(signal.SIGKILL)
    assert all(gone(worker, WITHIN_S) for worker in workers)


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
def test_a_worker_whose_command_is_gone_records_no_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its job's process may see that first, and ends; the next line goes on with the run."""

    class Ended:
        exitcode = 130

        def __init__(self, **given: object) -> None:
            pass

        def start(self) -> None:
            pass

        join = start

    said: list[str] = []
    job = SimpleNamespace(folder=RunFolder(tmp_path / "job"))
    context = SimpleNamespace(Pipe=multiprocessing.Pipe, Process=Ended)
    monkeypatch.setattr(sweep_job, "_context", lambda: context)
    monkeypatch.setattr(sweep_job, "_logging", dict)
    monkeypatch.setattr(sweep_job, "record_failure", lambda *given: said.append(given[-1]))
    monkeypatch.setenv("CNNEXP_COMMAND", identity())
    assert math.isnan(sweep_job.train_in_fresh_process(job, None, 0))  # type: ignore[arg-type]
    assert said == ["its process ended with exit code 130"]
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    monkeypatch.setenv("CNNEXP_COMMAND", f"{gone.pid}-1")
    with pytest.raises(KeyboardInterrupt):
        sweep_job.train_in_fresh_process(job, None, 0)  # type: ignore[arg-type]
    assert len(said) == 1


def test_a_process_that_has_nothing_to_close_dies_with_its_parent(start: Start) -> None:
    child = "from cnnexp.process import die_with_parent; die_with_parent()\n"
    child += "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    command = start("import subprocess; subprocess.run([sys.executable, '-c', sys.argv[1]])", child)
    number = int(line_of(command))
    command.send_signal(signal.SIGKILL)
    assert gone(number, WITHIN_S)


def test_a_process_is_told_from_a_later_one_with_its_number() -> None:
    number, start_then = identity().split("-")
    assert lives(identity()) and lives(f"{number}-")
    assert not lives(f"{number}-{int(start_then) + 1}") and not lives("999999999-1")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    while Path(f"/proc/{ended.pid}/stat").read_text().split()[2] != "Z":
        time.sleep(0.01)
    assert not lives(f"{ended.pid}-")  # nobody has asked for its exit code yet
    ended.wait()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_guarded_server_and_its_children_end_with_the_command(start: Start, number: int) -> None:
    server = "import os, subprocess, sys, time\n"
    server += "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    server += "print(os.getpid(), child.pid, flush=True); time.sleep(600)"
    command = start(
        """
        import subprocess
        from cnnexp.process import guarded
        subprocess.Popen(guarded([sys.executable, "-c", sys.argv[1]]), stdin=subprocess.PIPE, start_new_session=True)
        import time; time.sleep(600)
        """,
        server,
    )
    processes = [int(word) for word in line_of(command).split()]
    assert all(lives(f"{process}-") for process in processes)
    command.send_signal(number)
    assert all(gone(process, WITHIN_S) for process in processes)


def test_a_guarded_server_that_ends_itself_leaves_no_child() -> None:
    script = "import os, subprocess, sys\n"
    script += "print(subprocess.Popen(['sleep', '600'], stdout=subprocess.DEVNULL).pid, flush=True); sys.exit(7)"
    line = guarded([sys.executable, "-c", script])
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as guard:
        child = int(line_of(guard))
        assert guard.wait() == 7 and gone(child, WITHIN_S)


# ---------------------------------------------------------------------------------------------- what is left


def test_what_a_killed_process_left_is_found_and_nothing_else(start: Start, tmp_path: Path) -> None:
    place = tmp_path / "place"
    killed = start(
        """
        from pathlib import Path
        from cnnexp.files import atomic_file, atomic_folder
        place = Path(sys.argv[1])
        with atomic_file(place / "a.json") as file, atomic_folder(place / "set") as folder:
            (folder / "half").write_text("x")
            print("at work", flush=True)
            import time; time.sleep(600)
        """,
        place,
    )
    line_of(killed)
    for name in (".bashrc", ".a.json.123", ".set.ab_c12xy", ".set.unfinished", ".cache.cnnexp", ".x.cnnexp-y-1", "b"):
        (place / name).touch()
    with atomic_file(place / "mine") as file:
        file.write(b"1")
        assert find_left(tmp_path) == []  # all are at work, or not ours
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        left = find_left(tmp_path)
    assert [path.name.partition(".cnnexp-")[0] for path in left] == [".a.json", ".set"]
    assert all(is_left(path) for path in left)


def test_work_of_another_machine_is_left_when_nobody_touched_it_for_a_day(tmp_path: Path) -> None:
    other = tmp_path / ".x.cnnexp-another.machine-1-1-0"
    other.touch()
    assert not is_left(other)
    os.utime(other, (time.time() - 90_000,) * 2)
    assert is_left(other)


def test_a_long_name_has_room_for_the_mark(tmp_path: Path) -> None:
    with atomic_file(tmp_path / ("x" * 250)) as file:
        file.write(b"1")
    assert len(unfinished(tmp_path / ("x" * 250)).name) <= 255


def test_folders_of_runs_that_never_began_are_removed(cnnexp: Run, tmp_path: Path) -> None:
    runs = tmp_path / "outputs" / "runs"
    for name in ("never", "held", "own", "recorded"):
        (runs / name / ".hydra").mkdir(parents=True)
        (runs / name / ".hydra" / "config.yaml").touch()
        (runs / name / "run.lock").touch()
    (runs / "own" / "notes.txt").touch()
    (runs / "recorded" / "run.json").write_text("{}")
    with RunFolder(runs / "held").lock():
        code, _, err = cnnexp("doctor", "--check", "tracking=none")
        assert code == 1 and err.count("left by a stopped process") == 1 and "outputs/runs/never: left" in err
        assert cnnexp("doctor", "tracking=none")[0] == 0
    assert sorted(place.name for place in runs.iterdir()) == ["held", "own", "recorded"]


# ---------------------------------------------------------------------------------------------------- folders


@pytest.mark.parametrize("before", [[], ["notes.txt"], ["notes.txt", "train.log", ".hydra/config.yaml"]])
def test_what_is_refused_leaves_a_folder_as_it_was(cnnexp: Run, tmp_path: Path, before: list[str]) -> None:
    for name in before:
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_text("")
    code, _, err = cnnexp("train", "dataset=folder", "dataset.path=nowhere", "tracking=none", "hydra.run.dir=mine")
    assert code == 2 and "dataset.path=nowhere" in err
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(
        tmp_path / "mine" / name for name in before
    )
    assert (tmp_path / "mine").exists() == bool(before)


def test_a_second_line_for_a_folder_removes_nothing_of_the_first(cnnexp: Run, tmp_path: Path) -> None:
    """The first has only begun: nothing of it is recorded yet."""
    folder = RunFolder(tmp_path / "mine")
    with folder.lock():
        (folder.path / "of_the_first").touch()
        code, _, err = cnnexp("train", "dataset=synthetic", "tracking=none", f"hydra.run.dir={folder}")
        assert code == 2 and f"another process ({os.getpid()}) is at work on this run" in err
        assert sorted(path.name for path in folder.path.iterdir()) == ["of_the_first", "run.lock"]


@pytest.mark.trains
@pytest.mark.usefixtures("no_training")
def test_a_folder_that_holds_another_run_is_refused(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    line = ["train", "debug=smoke", "dataset=synthetic", "dataset.image_size=48", "tracking=none"]
    line += [f"paths.data={drawn_root}", "hydra.run.dir=mine"]
    assert cnnexp(*line)[0] == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for given in (line, [*line, "seed=1"]):
        code, _, err = cnnexp(*given)
        assert code == 2 and f"hydra.run.dir={tmp_path}/mine: holds run" in err and "which is finished" in err
    (tmp_path / "mine" / "result.json").rename(tmp_path / "aside")
    code, _, err = cnnexp(*line, "seed=1")
    assert code == 2 and "of another config, which is not finished" in err
    (tmp_path / "aside").rename(tmp_path / "mine" / "result.json")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.trains
@pytest.mark.usefixtures("no_training")
def test_a_job_that_another_process_trains_is_waited_for_and_taken(
    cnnexp: Run, drawn_root: Path, tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a kill of the command whose job goes on: it ends between the look at the job and the lock."""
    line = ["train", "-m", "debug=smoke", "dataset=synthetic", "dataset.image_size=48", "tracking.log_model=false"]
    line += [f"paths.data={drawn_root}", "seed=0"]
    assert cnnexp(*line)[0] == 0
    (folder,) = (tmp_path / "outputs" / "runs").glob("*/0")
    (folder / "result.json").rename(tmp_path / "result.json")  # of what is still being trained
    other = start(
        """
        import os
        from pathlib import Path
        from cnnexp.runs.folder import RunFolder
        folder, result = map(Path, sys.argv[1:])
        with RunFolder(folder).lock():
            print("holds", flush=True)
            sys.stdin.readline()
            os.rename(result, folder / "result.json")
        """,
        folder,
        tmp_path / "result.json",
        stdin=subprocess.PIPE,
    )
    assert line_of(other) == "holds"
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        other.communicate("go on\n")

    monkeypatch.setattr("cnnexp.files.say", say)
    code, out, err = cnnexp(*line)
    assert (code, err) == (0, ""), err
    assert said == [f"[0] another process ({other.pid}) is at work on it, in {folder}; waits for its end"]
    assert "[0] is done already" in out


def test_who_holds_a_folder_is_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with folder.lock():
        assert folder.holder == f"another process ({os.getpid()})"
        with pytest.raises(UserError, match=rf"another process \({os.getpid()}\)"), folder.lock():
            pass
        assert (tmp_path / "run.lock").read_text() == str(os.getpid())  # who was refused wrote nothing
    assert folder.holder == "another process"
