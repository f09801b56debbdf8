"""The pages under docs/ say what the code says."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_environment_page_is_up_to_date():
    sys.path.insert(0, str(ROOT / "docs"))
    from generate import page

    assert (ROOT / "docs" / "environments.md").read_text(encoding="utf-8") == page(), (
        "run: python docs/generate.py"
    )
