"""Planners find known optima: quadratics, two modes, discrete problems by brute force, LQR in closed loop."""

import itertools

import numpy as np
import pytest
import torch
from planning_helpers import fresh, planned, quadratic
from scipy.linalg import solve_discrete_are

from qio_rllib.acting.policy import EpisodeStreams
from qio_rllib.world_models import METHODS, Planner, PlanningSettings

EACH = pytest.mark.parametrize("method", METHODS)
BOTH = pytest.mark.parametrize("discrete", [False, True], ids=["continuous", "discrete"])


@EACH
def test_the_optimum_of_a_quadratic_is_found_inside_and_at_the_bounds(method):
    goal = torch.tensor([[0.3, -0.6], [0.6, -0.9], [1.0, -1.3], [1.5, -1.8]])
    settings = PlanningSettings(
        method=method,
        horizon=4,
        candidates=200,
        elites=30,
        iterations=15,
        initial_deviation=1.0,
        least_deviation=0.01,
    )
    plan = planned(Planner(settings, 2, False), quadratic(goal), rows=3)
    assert plan.sequence.abs().max() <= 1
    torch.testing.assert_close(plan.sequence, goal.clamp(-1, 1).expand(3, -1, -1), atol=0.05, rtol=0)
    torch.testing.assert_close(
        plan.value, quadratic(goal)(goal.clamp(-1, 1)[None, None])[0].expand(3), atol=0.05, rtol=0
    )


@pytest.mark.parametrize("method", ["cem", "icem"])
def test_the_best_of_two_modes_is_found_where_the_mean_of_both_is_bad(method):
    def returns(actions):
        near, far = (actions - 0.7).square().sum((2, 3)), (actions + 0.7).square().sum((2, 3))
        return (-near / 0.2).exp() + 0.6 * (-far / 0.2).exp()

    settings = PlanningSettings(method=method, horizon=2, candidates=200, iterations=8)
    plan = planned(Planner(settings, 1, False), returns, rows=20)
    torch.testing.assert_close(plan.sequence, torch.full((20, 2, 1), 0.7), atol=0.05, rtol=0)


@EACH
def test_the_optimum_of_a_discrete_problem_is_found(method):
    rng = np.random.default_rng(0)
    single = torch.from_numpy(rng.normal(size=(6, 1, 6, 3)).astype(np.float32))
    pairs = torch.from_numpy(rng.normal(size=(6, 5, 3, 3)).astype(np.float32))

    def returns(actions):
        joint = torch.einsum("bnhi,bhij,bnhj->bn", actions[:, :, :-1], pairs, actions[:, :, 1:])
        return (actions * single).sum((2, 3)) + 0.3 * joint

    every = torch.tensor(list(itertools.product(range(3), repeat=6)))
    scores = returns(torch.nn.functional.one_hot(every, 3).float().expand(6, -1, -1, -1))
    settings = PlanningSettings(method=method, horizon=6, candidates=100, iterations=6)
    plan = planned(Planner(settings, 3, True), returns, rows=6)
    torch.testing.assert_close(plan.value, scores.amax(1))
    assert torch.equal(plan.sequence, every[scores.argmax(1)])
    assert plan.actions.dtype == torch.int64


SYSTEM = np.array([[1.0, 0.1], [0.0, 1.0]]), np.array([[0.015], [0.3]])
COSTS = np.diag([1.0, 0.1]), np.array([[0.1]])
RICCATI = solve_discrete_are(*SYSTEM, *COSTS)
STARTS = np.random.default_rng(0).uniform(-0.25, 0.25, (8, 2))


def closed_loop_cost(policy, steps=40):
    """Costs [8] of a double integrator from `STARTS`."""
    state, cost = STARTS, 0.0
    for _ in range(steps):
        action = policy(state)
        cost = cost + np.square(state) @ np.diag(COSTS[0]) + COSTS[1][0, 0] * action[:, 0] ** 2
        state = state @ SYSTEM[0].T + action @ SYSTEM[1].T
    return cost


def lqr(state):
    gain = np.linalg.solve(COSTS[1] + SYSTEM[1].T @ RICCATI @ SYSTEM[1], SYSTEM[1].T @ RICCATI @ SYSTEM[0])
    action = -state @ gain.T
    assert np.abs(action).max() < 1  # the bounds of actions do not matter
    return action


def planning_policy(settings):
    """A policy that plans with the true model and LQR's value at the end, and carries memory."""
    planner, rng = Planner(settings, 1, False), EpisodeStreams(range(len(STARTS)))
    a, b, q, r, p = (torch.from_numpy(x.astype(np.float32)) for x in (*SYSTEM, *COSTS, RICCATI))
    memory = fresh(planner, len(STARTS))

    def policy(state):
        nonlocal memory

        def returns(actions):
            x = torch.from_numpy(state.astype(np.float32))[:, None].expand(-1, actions.shape[1], -1)
            cost = torch.zeros(actions.shape[:2])
            for u in actions.unbind(2):
                cost, x = cost + ((x @ q) * x).sum(-1) + r[0, 0] * u[..., 0] ** 2, x @ a.T + u @ b.T
            return -cost - ((x @ p) * x).sum(-1)

        plan = planner.plan(returns, memory, rng, False)
        memory = plan.memory
        return plan.actions.double().numpy()

    return policy


@EACH
def test_closed_loop_cost_is_that_of_lqr(method):
    best = closed_loop_cost(lqr)
    found = closed_loop_cost(
        planning_policy(PlanningSettings(method=method, iterations=10, least_deviation=0.01))
    )
    assert (found > best * (1 - 1e-6)).all()
    assert found.sum() < 1.05 * best.sum()


@BOTH
@EACH
def test_a_warm_start_gives_better_plans_after_few_iterations(method, discrete):
    waves = torch.arange(20)[:, None] / 4 + torch.arange(3) * 2
    track = waves.sin() * 0.9

    def values(warm):
        settings = PlanningSettings(method=method, iterations=1, candidates=40, elites=5, warm_start=warm)
        planner, rng = Planner(settings, 3, discrete), EpisodeStreams(range(10))
        memory, found = fresh(planner, 10), []
        for step in range(8):
            plan = planner.plan(quadratic(track[step : step + 8]), memory, rng, False)
            memory = plan.memory
            found.append(plan.value)
        return torch.stack(found)

    warm, cold = values(True), values(False)
    torch.testing.assert_close(warm[0], cold[0])
    assert (warm[3:].mean(0) > cold[3:].mean(0)).sum() >= 8
    assert warm[3:].mean() > cold[3:].mean() + 0.3
