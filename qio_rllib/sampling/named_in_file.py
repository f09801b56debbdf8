"""Names of environments that stand in files, and which packages such a name may import.

Importing a module runs its code. A name that the user gives, on the command line or in Python, is the user's own; one
that a file holds may be anybody's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from qio_envs.api import ConfigError

ALLOWED_PACKAGES = (
    "gymnasium",
    "lbforaging",
    "mpe2",
    "pettingzoo",
    "qio_envs",
    "qio_rllib",
    "rware",
    "supersuit",
)
"""Packages whose environments a file may name: this project's own, and those that its documentation names."""


class NamedInFile(str):
    """The name of an environment that a file holds.

    Attributes:
        allow_import: Modules that the user lets it import beside `ALLOWED_PACKAGES`.
    """

    allow_import: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, allow_import: Sequence[str] = ()) -> NamedInFile:
        """Return a name with what it may import.

        Raises:
            ConfigError: As `allowed_modules`.
        """
        found = cls(name)
        found.allow_import = allowed_modules(allow_import)
        return found


def allowed_modules(names: Sequence[str]) -> tuple[str, ...]:
    """Return modules that the user allows.

    Raises:
        ConfigError: Something that is no name of a module.
    """
    for name in names:
        if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", name):
            raise ConfigError(f"--allow-import: expected the name of a module such as my_envs, got '{name}'")
    return tuple(names)


def is_within(module: str, allowed: Sequence[str]) -> bool:
    """Return whether a module is one of those allowed or lies in one of them."""
    return any(module == name or module.startswith(f"{name}.") for name in allowed)
