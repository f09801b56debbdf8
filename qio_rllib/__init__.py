"""Ray RLlib plug-ins for research on multi-agent exploration.

Importing this package makes its algorithms and the environments of ``qio_envs`` known to Ray Tune by name; Ray itself
is not imported (`qio_rllib.registration`).
"""

from qio_rllib.registration import register

register()

__all__: list[str] = []
