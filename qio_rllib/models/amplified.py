"""The Q operator inside a policy."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import gymnasium
import torch
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.torch import TorchRLModule

from qio_envs.api import ConfigError
from qio_rllib.exploration import Amplification, operate
from qio_rllib.models.central import CentralValue
from qio_rllib.models.policy_network import PolicyNetwork

OBSERVATION, ACTION_MASK = "observation", "action_mask"


class AmplifiedPolicy:
    """Mixin that puts the Q operator behind the policy head of an RLModule with discrete actions.

    It stands first among the bases: ``class Mine(AmplifiedPolicy, DefaultPPOTorchRLModule): ...``. Exploration,
    inference and training all see the amplified distribution, so that the action that is sampled, the stored
    log-probability and the loss agree. ``Columns.ACTION_DIST_INPUTS`` holds its log-probabilities,
    ``[..., A]``.

    ``model_config["amplification"]``: ``{"eta": 0.1, "h_min": 0.05, "tau": 1.0}`` (missing keys take these
    defaults), or None to leave the policy as it is. Strength, floor and temperature are buffers: they are synced
    to the runners and kept in checkpoints.

    Observations may be a Dict of ``observation`` and ``action_mask`` (0 = illegal): the network sees the former,
    illegal actions get probability 0, with or without amplification.

    Raises:
        ConfigError: The actions are not discrete, or a parameter lies outside its range.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        space = kwargs.get("observation_space", args[0] if args else None)
        self.has_action_mask = is_masked_space(space)
        self._given_space = space
        if self.has_action_mask:
            kwargs["observation_space"] = space[OBSERVATION]  # type: ignore[index]
            args = args[1:]
        super().__init__(*args, **kwargs)

    def setup(self) -> None:
        """Build the network, then register the operator's parameters."""
        super().setup()  # type: ignore[misc]
        settings = self.model_config.get("amplification")  # type: ignore[attr-defined]
        discrete = isinstance(self.action_space, gymnasium.spaces.Discrete)  # type: ignore[attr-defined]
        if self.has_action_mask and not discrete:
            raise ConfigError("an action mask needs a Discrete action space")
        if settings is not None and not discrete:
            raise ConfigError(
                f"amplification: needs a Discrete action space, got {self.action_space}"  # type: ignore[attr-defined]
            )
        self.is_amplified = settings is not None
        values = Amplification(**settings) if settings is not None else Amplification(0.0, 0.0, 1.0)
        self.amplification = values
        for name in ("eta", "h_min", "tau"):
            self.register_buffer(name, torch.tensor(getattr(values, name)))  # type: ignore[attr-defined]

    def get_ctor_args_and_kwargs(self) -> tuple[tuple, dict[str, Any]]:
        """Return what a checkpoint needs to build the module again: the space as given, mask included."""
        args, kwargs = super().get_ctor_args_and_kwargs()  # type: ignore[misc]
        return args, {**kwargs, "observation_space": self._given_space}

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        network, mask = self.split_mask(batch)
        return self._amplified(super()._forward(network, **kwargs), mask)  # type: ignore[misc]

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        network, mask = self.split_mask(batch)
        return self._amplified(super()._forward_train(network, **kwargs), mask)  # type: ignore[misc]

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> torch.Tensor:
        """Return value estimates, ``[...]``; the action mask is not part of the value network's input."""
        return super().compute_values(self.split_mask(batch)[0], embeddings)  # type: ignore[misc]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of what the policy network takes: that of an observation, unless a subclass says otherwise."""
        return self.observation_space.shape  # type: ignore[attr-defined]

    def policy_logits(self, observation: torch.Tensor) -> torch.Tensor:
        """Return the policy head's output before mask and operator, ``[B, A]``."""
        return super()._forward({Columns.OBS: observation})[Columns.ACTION_DIST_INPUTS]  # type: ignore[misc]

    def acting(self) -> Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor] | None:
        """Return a function that does what acting needs of `_forward`, without RLlib's dictionaries.

        It maps observations ``[B, ...]`` and legal actions (bool ``[B, A]`` or None) to distribution inputs
        ``[B, K]``. The network is traced once and shares its parameters with the module.

        Returns:
            None where a subclass has a forward pass of its own, or a trace does not give the same numbers.
        """
        own = type(self)
        stock = (
            own._forward is AmplifiedPolicy._forward
            and own._forward_exploration is TorchRLModule._forward_exploration  # type: ignore[attr-defined]
            and own._forward_inference is TorchRLModule._forward_inference  # type: ignore[attr-defined]
        )
        network = self._traced() if stock else None
        if network is None:
            return None
        key = Columns.ACTION_DIST_INPUTS
        return lambda seen, legal: self._amplified({key: network(seen)}, legal)[key]

    def _traced(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        shape = self.input_shape
        few, many = torch.rand(2, *shape), torch.rand(7, *shape)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                network = torch.jit.trace(_Network(self), few, check_trace=False)
                same = torch.equal(network(many), self.policy_logits(many))
            except Exception:  # whatever a network does that cannot be traced, or only for the traced size
                return None
        return network if same else None

    def split_mask(self, batch: dict[str, Any]) -> tuple[dict[str, Any], torch.Tensor | None]:
        """Return the batch as the network takes it, and the legal actions as bool ``[..., A]`` or None."""
        if not self.has_action_mask or not isinstance(batch[Columns.OBS], dict):
            return batch, None
        observation = batch[Columns.OBS]
        return {**batch, Columns.OBS: observation[OBSERVATION]}, observation[ACTION_MASK] != 0

    def _amplified(self, output: dict[str, Any], mask: torch.Tensor | None) -> dict[str, Any]:
        if self.is_amplified or mask is not None:
            output[Columns.ACTION_DIST_INPUTS] = operate(
                self.amplification,
                output[Columns.ACTION_DIST_INPUTS],
                self.eta,  # type: ignore[attr-defined]
                self.h_min,  # type: ignore[attr-defined]
                self.tau,  # type: ignore[attr-defined]
                mask,
            )
        return output


class AmplifiedActorCritic(AmplifiedPolicy, PolicyNetwork, CentralValue, DefaultPPOTorchRLModule):
    """RLlib's PPO actor-critic (network by ``model_config``) with the Q operator in its policy.

    Where ``model_config`` names a ``state_source``, its value network is central: see `CentralValue`. With a
    ``circuit`` or ``coordination`` in it, its networks are those: see `PolicyNetwork`.
    """


class _Network(torch.nn.Module):
    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        return self.module.policy_logits(observation)


def is_masked_space(space: gymnasium.Space | None) -> bool:
    """Whether an observation space is the Dict of ``observation`` and ``action_mask``."""
    return isinstance(space, gymnasium.spaces.Dict) and set(space.spaces) == {OBSERVATION, ACTION_MASK}
