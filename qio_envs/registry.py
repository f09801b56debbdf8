"""Names for environments: one `Environment` object per versioned id, with every interface behind it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import gymnasium

from qio_envs.api.batched import BatchedEnv
from qio_envs.api.config import ConfigError, EnvConfig, UnknownSettingError, did_you_mean

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv
    from pettingzoo import AECEnv, ParallelEnv

_ENVIRONMENTS: dict[str, Environment] = {}


class Environment:
    """A versioned environment, with a builder for each of its interfaces.

    Every builder takes ``scenario`` (a name in `scenarios`) and settings of the environment's configuration
    as keywords, which go on top of the scenario's. With ``as_team=True`` one player chooses for all agents, see
    `qio_envs.adapters.team.TeamEnv`; so any environment with discrete actions has a Gymnasium form.

    Args:
        id: Versioned id, such as ``forest_uav_v0``.
        entry_point: ``module:Class`` of its `BatchedEnv`, imported on first use (compiled kernels are slow to
            import).
        summary: One sentence on what it is.
        gym_id: Gymnasium id of its one-agent form, registered with ``gym_scenario``.
        gym_scenario: The scenario behind ``gym_id``.
    """

    def __init__(
        self,
        id: str,
        entry_point: str,
        summary: str,
        gym_id: str | None = None,
        gym_scenario: str = "default",
    ) -> None:
        self.id = id
        self.summary = summary
        self.gym_id = gym_id
        self._entry_point = entry_point
        _ENVIRONMENTS[id] = self
        if gym_id is not None:
            gymnasium.register(
                gym_id,
                entry_point=self.gym_env,
                vector_entry_point=self.vector_env,
                kwargs={"scenario": gym_scenario},
                disable_env_checker=True,  # the conformance tests check more, once
            )

    @property
    def batched_class(self) -> type[BatchedEnv]:
        """The `BatchedEnv` subclass."""
        module, _, name = self._entry_point.partition(":")
        return getattr(importlib.import_module(module), name)

    def scenarios(self) -> tuple[str, ...]:
        """Return the names of the scenarios."""
        return tuple(self.batched_class.config_class.scenarios())

    def config(self, scenario: str = "default", **settings: Any) -> EnvConfig:
        """Return the resolved settings; a builder's ``as_team`` is none of them.

        Raises:
            ConfigError: An unknown scenario or setting, or a value that does not fit.
        """
        return self.batched_class.config_class.from_scenario(scenario, **settings)

    def content_hash(self, scenario: str = "default", *, as_team: bool = False, **settings: Any) -> str:
        """Return 12 hex digits that identify this version with its resolved settings; results carry them.

        Raises:
            ConfigError: As `config`.
        """
        _check_as_team(as_team)
        return self.config(scenario, **settings).content_hash(f"{self.id}:team" if as_team else self.id)

    def batched_env(
        self, num_envs: int = 1, scenario: str = "default", *, as_team: bool = False, **settings: Any
    ) -> BatchedEnv:
        """Return ``num_envs`` environments as one `BatchedEnv`.

        Args:
            num_envs: Number of environments.
            scenario: Name of the scenario.
            as_team: Whether one player chooses for all agents.
            settings: Settings that go on top of the scenario's.

        Raises:
            ConfigError: As `config`; or ``as_team`` with continuous actions or more than 1,000,000 joint ones.
        """
        _check_as_team(as_team)
        env = self.batched_class(self.config(scenario, **settings), num_envs)
        if not as_team:
            return env
        from qio_envs.adapters.team import TeamEnv

        return TeamEnv(env)

    def parallel_env(
        self, scenario: str = "default", render_mode: str | None = None, **settings: Any
    ) -> ParallelEnv:
        """Return a PettingZoo ``ParallelEnv``."""
        from qio_envs.adapters.pettingzoo import BatchedParallelEnv

        return BatchedParallelEnv(self.batched_env(1, scenario, **settings), render_mode)

    def env(self, scenario: str = "default", render_mode: str | None = None, **settings: Any) -> AECEnv:
        """Return a PettingZoo ``AECEnv``."""
        from pettingzoo.utils.conversions import parallel_to_aec

        return parallel_to_aec(self.parallel_env(scenario, render_mode, **settings))

    def gym_env(
        self, scenario: str = "default", render_mode: str | None = None, **settings: Any
    ) -> gymnasium.Env:
        """Return a Gymnasium ``Env``; the settings must leave one agent, unless ``as_team``."""
        from qio_envs.adapters.gymnasium import BatchedGymEnv

        try:
            return BatchedGymEnv(self.batched_env(1, scenario, **settings), render_mode)
        except UnknownSettingError as error:
            # Wrappers that try keywords (TorchRL's GymEnv) look for Python's own words.
            message = f"{error} (unexpected keyword argument '{error.key}')"
            raise UnknownSettingError(message, error.key) from None

    def vector_env(
        self, num_envs: int = 1, scenario: str = "default", render_mode: str | None = None, **settings: Any
    ) -> VectorEnv:
        """Return a Gymnasium ``VectorEnv`` of ``num_envs`` environments; as for `gym_env`."""
        from qio_envs.adapters.vector import BatchedVectorEnv

        return BatchedVectorEnv(self.batched_env(num_envs, scenario, **settings), render_mode)

    def __repr__(self) -> str:
        return f"<Environment {self.id}>"


def _check_as_team(as_team: object) -> None:
    if not isinstance(as_team, bool):
        raise ConfigError(f"as_team: expected true or false, got {as_team!r}")


def environments() -> dict[str, Environment]:
    """Return every registered environment by id."""
    return dict(_ENVIRONMENTS)


def environment(env_id: str) -> Environment:
    """Return the environment of a versioned id.

    Raises:
        ConfigError: There is none of that id.
    """
    if env_id not in _ENVIRONMENTS:
        raise ConfigError(
            f"unknown environment '{env_id}'{did_you_mean(env_id, _ENVIRONMENTS)}; "
            f"allowed: {', '.join(_ENVIRONMENTS)}"
        )
    return _ENVIRONMENTS[env_id]
