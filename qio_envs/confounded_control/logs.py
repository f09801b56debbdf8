"""Logged data of confounded control: what the behaviour did, or an experiment with random actions."""

from __future__ import annotations

from qio_envs.api import Array
from qio_envs.api.logs import columns_of, episodes_for, reset_to_episodes
from qio_envs.api.policies import RandomPolicy
from qio_envs.confounded_control.config import ConfoundedControlConfig
from qio_envs.confounded_control.env import ConfoundedControl
from qio_envs.confounded_control.model import logged_graph
from qio_envs.confounded_control.policies import BehaviourPolicy


def logged(
    num_steps: int,
    seed: int = 0,
    policy: str = "behaviour",
    config: ConfoundedControlConfig | None = None,
) -> dict[str, Array]:
    """Return transitions of `ConfoundedControl` as columns, float64 ``[num_steps]``.

    The columns are s, a, m, z, u, s_next and reward: the state before the step, the action as executed, its mediator,
    the behaviour's instrument, the hidden variable, the state after the step. `logged_graph` is the graph of their
    variables; u is hidden in it, and whoever uses it knows more than a log would tell. They are the first steps of the
    episodes 0, 1, ... of the seed: a pure function of the arguments, of which fewer steps are the beginning.

    Args:
        num_steps: Transitions, at least 1.
        seed: Seed of the environment, 0 to 2**64 - 1.
        policy: Who acts: ``behaviour``, which gives observational data, or ``random``, an experiment with actions
            uniform in [-2, 2] (z is drawn and not used).
        config: The settings; the default ones when absent.

    Raises:
        ValueError: An argument that does not fit.
    """
    logged_graph(policy)  # refuses other policies
    config = config or ConfoundedControlConfig()
    env = ConfoundedControl(config, episodes_for(num_steps, config.max_steps))
    reset_to_episodes(env, seed)
    behaviour, rows = BehaviourPolicy(env), []
    player = behaviour if policy == "behaviour" else RandomPolicy(env)
    for _ in range(config.max_steps):
        behaviour.act()  # draws the instrument, whoever acts
        actions = player.act()
        row = {"s": env.arrays.s.copy(), "u": env.arrays.u.copy(), "z": behaviour.instrument.copy()}
        rewards = env.step(actions).rewards[:, 0]
        row |= {"a": env.arrays.action.copy(), "m": env.arrays.mediator.copy(), "s_next": env.arrays.s.copy()}
        rows.append({name: row[name] for name in ("s", "a", "m", "z", "u", "s_next")} | {"reward": rewards})
    return columns_of(rows, num_steps)
