"""Kernels where numba has no place for its cache: a folder for the process, and a line that says so."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import qio_envs

PLAY = """
import logging
logging.basicConfig(level=logging.INFO, format="%(name)s %(message)s")
import qio_envs
env = qio_envs.cart_pole_v0.batched_env(2)
env.reset()
print(qio_envs.__file__, env.observe().shape)
"""


@pytest.fixture
def suite(tmp_path):
    """Return a copy of the suite in whose folders nothing can be cached, whoever the user is."""
    copied = tmp_path / "code" / "qio_envs"
    shutil.copytree(Path(qio_envs.__file__).parent, copied, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in (copied, *(path for path in copied.rglob("*") if path.is_dir())):
        (folder / "__pycache__").write_text("")
    return copied


def play(tmp_path, suite, **variables):
    """Return what a process wrote that plays with the copied suite, and the folder for its temporary files."""
    temporary = tmp_path / "temporary"
    temporary.mkdir(exist_ok=True)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("NUMBA", "XDG"))}
    kept |= {"PYTHONPATH": str(suite.parent), "HOME": os.devnull, "TMPDIR": str(temporary)} | variables
    found = subprocess.run(
        [sys.executable, "-c", PLAY], env=kept, capture_output=True, text=True, cwd=tmp_path
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == [str(suite / "__init__.py"), "(2,", "1,", "4)"]
    return found.stderr, temporary


def test_without_any_place_kernels_are_compiled_for_the_process_and_the_log_says_so(tmp_path, suite):
    blocked = tmp_path / "file"
    blocked.write_text("")
    for variables in ({}, {"NUMBA_CACHE_DIR": str(blocked)}):
        written, temporary = play(tmp_path, suite, **variables)
        (line,) = [line for line in written.splitlines() if "qio_envs.api.kernel_cache" in line]
        assert f"into {temporary}{os.sep}qio-kernels-" in line
        assert "set NUMBA_CACHE_DIR to a folder that stays" in line
        assert not [path for path in temporary.iterdir() if path.name.startswith("qio-kernels-")]


def test_a_named_folder_is_taken_and_one_that_cannot_be_written_to_is_named(tmp_path, suite):
    named = tmp_path / "named"
    written, _ = play(tmp_path, suite, NUMBA_CACHE_DIR=str(named))
    assert "kernel_cache" not in written
    assert list(named.rglob("*.nbi"))
    home, blocked = tmp_path / "home", tmp_path / "file"
    blocked.write_text("")
    written, temporary = play(tmp_path, suite, NUMBA_CACHE_DIR=str(blocked), HOME=str(home))
    assert f"NUMBA_CACHE_DIR: {blocked} cannot be written to, kernels are kept elsewhere" in written
    assert list((home / ".cache").rglob("*.nbi"))
    assert not list(temporary.iterdir())
