import copy
import pickle

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_envs import Walk, WalkConfig

from qio_envs import chsh_v0, forest_uav_v0, qubit_control_v0, swarm_cooperative_v0, swarm_mixed_v0
from qio_envs.adapters.team import TeamEnv
from qio_envs.api import ConfigError, InvalidActionError, episode_scores
from qio_envs.testing import check_parallel_env, table

TEAMS = {
    "chsh": (chsh_v0, {}),
    "swarm": (swarm_cooperative_v0, {"scenario": "discrete", "out_radius": 2.1, "max_steps": 30}),
    "two teams": (swarm_mixed_v0, {"scenario": "discrete", "max_steps": 20}),
    "forest": (forest_uav_v0, {"scenario": "wooded", "num_uavs": 3, "max_steps": 20}),
    "one agent": (qubit_control_v0, {"scenario": "noisy"}),
}


class MaskedWalk(Walk):
    """Walkers with three actions: 0 stay, 1 forward, 2 far forward; who is beyond 0.5 may not stay."""

    id = "masked_walk_v0"
    has_action_mask = True

    def __init__(self, config=None, num_envs=1):
        super().__init__(config, num_envs)
        self.action_space = gymnasium.spaces.Discrete(3)

    def _step(self, actions):
        return super()._step(actions[..., None].astype(np.float32))

    def action_mask(self):
        mask = np.ones((self.num_envs, self.num_agents, 3), np.int8)
        mask[..., 0] = self.arrays.place <= 0.5
        return mask

    def observe(self, out=None):
        values = super().observe()
        out = self._observation_array(out)
        out[...] = values
        return out


def pair(name, num_envs=1):
    environment, settings_ = TEAMS[name]
    return environment.batched_env(num_envs, **settings_), environment.batched_env(
        num_envs, as_team=True, **settings_
    )


@pytest.mark.parametrize("name", TEAMS)
def test_teams_conform(name):
    environment, settings_ = TEAMS[name]
    results = check_parallel_env(
        lambda **kwargs: environment.parallel_env(as_team=True, **settings_, **kwargs), steps=30
    )
    assert all(result.passed for result in results), table(results)


@pytest.mark.parametrize("name", TEAMS)
def test_a_team_is_its_environment_with_joint_actions(name):
    env, team = pair(name, 3)
    assert (team.id, team.config, team.num_agents) == (env.id, env.config, 1)
    assert team.possible_agents == ("team",)
    assert team.action_space.n == env.action_space.n**env.num_agents
    assert team.observation_space.shape == (env.num_agents * env.observation_space.shape[0],)
    assert team.state_space == env.state_space
    env.reset(5)
    team.reset(5)
    generator = np.random.default_rng(0)
    for _ in range(60):
        again = ~env.running
        env.reset(mask=again)
        team.reset(mask=again)
        actions = generator.integers(0, env.action_space.n, (3, env.num_agents))
        base = int(env.action_space.n)
        joint = [[sum(int(a) * base**k for k, a in enumerate(reversed(row)))] for row in actions]
        rewards, terminated, truncated = env.step(actions)
        given_ = team.step(np.array(joint))
        np.testing.assert_allclose(given_.rewards[:, 0], rewards.sum(axis=1), rtol=1e-5, atol=1e-6)
        assert given_.rewards.dtype == np.float32
        over = ~env.running
        np.testing.assert_array_equal(team.running, env.running)
        cut = over & (truncated & ~terminated).any(axis=1)
        np.testing.assert_array_equal(given_.truncated[:, 0], cut)
        np.testing.assert_array_equal(given_.terminated[:, 0], over & ~cut)
        np.testing.assert_array_equal(team.observe(), env.observe().reshape(3, 1, -1))
        np.testing.assert_array_equal(team.state(), env.state())
        for seen in team.observe():
            assert team.observation_space.contains(seen[0])
        info = team.info()
        for key, values in env.info().items():
            if values.ndim == 1:
                np.testing.assert_array_equal(info.pop(key), values)
            else:
                for column, agent in enumerate(env.possible_agents):
                    np.testing.assert_array_equal(info.pop(f"{key}_{agent}"), values[:, column])
        assert info == {}
    np.testing.assert_array_equal(team.render(1), env.render(1))
    assert team.render(2, "ansi") == env.render(2, "ansi")


@settings(deadline=None, max_examples=15)
@given(st.sampled_from(list(TEAMS)), st.integers(0, 2**63), st.integers(1, 4))
def test_an_environment_of_a_batch_is_the_team_of_its_seed_alone(name, seed, num_envs):
    (_, batch), singles = pair(name, num_envs), [pair(name)[1] for _ in range(num_envs)]
    batch.reset(seed)
    for index, single in enumerate(singles):
        single.reset(seed + index)
    for t in range(12):
        again = ~batch.running
        batch.reset(mask=again)
        for index in np.flatnonzero(again):
            singles[index].reset()
        actions = np.random.default_rng([seed, t]).integers(0, batch.action_space.n, (num_envs, 1))
        parts = [*batch.step(actions), batch.observe(), batch.state(), batch.action_mask()]
        parts += batch.info().values()
        for index, single in enumerate(singles):
            own = [*single.step(actions[index : index + 1]), single.observe(), single.state()]
            own += [single.action_mask(), *single.info().values()]
            for whole, part in zip(parts, own, strict=True):
                np.testing.assert_array_equal(whole[index], part[0])


@given(st.integers(2, 6), st.integers(1, 5), st.integers(0, 10**6))
def test_codes_and_actions_belong_together(choices, walkers, seed):
    env = MaskedWalk(WalkConfig(num_walkers=walkers), 4)
    env.action_space = gymnasium.spaces.Discrete(choices)
    team = TeamEnv(env)
    actions = np.random.default_rng(seed).integers(0, choices, (4, walkers))
    joint = team.encode(actions)
    assert (joint.dtype, joint.shape) == (np.int64, (4, 1))
    for row, code in zip(actions, joint[:, 0], strict=True):
        assert np.base_repr(code, choices).zfill(walkers) == "".join(map(str, row))
    np.testing.assert_array_equal(team.decode(joint), actions)


@pytest.mark.parametrize("make", [lambda: pair("forest", 2), lambda: (MaskedWalk(None, 2), None)])
def test_masks_are_what_all_agents_may_do(make):
    env, team = make()
    team = team or TeamEnv(MaskedWalk(None, 2))
    assert team.has_action_mask
    env.reset(1)
    team.reset(1)
    generator, some_illegal = np.random.default_rng(1), False
    for _ in range(4):
        masks, alive, joint = env.action_mask(), env.agents_alive(), team.action_mask()
        assert (joint.dtype, joint.shape) == (np.int8, (2, 1, team.action_space.n))
        codes = team.decode(np.arange(team.action_space.n)[:, None])
        for e in range(2):
            legal = [
                all(masks[e, n, a] or not alive[e, n] for n, a in enumerate(actions)) for actions in codes
            ]
            np.testing.assert_array_equal(joint[e, 0], legal)
            some_illegal |= not all(legal)
        actions = generator.integers(0, env.action_space.n, (2, env.num_agents))
        env.step(actions)
        team.step(team.encode(actions))
        if not env.running.all():
            break
    assert some_illegal


def test_without_masks_every_joint_action_is_legal():
    _, team = pair("chsh", 2)
    assert not team.has_action_mask
    np.testing.assert_array_equal(team.action_mask(), np.ones((2, 1, 4), np.int8))


def test_agents_that_end_one_by_one():
    """Walkers end at 1, 2 and 3: an episode without time limit terminates, one that is cut short truncates."""
    far = 2 * 9 + 2 * 3 + 2  # everybody walks two units
    team = TeamEnv(MaskedWalk(WalkConfig(max_steps=5)))
    team.reset(0)
    first = team.step([[far]])
    assert not first.terminated.any()
    assert not first.truncated.any()
    assert team.env.agents_alive()[0].tolist() == [False, False, True]
    assert team.agents_alive().tolist() == [[True]]
    last = team.step([[far]])
    assert first.rewards.tolist() == [[6]]
    assert last.rewards.tolist() == [[2]]  # of the one that was left
    assert (last.terminated.tolist(), last.truncated.tolist()) == ([[True]], [[False]])
    team = TeamEnv(MaskedWalk(WalkConfig(max_steps=1)))
    team.reset(0)
    only = team.step([[far]])
    assert (only.terminated.tolist(), only.truncated.tolist()) == ([[False]], [[True]])


@pytest.mark.parametrize("name", TEAMS)
def test_scripted_policies_play_as_they_do_without_a_team(name):
    env, team = pair(name, 4)
    assert list(team.scripted_policies) == list(env.scripted_policies)
    for policy in env.scripted_policies:
        np.testing.assert_allclose(
            episode_scores(team, team.scripted_policies[policy], 7),
            episode_scores(env, env.scripted_policies[policy], 7),
        )


@pytest.mark.parametrize("name", TEAMS)
@pytest.mark.parametrize("copier", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_is_exact_and_apart(name, copier):
    _, team = pair(name, 2)
    team.reset(1)
    team.step(np.zeros((2, 1), int))
    duplicate = copier(team)
    assert duplicate.arrays is duplicate.env.arrays
    assert duplicate.arrays is not team.arrays
    for one, other in zip(team.step(np.ones((2, 1), int)), duplicate.step(np.ones((2, 1), int)), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(team.observe(), duplicate.observe())
    for policy in duplicate.scripted_policies.values():
        assert policy(duplicate).act().shape == (2, 1)


def test_saved_states_are_the_environments():
    env, team = pair("swarm", 2)
    env.reset(3)
    env.step(np.ones((2, 3), int))
    team.set_state(env.get_state())
    np.testing.assert_array_equal(team.observe()[:, 0], env.observe().reshape(2, -1))
    assert team.get_state().keys() == env.get_state().keys()
    with pytest.raises(ValueError, match="state: expected the arrays"):
        team.set_state({})


# -- through the registry


def test_every_builder_takes_as_team():
    assert isinstance(chsh_v0.batched_env(2, as_team=True), TeamEnv)
    assert chsh_v0.parallel_env(as_team=True).possible_agents == ["team"]
    assert chsh_v0.env(as_team=True).possible_agents == ["team"]
    env = chsh_v0.gym_env(as_team=True)
    assert env.action_space == gymnasium.spaces.Discrete(4)
    check_env(env, skip_render_check=True)
    vector = chsh_v0.vector_env(3, as_team=True)
    seen, _ = vector.reset(seed=0)
    assert seen.shape == (3, 4)
    with pytest.raises(ValueError, match="chsh_v0 has 2 agents here and Gymnasium environments have one"):
        chsh_v0.gym_env()


def test_the_gymnasium_form_of_an_environment_with_masks_and_numbers_by_agent():
    env = forest_uav_v0.gym_env("wooded", as_team=True, num_uavs=2, max_steps=5)
    seen, _ = env.reset(seed=0)
    assert seen["action_mask"].shape == (25,)
    assert env.observation_space.contains(seen)
    env = swarm_cooperative_v0.gym_env("discrete", as_team=True)
    _, info = env.reset(seed=0)
    assert {"agent_return_agent_0", "agent_return_agent_2", "distance_agent_1"} <= info.keys()
    assert all(np.ndim(value) == 0 for value in info.values())


def test_one_player_who_sees_both_questions_wins_every_round():
    team = chsh_v0.batched_env(50, as_team=True)
    team.reset(0)
    for _ in range(10):
        both = team.observe()[:, 0, 1] * team.observe()[:, 0, 3]
        team.step(both.astype(int)[:, None])  # Bob's answer is the least significant digit
    assert (team.info()["win_rate"] == 1).all()


def test_hashes_tell_teams_apart_and_leave_the_others_alone():
    assert (
        chsh_v0.content_hash(as_team=False)
        == chsh_v0.content_hash()
        == chsh_v0.config().content_hash("chsh_v0")
    )
    assert chsh_v0.content_hash(as_team=True) != chsh_v0.content_hash()
    assert chsh_v0.content_hash("single", as_team=True) != chsh_v0.content_hash(as_team=True)


def test_what_makes_no_team_is_refused():
    with pytest.raises(ConfigError) as caught:
        forest_uav_v0.batched_env(as_team=True)
    assert str(caught.value) == (
        "as_team: 10 agents with 5 actions each have 9765625 joint actions; allowed: up to 1000000"
    )
    with pytest.raises(ConfigError, match="as_team: swarm_mixed_v0 has continuous actions here"):
        swarm_mixed_v0.parallel_env(as_team=True)
    for value in ("yes", 1, None):
        with pytest.raises(ConfigError, match=f"as_team: expected true or false, got {value!r}"):
            chsh_v0.batched_env(as_team=value)
        with pytest.raises(ConfigError, match=f"as_team: expected true or false, got {value!r}"):
            chsh_v0.content_hash(as_team=value)
    team = chsh_v0.batched_env(as_team=True)
    team.reset(0)
    with pytest.raises(
        InvalidActionError, match="action of team in env 0: expected an integer from 0 to 3, got 4"
    ):
        team.step([[4]])
    with pytest.raises(ValueError, match="out: expected writable C-contiguous float32 of shape"):
        team.observe(np.empty((1, 2, 2), np.float32))
