"""What a run makes of its checkpoints when its training is done: evaluation, policy file, animation and plots."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import qio_envs
from qio_envs.api import ConfigError
from qio_envs.api.scores import reference_scores
from qio_rllib.algorithms.setting_types import one_line
from qio_rllib.artifacts.files import read_csv, write_csv
from qio_rllib.artifacts.kept_checkpoints import KeptCheckpoints, final_checkpoint
from qio_rllib.artifacts.metrics import MODES, score_column
from qio_rllib.artifacts.run_directory import POLICY_FILE, RunDirectory
from qio_rllib.experiments.experiment import Experiment
from qio_rllib.experiments.recorder import RunRecorder
from qio_rllib.sampling.evaluation import (
    FIRST_EVALUATION_SEED,
    checkpoint_experiment,
    cut_text,
    evaluate,
    load_policy_from_checkpoint,
    mean_scores,
)

_REFERENCE_EPISODES = 10


@dataclasses.dataclass(frozen=True)
class RunResult:
    """What a finished run leaves.

    Attributes:
        run_dir: Its directory.
        checkpoint: The last checkpoint, a directory that ``rllib evaluate`` takes.
        evaluation: Means over the episodes of the final evaluation, by ``greedy`` and ``sampled``; empty where
            the policy cannot be evaluated so.
        storage: URI of its copy in other storage, if there is one.
        notes: What could not be made (an animation of an environment without renderer) or read (a checkpoint), and why.
    """

    run_dir: Path
    checkpoint: Path
    evaluation: dict[str, dict[str, float]]
    notes: tuple[str, ...] = ()
    storage: str | None = None


def finish(
    experiment: Experiment, directory: RunDirectory, recorder: RunRecorder, earlier: Sequence[str] = ()
) -> RunResult:
    """Make what belongs to a finished run: evaluation, policy file, animation and plots.

    Args:
        experiment: What was trained.
        directory: The run.
        recorder: Of the run.
        earlier: Notes that are there already.

    Raises:
        ConfigError: There is no checkpoint.
    """
    if not recorder.checkpoints.all:
        raise ConfigError("checkpoint_config: no checkpoint was written; set checkpoint_at_end: true")
    checkpoint = recorder.checkpoints.all[-1].path
    best, mode = _best_checkpoint(recorder.checkpoints)
    notes = [*earlier]
    evaluation: dict[str, dict[str, float]] = {}
    with optional("evaluation", notes):
        evaluation = _final_evaluation(checkpoint, directory, notes)
    with optional(POLICY_FILE, notes):
        from qio_rllib.artifacts.policy_file import save_policy

        save_policy(load_policy_from_checkpoint(checkpoint), directory.path / POLICY_FILE)
    with optional("best.gif", notes):
        from qio_rllib.artifacts.video import save_video

        seed = checkpoint_experiment(best)["evaluation_seeds"][0]
        save_video(
            load_policy_from_checkpoint(best),
            directory.path / "best.gif",
            seed=seed,
            explore=mode == "sampled",
        )
    with optional("plots", notes):
        draw(experiment, directory, recorder, evaluation)
    directory.update_info(
        checkpoint=checkpoint.relative_to(directory.path).as_posix(),
        best_checkpoint=best.relative_to(directory.path).as_posix(),
        evaluation=evaluation,
        notes=notes,
    )
    return RunResult(directory.path, checkpoint, evaluation, tuple(notes))


def result_of(directory: RunDirectory) -> RunResult:
    """Return what a finished run has left.

    Raises:
        ConfigError: It has no checkpoint.
    """
    info = directory.info()
    checkpoint = final_checkpoint(directory.path)
    return RunResult(directory.path, checkpoint, info.get("evaluation") or {}, tuple(info.get("notes") or ()))


def draw(
    experiment: Experiment,
    directory: RunDirectory,
    recorder: RunRecorder,
    evaluation: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Draw learning curve, losses and entropy of what was recorded so far, and the final evaluation, if any."""
    from qio_rllib.artifacts.loss_plot import plot_losses
    from qio_rllib.artifacts.plots import plot_entropy, plot_learning_curve

    rows = recorder.progress.rows
    title = f"{experiment.name}: {experiment.algorithm} on {experiment.env}, seed {experiment.seed}"
    references: dict[str, float] = {}
    if experiment.env in qio_envs.environments() and any("env_runners/team_return" in row for row in rows):
        settings = experiment.config.get("env_config") or {}
        # on the seeds of the evaluations, where those are more
        episodes = max(_REFERENCE_EPISODES, experiment.config.get("evaluation_duration") or 0)
        env = qio_envs.environment(experiment.env).batched_env(episodes, **settings)
        references = reference_scores(env, seed=FIRST_EVALUATION_SEED)
    if rows and evaluation:
        final = {
            f"evaluation/{mode}/{key}": value
            for mode in evaluation
            for key, value in evaluation[mode].items()
        }
        rows = [*rows[:-1], final | rows[-1]]
    plot_learning_curve(rows, directory.path / "learning_curve.png", references, title)
    amplification = experiment.config.get("amplification") or {}
    plot_entropy(rows, directory.path / "entropy.png", title, amplification.get("h_min"))
    pretraining = directory.pretraining_file
    early = read_csv(pretraining) if pretraining.exists() else []
    plot_losses([*early, *rows], directory.path / "losses.png", title)


@contextlib.contextmanager
def optional(name: str, notes: list[str]) -> Iterator[None]:
    """Let a run finish without something that its environment or policy does not allow."""
    try:
        yield
    except Exception as error:  # the training is done: nothing here may take it back
        notes.append(f"{name}: {one_line(error)}")


def _final_evaluation(
    checkpoint: Path, directory: RunDirectory, notes: list[str]
) -> dict[str, dict[str, float]]:
    policy, trained_on = load_policy_from_checkpoint(checkpoint), checkpoint_experiment(checkpoint)
    rows, means = [], {}
    for mode in MODES:
        episodes = evaluate(
            policy,
            trained_on["env"],
            trained_on["env_config"],
            trained_on["evaluation_seeds"],
            explore=mode == "sampled",
        )
        rows += [{"mode": mode, **episode} for episode in episodes]
        means[mode] = mean_scores(episodes)
        cut = cut_text(episodes)
        if cut is not None:
            notes.append(f"evaluation, {mode}: {cut}")
    write_csv(directory.evaluation_file, rows)
    return means


def _best_checkpoint(checkpoints: KeptCheckpoints) -> tuple[Path, str]:
    """Return the checkpoint and the way of acting with the best evaluation, the later of equals.

    Without any evaluation it is the last checkpoint, acting greedily.
    """
    scored = []
    for index, kept in enumerate(checkpoints.all):
        for mode in MODES:
            column = score_column(kept.metrics, f"evaluation/{mode}/")
            if column is not None and kept.path.is_dir():
                scored.append((kept.metrics[column], index, kept.path, mode))
    return max(scored)[2:] if scored else (checkpoints.all[-1].path, MODES[0])
