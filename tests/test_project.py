"""The project's own rules: what is imported when, pins, what files may name. `make lint` has those of imports."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
LOCKED_EXTRAS = ("bundled-weights", "heif", "joblib", "optuna", "postgresql", "slurm")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def tracked_texts() -> dict[str, str]:
    """The text files that git has or would take, by their name from the root."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    texts = {}
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        try:
            texts[name] = path.read_text(encoding="utf-8")
        except (FileNotFoundError, UnicodeDecodeError):  # removed but not committed; a picture
            continue
    return texts


def pins() -> dict[str, Version]:
    """The versions of requirements.lock by canonical package name."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    requirements = [Requirement(line) for line in lines if not line.startswith("#")]
    return {canonicalize_name(r.name): Version(str(r.specifier).removeprefix("==")) for r in requirements}


def test_modules_that_answer_at_once_import_nothing_heavy():
    """The modules behind `cnnexp --help` and the config checks: TensorFlow takes 10 to 60 s to import."""
    program = (
        "import sys\n"
        "import cnnexp, cnnexp.cli, cnnexp.config.composition, cnnexp.config, cnnexp.console, cnnexp.errors\n"
        "heavy = {'tensorflow', 'keras', 'mlflow', 'cv2', 'matplotlib', 'sklearn', 'scipy', 'pandas'}\n"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


def test_no_file_names_a_package_index():
    index = re.compile(r"(?i)https?://[^\s/]*(pypi|pythonhosted|simple)|index-url|find-links|trusted-host")
    found = {
        f"{name}: {match.group()}"
        for name, text in tracked_texts().items()
        if name != "tests/test_project.py"
        for match in index.finditer(text)
    }
    assert found == set()


def test_no_file_names_a_folder_of_one_machine():
    folder = re.compile(r"(?<![\w.}\])$*/-])/(?:work|root|tmp|opt|mnt|Users)/[\w.]+")
    found = {f"{name}: {match.group()}" for name, text in tracked_texts().items() for match in folder.finditer(text)}
    assert found == set()


def test_lock_pins_versions_and_says_nothing_else():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pinned = [line for line in lines if not line.startswith("#")]
    assert len(pinned) > 100
    assert [line for line in pinned if not re.fullmatch(r"[a-z0-9-]+==[A-Za-z0-9.+!]+(; .+)?", line)] == []
    assert pinned == sorted(pinned)


def test_lock_satisfies_pyproject():
    extras = PROJECT["optional-dependencies"]
    wanted = [
        *PROJECT["dependencies"],
        *extras["dev"],
        *(line for name in LOCKED_EXTRAS for line in extras[name]),
    ]
    pinned = pins()
    for requirement in map(Requirement, wanted):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not in requirements.lock: make lock"
        assert requirement.specifier.contains(version), f"{requirement}: requirements.lock has {version}"


def test_pyproject_names_what_the_package_imports():
    imported = set()
    for path in ROOT.glob("cnnexp/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    packages = {
        "PIL": "pillow",
        "cv2": "opencv-python",
        "hydra": "hydra-core",
        "sklearn": "scikit-learn",
        "yaml": "pyyaml",
    }
    extras = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *extras["bundled-weights"], *extras["heif"], *extras["optuna"]]
    declared = {canonicalize_name(Requirement(line).name) for line in lines}
    foreign = imported - sys.stdlib_module_names - {"cnnexp"}
    needed = {packages.get(name, canonicalize_name(name)) for name in foreign}
    assert needed - declared == set()


def test_every_yaml_file_parses():
    files = sorted(ROOT.glob("conf/**/*.yaml"))
    assert len(files) > 30
    for path in files:
        OmegaConf.load(path)


def test_the_picture_of_the_imports_is_that_of_the_code():
    """In the guide, Mermaid: `a --> b & c`; what all may import is not drawn."""
    import grimp

    drawn = set()
    for line in (ROOT / "cnnexp" / "guide" / "contributing.md").read_text().splitlines():
        if match := re.fullmatch(r" +(\w+) --> ([\w& ]+)", line):
            drawn |= {(match[1], target) for target in match[2].split(" & ")}
    graph, real = grimp.build_graph("cnnexp"), set()
    for module in graph.modules:
        for target in graph.find_modules_directly_imported_by(module):
            ends = [name.split(".")[1] for name in (module, target) if "." in name]
            if len(set(ends)) == 2 and not {"console", "errors"} & set(ends):
                real.add(tuple(ends))
    assert drawn == real
