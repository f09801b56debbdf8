"""The pages under docs/ say what the code says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_environment_page_is_up_to_date():
    sys.path.insert(0, str(ROOT / "docs"))
    from generate import page

    assert (ROOT / "docs" / "environments.md").read_text(encoding="utf-8") == page(), (
        "run: python docs/generate.py"
    )


@pytest.mark.ray
def test_the_blocks_of_the_quantum_page_run(tmp_path):
    page = (ROOT / "docs" / "quantum.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 3
    found = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert found.returncode == 0, found.stderr[-2000:]
    assert "RX(2*w0)" in found.stdout
