"""No secret of an address or of the environment in any file or line."""

import random
import shlex
from pathlib import Path

import pytest
import yaml
from campaign.lines import broken, mutated

from cnnexp.cli import main
from cnnexp.config.composition import compose_config
from cnnexp.config.hydra_driver import hydra_context, redacted_yaml
from cnnexp.console import redact, visible
from cnnexp.errors import UserError
from cnnexp.runs.job import recorded_values
from cnnexp.runs.recorded_config import _check_secrets, restore_config
from cnnexp.runs.recorded_line import shell_line
from cnnexp.tracking.record import config_hash

ADDRESSES = {
    "http://me:PASSWORD@h:80/x.zip?token=TOKEN&sig=SIG": "http://me:***@h:80/x.zip?token=***&sig=***",
    "https://h/x.zip?PASSWORD": "https://h/x.zip?***",
    "postgresql://me:PASS/W:O@RD@h/db": "postgresql://me:***@h/db",
    "seed=1 a='ftp://me:PASSWORD@h/x?k=v' b=2": "seed=1 a='ftp://me:***@h/x?k=***' b=2",
    "http://h:80/x": "http://h:80/x",
    "photos/what?.jpg": "photos/what?.jpg",
}


@pytest.mark.parametrize("text", ADDRESSES)
def test_every_value_of_a_query_and_every_password_goes(text):
    assert redact(text) == visible(text) == ADDRESSES[text]
    assert redact(redact(text)) == redact(text)


def test_what_the_environment_gave_is_marked_wherever_it_leads(monkeypatch):
    monkeypatch.setenv("MYPW", "VALUE")
    monkeypatch.setenv("MYSEED", "7")
    line = ["+tracking.tags.note=${oc.env:MYPW}", "tracking.experiment=${tracking.tags.note}", "seed=${oc.env:MYSEED}"]
    with hydra_context():
        composed = compose_config([*line, "tracking.uri='http://me:PASSWORD@h'"])
    recorded = recorded_values(composed)
    assert recorded["tracking"]["tags"]["note"] == recorded["tracking"]["experiment"] == "***"
    assert recorded["seed"] == 7  # a number is no secret, and a run is repeated by it
    assert recorded["tracking"]["uri"] == "http://me:***@h"
    written = redacted_yaml(composed)  # as Hydra's files are
    assert "${oc.env:MYPW}" in written and "VALUE" not in written and "PASSWORD" not in written


def test_a_secret_is_asked_for_by_its_key():
    with hydra_context():
        composed = compose_config(["dataset=folder", "dataset.path='http://h/x.zip?token=***'"])
    with pytest.raises(UserError, match=r"token=\*\*\*: .*give it again: dataset.path=VALUE"):
        _check_secrets("abc", composed)


def test_data_whose_address_was_not_recorded_whole_is_asked_for_by_its_key():
    with hydra_context():
        composed = compose_config(["dataset=folder", "dataset.path='http://h/x.zip?token=TOKEN'"])
    values = yaml.safe_load(redacted_yaml(composed))
    with pytest.raises(
        UserError, match=r"^dataset.path=http://h/x.zip\?token=\*\*\*: .*give it again: dataset.path=VALUE"
    ):
        restore_config("abc", values, [])
    given = restore_config("abc", values, ["dataset.path='http://h/x.zip?token=TOKEN'"])
    assert given.dataset.path == "http://h/x.zip?token=TOKEN"


@pytest.mark.parametrize(
    "line",
    [
        ["train", "tracking.uri='http://me:***@h'"],
        ["train", "-m", "seed=0,1", "dataset=folder", "dataset.path='http://h/x.zip?token=***'"],
        ["reproduce", "latest", "tracking.uri='http://me:***@h'"],
    ],
)
def test_a_recorded_line_is_not_taken_without_its_secrets(cnnexp, tmp_path, line):
    code, _, err = cnnexp(*line)
    assert code == 2 and err.count("\n") == 1, err
    assert "*** stands where there was a password or a key; write it there" in err
    assert list(tmp_path.iterdir()) == []


def test_a_line_to_type_has_no_password(capsys):
    typed = shell_line(["seed=1", "tracking.uri='http://me:PASSWORD@h'"])
    assert shlex.split(typed)[2:] == ["seed=1", "tracking.uri='http://me:***@h'"]
    assert "write it there" in capsys.readouterr().err


def test_a_run_is_found_again_without_its_secrets():
    def hashed(path):
        return config_hash({"dataset": {"path": path}})

    assert hashed("http://h/x?k=SECRET") == hashed("http://h/x?k=***") != hashed("http://h/y?k=***")


@pytest.mark.parametrize(
    "line",
    [
        ["tracking.urii='postgresql://me:PASSWORD@h/x?k=TOKEN'"],
        ["dataset.path='http://me:PASSWORD@h?k=TOKEN'", "--cfg", "job"],
    ],
)
def test_no_line_shows_one(cnnexp, line):
    _, out, err = cnnexp("train", *line)
    assert "PASSWORD" not in out + err and "TOKEN" not in out + err and "***" in out + err


LIBRARIES = {
    MemoryError("Unable to allocate 745. GiB"): "there is not memory enough (Unable to allocate 745. GiB); lower",
    FileNotFoundError(2, "No such file", "a.txt"): "a.txt: No such file",
    ModuleNotFoundError("No module named 'boto3'", name="boto3"): "pip install boto3",
    KeyError("x"): "this is a mistake of cnnexp",
}


@pytest.mark.parametrize("error", LIBRARIES, ids=lambda error: type(error).__name__)
def test_what_a_library_raises_is_one_line_and_its_trace_a_file(capfd, monkeypatch, error):
    """Not by the fixture `cnnexp`, in whose tests there is no trace."""

    def raising(arguments):
        raise error

    monkeypatch.setattr("cnnexp.commands.plan.run", raising)
    monkeypatch.setattr("sys.argv", ["cnnexp"])
    code, err = main(["plan"]), capfd.readouterr().err
    assert code == 1 and err.count("\n") == 1 and LIBRARIES[error] in err
    trace = Path(err.strip().rpartition(" ")[2])
    assert "Traceback" in trace.read_text()
    trace.unlink()


@pytest.mark.parametrize(
    "line", [["--cfg", "job", "--package", "nosuch"], ["--cfg", "job", "a=!!x"], ["name="], ["-m", "seed=glob(*)"]]
)
def test_what_hydra_refuses_is_one_line(cnnexp, line):
    code, out, err = cnnexp("train", *line)
    assert code == 2 and err.count("\n") == 1 and "Traceback" not in out + err


def test_a_network_has_a_name_that_tensorflow_takes():
    from cnnexp.runs.build import network_name

    assert network_name("baseline") == "baseline"
    assert network_name("my cats") == "my_cats"
    assert network_name("_ä") == "network__"


def test_random_lines_end_with_a_code_and_a_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chance = random.Random(1)
    tried = [mutated(chance) for _ in range(40)]
    assert [(words, said) for words in tried if (said := broken(words))] == []
