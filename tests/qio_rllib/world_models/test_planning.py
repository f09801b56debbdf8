"""Planners against an oracle in NumPy; what a row of memory holds; batches of decisions; what is refused."""

import numpy as np
import pytest
import torch
from planning_helpers import fresh, planned, quadratic
from planning_oracle import Oracle

from qio_rllib.acting.policy import EpisodeStreams
from qio_rllib.world_models import METHODS, Planner, PlanningSettings
from qio_rllib.world_models.candidates import noise_filter

EACH = pytest.mark.parametrize("method", METHODS)
BOTH = pytest.mark.parametrize("discrete", [False, True], ids=["continuous", "discrete"])


@BOTH
@EACH
@pytest.mark.parametrize("warm", [True, False])
def test_three_decisions_are_those_of_the_oracle(method, discrete, warm):
    settings = PlanningSettings(
        method=method, horizon=5, candidates=40, iterations=3, elites=6, keep_elites=0.5, momentum=0.3,
        least_deviation=0.15, noise_exponent=1.5, shrink=1.5, temperature=0.3, warm_start=warm,
    )  # fmt: skip
    planner, memory = Planner(settings, 3, discrete), None
    rng, oracle = EpisodeStreams([5]), Oracle(settings, 3, discrete, EpisodeStreams([5]).generators[0])
    for step in range(3):
        goal = np.random.default_rng(step).uniform(-0.6, 0.6, (5, 3)).astype(np.float32)
        goal[:, 1] += 0.1 * step

        def one(x, goal=goal):
            return -np.square(x - goal).sum() - 0.3 * np.abs(np.sin(7 * x)).sum()

        def many(x, goal=goal):
            return -(x - torch.from_numpy(goal)).square().sum((2, 3)) - 0.3 * (7 * x).sin().abs().sum((2, 3))

        plan = planner.plan(many, fresh(planner) if memory is None else memory, rng, False)
        memory = plan.memory
        sequence, value = oracle.plan(one)
        if discrete:
            sequence = sequence.argmax(-1)
        np.testing.assert_allclose(plan.sequence[0].numpy(), sequence, atol=2e-5)
        np.testing.assert_allclose(plan.value[0].item(), value, rtol=1e-4)
        assert torch.equal(plan.actions, plan.sequence[:, 0])


@BOTH
@EACH
def test_a_row_does_not_depend_on_the_others(method, discrete):
    settings = PlanningSettings(method=method, horizon=5, candidates=37, iterations=3, exploration=0.5)
    planner = Planner(settings, 3, discrete)
    envs, agents = 7, 2
    goals = torch.from_numpy(
        np.random.default_rng(1).uniform(-1, 1, (envs, agents, 1, 5, 3)).astype(np.float32)
    )
    legal = torch.from_numpy(np.random.default_rng(2).random((envs, agents, 3)) < 0.6) if discrete else None

    def decide(chosen):
        rng = EpisodeStreams([100 + e for e in chosen])
        memory = torch.zeros(len(chosen) * agents, planner.memory_size)
        found = []
        for step in range(3):
            returns = quadratic(goals[chosen].flatten(0, 1) * (1 - 0.2 * step))
            mask = None if legal is None else legal[chosen].flatten(0, 1)
            plan = planner.plan(returns, memory, rng, True, legal=mask, num_envs=len(chosen))
            memory = plan.memory
            found.append([x.unflatten(0, (len(chosen), agents)) for x in plan])
        return found

    everything = decide(list(range(envs)))
    for chosen in ([0], [3], [6], [5, 1], [4, 2, 6]):
        for alone, together in zip(decide(chosen), everything, strict=True):
            for part, whole in zip(alone, together, strict=True):
                assert torch.equal(part, whole[chosen])


@BOTH
@EACH
def test_zeros_in_memory_are_a_fresh_start(method, discrete):
    settings = PlanningSettings(method=method, horizon=4, candidates=30, iterations=2)
    planner = Planner(settings, 3, discrete)
    without = Planner(
        PlanningSettings(method=method, horizon=4, candidates=30, iterations=2, warm_start=False), 3, discrete
    )
    goal = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (4, 3)).astype(np.float32))
    used = planned(planner, quadratic(-goal), rows=2).memory
    used[0] = 0  # as a runner does where an episode ends
    restarted = planned(planner, quadratic(goal), rows=2, memory=used)
    plain = planned(without, quadratic(goal), rows=2)
    torch.testing.assert_close(restarted.sequence[0], plain.sequence[0], atol=1e-5, rtol=0)
    continued = planned(
        planner, quadratic(goal), rows=2, memory=planned(planner, quadratic(-goal), rows=2).memory
    )
    assert torch.equal(restarted.sequence[1], continued.sequence[1])
    assert not torch.equal(restarted.memory[1], planned(planner, quadratic(goal), rows=2).memory[1])


def test_memory_holds_the_plan_and_the_elites_one_step_later():
    settings = PlanningSettings(horizon=4, candidates=30, elites=10, keep_elites=0.35)
    planner, seen = Planner(settings, 2, False), []
    goal = torch.tensor([[0.9, -0.9], [0.6, -0.6], [0.3, -0.3], [0.1, -0.1]])

    def returns(actions):
        seen.append(actions.clone())
        return quadratic(goal)(actions)

    first = planned(planner, returns, rows=2)
    assert first.memory.shape == (2, planner.memory_size) == (2, 1 + 4 * 2 * (1 + 3))
    assert first.memory[:, 0].tolist() == [4, 4]  # planned, with 3 elites that count
    center, *elites = first.memory[:, 1:].reshape(2, 4, 4, 2).unbind(1)
    last, mean = seen[-2], seen[-1][:, 0]
    assert torch.equal(center, mean[:, [1, 2, 3, 3]])
    order = quadratic(goal)(last).argsort(1, descending=True)
    for rank, elite in enumerate(elites):
        assert torch.equal(elite, last[[0, 1], order[:, rank]][:, [1, 2, 3, 3]])
    seen.clear()
    planned(planner, returns, rows=2, memory=first.memory)
    assert torch.equal(seen[0][:, 30:], torch.stack(elites, 1))
    assert seen[0].shape[1] == 33


@BOTH
@EACH
@pytest.mark.parametrize("warm", [True, False])
def test_rollouts_and_memory_size_are_what_they_say(method, discrete, warm):
    settings = PlanningSettings(method=method, candidates=50, iterations=4, warm_start=warm)
    planner, counts = Planner(settings, 2, discrete), []

    def returns(actions):
        counts.append(actions.shape[1])
        assert actions.dtype == torch.float32
        assert actions.shape[2:] == (8, 2)
        return quadratic(torch.zeros(8, 2))(actions)

    plan = planned(planner, returns)
    assert sum(counts) == settings.rollouts
    assert planner.memory_size == ({"cem": 17, "icem": 17 + 2 * 16, "mppi": 17}[method] if warm else 0)
    assert plan.memory.shape == (1, planner.memory_size)


@EACH
def test_illegal_actions_are_never_tried_first_nor_taken(method):
    planner = Planner(PlanningSettings(method=method, horizon=3, exploration=1.0), 4, True)
    legal = torch.tensor([[False, True, False, True], [True] * 4, [False, False, True, False], [False] * 4])
    value, first, other = torch.tensor([3.0, 1.0, 2.0, 0.5]), [], []

    def returns(actions):
        first.append(actions[:, :, 0].sum(1))
        other.append(actions[:, :, 1:].sum((1, 2)))
        return (actions * value).sum((2, 3))

    unmasked = planned(planner, returns, rows=4)  # whose elites begin with action 0
    assert unmasked.sequence.eq(0).all()
    first.clear()
    other.clear()
    rng = EpisodeStreams(range(4))
    plan = planner.plan(returns, unmasked.memory, rng, False, legal=legal)
    assert plan.sequence.tolist() == [[1, 0, 0], [0, 0, 0], [2, 0, 0], [0, 0, 0]]
    tried = torch.stack(first[1:]).sum(0) > 0  # the first iteration still shows kept elites to the model
    assert torch.equal(tried[:3], legal[:3])
    assert tried[3].all()  # nothing is legal: an absent agent
    assert (torch.stack(other).sum(0) > 0).all()
    taken = torch.stack(
        [planner.plan(returns, plan.memory, rng, True, legal=legal).actions for _ in range(60)]
    )
    for row, allowed in enumerate(legal.tolist()):
        wanted = {a for a in range(4) if allowed[a]} or {0, 1, 2, 3}
        assert set(taken[:, row].tolist()) == wanted


@EACH
def test_a_plan_remembered_for_another_mask_stays_legal(method):
    settings = PlanningSettings(
        method=method, horizon=2, iterations=1, candidates=40, elites=30, momentum=0.5
    )
    planner = Planner(settings, 3, True)
    memory = planned(planner, quadratic(torch.tensor([1.0, 0.0, 0.0])), rows=30).memory
    legal = torch.tensor([[False, True, True]]).expand(30, -1)

    def returns(actions):  # action 0, the centre of the remembered plan, is still the best one
        return actions[..., 0].sum(2)

    plan = planned(planner, returns, rows=30, memory=memory, legal=legal)
    assert plan.actions.ne(0).all()
    assert plan.sequence[:, 0].ne(0).all()


class Constant:
    """Draws that are all the same number."""

    def __init__(self, number):
        self.number = number

    def random(self, size, dtype):
        return np.full(size, self.number, dtype)


@pytest.mark.parametrize(("number", "action"), [(0.0, 1), (1 - 2**-24, 5)])
def test_the_least_and_the_largest_draw_are_legal_actions(number, action):
    planner = Planner(PlanningSettings(horizon=2, iterations=2, exploration=1.0, uniform_share=0.9), 7, True)
    legal = torch.tensor([[False, True, True, True, False, True, False]])

    def returns(actions):
        assert actions[..., 0, :].argmax(-1).eq(action)[:, :16].all()
        return quadratic(torch.zeros(2, 7))(actions)

    plan = planner.plan(returns, fresh(planner), Constant(number), False, legal=legal)
    assert plan.actions.tolist() == [action]


@EACH
@pytest.mark.parametrize("count", [20, 22, 26, 30])
def test_rounding_takes_no_action_out_of_its_bounds(method, count):
    settings = PlanningSettings(method=method, horizon=2, candidates=count, elites=count, iterations=1)
    planner = Planner(settings, 2, False)
    memory = torch.full((1, planner.memory_size), 60.0)  # every candidate is at the bounds
    memory[:, 0] = 1
    plan = planned(planner, lambda x: x.sum((2, 3)).clamp_max(3.0), memory=memory)
    assert plan.sequence.max() <= 1
    assert plan.sequence.min() > 0.9999


def test_exploration_is_added_to_the_action_that_is_taken_only():
    goal = torch.full((2, 1), 0.9)
    settings = PlanningSettings(horizon=2, candidates=20, iterations=2, exploration=0.2)
    planner = Planner(settings, 1, False)
    greedy = planned(planner, quadratic(goal), rows=500)
    rng = EpisodeStreams(range(500))
    noisy = planner.plan(quadratic(goal), fresh(planner, 500), rng, True)
    assert torch.equal(greedy.sequence, noisy.sequence)
    assert torch.equal(greedy.memory, noisy.memory)
    assert torch.equal(greedy.value, noisy.value)
    assert noisy.actions.max() == 1
    inside = (noisy.actions - greedy.actions)[noisy.actions < 1]
    assert inside.min() < -0.4
    assert abs(inside.square()[inside < 0].mean().sqrt() - 0.2) < 0.02


def test_discrete_exploration_has_its_probability():
    planner = Planner(PlanningSettings(horizon=1, candidates=20, iterations=1, exploration=0.3), 3, True)
    goal = torch.tensor([[0.0, 0.0, 1.0]])
    plan = planner.plan(quadratic(goal), fresh(planner, 2000), EpisodeStreams(range(2000)), True)
    assert plan.sequence.eq(2).all()
    shares = torch.bincount(plan.actions, minlength=3) / 2000
    torch.testing.assert_close(shares, torch.tensor([0.1, 0.1, 0.8]), atol=0.025, rtol=0)


@EACH
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_candidates_without_a_finite_return_count_as_worst(method, bad):
    def returns(actions):
        return torch.where(actions[:, :, 0, 0] > 0, bad, quadratic(torch.full((3, 1), 0.6))(actions))

    settings = PlanningSettings(method=method, horizon=3, iterations=10, candidates=60, elites=50)
    plan = planned(Planner(settings, 1, False), returns, rows=4)
    assert plan.memory.isfinite().all()
    assert plan.value.isfinite().all()
    assert (plan.sequence[:, 0] <= 0).all()
    assert (plan.sequence[:, 1:] > 0.15).all()


@EACH
def test_where_the_mean_has_no_return_the_best_candidate_is_the_plan(method):
    seen = []

    def returns(actions):
        seen.append(actions.clone())
        found = quadratic(torch.full((3, 1), 0.6))(actions)
        return torch.full_like(found, torch.nan) if actions.shape[1] == 1 else found

    plan = planned(Planner(PlanningSettings(method=method, horizon=3), 1, False), returns)
    scores = quadratic(torch.full((3, 1), 0.6))(seen[-2])
    assert torch.equal(plan.value, scores.amax(1))
    assert torch.equal(plan.sequence, seen[-2][:, scores.argmax(1)[0]])


def test_icem_takes_the_best_elite_where_the_mean_is_worse():
    def returns(actions):  # two equal modes: their mean is bad
        return (actions.abs() - 0.5).abs().sum((2, 3)).neg()

    settings = {"horizon": 1, "candidates": 200, "iterations": 1, "elites": 100}
    icem = planned(Planner(PlanningSettings(method="icem", **settings), 1, False), returns)
    cem = planned(Planner(PlanningSettings(method="cem", **settings), 1, False), returns)
    assert icem.value > -0.01
    assert cem.value < -0.3
    torch.testing.assert_close(icem.value, returns(icem.sequence[:, None])[:, 0])
    torch.testing.assert_close(cem.value, returns(cem.sequence[:, None])[:, 0])


@EACH
def test_equal_returns_of_all_candidates_leave_a_plan(method):
    plan = planned(Planner(PlanningSettings(method=method), 2, False), lambda x: torch.zeros(x.shape[:2]))
    assert plan.sequence.isfinite().all()
    assert plan.value.tolist() == [0]


def test_a_single_finite_candidate_has_all_weight():
    calls = []

    def returns(actions):
        calls.append(actions.clone())
        found = torch.full(actions.shape[:2], torch.nan)
        found[:, min(7, actions.shape[1] - 1)] = 1.0
        return found

    for method in METHODS:
        calls.clear()
        settings = PlanningSettings(method=method, iterations=1)
        plan = planned(Planner(settings, 2, False), returns)
        torch.testing.assert_close(plan.sequence, calls[0][:, 7])
        assert plan.memory[0, 0] == (2 if method == "icem" else 1)  # one elite counts
        assert not plan.memory[0, 1 + 2 * 16 :].any()

        def zeros_are_best(actions):
            empty = actions.abs().sum((2, 3)) == 0
            return torch.where(empty & (actions.shape[1] > 1), 100.0, quadratic(torch.zeros(8, 2))(actions))

        # What stands in memory for elites that do not count is no candidate.
        assert planned(Planner(settings, 2, False), zeros_are_best, memory=plan.memory).value < 0


@pytest.mark.parametrize(("horizon", "exponent"), [(8, 2.0), (9, 1.0), (2, 3.0), (1, 2.0)])
def test_coloured_noise_has_its_spectrum_and_unit_variance(horizon, exponent):
    matrix = noise_filter(horizon, exponent).double()
    torch.testing.assert_close(
        (matrix @ matrix.T).diagonal(), torch.ones(horizon).double(), atol=1e-6, rtol=0
    )
    power = np.abs(np.fft.rfft(matrix[:, 0].numpy())) ** 2
    frequencies = np.fft.rfftfreq(horizon)
    for k in range(1, len(power)):
        assert power[k] / power[1] == pytest.approx((frequencies[k] / frequencies[1]) ** -exponent, rel=1e-4)
    assert power[0] == pytest.approx(power[min(1, len(power) - 1)], rel=1e-5)


def test_planning_records_no_gradients():
    goal = torch.zeros(8, 2, requires_grad=True)
    plan = planned(Planner(PlanningSettings(), 2, False), quadratic(goal))
    assert not any(part.requires_grad for part in plan)


@pytest.mark.parametrize(
    ("discrete", "change", "message"),
    [
        (
            False,
            {"memory": torch.zeros(2, 5)},
            r"memory: expected float32 \[B, 17\], got float32 \[2, 5\]; zeros start",
        ),
        (False, {"memory": torch.zeros(2, 17).double()}, r"memory: expected .*, got float64 \[2, 17\]"),
        (False, {"legal": torch.ones(2, 2) > 0}, "legal: continuous actions have no mask"),
        (True, {"legal": torch.ones(2, 2)}, r"legal: expected bool \[2, 2\], got float32 \[2, 2\]"),
        (True, {"legal": torch.ones(2, 3) > 0}, r"legal: expected bool \[2, 2\], got bool \[2, 3\]"),
        (True, {"num_envs": 3}, "num_envs: 2 rows are not those of 3 environments"),
        (True, {"num_envs": 0}, "num_envs: 2 rows are not those of 0 environments"),
        (
            True,
            {"returns": lambda x: torch.zeros(2)},
            r"returns: expected \[2, 80\] for actions of shape \[2, 80, 8, 2\], got \[2\]",
        ),
    ],
)
def test_wrong_arguments_are_refused(discrete, change, message):
    planner = Planner(PlanningSettings(method="cem"), 2, discrete)
    returns = change.pop("returns", quadratic(torch.zeros(8, 2)))
    with pytest.raises(ValueError, match=message):
        planned(planner, returns, rows=2, **change)


def test_a_row_without_finite_returns_is_an_error():
    def returns(actions):
        found = torch.zeros(actions.shape[:2])
        found[1] = torch.tensor([torch.nan, torch.inf]).repeat(40)
        return found

    with pytest.raises(
        FloatingPointError,
        match="planner: all 80 candidates of row 1 have NaN or infinite returns in iteration 1 of 5; the model",
    ):
        planned(Planner(PlanningSettings(method="mppi"), 2, False), returns, rows=3)


def test_a_planner_refuses_what_does_not_fit_the_actions():
    with pytest.raises(ValueError, match="num_actions must be at least 1, got 0"):
        Planner(PlanningSettings(), 0, False)
    settings = PlanningSettings(exploration=1.5)
    assert Planner(settings, 2, False).memory_size
    with pytest.raises(
        ValueError, match="planner.exploration: expected a probability of at most 1 .* got 1.5"
    ):
        Planner(settings, 2, True)
