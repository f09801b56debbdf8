"""Every block of the README, and of the pages that show code, runs as it stands, in a fresh directory."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/counterfactuals.md", "docs/frameworks.md", "docs/multi_agent.md")
BLOCKS = [
    (kind, page, code)
    for page in PAGES
    for kind, code in re.findall(
        r"^```(bash|python)\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL
    )
]


def block_name(code: str) -> str:
    lines = [line for line in code.splitlines() if line and not line.startswith(("import", "from", "source"))]
    return lines[0][:40]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with what the README refers to; blocks share it, as a reader's shell does."""
    path = tmp_path_factory.mktemp("reader")
    for name in ("tune_configs", "results"):
        (path / name).symlink_to(ROOT / name)
    activate = path / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.write_text(f"export PATH={Path(sys.executable).parent}:$PATH\n")
    return path


def test_the_pages_have_blocks_of_both_kinds():
    assert {kind for kind, _, _ in BLOCKS} == {"bash", "python"}
    assert len(BLOCKS) >= 9


def test_the_readme_stays_short():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    assert "docs/index.md" in text
    assert "docs/results.md" in text


def run(command: list[str], directory: Path, given: str | None = None) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        command, cwd=directory, env=environment, input=given, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # Lines of Ray's workers bear a prefix: Tune may end one while its objects are deleted, which prints there.
    own = [line for line in done.stderr.splitlines() if " pid=" not in line]
    assert not [line for line in own if "Traceback" in line], done.stderr


@pytest.mark.ray
@pytest.mark.parametrize("code", [code for kind, _, code in BLOCKS if kind == "bash"], ids=block_name)
def test_commands_run(code: str, directory: Path):
    run([shutil.which("bash"), "-euc", code], directory)


IN_ONE_PROCESS = """
import json, sys
for name, code in json.load(sys.stdin):
    exec(compile(code, name, "exec"), {"__name__": "__main__"})
"""


@pytest.mark.ray
def test_python_runs(directory: Path):
    """In one process, which loads Ray and torch once; each block has nothing but what it imports and defines itself."""
    blocks = [(f"{page}, {block_name(code)}", code) for kind, page, code in BLOCKS if kind == "python"]
    run([sys.executable, "-c", IN_ONE_PROCESS], directory, json.dumps(blocks))
