"""`CheckedConfig`: configurations whose settings are checked by one table, however they are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from ray.rllib.algorithms.algorithm_config import NotProvided
from ray.rllib.policy.policy import PolicySpec

from qio_envs.api import ConfigError
from qio_rllib.algorithms.named_environments import NamedEnvironments
from qio_rllib.algorithms.own_settings import MAPPINGS
from qio_rllib.algorithms.settings import Settings, apply_settings, settings_of


class CheckedConfig(NamedEnvironments):
    """Mixin for an `AlgorithmConfig`: it stands first among the bases.

    ``update_from_dict``, which Tune uses for plain dictionaries, gives every key to the method that takes it, checked
    as in a YAML file.
    """

    @classmethod
    def settings(cls) -> Settings:
        """Return the table of all settings of this algorithm."""
        own: Any = cls  # configurations are compared as objects; their classes can be hashed all the same
        return settings_of(own, tuple(other for other in _leaves(CheckedConfig) if other is not cls))

    def update_from_dict(self, config_dict: Mapping[str, Any]) -> Self:
        """Take settings from a dictionary, as ``tune.run("PPO", config={...})`` gives it.

        A plain dictionary holds ``env`` and any settings that a YAML file can hold under ``config`` (classes and
        functions too); each is checked and goes to the method that takes it. The output of `to_dict`, with or without
        changes, holds every attribute besides; private ones are taken as they are.

        Raises:
            ConfigError: An unknown key, one of another algorithm, or a value that cannot be used.
        """
        settings = self.settings()
        given = {
            key: value for key, value in config_dict.items() if not str(key).startswith("__")
        }  # Tune's own
        complete = "_model_config" in given
        written = self.to_dict() if complete else {}
        present = vars(self)
        attributes: dict[str, Any] = {}
        values: dict[str, Any] = {}
        env = given.get("env", NotProvided)
        for key, value in given.items():
            name = self._translate_special_keys(key, warn_deprecated=False)
            setting = settings.known.get(name) or settings.known.get(key)
            if key == "env":
                attributes |= {key: value} if complete else {}
            elif name in present and complete and is_same(value, present[name]):
                continue
            elif name in present and (name.startswith("_") or (complete and not setting)):
                attributes[name] = value
            elif complete and setting and name in present and setting.setter != "training":
                attributes[name] = setting.checked(value, settings, "config", in_python=True)
            elif not (complete and name not in present and is_same(value, written.get(key, NotProvided))):
                values[key] = value
        if isinstance(attributes.get("policies"), Mapping):
            attributes["policies"] = {
                policy: PolicySpec.from_state(spec) if isinstance(spec, Mapping) else spec
                for policy, spec in attributes["policies"].items()
            }
        for name, value in attributes.items():
            setattr(self, name, value)
        if complete:
            self._check_stored()
        apply_settings(self, settings, values, NotProvided if complete else env, in_python=True)
        if complete and isinstance(self.env, str):
            self.environment(self.env)
        return self

    def _checked(self, **values: Any) -> dict[str, Any]:
        """Return the arguments of ``training`` that were given, checked; unknown names are refused."""
        settings = self.settings()
        checked: dict[str, Any] = {}
        for key, value in values.items():
            if value is not NotProvided:
                checked[key] = settings.checked(key, value, in_python=True)
                setter = settings.find(key).setter
                if setter != "training":
                    raise ConfigError(f"config.{key}: is set by {setter}(), not by training()")
        return checked

    def _take(self, **values: Any) -> None:
        """Check the arguments of ``training`` that were given, and keep them as attributes."""
        for name, value in self._checked(**values).items():
            setattr(self, name, value)

    def _check_stored(self) -> None:
        """Check what lies in ``model_config`` and ``learner_config_dict``, where a search may have put new values."""
        self.training(**{key: getattr(self, key) for key in MAPPINGS if getattr(self, key) is not None})


def _leaves(config_class: type[CheckedConfig]) -> list[type[CheckedConfig]]:
    """Return the configurations of algorithms: subclasses without subclasses."""
    return [leaf for child in config_class.__subclasses__() for leaf in _leaves(child)] or [config_class]


def is_same(first: Any, second: Any) -> bool:
    """Return whether two values of settings are the same; what cannot be compared is not."""
    try:
        return first is second or bool(first == second)
    except Exception:  # arrays and the like
        return False
