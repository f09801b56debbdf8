"""Every block of a tutorial runs, in order, in a fresh directory and one process for each tutorial."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))


def run(page: Path, directory: Path) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    paths = [str(directory), os.environ.get("PYTHONPATH", "")]  # Ray's workers look there too
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    command = [sys.executable, str(ROOT / "tests" / "run_tutorial.py"), str(page)]
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)


@pytest.mark.ray
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_does_what_it_says(page, tmp_path):
    done = run(page, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    if page.stem == "environment":
        assert done.stdout.count("14 checks: 0 failed, 0 with a warning") == 2
        assert "{'random': 2.45, 'chase': 27.98}" in done.stdout
        assert "(100, 2) (100, 2, 2)" in done.stdout
        (row_file,) = tmp_path.glob("runs/*/*/progress.csv")
        assert (row_file.parent / "best.gif").is_file()
        assert len(row_file.read_text().splitlines()) == 1 + 3
    if page.stem == "algorithm":
        for comment in ("# config.temperature: ", "# config: unknown key 'temprature'", "# circuit: AWR's "):
            (said,) = [line for line in page.read_text().splitlines() if comment in line]
            assert f"\n{said.partition('  # ')[2]}\n" in done.stdout
        assert list(tmp_path.glob("runs/cart-pole-awr/*/policy.pt"))
    returns = [float(word) for word in done.stdout.splitlines()[-1].split()[1:]]
    assert returns[-1] > returns[0]  # by a seed that repeats bit for bit


def test_a_tutorial_with_a_failing_command_fails(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```bash\npython -m qio_envs.testing no_such_environment\n```\n")
    done = run(page, tmp_path)
    assert done.returncode != 0
    assert "neither one of" in done.stderr
