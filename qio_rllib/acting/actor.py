"""`Actor`: how the agents of one group act, for runners, evaluations, videos and policy files alike."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import numpy as np
import torch

from qio_rllib.acting.actions import ActionSpec
from qio_rllib.acting.distributions import noise_of, sample, uniform_inputs
from qio_rllib.fused.use import acts
from qio_rllib.models.messages import Spoken
from qio_rllib.models.policy_network import SQUASHED_GAUSSIAN, PolicyNetwork
from qio_rllib.models.values import CentralInputs, ValueNetwork
from qio_rllib.random_numbers import RandomNumbers

Array = np.ndarray
State = Mapping[str, Array]
"""Memory of ``E x M`` agents: float32 ``[E, M, S]`` by name; {} without memory."""

DIST_INPUTS, LOGP = "dist_inputs", "logp"
"""Columns that on-policy learners need of an Actor."""
POLICY_MEMORY, VALUE_MEMORY = "policy", "value"


class Acted(NamedTuple):
    """What an Actor decided."""

    actions: Array  # int64 [E, M], or float32 [E, M, D] as the policy gave them, before scaling to bounds
    state: State  # after this step
    extras: dict[str, Array]  # the columns of `Actor.extras`, [E, M, ...]


class ActorInputs(NamedTuple):
    """What an Actor is given of a step."""

    obs: Array  # float32 [E, M, ...]
    action_mask: Array | None = None  # bool [E, M, A]
    inbox: Array | None = None  # float32 [E, M, B], what reached the agents in this step
    global_state: Array | None = None  # float32 [E, S]; recorded where a central value network has memory
    agents: Array | None = None  # int64 [M], the agents' indices among all; with ``global_state``
    alive: Array | None = None  # bool [E, M], which agents act; None for all


class Actor(Protocol):
    """How the ``M`` agents of a group act in ``E`` environments at once.

    Attributes:
        extras: (shape of one agent's entry, dtype) of each column that the `Rollout` shall keep for a learner.
        memory: Numbers in the state of each memory, by name; {} without memory.
        action: How its actions become those of the environment.
        bandwidth: Numbers in the messages' values of its agents; 0 where they do not talk.
        samples_only: Whether it is always sampled, whatever ``explore`` says.
    """

    action: ActionSpec
    bandwidth: int
    samples_only: bool

    @property
    def extras(self) -> Mapping[str, tuple[tuple[int, ...], type]]:
        """Columns for the `Rollout`."""

    @property
    def memory(self) -> Mapping[str, int]:
        """Sizes of memories."""

    def act(
        self,
        inputs: ActorInputs,
        state: State,
        rng: RandomNumbers | None,
        explore: bool,
        random_actions: bool = False,
    ) -> Acted:
        """Choose actions.

        Args:
            inputs: Observations and what belongs to them.
            state: Memory before this step.
            rng: Source of the draws; None where nothing is drawn.
            explore: Whether to explore (True) or to take the most probable actions (False).
            random_actions: Act uniformly among the legal actions instead; in Box spaces, standard normal.
        """

    def speak(self, obs: Array, state: State, noise: Array | None) -> Spoken:
        """Say something.

        Args:
            obs: float32 ``[E, M, ...]``.
            state: Memory before this step.
            noise: Standard logistic, float32 ``[E, M, noise_size]``, of bits and gates; None for the likeliest ones.

        Returns:
            Tensors ``[E, M, ...]``.
        """


def initial_state(actor: Actor, num_envs: int, num_agents: int) -> dict[str, Array]:
    """Return the memory of agents that have seen nothing: zeros."""
    return {name: np.zeros((num_envs, num_agents, size), np.float32) for name, size in actor.memory.items()}


class NetworkActor:
    """Acts by a `PolicyNetwork`: sampling, masks, exploration and memory; see `Actor`.

    Args:
        network: The policy; its weights are shared, not copied.
        action: How its output becomes an action.
        records: Columns to keep, of `DIST_INPUTS` and `LOGP`.
        value: The value network of a policy with memory, whose own memory is carried along for the learner.
    """

    def __init__(
        self,
        network: PolicyNetwork,
        action: ActionSpec,
        records: tuple[str, ...] = (),
        value: ValueNetwork | None = None,
    ) -> None:
        self.network = network
        self.action = action
        self.records = records
        self.value = value if value is not None and value.state_size else None
        self.bandwidth = network.spec.bandwidth
        self.samples_only = network.samples_only
        self.memory: dict[str, int] = {}
        if network.state_size:
            self.memory[POLICY_MEMORY] = network.state_size
            if self.value is not None:
                self.memory[VALUE_MEMORY] = self.value.state_size
        size = network.spec.num_parameters
        shapes: dict[str, tuple[tuple[int, ...], type]] = {
            DIST_INPUTS: ((size,), np.float32),
            LOGP: ((), np.float32),
        }
        self.extras = {name: shapes[name] for name in records}
        self._forward: Callable[[torch.Tensor], torch.Tensor] | None = None

    def act(
        self,
        inputs: ActorInputs,
        state: State,
        rng: RandomNumbers | None,
        explore: bool,
        random_actions: bool = False,
    ) -> Acted:
        """Choose actions; see `Actor.act`."""
        parameters, state = self.decide(inputs, state, explore)
        return self.draw(parameters, state, inputs.action_mask, rng, explore, random_actions)

    def decide(self, inputs: ActorInputs, state: State, explore: bool) -> tuple[Array, State]:
        """Return the parameters of the agents' distributions, float32 ``[E, M, P]``, and the memory after this step."""
        envs, agents = inputs.obs.shape[:2]
        layers = self.network.layers() if acts() else None
        # A copy: torch's arithmetic rounds by where its operands lie in memory, and an array's rows lie differently in
        # rollouts of different lengths. That of kernels does not.
        rows = torch.from_numpy(inputs.obs.reshape(envs * agents, -1))
        if inputs.inbox is None:
            rows = rows.clone() if layers is None else rows
        else:
            rows = torch.cat([rows, torch.from_numpy(inputs.inbox.reshape(envs * agents, -1))], dim=-1)
        mask = inputs.action_mask
        legal = None if mask is None else torch.from_numpy(mask.reshape(envs * agents, -1))
        with torch.inference_mode():
            if self.memory:
                found, state = self._with_memory(rows, legal, state, explore, inputs)
            else:
                outputs = self._outputs(rows) if layers is None else self.network.outputs_by(layers, rows)
                found = self.network.distribution(outputs, legal, explore)
        return found.numpy().reshape(envs, agents, -1), state

    def draw(
        self,
        parameters: Array,
        state: State,
        mask: Array | None,
        rng: RandomNumbers | None,
        explore: bool,
        random_actions: bool,
    ) -> Acted:
        """Draw actions from what `decide` gave; arguments as for `act`."""
        envs, agents = parameters.shape[:2]
        if random_actions:
            parameters = uniform_inputs(parameters, mask)
        noise = None
        if explore or random_actions or self.samples_only:
            assert rng is not None
            noise = noise_of(rng, (envs, agents), self.action)
        squashed = self.network.spec.distribution == SQUASHED_GAUSSIAN
        discrete, factors = self.action.count is not None, self.action.factors
        actions, logp = sample(parameters, discrete, squashed, noise, factors)
        columns = {DIST_INPUTS: parameters, LOGP: logp}
        return Acted(actions, state, {name: columns[name] for name in self.records})

    def speak(self, obs: Array, state: State, noise: Array | None) -> Spoken:
        """Say something; see `Actor.speak`."""
        envs, agents = obs.shape[:2]

        def rows(array: Array | None) -> torch.Tensor | None:
            return None if array is None else torch.from_numpy(array.reshape(envs * agents, -1)).clone()

        seen = rows(obs)
        assert seen is not None
        with torch.inference_mode():
            said = self.network.speak(seen, rows(state.get(POLICY_MEMORY)), rows(noise))
            return said.changed(lambda part: part.unflatten(0, (envs, agents)))

    def _with_memory(
        self,
        rows: torch.Tensor,
        legal: torch.Tensor | None,
        state: State,
        explore: bool,
        inputs: ActorInputs,
    ) -> tuple[torch.Tensor, dict[str, Array]]:
        shape = inputs.obs.shape[:2]

        def flat(name: str) -> torch.Tensor:
            return torch.from_numpy(state[name].reshape(len(rows), -1)).clone()

        rows = self.network.perceived(rows)
        seen = rows if inputs.inbox is None else rows[:, : -inputs.inbox.shape[-1]]
        features, following = self.network.features(rows, flat(POLICY_MEMORY))
        assert following is not None
        found = self.network.distribution(self.network.outputs(features), legal, explore)
        after = {POLICY_MEMORY: following.numpy().reshape(*shape, -1)}
        if self.value is not None:
            central = None
            if self.value.is_central:
                assert inputs.global_state is not None
                assert inputs.agents is not None
                envs = np.broadcast_to(np.arange(shape[0])[:, None], shape)
                agents = np.broadcast_to(inputs.agents, shape)
                central = CentralInputs(
                    torch.from_numpy(inputs.global_state),
                    torch.from_numpy(envs.reshape(-1).copy()),
                    torch.from_numpy(agents.reshape(-1).copy()),
                )
            _, own = self.value(seen, central, flat(VALUE_MEMORY))
            after[VALUE_MEMORY] = own.numpy().reshape(*shape, -1)
        return found, after

    def _outputs(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the head's outputs of a network without memory."""
        if self._forward is None:
            self._forward = _traced(self.network) or Outputs(self.network)
        return self._forward(rows)


class Outputs(torch.nn.Module):
    """A network without memory up to its head: rows ``[B, D]`` to outputs ``[B, K]``."""

    def __init__(self, network: PolicyNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the outputs."""
        return self.network.outputs_of(self.network.perceived(rows))


def _traced(network: PolicyNetwork) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Return a trace of a network without memory, which acts faster and shares its weights.

    None where a trace does not give the same numbers.
    """
    plain = Outputs(network)
    few, many = torch.rand(2, network.spec.input_size), torch.rand(7, network.spec.input_size)
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        few, many = few.clone(), many.clone()
        try:
            found = torch.jit.trace(plain, few, check_trace=False)
            same = torch.equal(found(many), plain(many))
        except Exception:  # whatever a network does that cannot be traced, or only for the traced size
            return None
    return found if same else None
