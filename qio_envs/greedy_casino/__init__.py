"""The greedy casino: a bandit with hidden confounders, where acting against one's intention pays most."""

from qio_envs.api.policies import RandomPolicy
from qio_envs.greedy_casino.config import COUNTERFACTUAL, DO, INTUITION, PAYOUTS, GreedyCasinoConfig
from qio_envs.greedy_casino.env import GreedyCasino
from qio_envs.greedy_casino.logs import logged
from qio_envs.greedy_casino.model import expected_payout, logged_graph, step_graph
from qio_envs.greedy_casino.policies import AgainstIntuitionPolicy, IntuitionPolicy, OneMachinePolicy

__all__ = [
    "COUNTERFACTUAL",
    "DO",
    "INTUITION",
    "PAYOUTS",
    "AgainstIntuitionPolicy",
    "GreedyCasino",
    "GreedyCasinoConfig",
    "IntuitionPolicy",
    "OneMachinePolicy",
    "RandomPolicy",
    "expected_payout",
    "logged",
    "logged_graph",
    "step_graph",
]
