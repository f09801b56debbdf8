"""Actors for RLModules: those of this package, and anybody's without memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical, TorchDiagGaussian

from qio_envs.api import ConfigError
from qio_rllib.acting.actions import ActionSpec
from qio_rllib.acting.actor import (
    DIST_INPUTS,
    LOGP,
    Acted,
    Actor,
    ActorInputs,
    Array,
    NetworkActor,
    State,
)
from qio_rllib.acting.distributions import noise_of, sample, uniform_inputs
from qio_rllib.acting.world_model_actor import WorldModelActor
from qio_rllib.models.actor_critic import ActorCritic, PolicyModule
from qio_rllib.models.messages import Spoken
from qio_rllib.models.spaces import ACTION_MASK, OBSERVATION
from qio_rllib.models.world_model_module import WorldModelModule
from qio_rllib.random_numbers import RandomNumbers


def actor_of(module: Any, action: ActionSpec, records: tuple[str, ...]) -> Actor:
    """Return the Actor of an RLModule.

    Args:
        module: An RLModule; its weights are shared, not copied.
        action: How its output becomes an action.
        records: Columns that the `Rollout` shall keep.

    Raises:
        ConfigError: A module of another package that is recurrent, or whose distribution is neither RLlib's categorical
            nor its diagonal Gaussian.
    """
    module = module.unwrapped()
    if isinstance(module, WorldModelModule):
        return WorldModelActor(module.policy, action)
    if isinstance(module, PolicyModule):
        value = module.value if isinstance(module, ActorCritic) and module.policy.memory is not None else None
        return NetworkActor(module.policy, action, records, value)
    return ModuleActor(module, action, records)


def check_distribution(module: Any, space: gymnasium.Space) -> None:
    """Refuse modules whose distribution is neither RLlib's categorical nor its diagonal Gaussian.

    Args:
        module: An RLModule.
        space: Its action space; Discrete ones need the former, others the latter.

    Raises:
        ConfigError: Another distribution; a subclass of those two is one, for it was made to differ.
    """
    expected = TorchCategorical if isinstance(space, gymnasium.spaces.Discrete) else TorchDiagGaussian
    for found in (module.get_exploration_action_dist_cls(), module.get_train_action_dist_cls()):
        if found is not expected:
            raise ConfigError(
                f"rl_module: actions in {space} need {expected.__name__}, the module has "
                f"{getattr(found, '__name__', found)}"
            )


class ModuleActor:
    """Acts through the forward passes of an RLModule of somebody else's; see `Actor`.

    Args:
        module: A module without memory.
        action: How its output becomes an action.
        records: Columns to keep, of `DIST_INPUTS` and `LOGP`.
    """

    bandwidth = 0
    samples_only = False

    def __init__(self, module: Any, action: ActionSpec, records: tuple[str, ...]) -> None:
        if module.is_stateful():
            raise ConfigError(
                f"rl_module: {type(module).__name__} is recurrent; BatchedEnvRunner takes recurrent policies of this "
                "package (model_config: use_lstm), env_runner_cls=None brings back RLlib's own runner"
            )
        check_distribution(module, module.action_space)
        self.module = module
        self.action = action
        self.records = records
        self.memory: dict[str, int] = {}
        size = action.count if action.count is not None else 2 * len(action.low)
        shapes: dict[str, tuple[tuple[int, ...], type]] = {
            DIST_INPUTS: ((size,), np.float32),
            LOGP: ((), np.float32),
        }
        self.extras: Mapping[str, tuple[tuple[int, ...], type]] = {name: shapes[name] for name in records}

    def act(
        self,
        inputs: ActorInputs,
        state: State,
        rng: RandomNumbers | None,
        explore: bool,
        random_actions: bool = False,
    ) -> Acted:
        """Choose actions; see `Actor.act`."""
        envs, agents, *shape = inputs.obs.shape
        rows: Any = torch.from_numpy(inputs.obs.reshape(envs * agents, *shape)).clone()
        if inputs.action_mask is not None:
            rows = {
                OBSERVATION: rows,
                ACTION_MASK: torch.from_numpy(inputs.action_mask.reshape(envs * agents, -1)),
            }
        forward = self.module._forward_exploration if explore else self.module._forward_inference
        with torch.inference_mode():
            found = forward({Columns.OBS: rows})[Columns.ACTION_DIST_INPUTS]
        parameters = found.numpy().reshape(envs, agents, -1)
        if random_actions:
            parameters = uniform_inputs(parameters, inputs.action_mask)
        noise = None
        if explore or random_actions:
            assert rng is not None
            noise = noise_of(rng, (envs, agents), self.action)
        actions, logp = sample(parameters, self.action.count is not None, False, noise)
        columns = {DIST_INPUTS: parameters, LOGP: logp}
        return Acted(actions, state, {name: columns[name] for name in self.records})

    def speak(self, obs: Array, state: State, noise: Array | None) -> Spoken:
        """Refuse: modules of other packages have no messages."""
        raise ConfigError("communication: needs a module of this package")
