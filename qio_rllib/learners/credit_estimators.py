"""What algorithms take for the advantage of an action, from the value networks and critics that they trained."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from ray.rllib.core.rl_module.apis import ValueFunctionAPI

from qio_rllib.acting.team import INBOX, Team
from qio_rllib.evaluation.advantages import mean_over_policy
from qio_rllib.learners.advantages import compute_advantages
from qio_rllib.learners.popart import PopArt
from qio_rllib.learners.training_batch import values_of
from qio_rllib.models.joint_critics import JointView
from qio_rllib.models.joint_module import JOINT, COMAModule, JointModule, MAACModule, QModule, one_hot
from qio_rllib.models.memory import memory_kind
from qio_rllib.sampling.continuations import Continuation
from qio_rllib.sampling.rollout import Array, with_limits_as_ends

_CPU = torch.device("cpu")


@dataclasses.dataclass(frozen=True)
class Trained:
    """What estimators read of a run.

    Attributes:
        team: Who acts.
        modules: RLModules by id, unwrapped; {} of a policy file.
        gamma: Discount.
        lambda_: Of generalised advantage estimation.
        popart: In whose units the values of a module are, by id; no entry for plain ones.
        limits_end: Whether it learned that a time limit ends an episode, see ``bootstrap_at_time_limit``.
        reward_scale: Factor of the rewards that Q-values were learned from.
    """

    team: Team
    modules: Mapping[str, Any]
    gamma: float
    lambda_: float
    popart: Mapping[str, PopArt]
    limits_end: bool = False
    reward_scale: float = 1.0


class Case:
    """Continuations of decisions, and what their agent's module says of them.

    Args:
        trained: The run.
        continuation: What followed; ``C`` branches of ``A`` actions.

    Attributes:
        module: The agent's module.
        probabilities: Its policy, ``[C, A]``.
    """

    def __init__(self, trained: Trained, continuation: Continuation) -> None:
        self.trained, self.continuation = trained, continuation
        self.module_id = trained.team.groups[continuation.group].module_id
        self.module = trained.modules[self.module_id]
        self.probabilities = continuation.probabilities

    @functools.cached_property
    def values(self) -> tuple[Array, Array]:
        """Values of all observations and of final ones, as `values_of` gives them."""
        with torch.inference_mode():
            return values_of(
                self.module, self.continuation.part, self.trained.popart.get(self.module_id), _CPU
            )

    def generalised_advantages(self, lambda_: float) -> Array:
        """Return the generalised advantage estimates of the actions, float64 ``[C, A]``."""
        part = self.continuation.part
        if self.trained.limits_end:
            part = with_limits_as_ends(part)
        found = compute_advantages(part, *self.values, self.trained.gamma, lambda_)
        return found[0].reshape(self.probabilities.shape).astype(np.float64)

    def less_mean(self, values: Array) -> Array:
        """Return values of actions ``[C, A]`` less their mean under the policy."""
        return values - mean_over_policy(values, self.probabilities)[:, None]

    def joint_values(self) -> Array:
        """Return what the critics say of each action while the others do what they did, ``[C, A]``; of two the lesser.

        The others do the same in all rows of a branch: one of them is looked at.
        """
        joint, found = self.module.settings[JOINT], self.continuation
        ids = [group.module_id for group in self.trained.team.groups]
        order = [ids.index(module_id) for module_id in joint["modules"]]
        every = slice(None, None, self.probabilities.shape[1])

        def tensors(arrays: list[Array]) -> list[torch.Tensor]:
            return [torch.from_numpy(np.ascontiguousarray(arrays[g][every])) for g in order]

        inboxes = None
        if INBOX in found.acted[0].extras:
            inboxes = tensors([one.extras[INBOX] for one in found.acted])
        alive = [found.alive[:, group.index].astype(np.float32) for group in self.trained.team.groups]
        states = found.part.global_states
        view = JointView(
            [rows.flatten(2) for rows in tensors(found.obs)],
            tensors(alive),
            inboxes,
            None if states is None else torch.from_numpy(states[0][every]),
        )
        actions = [
            one_hot(chosen, self.trained.team.groups[g].actor.action.count or 0)
            for g, chosen in zip(order, tensors([one.actions for one in found.acted]), strict=True)
        ]
        with torch.inference_mode():
            values = self._values_of_all_actions(view, actions, joint)
        return values[:, found.member].double().numpy()

    def _values_of_all_actions(
        self, view: JointView, actions: list[torch.Tensor], joint: Mapping[str, Any]
    ) -> torch.Tensor:
        """Return the values of all actions of the module's agents given what the others do, ``[C, M, A]``."""
        if isinstance(self.module, COMAModule):
            popart = self.trained.popart.get(self.module_id)
            values = self.module.critic()(view, actions)
            return values if popart is None else values * popart.deviation + popart.mean
        if isinstance(self.module, MAACModule):
            first = self.trained.modules[joint["modules"][0]]
            return first.attention().critic(view, actions).values[joint["own"]]
        own, found = torch.zeros_like(actions[joint["own"]]), []
        for action in range(own.shape[-1]):
            other = own.clone()
            other[..., action] = 1.0
            values = [
                network.critic.of_own(view, actions, other) for network in self.module.critic_networks()
            ]
            found.append(torch.stack(values).amin(0))
        return torch.stack(found, dim=-1)

    def q_values(self) -> Array:
        """Return the agent's own Q-values, in the unit of the rewards, ``[C, A]``."""
        found, network = self.continuation, self.module.policy
        count = self.probabilities.shape[1]
        rows = torch.from_numpy(found.part.observations[0, ::count].reshape(len(self.probabilities), -1))
        memory = found.memory.get("policy")
        with torch.inference_mode():
            state = None if memory is None else torch.from_numpy(np.ascontiguousarray(memory[::count]))
            q_values = network.outputs(network.features(rows, state)[0]).double().numpy()
        return q_values / self.trained.reward_scale


class Estimator(NamedTuple):
    """One way to estimate advantages.

    Attributes:
        name: In tables and figures.
        given_others: Whether it estimates the advantage given what the other agents did, as COMA does; else that over
            what they may do, of which a single estimate then is a draw.
        offered: Whether a module has what it needs.
        estimate: Gives the estimates of a `Case`, float64 ``[C, A]``.
    """

    name: str
    given_others: bool
    offered: Callable[[Any], bool]
    estimate: Callable[[Case], Array]


def _has_values(module: Any) -> bool:
    return isinstance(module, ValueFunctionAPI)


def _has_critics(module: Any) -> bool:
    """Whether there are critics of joint actions that can judge a single step."""
    if isinstance(module, COMAModule):
        return True
    if isinstance(module, MAACModule):  # of whose modules the first alone holds the critic
        return memory_kind(module.settings) is None
    return isinstance(module, JointModule) and all(
        network.memory is None for network in module.critic_networks()
    )


def _has_q_values(module: Any) -> bool:
    return isinstance(module, QModule)


def _against_branches(case: Case) -> Array:
    """Return the estimates against what the agent's other actions give in the step, under the same noise.

    r + gamma V(s') of the other actions stands in the branch's other rows; V(s) is the same in all.
    """
    step = case.generalised_advantages(0.0)
    return (
        case.generalised_advantages(case.trained.lambda_)
        - mean_over_policy(step, case.probabilities)[:, None]
    )


def _over_best(case: Case) -> Array:
    found = case.q_values()
    return found - np.where(case.probabilities > 0, found, -np.inf).max(axis=1, keepdims=True)


ESTIMATORS = (
    Estimator("GAE", False, _has_values, lambda case: case.generalised_advantages(case.trained.lambda_)),
    Estimator("one-step TD", False, _has_values, lambda case: case.generalised_advantages(0.0)),
    Estimator("return - value", False, _has_values, lambda case: case.generalised_advantages(1.0)),
    Estimator("GAE, counterfactual baseline", False, _has_values, _against_branches),
    Estimator("critic of actions", True, _has_critics, lambda case: case.less_mean(case.joint_values())),
    Estimator("Q - mean", False, _has_q_values, lambda case: case.less_mean(case.q_values())),
    Estimator("Q - max", False, _has_q_values, _over_best),
)
"""All estimators; another one is another line."""
