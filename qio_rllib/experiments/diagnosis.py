"""What a policy's world models predict beside what happens: tables, figures and a GIF."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from qio_envs.api import ConfigError
from qio_rllib.acting.policy import Policy
from qio_rllib.acting.world_model_actor import WorldModelActor
from qio_rllib.artifacts.files import write_csv
from qio_rllib.artifacts.imagined_video import (
    LONGEST_SIDE,
    NUM_COLORS,
    Imaginations,
    SceneRecorder,
    line_frames,
    rendered_frames,
)
from qio_rllib.artifacts.video import save_gif
from qio_rllib.artifacts.world_model_plots import (
    plot_calibration,
    plot_episode,
    plot_open_loop,
    plot_trajectories,
)
from qio_rllib.sampling.environments import make_vector_env
from qio_rllib.sampling.evaluation import cut_in_words, step_cap
from qio_rllib.sampling.recorded_episodes import record_episodes, world_model_groups
from qio_rllib.world_models.diagnostics import Calibration, OpenLoop, calibration, open_loop_errors
from qio_rllib.world_models.ensemble import Ensemble
from qio_rllib.world_models.episodes import Episodes
from qio_rllib.world_models.model import WorldModel

START = 5
"""Steps that a model sees before it predicts, at most."""
_SHOWN = 4  # imaginations in the figure of trajectories
_FRAMES_PER_SECOND = 10
_DRAWS_SEED = 0


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What was found of one module's world model.

    Attributes:
        module_id: The module.
        episodes: What its agents lived through.
        open_loop: Errors over the horizon.
        calibration: One step ahead.
        is_discrete: Whether its actions are.
        cut: How many of them were left before their end, in words; None where all ended.
    """

    module_id: str
    episodes: Episodes
    open_loop: OpenLoop
    calibration: Calibration
    is_discrete: bool
    cut: str | None = None


def check_world_model(policy: Policy, name: str) -> None:
    """Refuse a policy without a world model.

    Raises:
        ConfigError: It has none.
    """
    if not world_model_groups(policy.team):
        raise ConfigError(
            f"diagnose: {name} has no world model; only policies of the algorithm WorldModel have one"
        )


def diagnose(
    policy: Policy,
    seeds: Sequence[int],
    horizon: int,
    out: Path,
    random_actions: bool = False,
    max_steps: int | None = None,
) -> list[Diagnosis]:
    """Play episodes with a policy in its own environment, compare with its world models, and write all of it.

    The models see the first steps of an episode, at most `START`, predict ``horizon`` steps, and start anew from there.
    ``out`` gets ``open_loop.csv``, ``calibration.csv``, and for each module ``open_loop.png``, ``calibration.png``,
    ``trajectories.png``, ``episode.png`` and ``imagined.gif``, with its name behind where there are several.

    Args:
        policy: The policy; its most probable actions are taken.
        seeds: One an episode.
        horizon: Steps to predict without observations, at least 1.
        out: The directory, made once there is something to write.
        random_actions: Take uniform random actions instead.
        max_steps: Steps after which episodes are left, as for `qio_rllib.sampling.evaluation.play_episodes`.

    Raises:
        ConfigError: No world model, or all episodes are shorter than a start and the horizon.
    """
    check_world_model(policy, "the policy")
    env = make_vector_env(policy.env, dict(policy.env_config), len(seeds))
    try:
        team, scenes = policy.team_for(env.agents), SceneRecorder(env)
        cap = step_cap(env, max_steps)
        played, left = record_episodes(
            team, env, seeds, random_actions=random_actions, watch=scenes, max_steps=cap
        )
    finally:
        env.close()
    actors: dict[str, WorldModelActor] = {}
    for g in world_model_groups(team):
        actor = team.groups[g].actor
        assert isinstance(actor, WorldModelActor)
        actors[team.groups[g].module_id] = actor
    cut = cut_in_words(left, len(seeds), cap) if left and cap is not None else None
    found = [_diagnosed(name, actors[name], episodes, horizon, cut) for name, episodes in played.items()]
    out.mkdir(parents=True, exist_ok=True)
    for name, parts in (
        ("open_loop", [(one.module_id, one.open_loop.rows()) for one in found]),
        ("calibration", [(one.module_id, one.calibration.rows()) for one in found]),
    ):
        write_csv(out / f"{name}.csv", [{"module": module, **row} for module, rows in parts for row in rows])
    for one in found:
        _draw(one, policy, scenes, out, "" if len(found) == 1 else f"_{one.module_id}")
    return found


def summary(one: Diagnosis) -> dict[str, str]:
    """Return a diagnosis in a few words by name, for a table."""
    loop, calibrated = one.open_loop, one.calibration
    bands = {
        name: loop.band(name).mean for name in ("obs", "obs_persistence", "reward", "reward_persistence")
    }
    horizon = len(loop.counted)
    lines = {"episodes, steps": f"{len(one.episodes.lengths):,}, {int(one.episodes.lengths.sum()):,}"}
    for name, label in (("obs", "observation"), ("reward", "reward")):
        for step in sorted({1, (horizon + 1) // 2, horizon}):
            model, baseline = (bands[key][step - 1] for key in (name, f"{name}_persistence"))
            lines[f"{label} error after {step}"] = f"{model:.3g} (persistence {baseline:.3g})"
    for label, error in (
        ("observation", calibrated.obs_error),
        ("reward", calibrated.reward_error),
        ("continuation", calibrated.continuation_error),
    ):
        lines[f"calibration error, {label}"] = "constant" if np.isnan(error) else f"{error:.3f}"
    return lines


def _diagnosed(
    module_id: str, actor: WorldModelActor, episodes: Episodes, horizon: int, cut: str | None
) -> Diagnosis:
    model: WorldModel = actor.network.model
    longest = int(episodes.lengths.max())
    if longest < 1 + horizon:
        raise ConfigError(
            f"--horizon: the longest episode has {longest} steps, expected at most {max(longest - 1, 0)}, got {horizon}"
        )
    first = min(START, longest - horizon)
    starts = range(first, longest - horizon + 1, horizon)
    # An ensemble's intervals are exact; a recurrent model's come from draws.
    draws = None if isinstance(model, Ensemble) else torch.Generator().manual_seed(_DRAWS_SEED)
    return Diagnosis(
        module_id,
        episodes,
        open_loop_errors(model, episodes, starts, horizon),
        calibration(model, episodes, draws),
        actor.network.spec.is_discrete,
        cut,
    )


def _imaginations(episodes: Episodes, errors: OpenLoop) -> tuple[int, Imaginations]:
    """Return the sequence of which most is imagined, the first of several, and what is."""
    steps = np.bincount(errors.sequences, errors.counted.sum(0))
    sequence = int(steps.argmax())
    rows = [row for row in np.flatnonzero(errors.sequences == sequence) if errors.counted[0, row]]
    length = int(episodes.lengths[sequence])
    return sequence, Imaginations(
        episodes.obs[: length + 1, sequence].numpy(),
        tuple(int(errors.starts[row]) for row in rows),
        tuple(errors.predicted[errors.counted[:, row], row] for row in rows),
    )


def _draw(one: Diagnosis, policy: Policy, recorder: SceneRecorder, out: Path, suffix: str) -> None:
    sequence, shown = _imaginations(one.episodes, one.open_loop)
    scenes = recorder.scenes(sequence) if one.episodes.lengths.numel() == recorder.num_envs else None
    layout = recorder.batches[0].config.observation_layout if recorder.batches else {}
    names = _names(layout, shown.real.shape[1])
    title = f"{policy.env}{f', {one.module_id}' if suffix else ''}"
    plot_open_loop(one.open_loop, out / f"open_loop{suffix}.png", title)
    plot_calibration(one.calibration, out / f"calibration{suffix}.png", f"{title}, one step ahead")
    until = shown.starts[:_SHOWN][-1] + len(shown.imagined[:_SHOWN][-1])
    plot_trajectories(
        shown.real[: until + 1],
        shown.starts[:_SHOWN],
        shown.imagined[:_SHOWN],
        out / f"trajectories{suffix}.png",
        names,
        title,
    )
    length = len(shown.real) - 1
    actions = one.episodes.actions[:length, sequence].numpy()
    plot_episode(
        shown.real,
        actions.argmax(-1) if one.is_discrete else actions,
        one.episodes.rewards[:length, sequence].numpy(),
        out / f"episode{suffix}.png",
        names,
        title,
    )
    parts = None if scenes is None else scenes.parts(shown.real)
    if scenes is not None and parts is not None:
        frames = rendered_frames(scenes, parts, shown)
    else:
        frames = line_frames(shown, names, title)
    save_gif(frames, out / f"imagined{suffix}.gif", _FRAMES_PER_SECOND, LONGEST_SIDE, NUM_COLORS)


def _names(layout: Mapping[str, slice], size: int) -> list[str]:
    """Return names of an observation's numbers, by its parts where they are known."""
    names = [f"obs[{place}]" for place in range(size)]
    for part, where in layout.items():
        for place in range(where.start, min(where.stop, size)):
            names[place] = f"{part}[{place - where.start}]" if where.stop - where.start > 1 else part
    return names
