"""QMIX and its base: a team's Q-value is mixed from its agents' own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

import torch
from ray.rllib.algorithms.algorithm_config import NotProvided
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from qio_envs.api import ConfigError
from qio_rllib.algorithms.base import OffPolicyAlgorithm
from qio_rllib.algorithms.capabilities import Capabilities
from qio_rllib.algorithms.own_settings import checked_mapping
from qio_rllib.algorithms.q_learning import REFUSALS, QLearner, QLearningConfig
from qio_rllib.algorithms.search_spaces import holds_search_space
from qio_rllib.algorithms.settings import algorithm_name
from qio_rllib.learners.off_policy import Objective
from qio_rllib.learners.transitions import Transitions, mean_error, mean_over
from qio_rllib.models.joint_module import MixedQModule
from qio_rllib.models.messages import by_agent
from qio_rllib.models.mixers import MIXER, MONOTONIC, MixerSettings
from qio_rllib.models.values import NUM_AGENTS, STATE_SIZE, STATE_SOURCE
from qio_rllib.sampling.global_state import OBSERVATIONS, STATE, StateSource
from qio_rllib.sampling.rollout import Rollout
from qio_rllib.sampling.team_reward import COMMON, TEAM_REWARD, with_team_reward


class ValueDecompositionConfig(QLearningConfig):
    """Base of the configurations of `ValueDecomposition`s."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        continuous_actions=False, circuit=True, team_reward=True, instead=REFUSALS
    )
    learns_for_the_team = True
    mixer_type: ClassVar[str]
    """Type of the mixer where none is said."""

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class)
        self.mixer: dict[str, Any] = {"type": self.mixer_type}
        self.learner_config_dict = {**self.learner_config_dict, TEAM_REWARD: COMMON}
        self.rl_module(rl_module_spec=RLModuleSpec(module_class=MixedQModule))
        self.learners(learner_class=MixingLearner)

    def environment(self, env: Any = NotProvided, **kwargs: Any) -> Self:
        """Set the environment; arguments as in `ExploringConfig.environment`."""
        super().environment(env, **kwargs)
        self._set_mixed_state()
        return self

    def training(
        self,
        *,
        mixer: Mapping[str, Any] = NotProvided,
        **kwargs: Any,
    ) -> Self:
        """Set the training parameters; the rest as in `QLearningConfig.training`.

        Args:
            mixer: ``{"type": "monotonic" | "sum", "embedding": 32, ...}``, see `MixerSettings`; missing keys take their
                defaults, a missing type the algorithm's own.
            **kwargs: The other arguments.

        Raises:
            ConfigError: An unknown key, a value outside its range, or a mixer's state that the environment does not
                have.
        """
        super().training(**kwargs)
        given = self._checked(mixer=mixer)
        if given:
            self.mixer = checked_mapping(given[MIXER], _mixer)
            self._set_mixed_state()
        return self

    def validate(self) -> None:
        """Check the settings against each other; see `QLearningConfig.validate`."""
        super().validate()
        if self.team_reward is None:
            name = algorithm_name(type(self))
            raise ConfigError(
                f"{TEAM_REWARD}: {name} learns one value from one reward; set it to common, sum or mean"
            )

    @property
    def central_value(self) -> None:
        """None: what a mixer sees is said by ``mixer``."""
        return None

    def module_settings(self) -> dict[str, Any]:
        """Return what a module is told beside ``model_config``."""
        return {**super().module_settings(), MIXER: {"type": self.mixer_type, **self.mixer}}

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """Return the specification of a module."""
        return RLModuleSpec(module_class=MixedQModule)

    def get_default_learner_class(self) -> type[TorchLearner]:
        """Return the class of the Learner."""
        return MixingLearner

    def _set_mixed_state(self) -> None:
        """Let runners record the states that the mixer looks at."""
        description = self.describe_env()
        if description is None or holds_search_space(self.mixer):
            return
        settings = MixerSettings.of({"type": self.mixer_type, **self.mixer})
        assert settings is not None
        if not settings.needs_state:
            self._set_states({})
            return
        kind = settings.state or (STATE if description.state_size else OBSERVATIONS)
        try:
            source = StateSource.of(kind, self.env, description.observation_spaces, description.state_size)
        except ConfigError as error:
            raise ConfigError(f"{MIXER}.state: {error}") from error
        assert source is not None
        self._set_states({STATE_SOURCE: kind, STATE_SIZE: source.size, NUM_AGENTS: len(description.agents)})


class ValueDecomposition(OffPolicyAlgorithm):
    """Base of algorithms in which the value of what a team does is a function of its agents' own Q-values.

    The team learns one value from one reward, and gradients reach each agent through the mixer. Where the mixer is
    monotonic, the best joint action is each agent's own best action, so that acting is decentralised.
    """

    def sample(self, env_steps: int, random_actions: bool = False) -> list[Rollout]:
        """Return rollouts in which every agent's reward is the team's; see `RolloutAlgorithm.sample`.

        Raises:
            ConfigError: Agents earn different rewards, and ``team_reward`` does not say what the team earns.
        """
        found = super().sample(env_steps, random_actions)
        return [with_team_reward(rollout, self.config.team_reward) for rollout in found]


class MixingLearner(QLearner):
    """The mixed value regresses on the mixed target of the next step, by squared errors as published.

    An agent that is not there counts with a value of 0; a team's episode goes on while one of its agents does. The
    mixer is the first module's.
    """

    def optimizer_parameters(
        self, module: Any, config: Any
    ) -> dict[str, tuple[list[torch.nn.Parameter], float | list]]:
        """Return the parameters of the Q-network, and of the mixer where it is the module's."""
        return {"q": ([*module.policy.parameters(), *module.mixers.parameters()], config.lr)}

    def losses(self, batch: Transitions) -> Iterator[Objective]:
        """Yield the mean square of the team's temporal-difference errors (Rashid et al., 2018, equation 6).

        Each module's loss is an equal share of it.
        """
        own: list[torch.Tensor] = []
        best: list[torch.Tensor] = []
        stats = {}
        for g, module_id in enumerate(batch.modules):
            q_values, following = self.values(batch, g)
            own.append(q_values)
            best.append(following)
            stats[module_id, "q_mean"] = mean_over(q_values.detach(), batch.learned[g])
        first, indices = self.modules()[0], self.joint["indices"]
        mixed = first.mixer(by_agent(own, indices), batch.global_state)
        with torch.no_grad():
            goes_on = torch.cat(batch.present_next, dim=1).amax(dim=1)
            ahead = first.target_mixer(by_agent(best, indices), batch.next_global_state)
            ahead = batch.discounts[0][:, 0] * goes_on * ahead
            fresh = None if batch.length == 1 else batch.fresh_environments.flatten()
            targets = self.targets(batch, batch.rewards[0][:, 0], ahead, fresh)
        learned = torch.cat(batch.learned, dim=1).amax(dim=1)
        loss = mean_error(mixed, targets, learned)
        for module_id in batch.modules:
            stats[module_id, "team_q_mean"] = mean_over(mixed.detach(), learned)
        share = loss if len(batch.modules) == 1 else loss / len(batch.modules)
        yield Objective("q", dict.fromkeys(batch.modules, share), stats)


class QMIXConfig(ValueDecompositionConfig):
    """Configuration of `QMIX`."""

    mixer_type = MONOTONIC

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or QMIX)
        self.bootstrap_at_time_limit = False  # states hold the time left


class QMIX(ValueDecomposition):
    """A team's Q-value is a monotonic function of its agents', whose form depends on the global state.

    T. Rashid et al., "QMIX: Monotonic Value Function Factorisation for Deep Multi-Agent Reinforcement Learning", 2018,
    with double and dueling networks and n-step returns. ``mixer: {type: sum}`` makes it `VDN`.
    """

    @classmethod
    def get_default_config(cls) -> QMIXConfig:
        """Return the default configuration."""
        return QMIXConfig()


def _mixer(settings: Mapping[str, Any]) -> dict[str, Any]:
    MixerSettings.of(settings)
    return dict(settings)
