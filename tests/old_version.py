"""Made `data/old_version.tar.xz`: what an earlier version of cnnexp left, with which `test_old_version.py` goes on.

    git worktree add OLD db9a2c8
    mkdir MADE && cd MADE
    PYTHONPATH=OLD python REPOSITORY/tests/old_version.py OLD REPOSITORY/tests/data/old_version.tar.xz

OLD, MADE and REPOSITORY are absolute paths; Python is that of an environment with OLD/requirements.lock. All data are
scikit-learn's digits. In the archive MADE is called `/old/place`, and whoever ran it `user`; pictures are left out.
"""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tarfile
from contextlib import closing
from pathlib import Path

PLACE, USER = "/old/place", "user"
LINE = [
    "experiment=baseline", "dataset=digits", "dataset.image_size=16", "dataset.limit=24", "backbone.filters=[4]",
    "head.units=8", "head.dropout=0.3", "trainer.batch_size=8", "trainer.steps_per_epoch=null", "trainer.epochs=3",
    "optimizer.learning_rate=0.01", "tracking.explain=false",
]  # fmt: skip
KEPT = [*LINE, "trainer.epochs=4", "tracking.log_model=false"]  # the model of one run is enough
LINES = {
    "finished": [*LINE, "name=finished", "seed=1"],
    "sweep": ["-m", *KEPT, "name=job", "seed=2,3"],
    "killed": [*KEPT, "name=killed", "seed=4"],
    "unbroken": [*KEPT, "name=killed", "seed=4"],
    "killed_sweep": ["-m", *KEPT, "name=job", "seed=5,6"],
}
KILLS = {
    "killed": "checkpoint:3",  # before the third is written: the second is there, and figures of a third epoch
    "killed_sweep": "checkpoint:6",  # job 0 writes four, job 1 one before it is killed
}


def run(kill_script: Path, name: str) -> None:
    """Run a line with the old version, and let a prepared kill come true."""
    kill = KILLS.get(name, "")
    command = [sys.executable, str(kill_script), "--child", kill, *LINES[name]]
    done = subprocess.run(command, env={**os.environ, "TF_ENABLE_ONEDNN_OPTS": "1"})  # as the command line sets it
    assert done.returncode == (-signal.SIGKILL if kill else 0), done


def clean_store(file: Path, words: dict[str, str]) -> None:
    """Replace private words in every text of the store, and let go of what was deleted."""
    with closing(sqlite3.connect(file, isolation_level=None)) as store:
        store.execute("PRAGMA journal_mode=DELETE")
        for (table,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for _, column, kind, *_ in store.execute(f"PRAGMA table_info({table})").fetchall():
                if "CHAR" in kind.upper() or "TEXT" in kind.upper():
                    for private, word in words.items():
                        store.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (private, word))
        store.execute("UPDATE runs SET user_id = ?", (USER,))
        store.execute("UPDATE tags SET value = ? WHERE key = 'mlflow.user'", (USER,))
        store.execute("VACUUM")


def pack(outputs: Path, archive: Path, words: dict[str, str]) -> None:
    """Leave out what is made anew or not looked at, replace private words, pack the rest."""
    shutil.rmtree(outputs / "cache", ignore_errors=True)
    for file in [*outputs.rglob("*.png"), *outputs.rglob("mistakes.zip"), *outputs.rglob("*.html")]:
        file.unlink()
    clean_store(outputs / "mlflow.db", words)
    for file in (file for file in outputs.rglob("*") if file.is_file()):
        content = file.read_bytes()
        if file.suffix not in (".db", ".npz", ".keras"):
            for private, word in words.items():
                content = content.replace(private.encode(), word.encode())
            file.write_bytes(content)
        assert not any(private.encode() in content for private in words), file

    def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = ""
        return member

    with tarfile.open(archive, "w:xz", preset=9) as packed:
        packed.add(outputs, "outputs", filter=anonymous)


def main(old: Path, archive: Path) -> None:
    """Make the runs, and pack them."""
    for name in LINES:
        run(old / "tests" / "campaign" / "kill.py", name)
    here = {str(Path.cwd()): PLACE, str(old): "/old/checkout", sys.prefix: "/old/python"}
    pack(Path("outputs"), archive, {**here, socket.gethostname(): "host", f"{Path.home()}/": "/home/user/"})


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
