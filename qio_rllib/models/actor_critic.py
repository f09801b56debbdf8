"""The actor-critic module of PPO and A2C."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical, TorchDiagGaussian
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI, ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule

from qio_envs.api import ConfigError
from qio_rllib.models.communication import COMMUNICATION, Communication
from qio_rllib.models.parts import SpaceParts
from qio_rllib.models.policy_network import (
    CATEGORICAL,
    GAUSSIAN,
    PRODUCT,
    PolicyNetwork,
    PolicySpec,
    network_keys,
)
from qio_rllib.models.spaces import ACTION_MASK, OBSERVATION, bare_space, is_masked_space
from qio_rllib.models.values import (
    NUM_AGENTS,
    STATE_SIZE,
    STATE_SOURCE,
    TEAM_VALUE,
    CentralInputs,
    ValueNetwork,
)

INPUTS = "inputs"
"""Key under which `ActorCritic` takes `ModuleInputs` in place of RLlib's columns."""
OTHERS = "others"
"""Key of what it then predicts of other agents, or None, see `Evaluated`."""
POLICY, VALUE = "policy", "value"
"""Names of the memories in a module's state."""


@dataclasses.dataclass
class ModuleInputs:
    """What an actor-critic is trained on: rows ``[B, ...]``, or with memory sequences ``[T, B, ...]``.

    Attributes:
        rows: Flat observations, float32 ``[..., D]``, as `PolicyNetwork.perceived` gives them.
        legal: Legal actions, bool ``[..., A]``, or None.
        central: For a central value.
        memory: States before the first step, by `POLICY` and `VALUE`, float32 ``[B, S]``; empty without memory.
        fresh: Rows whose memory is put back to zeros before a step, bool ``[T, B]``; None without memory.
    """

    rows: torch.Tensor
    legal: torch.Tensor | None = None
    central: CentralInputs | None = None
    memory: Mapping[str, torch.Tensor] = dataclasses.field(default_factory=dict)
    fresh: torch.Tensor | None = None


class Evaluated(NamedTuple):
    """What an actor-critic makes of its inputs."""

    dist_inputs: torch.Tensor  # parameters of the policy's distribution, [..., K]
    values: torch.Tensor  # [...]
    others: torch.Tensor | None  # of its `OpponentModel`, [..., others, A]; None without one


class PolicyModule(TorchRLModule, InferenceOnlyAPI):
    """An RLModule around a `PolicyNetwork`, as runners take it; base of all modules of this package.

    Observations are a Box, or a Dict of ``observation`` and ``action_mask`` (0 = illegal). Actions are Discrete, a Box,
    or a product of such spaces (MultiDiscrete, MultiBinary, Dict, Tuple), which have independent distributions.
    """

    policy: PolicyNetwork

    def setup(self) -> None:
        """Build the policy network."""
        self.settings = settings_of(self.model_config)
        self.has_action_mask = is_masked_space(self.observation_space)
        if self.has_action_mask and not isinstance(self.action_space, gymnasium.spaces.Discrete):
            raise ConfigError("an action mask needs a Discrete action space")
        self.policy = PolicyNetwork(self.policy_spec())

    def policy_spec(self) -> PolicySpec:
        """Return the specification of the policy network; subclasses say more."""
        action = action_numbers(self.action_space)
        communication = Communication.of(self.settings.get(COMMUNICATION))
        return PolicySpec(
            observation_shape=tuple(bare_space(self.observation_space).shape or ()),
            distribution=action.distribution,
            num_actions=action.num_actions,
            has_action_mask=self.has_action_mask,
            network=network_keys(self.settings),
            factors=action.factors,
            **({} if communication is None else communication.speaker()),
        )

    def memory_sizes(self) -> dict[str, int]:
        """Return the numbers in the state of each memory that acting has to carry, by name; {} without."""
        return {POLICY: self.policy.state_size} if self.policy.state_size else {}

    def get_initial_state(self) -> dict[str, torch.Tensor]:
        """Return the state of the memories of one agent, as RLlib's runners take it."""
        return {name: torch.zeros(size) for name, size in self.memory_sizes().items()}

    def get_exploration_action_dist_cls(self) -> type:
        """Return the class of the distribution that is sampled."""
        return TorchCategorical if self.policy.spec.is_discrete else TorchDiagGaussian

    get_train_action_dist_cls = get_inference_action_dist_cls = get_exploration_action_dist_cls

    def get_non_inference_attributes(self) -> list[str]:
        """Return the parts that acting does not need."""
        return []

    def _forward_inference(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        with torch.no_grad():
            return self._act(batch, explore=False)

    def _forward_exploration(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        with torch.no_grad():
            return self._act(batch, explore=True)

    def _act(self, batch: dict[str, Any], explore: bool) -> dict[str, Any]:
        """Act on a batch of RLlib's runners: observations ``[B, ...]``, or with memory ``[B, T, ...]``."""
        observations, legal = self.split_mask(batch[Columns.OBS])
        states = batch.get(Columns.STATE_IN)
        axes = 1 if states is None else 2
        rows = observations.flatten(axes)
        if states is None:
            return {Columns.ACTION_DIST_INPUTS: self.policy(rows, legal, None, explore)[0]}
        rows = rows.transpose(0, 1)
        fresh = torch.zeros(rows.shape[:2], dtype=torch.bool, device=rows.device)
        memory = self.policy.memory
        assert memory is not None
        features, ends = memory.unroll(
            self.policy.encoder(self.policy.perceived(rows)), states[POLICY], fresh
        )
        outputs = self.policy.outputs(features).transpose(0, 1)
        return {
            Columns.ACTION_DIST_INPUTS: self.policy.distribution(outputs, legal, explore),
            Columns.STATE_OUT: {**states, POLICY: ends[len(rows) - 1]},
        }

    def split_mask(self, observations: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return observations, and the legal actions as bool ``[..., A]`` or None."""
        if not isinstance(observations, Mapping):
            return observations, None
        return observations[OBSERVATION], observations[ACTION_MASK] != 0


class ActorCritic(PolicyModule, ValueFunctionAPI):
    """Policy and value network, with the Q operator in the policy.

    ``model_config``: the keys of `NetworkSettings`; ``vf_share_layers`` (one encoder and memory for both); ``use_lstm``
    or ``use_gru``; ``amplification``, ``circuit``, ``coordination`` and ``imagination``; ``opponent_model`` with
    ``other_agents``, see `OpponentModel`; and for a central value ``state_source``, ``state_size``, ``num_agents`` and
    ``team_value``, see `ValueNetwork`. The operator's strength, floor and temperature are buffers: they are synced to
    the runners and kept in checkpoints. Exploration, inference and training see the amplified distribution, so that the
    action that is sampled, the stored log-probability and the loss agree.

    A module with memory has its value network in runners too: the state of its memory is recorded there, so that a
    learner can start a sequence anywhere.

    Raises:
        ConfigError: Settings that contradict each other or do not fit the spaces.
    """

    def setup(self) -> None:
        """Build the networks."""
        super().setup()
        config = self.settings
        self.has_central_value = config.get(STATE_SOURCE) is not None
        self.shares_layers = bool(config.get("vf_share_layers")) and not isinstance(
            self.policy.encoder, torch.nn.Identity
        )
        central = None
        if self.has_central_value:
            missing = [key for key in (STATE_SIZE, NUM_AGENTS) if not config.get(key)]
            if missing:
                raise ConfigError(f"model_config: {STATE_SOURCE} also needs {' and '.join(missing)}")
            if self.shares_layers:
                raise ConfigError(
                    "vf_share_layers: a central value has a network of its own; set it to false"
                )
            central = (config[STATE_SIZE], config[NUM_AGENTS])
        if self.policy.memory is not None:
            self.inference_only = False
        if self.inference_only:
            return
        if self.shares_layers:
            self.value = ValueNetwork((self.policy.feature_size,), {"fcnet_hiddens": ()})
        else:
            imagined = None if self.policy.imagination is None else self.policy.imagination.shape
            team = bool(config.get(TEAM_VALUE))
            self.value = ValueNetwork(self.policy.spec.observation_shape, config, central, imagined, team)

    def memory_sizes(self) -> dict[str, int]:
        """Return the numbers in the state of each memory, by `POLICY` and `VALUE`."""
        sizes = super().memory_sizes()
        if sizes and self.value.state_size:
            sizes[VALUE] = self.value.state_size
        return sizes

    def get_non_inference_attributes(self) -> list[str]:
        """Return the parts that acting does not need."""
        return [] if self.policy.memory is not None else ["value"]

    def evaluate(self, inputs: ModuleInputs) -> Evaluated:
        """Return the policy's distributions, value estimates and predictions of other agents."""
        if inputs.fresh is None and not self.shares_layers and self.policy.opponents is None:
            values, _ = self.value(inputs.rows, inputs.central)
            outputs = self.policy.outputs_of(inputs.rows)
            return Evaluated(self.policy.distribution(outputs, inputs.legal), values, None)
        if inputs.fresh is None:
            features, _ = self.policy.features(inputs.rows, None)
            values, _ = self.value(features if self.shares_layers else inputs.rows, inputs.central)
        else:
            features = self.policy.unrolled(inputs.rows, inputs.memory[POLICY], inputs.fresh)
            if self.value.memory is None:
                values, _ = self.value(features if self.shares_layers else inputs.rows, inputs.central)
            else:
                values, _ = self.value.unroll(inputs.rows, inputs.central, inputs.memory[VALUE], inputs.fresh)
        opponents = self.policy.opponents
        others = None if opponents is None else opponents(features)
        outputs = self.policy.outputs(features, others)
        return Evaluated(self.policy.distribution(outputs, inputs.legal), values, others)

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        if INPUTS in batch:
            found = self.evaluate(batch[INPUTS])
            return {
                Columns.ACTION_DIST_INPUTS: found.dist_inputs,
                Columns.VF_PREDS: found.values,
                OTHERS: found.others,
            }
        return self._act(batch, explore=False)

    def _act(self, batch: dict[str, Any], explore: bool) -> dict[str, Any]:
        output = super()._act(batch, explore)
        if Columns.STATE_OUT in output and VALUE in output[Columns.STATE_OUT]:
            _, state = self._values(batch)
            output[Columns.STATE_OUT][VALUE] = state
        return output

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> torch.Tensor:
        """Return value estimates for a batch of RLlib's columns, ``[B]`` or with memory ``[B, T]``.

        Raises:
            ConfigError: A central value, whose states RLlib's own runners do not record.
        """
        return self._values(batch)[0]

    def _values(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor | None]:
        if self.has_central_value:
            raise ConfigError(
                "central_value: there are no global states in the batch; BatchedEnvRunner records them, RLlib's own "
                "runner does not"
            )
        observations, _ = self.split_mask(batch[Columns.OBS])
        states = batch.get(Columns.STATE_IN)
        if states is None:
            rows = self.policy.perceived(observations.flatten(1))
            features = self.policy.features(rows, None)[0] if self.shares_layers else rows
            return self.value(features)
        rows = self.policy.perceived(observations.flatten(2).transpose(0, 1))
        fresh = torch.zeros(rows.shape[:2], dtype=torch.bool, device=rows.device)
        if self.shares_layers:
            values, state = self.value(self.policy.unrolled(rows, states[POLICY], fresh))
        else:
            values, ends = self.value.unroll(rows, None, states[VALUE], fresh)
            state = ends[len(rows) - 1]
        return values.transpose(0, 1), state


class ActionNumbers(NamedTuple):
    """What a policy network has to know of an action space; as in `PolicySpec`."""

    distribution: str
    num_actions: int
    factors: tuple[int, ...]


def action_numbers(space: gymnasium.Space) -> ActionNumbers:
    """Return what a policy network has to know of an action space.

    Raises:
        ConfigError: A kind of space that no policy acts in.
    """
    if isinstance(space, gymnasium.spaces.Discrete) and space.start == 0:
        return ActionNumbers(CATEGORICAL, int(space.n), ())
    parts = SpaceParts.of(space, actions=True)
    real = sum(part.size for part in parts.parts if not part.sizes)
    return ActionNumbers(PRODUCT if parts.factors else GAUSSIAN, real, parts.factors)


def settings_of(model_config: Any) -> dict[str, Any]:
    """Return a module's settings as a dictionary, whether RLlib keeps them in one or in a dataclass."""
    if model_config is None:
        return {}
    return dict(model_config) if isinstance(model_config, Mapping) else dataclasses.asdict(model_config)
