"""A trained policy as plain torch functions: it acts without Ray."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import gymnasium
import numpy as np
import torch

from qio_envs.api import ConfigError
from qio_rllib.acting.communication import Communication, inbox
from qio_rllib.exploration import Amplification, operate


@dataclasses.dataclass(frozen=True)
class ActionSpec:
    """How a module's output becomes an action.

    Attributes:
        count: Number of discrete actions, or None for continuous ones.
        low: Lower bounds of continuous actions, flat.
        high: Upper bounds of continuous actions, flat.
        rescaled: Whether the policy acts in [-1, 1] and is scaled to the bounds (RLlib's ``normalize_actions``).
    """

    count: int | None
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    rescaled: bool = False

    @classmethod
    def of(cls, space: gymnasium.Space, rescaled: bool) -> Self:
        """Describe a Discrete (from 0) or one-dimensional Box space.

        Raises:
            ConfigError: Another kind of space.
        """
        if isinstance(space, gymnasium.spaces.Discrete) and space.start == 0:
            return cls(int(space.n))
        if isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1:
            return cls(None, tuple(space.low.tolist()), tuple(space.high.tolist()), rescaled)
        raise ConfigError(f"policies act in Discrete and one-dimensional Box spaces, not in {space}")

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """Return what the environment takes for a policy's actions: scaled or clipped to the bounds.

        Args:
            actions: int ``[...]`` or float32 ``[..., D]``.
        """
        if self.count is not None:
            return actions
        low, high = np.array(self.low, np.float32), np.array(self.high, np.float32)
        if self.rescaled:
            bounded = np.isfinite(low) & np.isfinite(high)
            scaled = low + (np.clip(actions, -1, 1) + 1) * (np.where(bounded, high - low, 0) / 2)
            return np.where(bounded, scaled, actions).astype(np.float32)
        return np.clip(actions, low, high)


@dataclasses.dataclass(frozen=True)
class PolicyModule:
    """One network with what surrounds it.

    Attributes:
        network: Maps observations ``[B, ...]`` to logits ``[B, A]``, or to means and log deviations ``[B, 2 D]``; where
            agents communicate, observations and inboxes in one row.
        action: How its output becomes an action.
        amplification: The Q operator behind the network, or None.
        speak: Maps observations ``[B, D]`` to messages ``[B, K]``; None without communication.
        samples_only: Whether it is always sampled, greedy play included: the policies of agents that share a quantum
            state, whose most probable joint action no separate agents could find.
    """

    network: Callable[[torch.Tensor], torch.Tensor]
    action: ActionSpec
    amplification: Amplification | None
    speak: Callable[[torch.Tensor], torch.Tensor] | None = None
    samples_only: bool = False

    def message(self, observations: np.ndarray) -> np.ndarray:
        """Return what agents with these observations say, float32 ``[B, K]``."""
        assert self.speak is not None
        with torch.no_grad():
            return self.speak(torch.as_tensor(np.asarray(observations, np.float32))).numpy()

    def act(self, observations: np.ndarray, mask: np.ndarray | None, noise: np.ndarray | None) -> np.ndarray:
        """Choose actions for a batch.

        Args:
            observations: ``[B, ...]``, taken as float32; with what was heard, where agents communicate.
            mask: Legal actions ``[B, A]`` (nonzero = legal), or None.
            noise: Uniform on [0, 1) ``[B]`` (discrete) or standard normal ``[B, D]`` (continuous); None takes the most
                probable action.

        Returns:
            int64 ``[B]`` or float32 ``[B, D]``.
        """
        with torch.no_grad():
            output = self.network(torch.as_tensor(np.asarray(observations, np.float32)))
            if self.action.count is None:
                return self._continuous(output.numpy(), noise)
            legal = None if mask is None else torch.as_tensor(mask != 0)
            settings = self.amplification or Amplification(0.0, 0.0, 1.0)
            log_probs = operate(settings, output, settings.eta, settings.h_min, settings.tau, legal).double()
            if noise is None:
                return log_probs.argmax(dim=-1).numpy()
            cumulative = log_probs.exp().cumsum(dim=-1).numpy()
        # Inverse of the distribution function; scaled by the last value, an action of probability 0 is never hit.
        return (noise[:, None] * cumulative[:, -1:] >= cumulative).sum(axis=1)

    def _continuous(self, output: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
        mean, log_deviation = np.split(output, 2, axis=-1)
        action = mean if noise is None else mean + np.exp(log_deviation) * noise.astype(np.float32)
        return self.action.to_env(action)


@dataclasses.dataclass(frozen=True)
class Policy:
    """Everything that is needed to act for all agents of an environment.

    Attributes:
        modules: By module id.
        module_of: Module id by agent id (``None`` is the only agent of a single-agent environment).
        env: Name of the environment that it was trained in.
        env_config: That environment's arguments.
        communication: How the agents' messages travel; None where they do not talk.
    """

    modules: Mapping[str, PolicyModule]
    module_of: Mapping[str | None, str]
    env: str
    env_config: Mapping[str, Any]
    communication: Communication | None = None

    def act(
        self,
        observations: Mapping[Any, Any],
        explore: bool = False,
        rng: np.random.Generator | None = None,
    ) -> dict[Any, Any]:
        """Choose an action for every agent that has an observation; those agents hear each other.

        Args:
            observations: By agent id, as a PettingZoo environment gives them.
            explore: Sample from the policy instead of taking the most probable action.
            rng: Source of the samples, required with ``explore``, and of lost messages.

        Raises:
            ConfigError: An agent that the policy does not know.
            ValueError: There is no ``rng`` and one is needed.
        """
        sampled = explore or any(module.samples_only for module in self.modules.values())
        if rng is None and (sampled or (self.communication is not None and self.communication.drop > 0)):
            raise ValueError("rng: sampling and lossy communication need a numpy.random.Generator")
        return self.act_in([(observations, rng)], explore)[0]

    def act_in(
        self, episodes: Sequence[tuple[Mapping[Any, Any], np.random.Generator | None]], explore: bool
    ) -> list[dict[Any, Any]]:
        """Choose actions in several environments with one pass per module.

        Args:
            episodes: Observations by agent id, and the generator of that environment's draws.
            explore: As in `act`.

        Returns:
            Actions by agent id, one dictionary an environment.
        """
        rows = [(agent, seen) for observations, _ in episodes for agent, seen in observations.items()]
        groups: dict[str, list[int]] = {}
        for index, (agent, _) in enumerate(rows):
            if agent not in self.module_of:
                raise ConfigError(
                    f"the policy knows no agent '{agent}'; allowed: {', '.join(map(str, self.module_of))}"
                )
            groups.setdefault(self.module_of[agent], []).append(index)
        masked = [isinstance(seen, Mapping) for _, seen in rows]
        inputs = [
            np.asarray(seen["observation"] if mask else seen)
            for (_, seen), mask in zip(rows, masked, strict=True)
        ]
        if self.communication is not None:
            heard = self._hear(self.communication, episodes, groups, inputs)
            inputs = [np.concatenate([seen, said]) for seen, said in zip(inputs, heard, strict=True)]
        noise = [
            self._draw(agent, rng) if rng is not None and (explore or self._is_sampled(agent)) else None
            for observations, rng in episodes
            for agent in observations
        ]
        actions: list[Any] = [None] * len(rows)
        for module_id, members in groups.items():
            chosen = self.modules[module_id].act(
                np.stack([inputs[index] for index in members]),
                np.stack([rows[index][1]["action_mask"] for index in members])
                if masked[members[0]]
                else None,
                np.stack([noise[index] for index in members])  # type: ignore[misc]
                if explore or self.modules[module_id].samples_only
                else None,
            )
            discrete = self.modules[module_id].action.count is not None
            for index, action in zip(members, chosen, strict=True):
                actions[index] = int(action) if discrete else action
        given = iter(actions)
        return [{agent: next(given) for agent in observations} for observations, _ in episodes]

    def _hear(
        self,
        communication: Communication,
        episodes: Sequence[tuple[Mapping[Any, Any], np.random.Generator | None]],
        groups: Mapping[str, list[int]],
        inputs: list[np.ndarray],
    ) -> list[np.ndarray]:
        """Return what each row's agent hears of the others in its environment."""
        sent = np.empty((len(inputs), communication.bandwidth), np.float32)
        for module_id, members in groups.items():
            sent[members] = self.modules[module_id].message(np.stack([inputs[index] for index in members]))
        heard: list[np.ndarray] = []
        for observations, rng in episodes:
            count = len(observations)
            present = np.ones((1, count), bool)
            delivered = communication.deliver(present, rng if rng is not None else np.random.default_rng())
            heard += list(inbox(sent[len(heard) : len(heard) + count], delivered[0]))
        return heard

    def _is_sampled(self, agent: Any) -> bool:
        return self.modules[self.module_of[agent]].samples_only

    def _draw(self, agent: Any, rng: np.random.Generator) -> np.ndarray:
        action = self.modules[self.module_of[agent]].action
        return np.asarray(rng.random() if action.count is not None else rng.standard_normal(len(action.low)))
