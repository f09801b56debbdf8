"""The search for causes that factored world models are masked by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from qio_envs.api import BatchedEnv, ConfigError
from qio_rllib.causal.datasets import intervened_transitions
from qio_rllib.causal.masks import CAUSAL_MASK, CausalMaskSettings, find_mask
from qio_rllib.sampling.batched_vector_env import BatchedVectorEnv
from qio_rllib.sampling.environments import make_vector_env
from qio_rllib.sampling.streams import generator

if TYPE_CHECKING:
    from qio_rllib.sampling.replay import JointReplay

Array = np.ndarray
_ENVS_AT_ONCE = 16


def masks_of_replay(
    replay: JointReplay, spaces: dict[str, gymnasium.Space], settings: CausalMaskSettings
) -> dict[str, Array]:
    """Return each module's input mask, from what its agents experienced last.

    Args:
        replay: What is kept.
        spaces: Action space by module.
        settings: How causes are sought.

    Raises:
        ConfigError: See `find_mask`.
    """
    found = {}
    for module_id, columns in replay.newest(settings.samples).modules.items():
        acted = columns["acted"]
        space, actions = spaces[module_id], columns["actions"]
        discrete = isinstance(space, gymnasium.spaces.Discrete)
        if isinstance(space, gymnasium.spaces.Discrete):
            actions = np.eye(int(space.n), dtype=np.float32)[actions]
        obs, next_obs = (
            columns[name].reshape(*acted.shape, -1) for name in ("observations", "next_observations")
        )
        found[module_id] = find_mask(
            obs[acted],
            actions.reshape(*acted.shape, -1)[acted],
            next_obs[acted],
            columns["rewards"][acted],
            settings,
            discrete,
        )
    return found


def mask_of_interventions(
    env: BatchedEnv, count: int, seed: int | None, settings: CausalMaskSettings
) -> Array:
    """Return the input mask from transitions after interventions in a copy of an environment.

    Args:
        env: With one agent; it is reset.
        count: Transitions; those of a smaller count come first among them.
        seed: Of the experiment.
        settings: How causes are sought.

    Raises:
        ConfigError: See `find_mask`.
    """
    stream = int(generator(seed, "interventions").integers(2**31))
    data = intervened_transitions(env, count, stream)
    size = len(data.target_names) - 1
    inputs, targets = data.inputs, data.targets
    return find_mask(
        inputs[:, :size],
        inputs[:, size:],
        targets[:, :size],
        targets[:, size],
        settings,
        isinstance(env.action_space, gymnasium.spaces.Discrete),
    )


def intervention_env(env: Any, env_config: dict[str, Any]) -> BatchedEnv:
    """Return a copy of an experiment's environment whose state can be set.

    Raises:
        ConfigError: Not one of this suite, several agents, or nothing that can be set.
    """
    made = make_vector_env(env, dict(env_config), _ENVS_AT_ONCE)
    batch = made.env if isinstance(made, BatchedVectorEnv) else None
    if batch is None or not batch.intervention_spaces or batch.num_agents != 1:
        raise ConfigError(
            f"{CAUSAL_MASK}.interventions: {env} has no state that can be set for one agent alone; expected an "
            "environment with interventions, by its name in the suite (drift_control_v0), or 0"
        )
    return batch
