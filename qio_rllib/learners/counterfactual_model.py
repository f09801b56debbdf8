"""Counterfactuals of rollouts by a causal model that is learned from them, where the environment cannot be branched."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch

from qio_rllib.acting.actor import DIST_INPUTS
from qio_rllib.acting.distributions import sample
from qio_rllib.causal.baseline import (
    COUNTERFACTUAL_BASELINE,
    CounterfactualBaselineSettings,
    check_held,
)
from qio_rllib.causal.datasets import TransitionData
from qio_rllib.causal.model import CausalModel, Step
from qio_rllib.sampling.counterfactuals import OBSERVATIONS, REWARDS, TERMINATED, mirrored_noise
from qio_rllib.sampling.rollout import Array, ModuleRollout
from qio_rllib.sampling.streams import generator
from qio_rllib.world_models.ensemble import Ensemble, EnsembleSettings

_MEMBERS = 3


class CounterfactualModel:
    """Gives rollouts the columns that `qio_rllib.sampling.counterfactuals.Counterfactuals` would have recorded.

    A `CausalModel` of each module learns how an agent's next observation and reward follow from its observation and
    action; the residuals of what really happened are kept (abduction), so that an outcome is
    ``f(s, a') + [what happened - f(s, a)]``. Held are the observation before the step and the residuals: by the model's
    graph neither depends on the action, but the residuals do so far as the model errs, which biases the gradient by as
    much. What other agents do counts as noise. Ends of episodes are not modelled: a branch ends where the step did.

    A model learns from a batch after it was used there, so that it has not seen what it judges; the first batch goes
    without a baseline.

    Args:
        settings: What is asked for.
        seed: Of the run.
    """

    def __init__(self, settings: CounterfactualBaselineSettings, seed: int | None) -> None:
        self.settings = settings
        self.seed_streams(seed)
        self._models: dict[str, CausalModel] = {}

    def seed_streams(self, seed: int | None) -> None:
        """Begin the random numbers of a seed."""
        self._rng = generator(seed, "counterfactual model")

    @classmethod
    def of(cls, config: Any) -> Self | None:
        """Return what a configuration asks for; None where counterfactuals come from the environment, or for none."""
        settings = CounterfactualBaselineSettings.of(config.learner_config_dict.get(COUNTERFACTUAL_BASELINE))
        return None if settings is None or not settings.by_model else cls(settings, config.seed)

    def with_outcomes(
        self, module_id: str, parts: list[ModuleRollout], num_actions: int | None
    ) -> list[ModuleRollout]:
        """Return rollouts with the outcomes of other actions; as they are before anything was learned.

        Args:
            module_id: Whose they are.
            parts: Of a policy without memory.
            num_actions: Discrete actions; None for continuous ones.
        """
        model = self._models.get(module_id)
        if model is None:
            return parts
        return [
            dataclasses.replace(part, columns={**part.columns, **self._columns(model, part, num_actions)})
            for part in parts
        ]

    def learn(self, module_id: str, parts: list[ModuleRollout], num_actions: int | None) -> float:
        """Fit a module's model to rollouts; return the mean squared residual before, over that of the mean.

        Args:
            module_id: Whose they are.
            parts: At least one step in which an agent acted.
            num_actions: As for `with_outcomes`.
        """
        steps = [_recorded(part, num_actions) for part in parts]
        state, action, following, reward = (np.concatenate(rows) for rows in zip(*steps, strict=True))
        model = self._models.get(module_id)
        if model is None:
            model = self._models[module_id] = self._made(state.shape[1], action.shape[1])
        targets = np.concatenate([following, reward[:, None]], axis=1)
        with torch.inference_mode():
            left = model.residuals(Step(state, action, following, reward)).numpy()
        names = model.variables
        data = TransitionData(np.concatenate([state, action], axis=1), targets, names.inputs, names.targets)
        model.fit(data, self.settings.model_steps, seed=int(self._rng.integers(2**31)))
        spread = np.concatenate([following - state, reward[:, None]], axis=1).var(axis=0)
        moves = spread > 1e-9
        return float(np.mean((left**2).mean(axis=0)[moves] / spread[moves])) if moves.any() else 0.0

    def get_state(self) -> dict[str, Any]:
        """Return what a checkpoint holds: the models and the random numbers."""
        models = {
            module_id: (model.state_size, model.num_actions, model.state_dict())
            for module_id, model in self._models.items()
        }
        return {"models": models, "rng": self._rng.bit_generator.state}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self._rng.bit_generator.state = state["rng"]
        self._models = {}
        for module_id, (size, num_actions, weights) in state["models"].items():
            self._models[module_id] = _model(size, num_actions, self.settings, 0)
            self._models[module_id].load_state_dict(weights)

    def _made(self, size: int, num_actions: int) -> CausalModel:
        model = _model(size, num_actions, self.settings, int(self._rng.integers(2**31)))
        check_held(model.graph, model.variables.actions, model.variables.state)
        return model

    def _columns(self, model: CausalModel, part: ModuleRollout, num_actions: int | None) -> dict[str, Array]:
        """Return what each of ``K`` other actions would have led to, ``[T, E, M, K, ...]``."""
        acted = part.acted
        step = Step(*_recorded(part, num_actions))
        others = self._others(part, num_actions)  # [K, n, A]
        shape = (*acted.shape, len(others))
        rewards = np.zeros(shape, np.float32)
        observations = np.zeros((*shape, *part.observations.shape[3:]), np.float32)
        with torch.inference_mode():
            for k, action in enumerate(others):
                outcome = model.counterfactual(step, np.array(action))
                rewards[acted, k] = outcome.reward.numpy()
                following = outcome.next_state.numpy()
                observations[acted, k] = following.reshape(-1, *part.observations.shape[3:])
        return {
            REWARDS: rewards,
            OBSERVATIONS: observations,
            TERMINATED: np.broadcast_to(part.terminated[..., None], shape),
        }

    def _others(self, part: ModuleRollout, num_actions: int | None) -> Array:
        """Return the other actions of the steps in which an agent acted, as the model takes them, ``[K, n, A]``."""
        if num_actions is not None:
            one_hot = np.eye(num_actions, dtype=np.float32)[:, None]
            return np.broadcast_to(one_hot, (num_actions, int(part.acted.sum()), num_actions))
        inputs = part.columns[DIST_INPUTS][part.acted]
        noise = mirrored_noise(self._rng, self.settings.samples, (len(inputs), inputs.shape[-1] // 2))
        drawn, _ = sample(np.broadcast_to(inputs, (len(noise), *inputs.shape)), False, False, noise)
        return drawn.clip(-1.0, 1.0)


def _model(size: int, num_actions: int, settings: CounterfactualBaselineSettings, seed: int) -> CausalModel:
    """Return a model in which all that is known before a step is a cause of all that follows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # Least squares: a likelihood would attend to what is almost certain, such as an agent's index.
        sizes = EnsembleSettings(members=_MEMBERS, hiddens=tuple(settings.model_hiddens), beta=1.0)
        return CausalModel.of_ensemble(
            Ensemble(size, num_actions, sizes),
            [f"obs[{place}]" for place in range(size)],
            [f"action[{place}]" for place in range(num_actions)],
        )


def _recorded(part: ModuleRollout, num_actions: int | None) -> tuple[Array, Array, Array, Array]:
    """Return observations, actions, next observations and rewards of the steps in which an agent acted, by rows."""
    acted, steps = part.acted, part.num_steps
    observations = part.observations.reshape(*part.observations.shape[:3], -1)
    following = part.next_observations().reshape(*observations[1:].shape)
    actions = part.actions[acted]
    if num_actions is not None:
        actions = np.eye(num_actions, dtype=np.float32)[actions]
    else:
        actions = actions.reshape(len(actions), -1).clip(-1.0, 1.0)
    return observations[:steps][acted], actions, following[acted], part.rewards[acted]
