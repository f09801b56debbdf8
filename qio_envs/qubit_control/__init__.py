"""Control of qubits: an agent chooses gates that lead to a target state."""

from qio_envs.api.policies import RandomPolicy
from qio_envs.qubit_control.config import QubitControlConfig
from qio_envs.qubit_control.env import QubitControl
from qio_envs.qubit_control.policies import SearchPolicy
from qio_envs.qubit_control.search import optimal_gates

__all__ = ["QubitControl", "QubitControlConfig", "RandomPolicy", "SearchPolicy", "optimal_gates"]
