"""Games of turns in parallel form: what is played, seen and paid is what the game itself gives."""

import gymnasium
import numpy as np
import pytest
from pettingzoo import AECEnv, ParallelEnv
from pettingzoo.classic import connect_four_v3, tictactoe_v3
from pettingzoo.test import parallel_api_test
from toy_turns import Countdown

from qio_envs.adapters.turns import TurnParallelEnv, as_parallel
from qio_envs.api import ConfigError


def legal(observations, rng):
    """Return a random legal action for every agent."""
    return {
        agent: int(rng.choice(np.flatnonzero(seen["action_mask"]))) for agent, seen in observations.items()
    }


@pytest.mark.parametrize("module", [tictactoe_v3, connect_four_v3])
def test_a_game_is_the_one_that_is_played_in_turns(module):
    rng = np.random.default_rng(0)
    for seed in range(5):
        env, game = TurnParallelEnv(module.env()), module.env()
        seen, _ = env.reset(seed=seed)
        game.reset(seed=seed)
        totals, ends = (dict.fromkeys(env.possible_agents, 0.0) for _ in range(2))
        while env.agents:
            mover = game.agent_selection
            for agent in env.agents:
                waits = seen[agent]["action_mask"][-1] == 1
                assert waits == (agent != mover)
                np.testing.assert_array_equal(seen[agent]["observation"], game.observe(agent)["observation"])
            np.testing.assert_array_equal(seen[mover]["action_mask"][:-1], game.observe(mover)["action_mask"])
            actions = legal(seen, rng)
            seen, rewards, terminated, truncated, _ = env.step(actions)
            ends[mover] += game.last()[1]
            game.step(actions[mover])
            for agent, reward in rewards.items():
                totals[agent] += reward
            assert terminated == {agent: bool(game.terminations[agent]) for agent in rewards}
            assert not any(truncated.values())
        while game.agents:
            ends[game.agent_selection] += game.last()[1]
            game.step(None)
        assert totals == ends
        assert sum(map(abs, totals.values())) in (0.0, 2.0)


def test_it_is_a_parallel_environment_by_pettingzoos_own_test():
    parallel_api_test(as_parallel(Countdown(lives={"a": 3, "b": 5, "c": 4})), num_cycles=50)


def test_agents_that_end_early_are_gone_and_the_others_play_on():
    env = TurnParallelEnv(Countdown(lives={"a": 1, "b": 3, "c": 2}))
    seen, _ = env.reset(seed=0)
    order, here = [], []
    while env.agents:
        here.append("".join(env.agents))
        order.append(next(agent for agent in env.agents if seen[agent]["action_mask"][-1] == 0))
        actions = {agent: 0 if agent == order[-1] else 2 for agent in env.agents}
        seen, rewards, _, truncated, _ = env.step(actions)
        assert rewards == {agent: float(agent == order[-1]) for agent in here[-1]}
        assert not any(truncated.values())
        assert set(seen) == set(here[-1])
    assert order == ["a", "b", "c", "b", "c", "b"]
    assert here == ["abc", "bc", "bc", "bc", "bc", "b"]
    assert env.step({}) == ({}, {}, {}, {}, {})


def test_moving_in_anothers_turn_and_waiting_in_ones_own_are_errors():
    env = TurnParallelEnv(Countdown(lives={"a": 2, "b": 2}))
    env.reset()
    with pytest.raises(ValueError, match="a: action 2, but it is a's turn"):
        env.step({"a": 2, "b": 2})
    with pytest.raises(ValueError, match="b: action 1, but it is a's turn"):
        env.step({"a": 0, "b": 1})


def test_actions_that_cannot_be_masked_are_refused():
    space = gymnasium.spaces.Box(-1, 1, (1,))
    with pytest.raises(
        ConfigError, match="played in turns, for which actions must be Discrete from 0; a has Box"
    ):
        as_parallel(Countdown(lives={"a": 1, "b": 1}, actions=space))


def test_parallelizable_environments_act_at_once():
    env = Countdown(lives={"a": 2, "b": 2})
    env.metadata = {**env.metadata, "is_parallelizable": True}
    assert isinstance(env, AECEnv)
    made = as_parallel(env)
    assert isinstance(made, ParallelEnv)
    assert not isinstance(made, TurnParallelEnv)
