"""Plug-ins for Ray RLlib: exploration, algorithms, runners, models.

Importing this package makes its algorithms and the environments of `qio_envs` known to Ray Tune by name, so that
``tune.run("A2C", config={"env": "forest_uav_v0", ...})`` works; Ray itself is imported by the parts that need it only.
"""

from qio_rllib.registration import register_when_tune_is_there

register_when_tune_is_there()
