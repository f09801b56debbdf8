"""What this is an installation of: the distribution's name and version, as its own metadata have them."""

from __future__ import annotations

import functools
from importlib import metadata

_PACKAGE = "qio_envs"
UNKNOWN_VERSION = "unknown"
"""Version of a source tree that was never installed: it has no metadata."""


@functools.cache
def distribution_name() -> str | None:
    """Return the name under which ``qio_envs`` is installed; None for a source tree that was never installed."""
    names = metadata.packages_distributions().get(_PACKAGE)
    return names[0] if names else None


def version() -> str:
    """Return the version that is installed, or `UNKNOWN_VERSION`."""
    name = distribution_name()
    return UNKNOWN_VERSION if name is None else metadata.version(name)


def install_command(extra: str) -> str:
    """Return the shell command that installs what an optional part needs, such as ``pip install 'NAME[rllib]'``.

    Args:
        extra: Name of the extra in the distribution's metadata.
    """
    return f"pip install '{distribution_name() or '.'}[{extra}]'"
