"""What tests of planners share."""

import torch

from qio_rllib.acting.policy import EpisodeStreams


def fresh(planner, rows=1):
    return torch.zeros(rows, planner.memory_size)


def quadratic(goal):
    """Returns with their maximum 0 at ``goal`` [H, A] or [B, 1, H, A]; elementwise, so exact in any batch."""

    def returns(actions):
        squares = (actions - goal).square().flatten(2)
        return -sum(squares[..., i] for i in range(squares.shape[-1]))

    return returns


def planned(planner, returns, rows=1, seed=0, **more):
    rng = EpisodeStreams(range(seed, seed + rows))
    return planner.plan(returns, more.pop("memory", fresh(planner, rows)), rng, False, **more)
