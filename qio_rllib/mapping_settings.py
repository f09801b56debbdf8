"""`MappingSettings`: settings that come as a mapping, checked key by key."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from qio_envs.api import ConfigError, check_keys


@dataclasses.dataclass(frozen=True)
class MappingSettings:
    """Base of settings such as ``training(causal_mask={...})``.

    Attributes:
        key: Name of the mapping, for messages.
    """

    key: ClassVar[str]

    @classmethod
    def of(cls, given: Mapping[str, Any] | None) -> Self | None:
        """Return the settings of a mapping; None for None.

        Raises:
            ConfigError: An unknown key, or a value that is not allowed.
        """
        if given is None:
            return None
        check_keys(cls.key, given, [field.name for field in dataclasses.fields(cls)])
        settings = cls(**given)
        for name, allowed, fits in settings.checks():
            if not fits:
                raise ConfigError(f"{cls.key}.{name}: expected {allowed}, got {getattr(settings, name)!r}")
        return settings

    def checks(self) -> list[tuple[str, str, bool]]:
        """Return of each setting its name, what is allowed, and whether that is what it holds."""
        return []


def is_number(value: Any) -> bool:
    """Return whether a setting holds a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)
