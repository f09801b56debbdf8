"""The bound on the return of a team with a hidden target: its parts by simulation, and teams that stay below it."""

import numpy as np
import pytest

from qio_envs import swarm_cooperative_v0
from qio_envs.api import ConfigError
from qio_rllib.evaluation.hidden_target import SPREAD_COST, HiddenTargetBound

WIDE = {"scenario": "hidden_target", "out_radius": 40.0}


@pytest.fixture(scope="module")
def bound():
    return HiddenTargetBound(swarm_cooperative_v0.batched_env(1, **WIDE).config)


def play(goals, episodes=400, **config):
    """Return team returns ``[E]`` and distances ``[T, E, N]`` of agents that go where ``goals`` says."""
    env = swarm_cooperative_v0.batched_env(episodes, **{**WIDE, **config})
    env.reset(seeds=np.arange(episodes))
    way, rewards = [], 0.0
    aim = goals(env)
    for _ in range(env.config.max_steps):
        body = env.arrays.body
        wanted = 50.0 * (aim - body[..., :2]) - 12.5 * body[..., 2:]  # the gains of the scripted controller
        step = env.step(np.clip(wanted, -1, 1).astype(np.float32))
        rewards = rewards + step.rewards.sum(axis=1)
        way.append(env.info()["distance"])
    return rewards, np.array(way)


def everybody_knows(env):
    return np.repeat(env.arrays.target[:, None], env.num_agents, axis=1)


def the_first_knows(env):
    return everybody_knows(env) * (np.arange(env.num_agents) == 0)[:, None]


def quadrants(env):
    """Two bits: the uninformed go to the middle of the target's quadrant."""
    aim = everybody_knows(env).copy()
    aim[:, 1:] = np.sign(aim[:, 1:]) * 0.85
    return aim


def test_teams_stay_below_the_bound_of_what_they_were_told(bound):
    for goals, told, most in (
        (the_first_knows, 0.0, 0.15),
        (quadrants, 2.0, 0.4),
        (everybody_knows, 60.0, 0.6),
    ):
        returns, _ = play(goals)
        error = returns.std() / len(returns) ** 0.5
        least = bound.of_total(told)
        assert returns.mean() <= least + 3 * error
        assert returns.mean() >= least * (1 + most), told
    assert bound.of_total(0.0) < bound.of_total(2.0) < bound.of_total(60.0)
    assert play(quadrants)[0].mean() > bound.of_constant(0.0)


@pytest.mark.parametrize(("agents", "informed"), [(3, 1), (5, 2)])
def test_the_reward_of_every_step_is_at_most_that_of_distances_from_the_target(agents, informed):
    env = swarm_cooperative_v0.batched_env(50, **WIDE, num_agents=agents, informed_agents=informed)
    env.reset(seeds=np.arange(50))
    rng = np.random.default_rng(0)
    pairs = 2 * SPREAD_COST * (agents - informed)
    tight = 0
    for _ in range(60):
        env.step(rng.uniform(-1, 1, (50, agents, 2)).astype(np.float32))
        info = env.info()
        see, told = np.split(info["distance"], [informed], axis=1)
        most = -(1 - pairs) * see.sum(axis=1) - (1 + 2 * SPREAD_COST * informed) * told.sum(axis=1)
        assert (info["team_reward"] <= most + 1e-4).all()
        tight += (info["team_reward"] > 1.3 * most).sum()
    assert tight > 0  # and the weights are not just small


def test_nobody_is_nearer_than_the_way_allows_and_reach_is_the_way_of_full_acceleration(bound):
    _, way = play(everybody_knows)
    mean = way.mean(axis=(1, 2))
    assert (mean >= bound.least - 0.06).all()
    np.testing.assert_allclose(mean[:8], bound.least[:8], atol=0.12)
    env = swarm_cooperative_v0.batched_env(1, **WIDE, process_noise=0.0)
    env.reset(seeds=0)
    start = env.arrays.body[0, 0, :2].copy()
    for step in range(30):
        env.step(np.ones((1, 3, 2), np.float32))
        gone = np.hypot(*(env.arrays.body[0, 0, :2] - start))
        assert gone == pytest.approx(bound.reach()[step], rel=1e-4)


def test_silence_tells_something_and_more_bits_never_harm(bound):
    rates = np.array([0.0, 0.001, 0.01, 0.1, 1.0, 2.0])
    plain = [bound.of_total(rate * 200) for rate in rates]
    gated = [bound.of_gated(2, rate) for rate in rates]
    assert plain == sorted(plain)
    assert gated == sorted(gated)
    assert plain[0] == gated[0] == bound.of_constant(0.0)
    assert gated[1] > plain[1] + 50
    # one bit that may be left out is a symbol of three: log2 3 bits a step, whatever is spent beyond 2 / 3
    steps = np.arange(1, 201)
    assert bound.of_gated(1, 0.8) == pytest.approx(bound.of(np.log2(3) * steps))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"scenario": "hidden_target"}, "out_radius: agents could leave within 200 steps"),
        ({**WIDE, "informed_agents": 3}, "informed_agents: expected some agents that see a target"),
        ({**WIDE, "target_spread": 0.0, "informed_agents": None}, "informed_agents: expected some"),
        ({**WIDE, "sensing_range": 1.0}, "sensing_range: expected 0"),
    ],
)
def test_what_the_bound_does_not_hold_for_is_refused(config, message):
    with pytest.raises(ConfigError, match=message):
        HiddenTargetBound(swarm_cooperative_v0.batched_env(1, **config).config)
