"""Settings of networks that come as a mapping under one key of ``model_config``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from qio_envs.api import ConfigError, did_you_mean
from qio_rllib.mapping_settings import MappingSettings


@dataclasses.dataclass(frozen=True)
class ModelSettings(MappingSettings):
    """Base of such settings; a subclass is a frozen dataclass that says what its fields may hold.

    Attributes:
        choices: Allowed texts by field.
        highest: Largest integer by field; the least is 1.
    """

    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    highest: ClassVar[Mapping[str, int]] = {}

    @classmethod
    def of(cls, given: Any) -> Self | None:
        """Return the settings of a mapping; None for None.

        Raises:
            ConfigError: An unknown key, or a value that is not allowed.
        """
        settings = super().of(given)
        if settings is None:
            return None
        for name, allowed in cls.choices.items():
            value = getattr(settings, name)
            if value not in allowed:
                raise ConfigError(
                    f"{cls.key}.{name}: expected one of {', '.join(allowed)}, got {value!r}"
                    f"{did_you_mean(str(value), allowed)}"
                )
        for name, high in cls.highest.items():
            value = getattr(settings, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= high:
                raise ConfigError(f"{cls.key}.{name}: expected an integer from 1 to {high}, got {value!r}")
        return settings
