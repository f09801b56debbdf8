"""The blocks of docs/games.md run, and print what stands below them."""

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "games.md"


def test_the_blocks_of_the_games_page_print_what_they_say(tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    code = "\n".join(blocks)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    said = [line[2:] for line in code.splitlines() if re.match(r"# [\[\d]|# (latest|average): ", line)]
    assert len(said) == len(done.stdout.splitlines()) == 13
    assert done.stdout.splitlines() == said
