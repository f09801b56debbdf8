"""The numbers of an iteration: names, the row of ``progress.csv``, and which of them is the score."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Iterable, Mapping
from typing import Any

ITERATION, STEPS = "training_iteration", "num_env_steps_sampled_lifetime"
TIME, ITERATION_TIME, SPEED = "time_total_s", "time_this_iter_s", "env_steps_per_s"
MODES = ("greedy", "sampled")
"""How actions are chosen in an evaluation: the most probable one, or a draw from the policy."""

_LEADING_COLUMNS = (ITERATION, STEPS, TIME, ITERATION_TIME, SPEED)
_GROUPS = ("env_runners", "evaluation", "learners", "replay", "federation", "self_play")
_MODULE_RETURNS = "env_runners/module_episode_returns_mean/"
# Bookkeeping of RLlib that is of no use in a table of results.
_NOISE = re.compile(
    r"timer|connector|weights_seq_no|throughput|time_between_sampling|_duration_sec_|sample$|"
    r"agent_steps|agent_episode_returns|module_steps|num_trainable|"
    r"num_non_trainable|module_to_env|env_to_module|env_runners/num_env_steps|__all_modules__/num_env|"
    r"diff_num_grad_updates|module_train_batch_size|actor_manager|worker|dropped_lifetime"
)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the numbers of a nested result with keys joined by ``/``; flags and all else are left out."""
    flat: dict[str, float] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}/")
        elif isinstance(value, numbers.Integral) and not isinstance(value, bool):
            flat[name] = int(value)
        elif isinstance(value, numbers.Real) and not isinstance(value, bool):
            flat[name] = float(value)
        elif getattr(value, "shape", None) == () and hasattr(value, "item") and hasattr(value, "dtype"):
            flat |= flatten({name: value.item()})
    return flat


def progress_row(result: Mapping[str, Any], previous_steps: float | None = None) -> dict[str, float]:
    """Return one iteration's row of ``progress.csv`` from RLlib's result.

    Args:
        result: What ``Algorithm.train()`` or Tune reports.
        previous_steps: Environment steps before this iteration, for ``env_steps_per_s``.
    """
    row = {
        key: value
        for key, value in flatten({key: result[key] for key in result if key != "config"}).items()
        if math.isfinite(value)
        and (key in _LEADING_COLUMNS or (key.split("/")[0] in _GROUPS and not _NOISE.search(key)))
    }
    row = {key: int(value) if _is_count(key, value) else value for key, value in row.items()}
    by_module = [key for key in row if key.startswith(_MODULE_RETURNS)]
    if len(by_module) == 1:  # the episode's return once more
        del row[by_module[0]]
    steps, seconds = row.get(STEPS), row.get(ITERATION_TIME)
    if previous_steps is not None and steps is not None and seconds:
        row[SPEED] = (steps - previous_steps) / seconds
    return {key: row[key] for key in sorted(row, key=column_order)}


def score_name(columns: Iterable[str]) -> str | None:
    """Return which metric is the score: the team's return where there is one, else the episode's."""
    present = set(columns)
    return next(
        (name for name in ("team_return", "episode_return_mean", "episode_return") if name in present), None
    )


def score_column(columns: Iterable[str], prefix: str) -> str | None:
    """Return the column below ``prefix`` (such as ``env_runners/``) that holds the score."""
    name = score_name(column.removeprefix(prefix) for column in columns if column.startswith(prefix))
    return None if name is None else prefix + name


def column_order(column: str) -> tuple[int, str]:
    """Return a sort key of columns: counters first, then group by group."""
    if column in _LEADING_COLUMNS:
        return _LEADING_COLUMNS.index(column), ""
    group = column.split("/")[0]
    return len(_LEADING_COLUMNS) + (_GROUPS.index(group) if group in _GROUPS else len(_GROUPS)), column


def _is_count(column: str, value: float) -> bool:
    """Whether a number counts something, which RLlib's sums turn into a float."""
    return column.rpartition("/")[2].startswith("num_") and value == int(value)
