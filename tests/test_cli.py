"""The command line: one line and exit code 2 for a mistake, Hydra's own flags, tab completion."""

import argparse
import contextlib
import logging
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from cnnexp import __version__
from cnnexp.cli import COMMANDS
from cnnexp.commands import train
from cnnexp.commands.arguments import CommandParser
from cnnexp.config import validated
from cnnexp.console import visible
from cnnexp.errors import UserError
from cnnexp.runs import sweep

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Hydra sets up the root logger, and `--info` makes it say everything."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What Hydra would run, in place of running it."""
    ran: list[object] = []

    def train_task(composed: object) -> float:
        ran.append(validated(composed))  # type: ignore[arg-type]
        return 0.0

    opened = SimpleNamespace(failed=False, train=train_task, tracker=SimpleNamespace(lost=""))
    monkeypatch.setattr(train, "train_single", train_task)
    monkeypatch.setattr(sweep, "train_in_sweep", train_task)
    monkeypatch.setattr(sweep, "_opened", lambda *_: contextlib.nullcontext(opened))
    monkeypatch.setattr(sweep, "_finish", lambda _: None)
    return ran


# ------------------------------------------------------------------------------------------------- mistakes

LONG = "x" * 5000

# each class of mistake: the line, and what the message has to say, in this order
MISTAKES = [
    (["train", "trainer.epoch=3"], ["trainer.epoch=3", "no such key", "trainer.epochs", "trainer.batch_size"]),
    (["train", "bakcbone=vgg16"], ["bakcbone=vgg16", "no such key", "backbone"]),
    (["train", "+trainer.warmup=1"], ["trainer.warmup=1", "no such key", "allowed", "trainer.epochs"]),
    (["train", "backbone=vgg17"], ["backbone=vgg17", "no such option", "vgg16", "vgg19", "resnet50"]),
    (["train", "experiment=finetune"], ["experiment=finetune", "no such option", "finetuned", "frozen"]),
    (["train", "experiment=null"], ["experiment=null", "no such option", "~experiment"]),
    (["train", "trainer.epochs=two"], ["trainer.epochs=two", "Integer"]),
    (["train", "seed=-1"], ["seed=-1", "at least 0 and at most 2147483647"]),
    (["train", "head.dropout=1"], ["head.dropout=1.0", "less than 1"]),
    (["train", "optimizer.learning_rate=nan"], ["optimizer.learning_rate=nan", "more than 0"]),
    (["train", "backbone.preprocessing=cafe"], ["backbone.preprocessing=cafe", "caffe", "rescale", "torch"]),
    (["train", "backbone=vgg16", "backbone.weights=lost.h5"], ["backbone.weights=lost.h5", "no such file", "imagenet"]),
    (["train", "freeze_policy=until_layer"], ["freeze_policy.first_trainable_layer=null", "needs the name"]),
    (["train", "dataset=custom"], ["dataset._target_", "no value given"]),
    (["train", "seed=${sed}"], ["seed", "Interpolation key 'sed' not found"]),
    (["train", "seed=0,1"], ["seed=0,1", "add -m"]),
    (["train", "-m", "seed=0,-1"], ["seed=-1", "at least 0"]),  # in the second job, before the first runs
    (["train", "trainer.epochs"], ["trainer.epochs", "not an override", "KEY=VALUE"]),
    (["train", "trainer.epochs={"], ["trainer.epochs={", "not an override"]),
    (["train", "--multirn", "seed=0,1"], ["--multirn", "no such flag", "--multirun", "--hydra-help"]),
    (["train", "--cfg", "jobs"], ["--cfg", "'jobs'", "'job'", "--hydra-help"]),
    (["train", "--config-dir"], ["--config-dir", "expected one argument"]),
    (["train", "--config-dir=lost"], ["--config-dir=lost", "no such folder"]),
    (["train", "--config-name=lost"], ["'lost'", "config search path"]),
    (["train", "--config-path=conf"], ["--config-path", "--config-dir=FOLDER"]),
    (["train", "-m", "--cfg", "job"], ["--multirun --cfg", "exclude each other"]),
    (["train", "--resolve"], ["--resolve", "add --cfg job"]),
    (["train", "--package=trainer"], ["--package", "add --cfg job"]),
    (["train", "--shell-completion"], ["--shell-completion", "install=bash"]),
    (["--shell-completion", "install=tcsh"], ["install=tcsh", "install=bash", "install=zsh", "install=fish"]),
    (["trian"], ["trian", "no such command", "train", "compare"]),
    (["--verbose"], ["--verbose", "no such command"]),
    (["summary", "--deep"], ["--deep", "no such option"]),
    (["summary", "backbone=vgg17"], ["backbone=vgg17", "no such option", "vgg16"]),
    (["prepare"], ["name one data set"]),
    (["prepare", "photos"], ["dataset=photos", "no such option", "dogs_vs_cats"]),
    (["compare", "--sweep"], ["--sweep", "needs a value"]),
    (["tra\nin"], ["tra\\nin", "no such command"]),
    (["train", "dataset=a\nb"], ["dataset=a\\nb", "not an override"]),
    (["train", "seed=a\rb"], ["seed=a\\rb"]),
    (["doctor", "a\nb"], ["a\\nb", "takes only --check"]),
    (["predict", "latest", "a\x1b[31m.jpg", "--\x1b]0;X\x07"], ["--\\x1b]0;X\\x07", "no such option"]),
    (["train", "paths.root=\udcff\udcfe"], ["paths.root=\\xff\\xfe", "is no UTF-8"]),
    (["summary", "dataset.path=caf\udce9"], ["dataset.path=caf\\xe9", "is no UTF-8"]),
    (["prepare", "folder", "dataset.path='~nouser/x'"], ["dataset.path=~nouser/x", "~nouser is no user's home"]),
    (["summary", "backbone.weights='~nouser/x'"], ["backbone.weights=~nouser/x", "~nouser is no user's home"]),
    (["prepare", "folder", "dataset.path='http://[::1'"], ["dataset.path", "is no address", "http://HOST/FILE"]),
    (["prepare", "dogs_vs_cats", "dataset.source='http://u:p@h:x/'"], ["dataset.source", "is no address"]),
    (["prepare", "folder", f"dataset.path={LONG}"], ["dataset.path=xxx", "... (5,000 letters)", "is too long"]),
    (["train", f"paths.root={LONG}"], ["paths.root=xxx", "is too long"]),
    (["train", f"paths.cache={'x/' * 2000}y"], ["paths.cache=x/x", "is too long", "3,000"]),
    (["plan", "+paths.weights.vgg16='~nouser/x'"], ["paths.weights.vgg16=~nouser/x", "~nouser is no user's home"]),
    (["train", "--config-dir", LONG], ["--config-dir=xxx", "is too long"]),
]


@pytest.mark.parametrize(("line", "said"), MISTAKES, ids=[visible(" ".join(line))[:80] for line, _ in MISTAKES])
def test_a_mistake_is_one_line_and_exit_code_2(
    cnnexp: Run, jobs: list[object], tmp_path: Path, line: list[str], said: list[str]
) -> None:
    code, out, err = cnnexp(*line)
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    assert err.startswith("cnnexp: ") and err.endswith("\n") and err.count("\n") == 1
    positions = [err.find(text) for text in said]
    assert -1 not in positions, err
    assert positions == sorted(positions), err
    assert jobs == []
    assert list(tmp_path.iterdir()) == []


def test_mistakes_show_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    """Some of every kind, in one new process."""
    program = (
        "import sys\n"
        "from cnnexp.cli import main\n"
        f"codes = [main(line) for line in {[line for line, _ in MISTAKES[::4]]!r}]\n"
        "heavy = {'tensorflow', 'keras', 'mlflow', 'matplotlib', 'cv2', 'sklearn'}\n"
        "print(set(codes), sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "{2} []\n", done.stderr
    assert "Traceback" not in done.stderr


# --------------------------------------------------------------------------------------- help and version


@pytest.mark.parametrize("line", [["--help"], ["-h"], []])
def test_help_lists_the_commands(cnnexp: Run, line: list[str]) -> None:
    code, out, err = cnnexp(*line)
    assert (code, err) == (0, "")
    assert out.startswith(f"cnnexp {__version__}: ")
    for command, text in COMMANDS.items():
        assert f"  {command:<9} {text}\n" in out


def test_version(cnnexp: Run) -> None:
    assert cnnexp("--version") == (0, f"cnnexp {__version__}\n", "")


def test_an_interrupt_is_said_in_one_line(cnnexp: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "run", interrupted)
    assert cnnexp("train") == (130, "", "cnnexp: interrupted\n")


def test_a_reader_that_has_gone_is_no_error() -> None:
    """As `cnnexp --help | head -1` with a head that is quicker than we are."""
    program = (
        "import os, sys\n"
        "reader, writer = os.pipe()\n"
        "os.dup2(writer, 1)\n"
        "os.close(reader)\n"
        "from cnnexp.cli import main\n"
        "sys.stdout.reconfigure(line_buffering=True)\n"
        "sys.exit(main(['--help']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# ------------------------------------------------------------------------------------------ Hydra's own flags


def test_cfg_shows_the_job(cnnexp: Run, jobs: list[object], tmp_path: Path) -> None:
    code, out, err = cnnexp("train", "--cfg", "job", "experiment=baseline", "trainer.epochs=7")
    assert (code, err) == (0, "")
    shown = yaml.safe_load(out)
    assert (shown["name"], shown["trainer"]["epochs"], shown["head"]["units"]) == ("baseline", 7, 512)
    assert shown["paths"]["data"] == "${paths.root}/data"
    assert "hydra" not in shown
    code, out, _ = cnnexp("train", "experiment=baseline", "--cfg", "job", "--resolve", "-p", "paths")
    assert yaml.safe_load(out)["data"] == "outputs/data"
    assert jobs == []
    assert list(tmp_path.iterdir()) == []


def test_info_shows_the_defaults_list(cnnexp: Run, jobs: list[object]) -> None:
    code, out, _ = cnnexp("train", "--info", "defaults", "experiment=frozen")
    assert code == 0
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in out.splitlines() if row.startswith("|")]
    paths = [row[0] for row in rows]
    assert "backbone/vgg16" in paths and "backbone/small_cnn" not in paths
    assert paths.index("experiment/frozen") > paths.index("config") > paths.index("dataset/dogs_vs_cats")
    assert jobs == []


@pytest.mark.slow
def test_help_of_train_has_experiments_sweeps_and_groups(cnnexp: Run, jobs: list[object], tmp_path: Path) -> None:
    (tmp_path / "mine/experiment").mkdir(parents=True)
    (tmp_path / "mine/experiment/own.yaml").write_text("# @package _global_\n# Mine.\nname: own\n")
    code, out, _ = cnnexp("train", "--help", "--config-dir", "mine")
    assert code == 0
    assert out.startswith("usage: cnnexp train [-m] [OVERRIDES]\n")
    lines = out.splitlines()
    experiments = lines[lines.index("experiment=") + 1 : lines.index("sweep=") - 1]
    names = "augmented baseline best finetuned finetuned_augmented frozen frozen_augmented mnist own"
    assert [line.split()[0] for line in experiments] == names.split()
    assert experiments[1] == "  baseline             A small convnet from scratch."
    assert experiments[-1] == "  own                  Mine."
    assert "  hydra/sweeper  basic optuna" in out and "--hydra-help" in out
    code, out, _ = cnnexp("train", "--hydra-help")
    assert code == 0
    assert "--multirun,-m" in out and "hydra/launcher: basic" in out
    assert jobs == []


def test_hydra_runs_what_the_line_says(cnnexp: Run, jobs: list[object], tmp_path: Path) -> None:
    code, _, err = cnnexp("train", "experiment=mnist", "seed=4")
    assert (code, err) == (0, "")
    assert [(job.name, job.seed) for job in jobs] == [("mnist", 4)]  # type: ignore[attr-defined]
    (folder,) = (tmp_path / "outputs/runs").iterdir()
    assert (folder / ".hydra/overrides.yaml").read_text() == "- experiment=mnist\n- seed=4\n"


def test_a_sweep_runs_its_jobs_in_order(cnnexp: Run, jobs: list[object], tmp_path: Path) -> None:
    code, _, err = cnnexp("train", "name=a", "-m", "seed=1,2")  # a flag may stand between overrides
    assert (code, err) == (0, "")
    assert [(job.name, job.seed) for job in jobs] == [("a", 1), ("a", 2)]  # type: ignore[attr-defined]
    (folder,) = (tmp_path / "outputs/runs").iterdir()
    assert folder.name.endswith("_sweep")
    assert {path.name for path in folder.iterdir()} == {"0", "1", "multirun.yaml"}


def test_a_folder_of_ones_own_experiments(cnnexp: Run, jobs: list[object], tmp_path: Path) -> None:
    (tmp_path / "mine/experiment").mkdir(parents=True)
    (tmp_path / "mine/experiment/own.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /backbone: vgg19\nname: own\ntrainer:\n  epochs: 4\n"
    )
    (tmp_path / "mine/whole.yaml").write_text("defaults:\n  - config\n  - _self_\nname: whole\n")
    code, _, err = cnnexp("train", "--config-dir=mine", "experiment=own", "seed=3")
    assert (code, err) == (0, "")
    code, _, err = cnnexp("train", "--config-dir", "mine", "--config-name", "whole")
    assert (code, err) == (0, "")
    found = [(job.name, job.seed, job.trainer.epochs, job.backbone.name) for job in jobs]  # type: ignore[attr-defined]
    assert found == [("own", 3, 4, "vgg19"), ("whole", 0, 30, "small_cnn")]


MERGES = "z0: &z0 {" + ", ".join(f"k{n}: {n}" for n in range(10)) + "}\n"
MERGES += "".join(f"z{n}: &z{n} {{<<: [{', '.join([f'*z{n - 1}'] * 8)}]}}\n" for n in range(1, 30))


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("cd/experiment/x.yaml", ["--config-dir", "cd", "experiment=x", "--cfg", "job"]),
        ("cd/experiment/x.yaml", ["--config-dir", "cd", "-m", "experiment=x", "seed=0,1"]),
        ("cd/whole.yaml", ["--config-dir", "cd", "--config-name", "whole", "--cfg", "job"]),
        ("cd/experiment/x.yaml", ["hydra.searchpath=[file://cd]", "experiment=x"]),
    ],
)
@pytest.mark.parametrize(
    ("content", "said"),
    [(MERGES, "has more than"), ("a0: &a [x]\n" + MERGES[:0] + "b: &b [*b]", "has more than"), ("a: [", "line 1: ")],
)
def test_a_hostile_file_of_options_is_one_line(
    cnnexp: Run, jobs: list[object], tmp_path: Path, file: str, line: list[str], content: str, said: str
) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(content)
    began = time.monotonic()
    code, _, err = cnnexp("train", *line)
    assert (code, err.count("\n")) == (2, 1), err
    assert f"{tmp_path / file}: {said}" in err and jobs == [] and time.monotonic() - began < 20


def test_merge_keys_in_files_of_ones_own(cnnexp: Run, jobs: list[object], tmp_path: Path) -> None:
    (tmp_path / "mine/experiment").mkdir(parents=True)
    text = "# @package _global_\nname: own\noptimizer: &base {learning_rate: 0.25}\ntrainer: {epochs: 7}\n"
    (tmp_path / "mine/experiment/own.yaml").write_text(text + "tracking:\n  tags:\n    <<: *base\n    a: b\n")
    code, _, err = cnnexp("train", "--config-dir=mine", "experiment=own")
    assert (code, err) == (0, "")
    (job,) = jobs
    assert job.tracking.tags == {"learning_rate": "0.25", "a": "b"}  # type: ignore[attr-defined]


def test_a_file_of_options_that_is_no_text(cnnexp: Run, jobs: list[object], tmp_path: Path) -> None:
    (tmp_path / "mine/experiment").mkdir(parents=True)
    (tmp_path / "mine/experiment/own.yaml").write_bytes(b"# caf\xe9\nname: own\n")
    code, out, err = cnnexp("train", "--config-dir=mine", "--help")
    assert (code, err) == (0, "") and "own" in out


# --------------------------------------------------------------------------------------------- completion


def complete(cnnexp: Run, monkeypatch: pytest.MonkeyPatch, line: str, flag: str = "--shell-completion") -> list[str]:
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    code, out, err = cnnexp(flag, "query=bash")
    assert (code, err) == (0, "")
    return out.split()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("cnnexp", list(COMMANDS)),
        ("cnnexp ", list(COMMANDS)),
        ("cnnexp tr", ["train"]),
        ("cnnexp train data", ["dataset.", "dataset="]),
        ("cnnexp train train", ["trainer.", "trainer="]),
        (
            "cnnexp train sweep=demo trainer.e",
            ["trainer.early_stopping.", "trainer.epoch_metrics.", "trainer.epochs=", "trainer.evaluation_batch_size="],
        ),
        ("cnnexp summary sweep=s", ["sweep=search_augmentation", "sweep=search_finetuning", "sweep=search_head"]),
    ],
)
def test_completion(cnnexp: Run, monkeypatch: pytest.MonkeyPatch, line: str, words: list[str]) -> None:
    assert complete(cnnexp, monkeypatch, line) == words


def test_completion_of_options(cnnexp: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    words = complete(cnnexp, monkeypatch, "cnnexp train dataset=", "-sc")
    assert {"dataset=dogs_vs_cats", "dataset=folder", "dataset=synthetic"} <= set(words)
    assert all(word.startswith("dataset=") for word in words)


@pytest.mark.parametrize("line", [["--shell-completion"], ["-sc"], ["train", "-sc"]])
def test_completion_is_installed_for_cnnexp(cnnexp: Run, line: list[str]) -> None:
    code, out, err = cnnexp(*line, "install=bash")
    assert (code, err) == (0, "")
    assert out.rstrip().endswith("complete -o nospace -o default -F hydra_bash_completion cnnexp")


# ----------------------------------------------------------------------------- arguments of the other commands


def parse(*arguments: str) -> argparse.Namespace:
    parser = CommandParser("compare", "", {"[RUN...]": "", "[OVERRIDES]": ""}, [])
    parser.add_argument("--sweep")
    return parser.parse(arguments)


def test_an_option() -> None:
    for arguments, value, rest in (
        (["a", "--sweep", "x", "b=1"], "x", ["a", "b=1"]),
        (["--sweep=x=y", "a"], "x=y", ["a"]),
        (["--sweep", "x=y", "a"], "x=y", ["a"]),
        (["a"], None, ["a"]),
    ):
        given = parse(*arguments)
        assert (given.sweep, given.words) == (value, rest)
    with pytest.raises(UserError, match="--sweep: needs a value"):
        parse("a", "--sweep")


def test_names_and_overrides() -> None:
    given = parse("run", "a=1", "~b", "+c=2", "other")
    assert (given.names, given.overrides) == (["run", "other"], ["a=1", "~b", "+c=2"])
    with pytest.raises(UserError, match="--json: no such option"):
        parse("run", "--json")
    with pytest.raises(UserError, match="--json=1: no such option"):
        parse("--json=1")
    with pytest.raises(UserError, match=r"--swep: no such option; allowed: --sweep, "):
        parse("--swep", "x", "run")
    with pytest.raises(UserError, match="--swee: no such option"):  # no abbreviation: another option may come
        parse("--swee", "x")


def test_files_whose_names_look_like_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    there = ["=1+1.jpg", "~a.jpg", "a=b.jpg", "+c=d.jpg"]
    for name in there:
        Path(name).touch()
    names = ["./=1+1.jpg", *there, "./x=*.jpg", "'"]
    assert (parse(*names).names, parse(*names).overrides) == (names, [])
    keys = ["seed=1", "a=c.jpg", "~b", "+c=2", "++dataset.arguments.x=1", "hydra/launcher=joblib", "seed=a.jpg"]
    Path("seed=a.jpg").touch()
    assert (parse(*keys).names, parse(*keys).overrides) == ([], keys)
    given = parse("seed=2", "x", "--", "seed=1", "-x.jpg", "--sweep", "~a", "--")
    assert (given.names, given.overrides) == (["x", "seed=1", "-x.jpg", "--sweep", "~a", "--"], ["seed=2"])


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "train"])
def test_the_help_of_a_command_has_two_examples_that_it_takes(cnnexp: Run, command: str) -> None:
    _, out, _ = cnnexp(command, "--help")
    assert out.startswith(f"usage: cnnexp {command} ")
    examples = out.partition("\nexamples:\n")[2].splitlines()
    assert len(examples) == 2
    for example in examples:
        program, name, *arguments = shlex.split(example)
        assert (program, name) == ("cnnexp", command)
        parser = import_module(f"cnnexp.commands.{command}").parser()
        (parser.parse_known_args if command == "ui" else parser.parse)(arguments)  # `ui` hands on what it does not know
