"""`WorldModelPolicy`: a world model with what acts by it, a planner or a policy network, in plain torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import nn

from qio_envs.api import ConfigError, check_keys, did_you_mean
from qio_rllib.layers import ACTIVATIONS
from qio_rllib.models.policy_network import CATEGORICAL, SQUASHED_GAUSSIAN, PolicyNetwork, PolicySpec
from qio_rllib.world_models.ensemble import Ensemble, EnsembleSettings
from qio_rllib.world_models.kalman import KalmanModel, KalmanSettings
from qio_rllib.world_models.model import WorldModel
from qio_rllib.world_models.planning import Planner
from qio_rllib.world_models.planning_settings import PlanningSettings
from qio_rllib.world_models.rssm import CATEGORICAL as CATEGORICAL_LATENT
from qio_rllib.world_models.rssm import GAUSSIAN as GAUSSIAN_LATENT
from qio_rllib.world_models.rssm import LIKELIHOOD, RSSM, SQUARED, RSSMSettings

ENSEMBLE, RECURRENT, KALMAN = "ensemble", "rssm", "kalman"
MODELS = (ENSEMBLE, RECURRENT, KALMAN)
PLANNER, ACTOR = "planner", "actor"
BEHAVIOURS = (PLANNER, ACTOR)
ModelSettings = EnsembleSettings | RSSMSettings | KalmanSettings
_SETTINGS: dict[str, type[ModelSettings]] = {
    ENSEMBLE: EnsembleSettings,
    RECURRENT: RSSMSettings,
    KALMAN: KalmanSettings,
}
_LEAST = {"classes": 2, "attention_heads": 0, "reward_bins": 3}  # of integers that may not be 1, or may be 0


def model_settings(given: Mapping[str, Any] | None) -> tuple[str, ModelSettings]:
    """Read ``world_model``: its type, and sizes that fit the type.

    Raises:
        ConfigError: An unknown type or key, or a value that is not allowed.
    """
    given = dict(given or {})
    kind = given.pop("type", ENSEMBLE)
    if kind not in MODELS:
        raise ConfigError(
            f"world_model.type: expected one of {', '.join(MODELS)}, got {kind!r}{did_you_mean(str(kind), MODELS)}"
        )
    fields = dataclasses.fields(_SETTINGS[kind])
    check_keys("world_model", given, ["type", *(field.name for field in fields)])
    for field in fields:
        if field.name in given:
            given[field.name] = _checked(f"world_model.{field.name}", given[field.name], field.default)
    for name, allowed in (
        ("activation", tuple(ACTIVATIONS)),
        ("latent", (GAUSSIAN_LATENT, CATEGORICAL_LATENT)),
        ("reconstruction", (SQUARED, LIKELIHOOD)),
    ):
        if name in given and given[name] not in allowed:
            raise ConfigError(
                f"world_model.{name}: expected one of {', '.join(allowed)}, got {given[name]!r}"
                f"{did_you_mean(str(given[name]), allowed)}"
            )
    if given.get("reward_bins", 3) % 2 == 0:
        raise ConfigError(f"world_model.reward_bins: expected an odd number, got {given['reward_bins']}")
    if given.get("beta", 0) > 1:
        raise ConfigError(f"world_model.beta: expected a number from 0 to 1, got {given['beta']!r}")
    settings = _SETTINGS[kind](**given)
    if isinstance(settings, KalmanSettings):
        return kind, settings
    if settings.attention_heads and settings.attention_size % settings.attention_heads:
        raise ConfigError(
            f"world_model.attention_size: expected a multiple of attention_heads, which is {settings.attention_heads}, "
            f"got {settings.attention_size}"
        )
    return kind, settings


def _checked(key: str, value: Any, default: Any) -> Any:
    if isinstance(default, tuple):
        whole = isinstance(value, list | tuple)
        may_be_empty = key.endswith("latent_hiddens")
        if (
            not whole
            or not (value or may_be_empty)
            or not all(type(size) is int and size >= 1 for size in value)
        ):
            raise ConfigError(f"{key}: expected sizes of at least 1, got {value!r}")
        return tuple(value)
    if isinstance(default, str):
        return value
    number = isinstance(value, int if isinstance(default, int) else int | float) and not isinstance(
        value, bool
    )
    least = _LEAST.get(key.rpartition(".")[2], 1) if isinstance(default, int) else 0
    if not number or not value >= least:
        kind = "an integer" if isinstance(default, int) else "a number"
        raise ConfigError(f"{key}: expected {kind} of at least {least}, got {value!r}")
    return value


@dataclasses.dataclass(frozen=True)
class WorldModelSpec:
    """All that `WorldModelPolicy` is built from; `as_dict` is fit for JSON.

    Attributes:
        obs_size: Numbers in one agent's observation.
        num_actions: Discrete actions, or components of a continuous one.
        is_discrete: Which of them.
        world_model: See `model_settings`.
        behaviour: "planner" or "actor".
        planner: See `PlanningSettings`.
        gamma: Discount that a planner plans with.
        network: Keys of ``model_config`` that shape the actor.
        is_factored: Whether an ensemble's targets have networks and input masks of their own.
    """

    obs_size: int
    num_actions: int
    is_discrete: bool
    world_model: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    behaviour: str = PLANNER
    planner: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    gamma: float = 0.99
    network: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    is_factored: bool = False

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the specification that `as_dict` described."""
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON."""
        return dataclasses.asdict(self)


class WorldModelPolicy(nn.Module):
    """A world model, and the planner or the policy network that acts by it.

    Args:
        spec: What to build.

    Attributes:
        model: The world model.
        planner: Plans with it; None with an actor.
        actor: A policy over the model's features; None with a planner.
    """

    def __init__(self, spec: WorldModelSpec) -> None:
        super().__init__()
        self.spec = spec
        kind, settings = model_settings(spec.world_model)
        self.model: WorldModel
        if isinstance(settings, EnsembleSettings):
            mask = None
            if spec.is_factored:
                mask = torch.ones(spec.obs_size + 2, spec.obs_size + spec.num_actions, dtype=torch.bool)
            self.model = Ensemble(spec.obs_size, spec.num_actions, settings, mask)
        elif isinstance(settings, RSSMSettings):
            self.model = RSSM(spec.obs_size, spec.num_actions, settings)
        else:
            self.model = KalmanModel(spec.obs_size, spec.num_actions, settings)
        self.is_recurrent = kind != ENSEMBLE
        self.planner: Planner | None = None
        self.actor: PolicyNetwork | None = None
        if spec.behaviour == PLANNER:
            self.planner = Planner(PlanningSettings.of(spec.planner), spec.num_actions, spec.is_discrete)
        else:
            self.actor = PolicyNetwork(
                PolicySpec(
                    observation_shape=(self.model.feature_size,),
                    distribution=CATEGORICAL if spec.is_discrete else SQUASHED_GAUSSIAN,
                    num_actions=spec.num_actions,
                    network=spec.network,
                )
            )

    def returns(
        self, state: torch.Tensor, actions: torch.Tensor, present: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return what sequences of actions ``[B, N, H, A]`` are expected to earn from states ``[B, S]``, ``[B, N]``.

        ``present`` is for models that see others, see `WorldModel.returns`.
        """
        return self.model.returns(state, actions, self.spec.gamma, present=present)


def flat_size(shape: tuple[int, ...]) -> int:
    """Return the numbers in an observation.

    Raises:
        ConfigError: An image, which these models do not take.
    """
    if len(shape) != 1:
        raise ConfigError(f"observations: world models take flat ones, got the shape {shape}; flatten them")
    return math.prod(shape)
