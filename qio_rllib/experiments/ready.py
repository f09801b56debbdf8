"""Experiment files by path or by name: those in ``tune_configs/`` are part of the package and go by their names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

from qio_envs.api import ConfigError
from qio_rllib.registration import ALGORITHM_NAMES

_SUFFIXES = (".yaml", ".yml")
_MOST_NAMED = 3


def ready_experiments() -> dict[str, Path]:
    """Return the files of the ready experiments by name, such as ``forest_uav_ppo``.

    They lie in the installed package, and in a clone beside it.
    """
    package = Path(__file__).parents[1]
    installed = package / "tune_configs"
    folder = installed if installed.is_dir() else package.parent / "tune_configs"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def subject(path: Path) -> str:
    """Return what the comment at the head of an experiment file begins with, to its first full stop or colon.

    A file without such a comment has an empty one.
    """
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    text = " ".join(lines)
    return re.split(r"\.(?: (?=[A-Z])|$)|: ", text, maxsplit=1)[0]


def experiment_file(given: str | Path) -> Path:
    """Return the file of an experiment.

    Args:
        given: Path of a file, or else the name of a ready experiment.

    Raises:
        ConfigError: There is neither; the message names what is like it.
    """
    path = Path(given)
    if path.is_file():
        return path
    if path.is_dir():
        of_run = path / "config.yaml"
        hint = f"; the experiment of this run is {of_run}" if of_run.is_file() else ""
        raise ConfigError(f"{given}: a directory, expected an experiment file{hint}")
    ready = ready_experiments()
    is_path = path.suffix in _SUFFIXES or path.parent != Path()
    if not is_path:
        if str(given) in ready:
            return ready[str(given)]
        algorithm = next((name for name in ALGORITHM_NAMES if name.lower() == str(given).lower()), None)
        if algorithm is not None:
            raise ConfigError(
                f"{given}: an algorithm, no experiment; take --run {algorithm} --env ENVIRONMENT "
                "--stop training_iteration=10, or a ready experiment (rllib list)"
            )
    what = "No such file" if is_path else "No such file or ready experiment"
    near = _near(path, ready)
    hint = f" (did you mean {' or '.join(near)}?)" if near else "; 'rllib list' names the ready experiments"
    raise ConfigError(f"{given}: {what}{hint}")


def _near(path: Path, ready: Iterable[str]) -> list[str]:
    """Return YAML files of a path's folder and ready experiments whose names are like that of the path, in quotes."""
    candidates = [(name, name) for name in ready]
    if path.parent.is_dir():
        found = sorted(one for one in path.parent.iterdir() if one.suffix in _SUFFIXES)
        candidates = [(one.stem, str(one)) for one in found] + candidates
    stems = difflib.get_close_matches(path.stem, dict(candidates), _MOST_NAMED, 0.7)
    return [f"'{shown}'" for stem in stems for name, shown in candidates if name == stem][:_MOST_NAMED]
