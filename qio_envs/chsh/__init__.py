"""The CHSH game: two agents who cannot talk, and what entanglement is worth to them."""

from qio_envs.api.policies import RandomPolicy
from qio_envs.chsh.config import CHSHConfig
from qio_envs.chsh.env import CHSH
from qio_envs.chsh.policies import CLASSICAL_BOUND, QUANTUM_BOUND, ClassicalPolicy, EntangledPolicy

__all__ = [
    "CHSH",
    "CLASSICAL_BOUND",
    "QUANTUM_BOUND",
    "CHSHConfig",
    "ClassicalPolicy",
    "EntangledPolicy",
    "RandomPolicy",
]
