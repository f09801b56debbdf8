"""What an algorithm can do: declared once in its configuration; refusals, the table in the docs and tests follow."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import gymnasium

from qio_envs.api import ConfigError
from qio_rllib.acting.actions import ActionSpec


@dataclasses.dataclass(frozen=True)
class Capabilities:
    """What an algorithm supports.

    Attributes:
        discrete_actions: Discrete action spaces.
        continuous_actions: Box action spaces.
        product_actions: Action spaces of several numbers that are chosen independently: MultiDiscrete, MultiBinary, and
            Dict or Tuple of these and of Discrete and Box; Discrete that does not begin at 0, and Box of other than one
            dimension.
        action_masks: Observations with an ``action_mask``: illegal actions are never taken.
        recurrence: Modules with memory, ``model_config: {use_lstm: true}`` or ``{use_gru: true}``.
        agent_id: A one-hot index within the module beside the observation, ``agent_id``.
        several_learners: ``num_learners`` above 1.
        central_value: A value network that sees more than its agent, ``central_value``.
        normalize_values: Standardised value targets, ``normalize_values``.
        normalize_observations: Observations in units of their running deviation, ``normalize_observations``.
        normalize_rewards: Rewards in units of the running deviation of returns, ``normalize_rewards``.
        amplification: The Q operator, ``amplification``.
        entropy_annealing: A law of the entropy coefficient, ``entropy_annealing``.
        circuit: Quantum circuits as networks, ``circuit``.
        coordination: Teams that share a quantum state, ``coordination``.
        imagination: Imagined rollouts beside the observation, ``imagination``.
        counterfactual_baseline: Advantages against other actions under the same noise, ``counterfactual_baseline``.
        interventional_consistency: A term that counts how a policy changes with what no reward depends on,
            ``interventional_consistency``.
        influence_reward: Pay for influence on other agents, ``influence_reward``.
        team_reward: One reward for all agents, ``team_reward``.
        self_play: Opponents from a pool of snapshots, ``self_play``.
        opponent_model: A policy that predicts what the other agents do, ``opponent_model``.
        time_limits_as_ends: Returns that stop at a time limit, ``bootstrap_at_time_limit: false``.
        communication: Learned messages between agents, ``communication``.
        rllib_runner: RLlib's own env runner beside `BatchedEnvRunner`, ``env_runner_cls: None``.
        instead: By the name of something that is not supported, why, and what to do: the end of a message that begins
            with the key and the algorithm.
    """

    discrete_actions: bool = True
    continuous_actions: bool = True
    product_actions: bool = False
    action_masks: bool = True
    recurrence: bool = True
    agent_id: bool = True
    several_learners: bool = False
    central_value: bool = False
    normalize_values: bool = False
    normalize_observations: bool = False
    normalize_rewards: bool = False
    amplification: bool = False
    entropy_annealing: bool = False
    circuit: bool = False
    coordination: bool = False
    imagination: bool = False
    counterfactual_baseline: bool = False
    interventional_consistency: bool = False
    influence_reward: bool = False
    team_reward: bool = False
    self_play: bool = False
    opponent_model: bool = False
    time_limits_as_ends: bool = True
    communication: bool = False
    rllib_runner: bool = False
    instead: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def refuse(self, capability: str, algorithm: str, key: str, end: str = "") -> None:
        """Refuse a setting that needs what is not supported.

        Args:
            capability: Name of a field.
            algorithm: For the message.
            key: The setting.
            end: Put after the reason.

        Raises:
            ConfigError: It is not supported.
        """
        if not getattr(self, capability):
            reason = self.instead.get(capability, _REASONS[capability])
            raise ConfigError(f"{key}: {algorithm}{reason}{end}")


CAPABILITIES = tuple(field.name for field in dataclasses.fields(Capabilities) if field.name != "instead")
"""Names of all capabilities, in the order of the docs table."""


TRAINING_KEYS = (
    "agent_id",
    "central_value",
    "normalize_values",
    "normalize_observations",
    "normalize_rewards",
    "amplification",
    "entropy_annealing",
    "circuit",
    "communication",
    "coordination",
    "imagination",
    "counterfactual_baseline",
    "interventional_consistency",
    "influence_reward",
    "team_reward",
    "self_play",
    "opponent_model",
)
"""Capabilities that are switched on by a setting of the same name, which every algorithm's ``training`` takes."""


_REASONS = {
    "discrete_actions": " needs Box actions",
    "continuous_actions": " needs Discrete actions",
    "product_actions": " takes a discrete number from 0 or a row of real numbers as an action; PPO and A2C take more",
    "action_masks": " does not know action masks; take an environment without them",
    "recurrence": " has no memory; set use_lstm and use_gru to false",
    "agent_id": " does not tell agents apart; set it to false",
    "several_learners": " learns in one Learner",
    "central_value": " has no value network; set it to null",
    "normalize_values": " has no value network; set it to false",
    "normalize_observations": " takes observations as they are; PPO's and A2C's networks normalise; set it to false",
    "normalize_rewards": " takes rewards as they are; PPO and A2C normalise; set it to false",
    "amplification": " has no policy over discrete actions to amplify; set it to null",
    "entropy_annealing": "'s loss has no entropy coefficient; set it to null",
    "circuit": "'s networks are no circuits; set it to null",
    "coordination": " has no policy for a whole team; set it to null",
    "imagination": "'s networks see no imagined rollouts; PPO's and A2C's do; set it to null",
    "counterfactual_baseline": " takes no advantages from rollouts; PPO and A2C do; set it to null",
    "interventional_consistency": "'s loss has no such term for its policy; PPO's and A2C's do; set it to null",
    "influence_reward": " does not learn from rollouts; PPO and A2C do; set it to null",
    "team_reward": " learns from each agent's own rewards; set it to null",
    "self_play": " has no pool of opponents; PPO, A2C and MADDPG have; set it to null",
    "opponent_model": "'s policy does not predict the other agents; PPO's and A2C's do; set it to null",
    "time_limits_as_ends": " learns where episodes end, and a limit is no such end; set it to true",
    "communication": " has no messages; set it to null",
    "rllib_runner": " needs BatchedEnvRunner",
}


def is_wanted(value: Any) -> bool:
    """Return whether the value of a setting asks for something; an empty mapping asks for the defaults."""
    return value is not None and value is not False


def check_action_spaces(
    capabilities: Capabilities, algorithm: str, spaces: Iterable[tuple[Any, gymnasium.Space]]
) -> None:
    """Refuse environments whose actions an algorithm cannot take.

    Args:
        capabilities: Of the algorithm.
        algorithm: For messages.
        spaces: Agents and their action spaces.

    Raises:
        ConfigError: Naming the first agent that it cannot act for, or a kind of space that no policy acts in.
    """
    for agent, space in spaces:
        end = f", {'the environment' if agent is None else agent} has {space}"
        spec = ActionSpec.of(space, rescaled=False)
        if spec.parts is not None:
            capabilities.refuse("product_actions", algorithm, "env", end)
        elif spec.count is not None:
            capabilities.refuse("discrete_actions", algorithm, "env", end)
        else:
            capabilities.refuse("continuous_actions", algorithm, "env", end)


def capability_table(algorithms: Mapping[str, Any]) -> list[list[str]]:
    """Return the rows of the docs table: a header of algorithms, then one row a capability with "yes" or "no".

    Args:
        algorithms: Configuration classes by name; each has ``capabilities``.
    """
    rows = [["", *algorithms]]
    for name in CAPABILITIES:
        marks = ["yes" if getattr(found.capabilities, name) else "no" for found in algorithms.values()]
        rows.append([name.replace("_", " "), *marks])
    return rows
