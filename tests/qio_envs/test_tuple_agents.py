"""Gymnasium environments of several agents, their spaces Tuples, as PettingZoo environments."""

import pickle
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, Tuple
from gymnasium.wrappers import PassiveEnvChecker, TimeLimit

from qio_envs.adapters.tuple_agents import TupleParallelEnv, has_tuple_agents
from qio_envs.testing import check_parallel_env, table

LBF, RWARE = "lbforaging:Foraging-5x5-2p-1f-v3", "rware:rware-tiny-2ag-v2"


class Pair(gymnasium.Env):
    """Two agents of different spaces; each is paid its action, by the second ten times as much. Ends after ``last``."""

    observation_space = Tuple((Box(-1, 99, (1,), np.float32), Box(-1, 99, (2,), np.float32)))
    action_space = Tuple((Discrete(2), Discrete(3)))

    def __init__(self, last=3, **given):
        self.last, self.given, self.time = last, given, 0

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self._seen(), {"time": 0}

    def step(self, actions):
        assert self.action_space.contains(actions)
        self.time += 1
        gains = self.given.get("rewards", [actions[0], np.float64(10 * actions[1])])
        over = self.given.get("over", np.bool_(self.time >= self.last))
        return self._seen(), gains, over, False, {"time": self.time}

    def _seen(self):
        return np.full(1, self.time, np.float32), np.full(2, -1, np.float32)


class SumOfPairs(Pair):
    """One agent who acts for two: what it sees is no Tuple."""

    observation_space = Box(-1, 99, (3,), np.float32)


class Trio(Pair):
    """Two observations, three actions."""

    action_space = Tuple((Discrete(2),) * 3)


def test_each_agent_has_its_own_part_of_everything():
    env = TupleParallelEnv(Pair())
    observations, infos = env.reset(seed=0)
    assert env.agents == env.possible_agents == ["agent_0", "agent_1"]
    assert [env.observation_space(agent).shape for agent in env.agents] == [(1,), (2,)]
    assert [env.action_space(agent).n for agent in env.agents] == [2, 3]
    assert infos == {"agent_0": {"time": 0}, "agent_1": {"time": 0}}
    observations, rewards, terminated, truncated, infos = env.step({"agent_1": 2, "agent_0": 1})
    assert {agent: seen.tolist() for agent, seen in observations.items()} == {
        "agent_0": [1],
        "agent_1": [-1, -1],
    }
    assert rewards == {"agent_0": 1.0, "agent_1": 20.0}
    assert terminated == truncated == {"agent_0": False, "agent_1": False}
    infos["agent_0"]["time"] = -1
    assert infos["agent_1"] == {"time": 1}


@pytest.mark.parametrize(("limit", "how"), [(5, "terminated"), (2, "truncated")])
def test_an_episode_ends_for_all_as_the_environment_says(limit, how):
    env = TupleParallelEnv(TimeLimit(Pair(last=3), limit))
    env.reset(seed=0)
    steps = 0
    while env.agents:
        _, _, terminated, truncated, _ = env.step({"agent_0": 0, "agent_1": 0})
        steps += 1
    assert steps == min(3, limit)
    assert terminated == dict.fromkeys(env.possible_agents, how == "terminated")
    assert truncated == dict.fromkeys(env.possible_agents, how == "truncated")
    env.reset()
    assert env.agents == env.possible_agents


def test_gymnasiums_checker_is_silent_wherever_it_stands():
    for inner in (PassiveEnvChecker(Pair()), TimeLimit(PassiveEnvChecker(Pair()), 9)):
        env = TupleParallelEnv(inner)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            env.reset(seed=0)
            env.step({"agent_0": 0, "agent_1": 0})
    assert isinstance(env.env, TimeLimit)


def test_only_tuples_of_equal_length_are_agents():
    assert has_tuple_agents(TimeLimit(Pair(), 5))
    assert not has_tuple_agents(SumOfPairs())
    assert not has_tuple_agents(Trio())
    assert not has_tuple_agents(gymnasium.make("CartPole-v1"))
    assert not has_tuple_agents(TupleParallelEnv(Pair()))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rewards": 1.0}, "expected a reward for each of 2 agents, got 1.0"),
        ({"rewards": [1.0, 2.0, 3.0]}, r"expected a reward for each of 2 agents, got \[1.0, 2.0, 3.0\]"),
        ({"over": [False, True]}, r"expected one flag that ends the episode for all, got \[False, True\]"),
    ],
)
def test_what_is_not_for_each_agent_is_refused(given, message):
    env = TupleParallelEnv(Pair(**given))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=f"Pair.*: {message}"):
        env.step({"agent_0": 0, "agent_1": 0})


def test_an_agent_without_action_is_named():
    env = TupleParallelEnv(Pair())
    env.reset(seed=0)
    with pytest.raises(KeyError, match="agent_1"):
        env.step({"agent_0": 0})


@pytest.mark.parametrize("env_id", [LBF, RWARE])
def test_the_fields_environments_conform(env_id):
    results = check_parallel_env(
        lambda **kwargs: TupleParallelEnv(gymnasium.make(env_id, **kwargs)), steps=20
    )
    # Their pictures need a display, and they report their time limit as an end.
    wrong = {result.name for result in results if not result.passed and result.label != "skip"}
    assert wrong <= {"render", "time limit"}, table(results)


@pytest.mark.parametrize("env_id", [LBF, RWARE])
def test_what_agents_get_is_what_the_environment_gives(env_id):
    bare = gymnasium.make(env_id, disable_env_checker=True)
    env = TupleParallelEnv(gymnasium.make(env_id))
    seen, _ = bare.reset(seed=4)
    observations, _ = env.reset(seed=4)
    rng, paid = np.random.default_rng(0), 0.0
    for _ in range(400):
        for one, other in zip(seen, observations.values(), strict=True):
            np.testing.assert_array_equal(one, other)
        actions = tuple(rng.integers(6 if env_id == LBF else 5, size=2).tolist())
        seen, rewards, terminated, _, _ = bare.step(actions)
        observations, gains, ends, _, _ = env.step(dict(zip(env.possible_agents, actions, strict=True)))
        assert list(gains.values()) == rewards
        assert list(ends.values()) == [terminated] * 2
        paid += sum(rewards)
        if terminated:
            seen, _ = bare.reset()
            observations, _ = env.reset()
    assert paid > 0 or env_id == RWARE  # random robots deliver nothing
    assert pickle.loads(pickle.dumps(env)).possible_agents == env.possible_agents
