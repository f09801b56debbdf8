"""What is given to users: the sdist and the wheel that is built from it, and the wheel installed in an empty folder."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("qio_envs", "qio_rllib")
READY = {path.name for path in (ROOT / "tune_configs").glob("*.yaml")}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a copy, so that nothing that an earlier build has left can get in; return the folder of both files."""
    source = tmp_path_factory.mktemp("clone") / "source"
    left_out = shutil.ignore_patterns(
        ".*", "results", "runs", "tests", "benchmarks", "build", "dist", "*.egg-info", "__pycache__"
    )
    shutil.copytree(ROOT, source, ignore=left_out)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", "."]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return source / "dist"


def files_of(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_the_wheel_holds_both_packages_their_data_and_the_ready_experiments(built):
    (wheel,) = built.glob("*.whl")
    expected = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.suffix in (".py", ".yaml", ".pt") or path.name == "py.typed"
    }
    assert {f"{package}/py.typed" for package in PACKAGES} <= expected
    assert len(READY) > 40
    assert files_of(wheel) == expected | {f"qio_rllib/tune_configs/{name}" for name in READY}


def test_the_metadata_name_the_distribution_its_command_and_its_extras(built):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (folder,) = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        found = Parser().parsestr(archive.read(f"{folder}/METADATA").decode())
        commands = archive.read(f"{folder}/entry_points.txt").decode()
    assert found["Name"] == "qio-marl"
    assert f"\nversion: {found['Version']}\n" in (ROOT / "CITATION.cff").read_text()
    assert {"rllib", "plots", "human", "pennylane"} <= set(found.get_all("Provides-Extra"))
    assert not [
        line
        for line in found.get_all("Requires-Dist")
        if line.startswith(("ray", "torch")) and "extra" not in line
    ]
    assert "rllib = qio_rllib.cli:console_script" in commands
    assert found["License"] == "MIT"


def test_the_sdist_holds_what_its_readme_refers_to(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= {f"tune_configs/{name}" for name in READY}
    assert names >= {"setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "constraints.txt"}
    assert names >= {"CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "docs/index.md", "docs/settings.md"}


@pytest.mark.long
def test_the_wheel_works_in_an_empty_folder(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    installed, here = tmp_path / "installed", tmp_path / "here"
    here.mkdir()
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    subprocess.run([*install, str(installed), str(wheel)], check=True)
    environment = {**os.environ, "PYTHONPATH": str(installed)}

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    code = "import qio_envs, qio_rllib; print(qio_envs.__file__, qio_rllib.__file__, qio_envs.__version__)"
    *places, version = run(sys.executable, "-c", code).split()
    assert all(Path(place).is_relative_to(installed) for place in places)
    rllib = str(installed / "bin" / "rllib")
    assert run(rllib, "--version").startswith(f"qio-marl {version}: QIO's rllib command, for Ray ")
    listed = run(rllib, "list")
    assert all(name.removesuffix(".yaml") in listed for name in READY)
    assert run(rllib, "train", "forest_uav_ppo", "--dry-run").startswith("forest-uav-ppo:\n  run: PPO\n")
    assert list(here.iterdir()) == []
