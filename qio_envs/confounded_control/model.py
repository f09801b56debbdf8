"""Confounded control on paper: causal graphs, the optimal linear feedback, and what a naive regression finds."""

from __future__ import annotations

import math

from qio_envs.api import AFTER, StepGraph
from qio_envs.confounded_control.config import BEHAVIOUR_NOISE, EFFECT, INSTRUMENT, ConfoundedControlConfig

POLICIES = ("behaviour", "random")
"""Who can have played for logged data."""


def step_graph(config: ConfoundedControlConfig) -> StepGraph:
    """Return the causal graph of one time step.

    Args:
        config: The settings; with ``confounding`` 0 nothing depends on u, with ``action_cost`` 0 the reward does not
            depend on the action.
    """
    before = ("s", "m", "u")
    edges = [("s", "s'"), ("a", "m'"), ("m'", "s'"), ("s", "reward")]
    edges += [("u", "s'")] if config.confounding > 0 else []
    edges += [("a", "reward")] if config.action_cost > 0 else []
    return StepGraph(
        variables=(*before, "a", *(name + AFTER for name in before), "reward"),
        hidden=("u", "u" + AFTER),
        edges=tuple(edges),
    )


def logged_graph(policy: str = "behaviour") -> StepGraph:
    """Return the causal graph of the columns of `logged`; u is hidden in it.

    Args:
        policy: ``behaviour``, whose action has the causes s, u and z, or ``random``, whose action has none.

    Raises:
        ValueError: Another policy.
    """
    if policy not in POLICIES:
        raise ValueError(f"policy: expected one of {', '.join(POLICIES)}, got {policy!r}")
    chosen = tuple((cause, "a") for cause in ("s", "u", "z")) if policy == "behaviour" else ()
    return StepGraph(
        variables=("s", "a", "m", "z", "u", "s_next", "reward"),
        hidden=("u",),
        edges=(
            *chosen,
            ("a", "m"),
            ("m", "s_next"),
            ("s", "s_next"),
            ("u", "s_next"),
            ("s", "reward"),
            ("a", "reward"),
        ),
    )


def lqr_gain(effect: float, action_cost: float = 0.1) -> float:
    """Return the gain K of the linear-quadratic regulator of s' = s + effect a: the action is -K s.

    The state costs s^2, the action ``action_cost`` a^2, without limits and without an end. The cost-to-go P s^2 solves
    P^2 - P - action_cost / effect^2 = 0; K = effect P / (action_cost + effect^2 P). An effect of 0 has the gain 0.

    Args:
        effect: What the state is believed to gain by a unit of the action.
        action_cost: At least 0.
    """
    if effect == 0:
        return 0.0
    value = (1 + math.sqrt(1 + 4 * action_cost / effect**2)) / 2
    return effect * value / (action_cost + effect**2 * value)


def naive_effect(config: ConfoundedControlConfig) -> float:
    """Return the slope on a when s' is regressed on s and a in the behaviour's data, -0.214 with the default settings.

    In closed form, without the limits on action and state: u enters a with -1 and s' with 1, so that the slope is
    0.5 - v / (v + 0.3^2 + 0.1^2), where v is the variance of u.

    Args:
        config: The settings; ``confounding`` matters.
    """
    variance = config.confounding**2
    return EFFECT - variance / (variance + INSTRUMENT**2 + BEHAVIOUR_NOISE**2)
