"""The causal chain: three variables and two actions, every causal quantity known in closed form."""

from qio_envs.api.policies import RandomPolicy
from qio_envs.causal_chain.config import CausalChainConfig
from qio_envs.causal_chain.env import CausalChain
from qio_envs.causal_chain.logs import logged
from qio_envs.causal_chain.model import counterfactual_x3, round_graph, step_graph
from qio_envs.causal_chain.policies import ConstantPolicy

__all__ = [
    "CausalChain",
    "CausalChainConfig",
    "ConstantPolicy",
    "RandomPolicy",
    "counterfactual_x3",
    "logged",
    "round_graph",
    "step_graph",
]
