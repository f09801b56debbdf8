"""VDN: a team's Q-value is the sum of its agents'."""

from __future__ import annotations

from typing import Any

from qio_rllib.algorithms.qmix import ValueDecomposition, ValueDecompositionConfig
from qio_rllib.models.mixers import SUM


class VDNConfig(ValueDecompositionConfig):
    """Configuration of `VDN`."""

    mixer_type = SUM

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or VDN)


class VDN(ValueDecomposition):
    """Value-decomposition networks: agents' Q-values add up to the team's.

    P. Sunehag et al., "Value-Decomposition Networks For Cooperative Multi-Agent Learning", 2018.
    """

    @classmethod
    def get_default_config(cls) -> VDNConfig:
        """Return the default configuration."""
        return VDNConfig()
