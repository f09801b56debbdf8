"""Ray RLlib plug-ins for research on multi-agent exploration.

Importing this package makes its algorithms and the environments of ``qio_envs`` known to Ray Tune by name; Ray itself
is not imported (`qio_rllib.registration`).
"""

from typing import Any

from qio_rllib.registration import register

register()

__all__: list[str] = []


def __getattr__(name: str) -> Any:
    """Look up ``__version__`` when it is asked for, as `qio_envs` does."""
    if name == "__version__":
        from qio_envs.api.distribution import version

        return version()
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
