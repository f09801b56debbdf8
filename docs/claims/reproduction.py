"""The reproduction ledger: what `make reproduce` trained, beside the figures of the literature."""

from __future__ import annotations

from ledger import Entry, Task, load_ledger
from tables import read

from claims import figures as f
from claims.claim import Section
from qio_envs.api import normalized_score
from qio_rllib.evaluation.aggregate import Summary

FOLDER = "reproduction"
NONE = "none"
COLUMNS = (
    "algorithm",
    "environment steps",
    "score",
    "normalised",
    "published",
    "steps, ours / published",
    "seconds a seed",
    "CPU",
    "command",
    "raw",
)


def reproductions() -> tuple[Section, ...]:
    """Return a section for each task of the ledger of which there are runs."""
    return tuple(section(name, task) for name, task in load_ledger().items() if _entries_run(name, task))


def section(name: str, task: Task) -> Section:
    """Return the section of a task.

    Args:
        name: Of the task, and of its folder.
        task: At least one of its entries has runs.
    """
    score = "share of battles won" if task.metric == "won" else "team return"
    actions = "the most probable actions, or without noise" if task.mode == "greedy" else "sampled actions"
    text = (
        f"Score: {score} on {task.episodes} fixed episodes, with {actions}, at the end of the training. On the same "
        f"episodes: {_scripted(name, task)}. Normalised: random play is 0, {task.best} 1. Published figures: "
        f"{task.source}. Seconds are those of a training beside others on the machine; no published training time was "
        "found to set beside them."
    )
    return Section(f"Reproduction: {task.title}", text, (), table=lambda: table(name, task))


def table(name: str, task: Task) -> list[tuple[str, ...]]:
    """Return the columns and a row for each entry of a task, also for those that were not run.

    Args:
        name: Of the task, and of its folder.
        task: The task.
    """
    return [COLUMNS, *(_row(name, task, entry) for entry in task.entries)]


def _row(task_name: str, task: Task, entry_name: str) -> tuple[str, ...]:
    entry, folder = task.entries[entry_name], f"{FOLDER}/{task_name}/{entry_name}"
    command = f"`make reproduce TASK={task_name}/{entry_name}`"
    if entry_name not in _entries_run(task_name, task):
        return (entry.algorithm, "", "not run", "", _published(entry), "", "", "", command, "")
    summary = Summary.of(f.all_scores(folder, task.mode, task.metric))
    random, best = (f.scripted_score(folder, policy) for policy in ("random", task.best))
    steps = _steps(folder)
    return (
        entry.algorithm,
        f"{steps:,}",
        summary.text(_decimals(task)),
        # Where the controller hardly ever wins there is no scale.
        f"{normalized_score(summary.score, random, best):.2f}" if abs(best - random) > 0.05 else NONE,
        _published(entry),
        NONE if entry.published is None else f"{steps / entry.published.steps:.3g}",
        f.training_seconds(folder),
        f.cpus((folder,)),
        command,
        f"[{folder}](../results/{folder})",
    )


def _steps(folder: str) -> int:
    """Return the environment steps that each seed was trained for.

    Raises:
        ValueError: They are not the same.
    """
    paths = sorted((f.RESULTS / folder).glob("seed_*/progress.csv"))
    found = {int(float(read(path)[-1][f.STEPS])) for path in paths}
    if len(found) > 1:
        raise ValueError(f"{folder}: seeds of {', '.join(map(str, sorted(found)))} environment steps")
    return found.pop()


def _published(entry: Entry) -> str:
    if entry.published is None:
        return NONE
    return f"{entry.published.score:.1f} ± {entry.published.interval:.1f}, {entry.published.steps:,} steps"


def _scripted(name: str, task: Task) -> str:
    entry = _entries_run(name, task)[0]
    rows = f.rows_of(f"{FOLDER}/{name}/{entry}/summary.csv", seeds="")
    return ", ".join(
        f"{row['policy'].removeprefix('scripted: ')} {float(row['score']):.{_decimals(task)}f}"
        for row in rows
    )


def _entries_run(name: str, task: Task) -> list[str]:
    """Return the entries whose seeds have been trained and summed up."""
    return [entry for entry in task.entries if (f.RESULTS / FOLDER / name / entry / "summary.csv").is_file()]


def _decimals(task: Task) -> int:
    return 2 if task.metric == "won" else 1
