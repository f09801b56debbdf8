"""The working directory of attempts."""

import sys

import pytest
from attempts import EVIL


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with a module that must not be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("evil", "mine", "mine.sub"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "evil.py").write_text(EVIL)
    (tmp_path / "mine").mkdir()  # the same, for what the user allows: Tune keeps names that were used
    (tmp_path / "mine" / "__init__.py").write_text(EVIL)
    (tmp_path / "mine" / "sub.py").write_text("from mine import make\n")
    return tmp_path
