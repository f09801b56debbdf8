"""`PooledActor`: the agents of a group act by the present policy or by snapshots of earlier ones."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from qio_rllib.acting.actor import Acted, ActorInputs, Array, NetworkActor, Outputs, State
from qio_rllib.models.messages import Spoken
from qio_rllib.random_numbers import RandomNumbers

LEARNING = "learning"
"""Column that a `PooledActor` adds: whether an agent played with the present policy, bool."""
PRESENT = -1
"""Stands for the present policy where others are numbers of snapshots."""

_Forward = Callable[[torch.Tensor], torch.Tensor]


class PooledActor:
    """Gives each agent in each environment to the policy that it plays with; see `Actor`.

    A step has one forward pass of the present policy and one of all snapshots together, as a batched matrix product;
    with memory, one of each policy that plays at all.

    Args:
        present: How the group acts by the present policy.
        frozen: Gives the actor of a snapshot's weights.

    Attributes:
        played: What each agent plays with, int64 ``[E, M]``: the number of a snapshot, or `PRESENT`.
    """

    def __init__(self, present: NetworkActor, frozen: Callable[[Mapping[str, Array]], NetworkActor]) -> None:
        self.present = present
        self._frozen = frozen
        self.snapshots: dict[int, NetworkActor] = {}
        self.played: Array = np.empty((0, 0), np.int64)
        self._together: _Together | None = None
        self.action = present.action
        self.memory = present.memory
        self.bandwidth = present.bandwidth
        self.samples_only = present.samples_only
        self.extras = {**present.extras, LEARNING: ((), bool)}

    def keep(self, weights: Mapping[int, Mapping[str, Array]]) -> None:
        """Hold these snapshots and no others, by number; a number stands for the same weights for ever."""
        if set(weights) == set(self.snapshots):
            return
        self.snapshots = {
            number: self.snapshots.get(number) or self._frozen(arrays) for number, arrays in weights.items()
        }
        self._together = None
        if len(self.snapshots) > 1 and not self.memory:
            self._together = _Together.of(self.snapshots)

    def act(
        self,
        inputs: ActorInputs,
        state: State,
        rng: RandomNumbers | None,
        explore: bool,
        random_actions: bool = False,
    ) -> Acted:
        """Choose actions; see `Actor.act`."""
        learning = self.played == PRESENT
        if learning.all():
            acted = self.present.act(inputs, state, rng, explore, random_actions)
        else:
            parameters, following = self._decide(inputs, state, explore)
            acted = self.present.draw(parameters, following, inputs.action_mask, rng, explore, random_actions)
        return acted._replace(extras={**acted.extras, LEARNING: learning})

    def speak(self, obs: Array, state: State, noise: Array | None) -> Spoken:
        """Say something; see `Actor.speak`."""
        shape = obs.shape[:2]
        found: Spoken | None = None
        for actor, envs, agents in self._parts(np.unique(self.played).tolist()):
            said = actor.speak(
                obs[envs, agents][:, None],
                {name: memory[envs, agents][:, None] for name, memory in state.items()},
                None if noise is None else noise[envs, agents][:, None],
            )
            if found is None:
                found = said.changed(lambda part: part.new_zeros(*shape, *part.shape[2:]))
            for whole, part in zip(found, said, strict=True):
                if whole is not None and part is not None:
                    whole[envs, agents] = part[:, 0]
        assert found is not None
        return found

    def _decide(self, inputs: ActorInputs, state: State, explore: bool) -> tuple[Array, State]:
        shape = inputs.obs.shape[:2]
        size = self.present.network.spec.num_parameters
        parameters: Array = np.zeros((*shape, size), np.float32)
        following = {name: np.zeros_like(memory) for name, memory in state.items()}
        separate = np.unique(self.played).tolist()
        if self._together is not None:
            separate = [PRESENT]
            envs, agents = np.nonzero(self.played != PRESENT)
            legal = None if inputs.action_mask is None else torch.from_numpy(inputs.action_mask[envs, agents])
            seen = inputs.obs[envs, agents].reshape(len(envs), -1)
            if inputs.inbox is not None:
                seen = np.concatenate([seen, inputs.inbox[envs, agents]], axis=-1)
            with torch.inference_mode():
                outputs = self._together.outputs(seen, self.played[envs, agents])
                drawn = self.present.network.distribution(outputs, legal, explore)
            parameters[envs, agents] = drawn.numpy()
        for actor, envs, agents in self._parts(separate):

            def rows(array: Any, envs: Array = envs, agents: Array = agents) -> Any:
                """Return a column's rows of this policy as those of one agent each in environments of their own."""
                return None if array is None else array[envs, agents][:, None]

            found, after = actor.decide(
                ActorInputs(
                    rows(inputs.obs),
                    rows(inputs.action_mask),
                    rows(inputs.inbox),
                    None if inputs.global_state is None else inputs.global_state[envs],
                    None if inputs.agents is None else inputs.agents[agents][:, None],
                    rows(inputs.alive),
                ),
                {name: rows(memory) for name, memory in state.items()},
                explore,
            )
            parameters[envs, agents] = found[:, 0]
            for name, memory in after.items():
                following[name][envs, agents] = memory[:, 0]
        return parameters, following

    def _parts(self, numbers: Sequence[int]) -> Iterator[tuple[NetworkActor, Array, Array]]:
        """Yield policies with the environments and agents that they play for, where there are any."""
        for number in numbers:
            envs, agents = np.nonzero(self.played == number)
            if len(envs):
                yield (self.present if number == PRESENT else self.snapshots[number]), envs, agents


class _Together:
    """The networks of several snapshots without memory as one, whose weights are stacked.

    Args:
        numbers: Of the snapshots, ascending.
        forward: Maps rows of each, ``[K, R, D]``, to the heads' outputs, ``[K, R, O]``.
        size: ``D``.
    """

    def __init__(self, numbers: Sequence[int], forward: _Forward, size: int) -> None:
        self._numbers, self._forward, self._size = np.array(numbers), forward, size
        self._traced: dict[int, _Forward] = {}  # by the number of rows

    @classmethod
    def of(cls, snapshots: Mapping[int, NetworkActor]) -> _Together | None:
        """Return the networks of snapshots by number; None where they cannot be stacked."""
        numbers = sorted(snapshots)
        networks = [Outputs(snapshots[number].network) for number in numbers]
        weights = torch.func.stack_module_state(networks)
        one = copy.deepcopy(networks[0]).to("meta")

        def of_one(parameters: Any, buffers: Any, rows: torch.Tensor) -> Any:
            return torch.func.functional_call(one, (parameters, buffers), (rows,))

        found = cls(
            numbers, lambda rows: torch.func.vmap(of_one)(*weights, rows), networks[0].network.spec.input_size
        )
        rows = torch.rand(len(networks), 2, found._size)
        try:
            with torch.no_grad():
                expected = torch.stack([plain(few) for plain, few in zip(networks, rows, strict=True)])
                if not torch.allclose(found._trace(2)(rows), expected, rtol=1e-4, atol=1e-5):
                    return None
        except Exception:  # whatever a network does that cannot be stacked or traced
            return None
        return found

    def outputs(self, rows: Array, played: Array) -> torch.Tensor:
        """Return the heads' outputs for rows ``[B, D]`` of the snapshots with these numbers (``[B]``)."""
        places = np.searchsorted(self._numbers, played)
        order = np.argsort(places, kind="stable")
        counts = np.bincount(places, minlength=len(self._numbers))
        column = np.empty(len(rows), np.int64)  # a row's place among those of its snapshot
        column[order] = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        longest = max(2, 1 << int(counts.max(initial=1) - 1).bit_length())
        padded = np.zeros((len(counts), longest, self._size), np.float32)
        padded[places, column] = rows
        if longest not in self._traced:
            self._traced[longest] = self._trace(longest)
        return self._traced[longest](torch.from_numpy(padded))[places, column]

    def _trace(self, rows: int) -> _Forward:
        """Return the forward pass for so many rows of each snapshot, as a graph that runs without Python."""
        example = torch.zeros(len(self._numbers), rows, self._size)
        with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = make_fx(self._forward)(example)
            return torch.jit.trace(graph, example, check_trace=False)


def frozen_policy(module: Any) -> Callable[[Mapping[str, Array]], Any]:
    """Return what gives a copy of a module whose ``policy`` has other weights, and never learns.

    It explores as much as the module itself does at the time.

    Args:
        module: An RLModule of this package.
    """

    def build(weights: Mapping[str, Array]) -> Any:
        found = copy.deepcopy(module)
        found.policy.load_state_dict(
            {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}
        )
        found.policy.exploration = module.policy.exploration
        return found.requires_grad_(False).eval()

    return build
