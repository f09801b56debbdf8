"""COMA: counterfactual multi-agent policy gradients, for discrete actions."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from ray.rllib.algorithms.algorithm_config import NotProvided
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from qio_envs.api import ConfigError
from qio_rllib.acting.distributions import Distributions
from qio_rllib.algorithms.base import OnPolicyAlgorithm
from qio_rllib.algorithms.capabilities import Capabilities
from qio_rllib.algorithms.joint_config import JointConfig
from qio_rllib.algorithms.own_settings import ENTROPY_ANNEALING, NORMALIZE_VALUES, checked_mapping
from qio_rllib.algorithms.search_spaces import holds_search_space
from qio_rllib.algorithms.setting_types import Range, Schedule
from qio_rllib.learners.client_correction import FEDPROX, SCAFFOLD
from qio_rllib.learners.entropy_annealing import EntropyCoefficients
from qio_rllib.learners.joint_rollouts import JointRollout, joint_rollout_of, lambda_returns
from qio_rllib.learners.off_policy import JointLearner, Objective
from qio_rllib.learners.on_policy import window_length
from qio_rllib.learners.popart import PopArt
from qio_rllib.learners.transitions import Transitions, following_outputs, mean_over, outputs_of
from qio_rllib.models.joint_critics import CriticSettings
from qio_rllib.models.joint_module import CRITIC, COMAModule, one_hot
from qio_rllib.sampling.runner import BatchedEnvRunner
from qio_rllib.sampling.team_reward import with_team_reward

_ENTROPY_STATE, _POPART_STATE = "entropy_coefficients", "popart"


class COMAConfig(JointConfig):
    """Configuration of `COMA`.

    A batch is ``rollout_fragment_length`` steps of each environment: ``num_critic_updates`` gradient steps of the
    critic, then one of the policy.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        continuous_actions=False,
        central_value=True,
        normalize_values=True,
        amplification=True,
        entropy_annealing=True,
        circuit=True,
        team_reward=True,
        instead={
            "counterfactual_baseline": "'s advantages are counterfactual as they are; set it to null",
            "influence_reward": " learns from the environment's rewards alone; set it to null",
            "coordination": "'s actors act each by itself; PPO and A2C take it",
        },
    )

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or COMA)
        self.actor_lr: float | list = 5e-4
        self.critic_lr: float | list = 5e-4
        self.critic: dict[str, Any] | None = None
        self.lambda_ = 0.8
        self.num_critic_updates = 8
        self.tau = 1.0
        self.target_network_update_freq: int | None = 150
        self.exploration: float | list = [[0, 0.5], [100_000, 0.02]]
        self.entropy_coeff: float | list = 0.0
        self.standardize_advantages = False
        self.grad_clip = 10.0
        self.grad_clip_by = "global_norm"
        self.num_env_runners = 0
        self.num_envs_per_env_runner = 8
        self.rollout_fragment_length = 32
        self.train_batch_size_per_learner = 256
        self.min_sample_timesteps_per_iteration = 2048
        self.rl_module(rl_module_spec=RLModuleSpec(module_class=COMAModule))
        self.env_runners(env_runner_cls=BatchedEnvRunner)
        self.learners(learner_class=COMALearner)

    def environment(self, env: Any = NotProvided, **kwargs: Any) -> Self:
        """Set the environment; arguments as in `ExploringConfig.environment`."""
        super().environment(env, **kwargs)
        self._choose_states()
        return self

    def training(
        self,
        *,
        actor_lr: Annotated[float | list, Schedule()] = NotProvided,
        critic_lr: Annotated[float | list, Schedule()] = NotProvided,
        critic: Mapping[str, Any] | None = NotProvided,
        central_value: Literal["state", "observations"] | None = NotProvided,
        lambda_: Annotated[float, Range(0, 1)] = NotProvided,
        num_critic_updates: Annotated[int, Range(1)] = NotProvided,
        tau: Annotated[float, Range(0, 1, low_open=True)] = NotProvided,
        target_network_update_freq: Annotated[int | None, Range(1)] = NotProvided,
        exploration: Annotated[float | list, Schedule(high=1)] = NotProvided,
        entropy_coeff: Annotated[float | list, Schedule()] = NotProvided,
        standardize_advantages: bool = NotProvided,
        **kwargs: Any,
    ) -> Self:
        """Set the training parameters; the rest as in `ExploringConfig.training`.

        Args:
            actor_lr: Learning rate of the policies, or a schedule ``[[timestep, value], ...]``.
            critic_lr: Likewise of the critics.
            critic: ``{"hiddens": [128, 128], "activation": "relu"}``, see `CriticSettings`; missing keys take these
                defaults.
            central_value: What critics see besides the agent's own observation, its place among the agents of its
                module and the others' actions: ``"state"``, the environment's ``state()``, or ``"observations"``, those
                of all agents. None: the state if there is one, else the observations.
            lambda_: Of the critic's TD(lambda) targets, in [0, 1].
            num_critic_updates: Gradient steps of the critic on each batch, each on an equal share of its steps, the
                last ones first; at most ``rollout_fragment_length``.
            tau: Share of the present critic that the target critic takes over when it moves, in (0, 1].
            target_network_update_freq: Gradient steps of the critic between two moves of the target critic; None for
                one after each.
            exploration: Share of uniformly random actions (epsilon) in the policy that acts and learns; a number, or a
                schedule over environment steps.
            entropy_coeff: Weight of the policy's entropy in nats, or a schedule ``[[timestep, value], ...]``.
            standardize_advantages: Whether each batch's advantages are divided by their root mean square, behind which
                they still sum to 0 under the policy.
            **kwargs: The other arguments.

        Raises:
            ConfigError: An unknown key or a value outside its range.
        """
        super().training(central_value=central_value, **kwargs)
        self._take(
            actor_lr=actor_lr,
            critic_lr=critic_lr,
            lambda_=lambda_,
            num_critic_updates=num_critic_updates,
            tau=tau,
            target_network_update_freq=target_network_update_freq,
            exploration=exploration,
            entropy_coeff=entropy_coeff,
            standardize_advantages=standardize_advantages,
        )
        for value in self._checked(critic=critic).values():
            self._take(critic=checked_mapping(value, _critic))
        self._choose_states()
        return self

    def validate(self) -> None:
        """Check the settings against each other.

        Raises:
            ConfigError: A value that does not fit another.
        """
        super().validate()
        steps = self.rollout_fragment_length
        if not isinstance(steps, int):
            raise ConfigError(f"rollout_fragment_length: a number of steps is needed, got {steps!r}")
        if not self.in_evaluation and self.num_critic_updates > steps:
            raise ConfigError(
                f"num_critic_updates: {self.num_critic_updates} are more than the {steps} steps of a rollout "
                "(rollout_fragment_length)"
            )

    def module_settings(self) -> dict[str, Any]:
        """Return what a module is told beside ``model_config``: its critic."""
        return {CRITIC: self.critic}

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """Return the specification of a module."""
        return RLModuleSpec(module_class=COMAModule)

    def get_default_learner_class(self) -> type[TorchLearner]:
        """Return the class of the Learner."""
        return COMALearner

    def _choose_states(self) -> None:
        """Let critics see the environment's state, or where it has none all observations, unless it is said."""
        if self.central_value is not None or holds_search_space(self.env_config):
            return
        description = self.describe_env()
        if description is not None:
            kind: Literal["state", "observations"] = "state" if description.state_size else "observations"
            super().training(central_value=kind)


def _critic(settings: Mapping[str, Any]) -> dict[str, Any]:
    kind = CriticSettings.of(settings).type
    if kind != "mlp":
        raise ConfigError(
            f"critic: COMA's critic is an mlp over the state and the others' actions, got {kind}"
        )
    return dict(settings)


class COMA(OnPolicyAlgorithm):
    """Counterfactual multi-agent policy gradients (Foerster et al., 2018).

    A critic, for training only, values all of an agent's actions given what the others do. An action's advantage is its
    value less the mean value of the agent's actions under its policy: what it was worth compared with what else the
    agent could have done. The critic learns the return of each agent's own rewards, which with a common reward (or with
    ``team_reward``) is the team's.
    """

    @classmethod
    def get_default_config(cls) -> COMAConfig:
        """Return the default configuration."""
        return COMAConfig()


class COMALearner(JointLearner):
    """Critics regress on TD(lambda) targets; then policies follow counterfactual advantages."""

    corrections = (FEDPROX, SCAFFOLD)

    @classmethod
    def memory_interval(cls, config: Any) -> int:
        """Return after how many steps runners record the memory of agents: the length of a window."""
        return window_length(config.model_config) or 1

    def build(self) -> None:
        """Build the Learner, its entropy coefficients and the scales of its values."""
        super().build()
        settings = self.config.learner_config_dict
        normalizes = settings.get(NORMALIZE_VALUES)
        self._popart = {key: PopArt() for key in self.joint["modules"]} if normalizes else {}
        self.entropy_coefficients = EntropyCoefficients(
            settings.get(ENTROPY_ANNEALING),
            lambda module_id: self.config.get_config_for_module(module_id).entropy_coeff,
            self._device,
        )

    def optimizer_parameters(
        self, module: Any, config: Any
    ) -> dict[str, tuple[list[torch.nn.Parameter], float | list]]:
        """Return the parameters of policy and critic."""
        return {
            "actor": ([*module.policy.parameters()], config.actor_lr),
            "critic": ([*module.critics.parameters()], config.critic_lr),
        }

    def learn(self, experience: list[Any], updates: int) -> None:
        """Take the critics' gradient steps on rollouts, and then one of the policies."""
        if self.config.team_reward is not None:
            experience = [with_team_reward(rollout, self.config.team_reward) for rollout in experience]
        batch = joint_rollout_of(experience, self.joint, self.config.gamma, self._device)
        targets = self.targets(batch)
        if self._popart:
            targets = self._normalized(batch.whole, targets)
        pieces = self.config.num_critic_updates
        bounds = [batch.num_steps * piece // pieces for piece in range(pieces + 1)]
        envs = len(targets[0]) // batch.num_steps
        totals: dict[tuple[str, str], torch.Tensor] = {}
        for start, stop in reversed([*itertools.pairwise(bounds)]):
            rows = slice(start * envs, stop * envs)
            objective = self.critic_objective(batch.rows(rows), [part[rows] for part in targets])
            for key, value in self.descend(objective).items():
                totals[key] = totals[key] + value if key in totals else value
            self.follow()
        means = {key: float(total) / pieces for key, total in totals.items()}
        stats = self.descend(self.actor_objective(batch))
        means |= {key: float(value) for key, value in stats.items()}
        for module_id, popart in self._popart.items():
            means[module_id, "value_mean"], means[module_id, "value_deviation"] = (
                popart.mean,
                popart.deviation,
            )
        acted = batch.whole.acted
        steps = {key: int(part.sum()) for key, part in zip(self.joint["modules"], acted, strict=True)}
        self.report(means, steps, 1)

    def critic_objective(self, batch: Transitions, targets: list[torch.Tensor]) -> Objective:
        """Return the mean squared error of the values of what agents did (Foerster et al., 2018, algorithm 1).

        Args:
            batch: Some steps.
            targets: ``[R, M]`` by group; with ``normalize_values`` standardised.
        """
        losses, stats = {}, {}
        for g, (module_id, module) in enumerate(zip(batch.modules, self.modules(), strict=True)):
            values = self.values(module.critic(), batch)
            taken = (values * batch.actions[g]).sum(-1)
            losses[module_id] = mean_over((taken - targets[g]) ** 2, batch.acted[g])
            stats[module_id, "q_mean"] = mean_over(taken.detach(), batch.acted[g])
        return Objective("critic", losses, stats)

    def actor_objective(self, batch: JointRollout) -> Objective:
        """Return the policy gradient loss with counterfactual advantages and an entropy term (equations 4 and 5)."""
        whole = batch.whole
        losses, stats = {}, {}
        for g, (module_id, module) in enumerate(zip(whole.modules, self.modules(), strict=True)):
            outputs = torch.cat([outputs_of(module.policy, part, g, 0)[0] for part in batch.windows])
            policy = self.policy(module, outputs, whole.legal[g])
            acted = whole.acted[g]
            advantages = self.advantages(module, whole, g, policy.probs)
            size = mean_over(advantages**2, acted).sqrt()
            if self.config.standardize_advantages:
                advantages = advantages / size.clamp_min(1e-4)
            gain = mean_over(policy.logp(whole.actions[g].argmax(-1)) * advantages, acted)
            entropy = mean_over(policy.entropy(), acted)
            losses[module_id] = -gain - self.entropy_coefficients.current(module_id) * entropy
            stats[module_id, "policy_loss"] = -gain.detach()
            stats[module_id, "entropy"] = entropy.detach()
            stats[module_id, "advantage_size"] = size
            legal = whole.legal[g]
            count = policy.probs.shape[-1] if legal is None else legal.sum(-1)[acted > 0]
            self.entropy_coefficients.record(module_id, policy.entropy()[acted > 0], count)
        return Objective("actor", losses, stats)

    def advantages(self, module: COMAModule, batch: Transitions, g: int, probs: torch.Tensor) -> torch.Tensor:
        """Return ``Q(s, u) - sum_a pi(a) Q(s, (u_-i, a))`` of what a group's agents did, ``[R, M]`` (equation 4).

        Args:
            module: Of the group, whose present critic counts.
            batch: The steps.
            g: Which group.
            probs: Of its policy, ``[R, M, A]``.
        """
        with torch.no_grad():
            values = self.values(module.critic(), batch)
            taken = (values * batch.actions[g]).sum(-1)
            return taken - (probs * values).sum(-1)

    def targets(self, batch: JointRollout) -> list[torch.Tensor]:
        """Return TD(lambda) targets of the values of what agents did, in the units of rewards, ``[R, M]`` by group.

        Where the next action is known, an estimate of what follows is the target critic's value of it. Where a rollout
        or a truncated episode ends, it is the mean value of the agent's actions under its policy, others' actions drawn
        from theirs.
        """
        whole, steps, modules = batch.whole, batch.num_steps, self.modules()
        shape = (steps, -1)
        with torch.no_grad():
            continuing = [batch.continuing(g) for g in range(len(modules))]
            ends = torch.stack(
                [(whole.present_next[g] > part.flatten(0, 1)).any(dim=1) for g, part in enumerate(continuing)]
            )
            rows = ends.any(dim=0).nonzero().squeeze(-1)
            beyond = self._values_beyond(modules, batch, rows)
            found = []
            for g, module in enumerate(modules):
                taken = self.values(module.critic(target=True), whole) * whole.actions[g]
                values = self._scaled(g, taken.sum(-1)).unflatten(0, shape)
                ahead = torch.zeros_like(values)
                ahead[:-1] = values[1:]
                after = torch.zeros_like(ahead.flatten(0, 1))
                after[rows] = self._scaled(g, beyond[g])
                ahead = torch.where(continuing[g] > 0, ahead, after.unflatten(0, shape))
                discounts = (whole.discounts[g] * whole.present_next[g]).unflatten(0, shape)
                returns = lambda_returns(
                    whole.rewards[g].unflatten(0, shape),
                    discounts,
                    ahead,
                    continuing[g],
                    self.config.lambda_,
                )
                found.append(returns.flatten(0, 1))
            return found

    def values(self, critic: Any, batch: Transitions) -> torch.Tensor:
        """Return a critic's values of all actions of its module's agents, ``[R, M, A]``."""
        return critic(batch.view(), batch.actions)

    def policy(self, module: COMAModule, outputs: torch.Tensor, legal: torch.Tensor | None) -> Distributions:
        """Return the policy that acts: the softmax with its share of random actions."""
        return Distributions(module.policy.distribution(outputs, legal, explore=True), discrete=True)

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Move entropy coefficients, and report them."""
        moved = self.entropy_coefficients.advance(timesteps.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0))
        super().after_gradient_based_update(timesteps=timesteps)
        for key, value in moved.items():
            self.metrics.log_value(key, value, window=1)

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the Learner's state with that of annealing laws and scales."""
        state = super().get_state(*args, **kwargs)
        if not kwargs.get("inference_only"):
            state[_ENTROPY_STATE] = self.entropy_coefficients.get_state()
            state[_POPART_STATE] = {key: scale.get_state() for key, scale in self._popart.items()}
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the Learner."""
        super().set_state(state)
        if _ENTROPY_STATE in state:
            self.entropy_coefficients.set_state(state[_ENTROPY_STATE])
        for module_id, scale in state.get(_POPART_STATE, {}).items():
            if module_id in self._popart:
                self._popart[module_id].set_state(scale)

    def _values_beyond(
        self, modules: list[COMAModule], batch: JointRollout, rows: torch.Tensor
    ) -> list[torch.Tensor]:
        """Return the mean value under the policy of what follows some rows, ``[K, M]`` by group."""
        part = batch.rows(rows)
        actions, probs = [], []
        for g, module in enumerate(modules):
            if module.policy.memory is None:
                outputs = following_outputs(module.policy, part, g)
            else:
                outputs = following_outputs(module.policy, batch.whole, g)[rows]
            policy = self.policy(module, outputs, part.next_legal[g])
            probs.append(policy.probs)
            drawn = torch.multinomial(policy.probs.flatten(0, 1).cpu(), 1, generator=self.noise)
            count = policy.probs.shape[-1]
            actions.append(one_hot(drawn.reshape(policy.probs.shape[:2]).to(self._device), count))
        view = part.next_view(None)
        return [
            (probs[g] * module.critic(target=True)(view, actions)).sum(-1) for g, module in enumerate(modules)
        ]

    def _scaled(self, g: int, values: torch.Tensor) -> torch.Tensor:
        """Return values in the units of rewards."""
        popart = self._popart.get(self.joint["modules"][g])
        return values if popart is None else values * popart.deviation + popart.mean

    def _normalized(self, batch: Transitions, targets: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return standardised targets; move the scales of the values to theirs."""
        found = []
        for g, (module_id, module) in enumerate(zip(batch.modules, self.modules(), strict=True)):
            popart, rows = self._popart[module_id], targets[g][batch.acted[g] > 0].double()
            if len(rows):
                heads = (module.critic().head, module.critic(target=True).head)
                popart.update(float(rows.mean()), float((rows * rows).mean()), *heads)
            found.append((targets[g] - popart.mean) / popart.deviation)
        return found
