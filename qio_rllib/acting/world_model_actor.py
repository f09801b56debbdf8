"""`WorldModelActor`: acts by a world model, through a planner or a policy over its features."""

from __future__ import annotations

import numpy as np
import torch

from qio_envs.api import ConfigError
from qio_rllib.acting.actions import ActionSpec
from qio_rllib.acting.actor import Acted, ActorInputs, Array, State
from qio_rllib.acting.distributions import sample, uniform_inputs
from qio_rllib.models.messages import Spoken
from qio_rllib.models.world_model_policy import WorldModelPolicy
from qio_rllib.random_numbers import RandomNumbers

LATENT, PREVIOUS_ACTION, OTHERS, PLAN = "latent", "previous_action", "others", "plan"


class WorldModelActor:
    """See `Actor`. Its memory is the model's state, the action that was executed last, and the plan.

    A recurrent model's state goes on by the most probable latent, so that it depends on what was seen and done alone.
    Where a model sees the others of its module, agents communicate while they act: a planner's predictions depend on
    the present states of all, and a recurrent model's next state on them and on what all do now; the memory carries
    what an agent has taken over.
    Random actions are uniform, in Box spaces over [-1, 1].

    Args:
        network: Model and behaviour; its weights are shared, not copied.
        action: How an action becomes one of the environment.
    """

    bandwidth = 0
    samples_only = False

    def __init__(self, network: WorldModelPolicy, action: ActionSpec) -> None:
        self.network = network
        self.action = action
        self.extras: dict[str, tuple[tuple[int, ...], type]] = {}
        self.memory: dict[str, int] = {}
        if network.is_recurrent:
            self.memory |= {LATENT: network.model.state_size, PREVIOUS_ACTION: network.spec.num_actions}
        if network.model.attended_size:
            self.memory[OTHERS] = network.model.attended_size
        if network.planner is not None and network.planner.memory_size:
            self.memory[PLAN] = network.planner.memory_size

    def act(
        self,
        inputs: ActorInputs,
        state: State,
        rng: RandomNumbers | None,
        explore: bool,
        random_actions: bool = False,
    ) -> Acted:
        """Choose actions; see `Actor.act`."""
        envs, agents = inputs.obs.shape[:2]
        shape = (envs, agents)

        def rows(array: Array) -> torch.Tensor:
            return torch.from_numpy(array.reshape(envs * agents, -1)).clone()

        with torch.inference_mode():
            model = self.network.model
            here = None
            if model.sees_others:
                alive = np.ones(shape, bool) if inputs.alive is None else inputs.alive
                here = torch.from_numpy(alive).clone()
            obs = rows(inputs.obs)
            present = obs
            if self.network.is_recurrent:
                taken_over = rows(state[OTHERS]) if OTHERS in self.memory else None
                present = model.observe(
                    rows(state[LATENT]), rows(state[PREVIOUS_ACTION]), obs, others=taken_over
                )
            legal = None if inputs.action_mask is None else rows(inputs.action_mask)
            plan = state.get(PLAN)
            if random_actions:
                assert rng is not None
                actions = self._random(shape, inputs.action_mask, rng)
            elif self.network.planner is not None:
                assert rng is not None
                memory = torch.zeros(len(obs), 0) if plan is None else rows(plan)
                found = self.network.planner.plan(
                    lambda candidates: self.network.returns(present, candidates, here),
                    memory,
                    rng,
                    explore,
                    legal,
                    num_envs=envs,
                )
                actions = found.actions.numpy().reshape(*shape, *self.action.shape)
                plan = found.memory.numpy().reshape(*shape, -1)
            else:
                actions = self._by_network(present, legal, shape, rng, explore)
            after: dict[str, Array] = {}
            if self.network.is_recurrent:
                after[LATENT] = present.numpy().reshape(*shape, -1)
                after[PREVIOUS_ACTION] = self.executed(actions)
            if OTHERS in self.memory:
                assert here is not None
                attended = model.attend(present, rows(after[PREVIOUS_ACTION]), here)
                assert attended is not None
                after[OTHERS] = attended.numpy().reshape(*shape, -1)
            if PLAN in self.memory:
                assert plan is not None
                after[PLAN] = plan
        return Acted(actions, after, {})

    def speak(self, obs: Array, state: State, noise: Array | None) -> Spoken:
        """Refuse: world models have no messages."""
        raise ConfigError("communication: policies of WorldModel do not talk")

    def _random(self, shape: tuple[int, int], mask: Array | None, rng: RandomNumbers) -> Array:
        if self.action.count is None:
            return 2.0 * rng.random((*shape, len(self.action.low)), np.float32) - 1.0
        uniform = uniform_inputs(np.empty((*shape, self.action.count), np.float32), mask)
        return sample(uniform, True, False, rng.random(shape, np.float32))[0]

    def _by_network(
        self,
        present: torch.Tensor,
        legal: torch.Tensor | None,
        shape: tuple[int, int],
        rng: RandomNumbers | None,
        explore: bool,
    ) -> Array:
        actor = self.network.actor
        assert actor is not None
        features = self.network.model.features(present)
        parameters = actor(features, legal, None, explore)[0]
        discrete = self.action.count is not None
        noise = None
        if explore:
            assert rng is not None
            if discrete:
                noise = rng.random(shape, np.float32)
            else:
                noise = rng.standard_normal((*shape, len(self.action.low)), np.float32)
        return sample(parameters.numpy().reshape(*shape, -1), discrete, True, noise)[0]

    def executed(self, actions: Array) -> Array:
        """Return actions as the model takes them: clipped to [-1, 1], or one-hot."""
        if self.action.count is None:
            return actions.clip(-1.0, 1.0).astype(np.float32)
        return np.eye(self.action.count, dtype=np.float32)[actions]
