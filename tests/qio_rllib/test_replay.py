"""`JointReplay`: rows are what happened, the ring forgets the oldest, and a state goes on exactly."""

import numpy as np
import pytest
from toy_lives import Lives

from qio_envs.api import ConfigError
from qio_rllib.algorithms import MADDPGConfig, PPOConfig
from qio_rllib.sampling.environments import register_env
from qio_rllib.sampling.replay import JointReplay, joint_steps
from qio_rllib.sampling.runner import BatchedEnvRunner


def sample_of(
    env, env_config=None, fragment=12, copies=2, config_class=MADDPGConfig, random=False, **training
):
    config = (
        config_class()
        .environment(env, env_config=env_config or {})
        .env_runners(num_env_runners=0, num_envs_per_env_runner=copies, rollout_fragment_length=fragment)
        .training(**training)
        .rl_module(model_config={"fcnet_hiddens": [8]})
        .debugging(seed=3)
    )
    return BatchedEnvRunner(config=config).sample(random_actions=random)[0]


def lives():
    register_env("lives", lambda env_config: Lives())
    return sample_of("lives")


def test_rows_are_the_steps_of_agents_that_come_and_go():
    """Agent a terminates in step 2, b comes then and terminates in step 5, in which c truncates and all begin anew."""
    steps = joint_steps(lives())
    columns = steps.modules["shared"]
    by_time = {name: columns[name].reshape(12, 2, 3, -1) for name in columns}
    assert len(steps) == 24
    a, b, c = range(3)
    for t in range(10):
        now = t % 5 + 1
        acted, present_next, terminated = (
            by_time[name][t, 0, :, 0].tolist() for name in ("acted", "present_next", "terminated")
        )
        assert acted == [now <= 2, now > 2, True]
        assert terminated == [now == 2, now == 5, False]
        # c goes on from its last observation where it was cut; b from the step in which it came
        assert present_next == [now < 2, 2 <= now < 5, True]
        assert by_time["next_observations"][t, 0, c, 1] == now  # not 0, the time after the reset
        assert by_time["observations"][t, 0, c, 1] == now - 1
        assert by_time["rewards"][t, 0, c, 0] == now
        assert by_time["next_observations"][t, 0, c, 2] == by_time["actions"][t, 0, c, 0]
    assert a == 0
    assert b == 1


def test_states_go_with_their_steps():
    rollout = sample_of("swarm_cooperative_v0", {"max_steps": 5})
    steps = joint_steps(rollout)
    part = rollout.modules["shared"]
    following = steps.next_states.reshape(12, 2, -1)
    np.testing.assert_array_equal(steps.states.reshape(12, 2, -1), part.states[:-1])
    np.testing.assert_array_equal(following[:4], part.states[1:5])
    assert (
        following[4] != part.states[5]
    ).any()  # the fifth step ends the episode: its next state is the last one
    np.testing.assert_array_equal(following[4, 0], part.final_states[part.final_index[:, 1] == 0][0])


def test_continuous_actions_are_kept_as_they_were_executed():
    steps = joint_steps(sample_of("swarm_cooperative_v0", random=True))
    actions = steps.modules["shared"]["actions"]
    assert actions.dtype == np.float32
    assert np.abs(actions).max() == 1.0


def test_a_cut_episode_is_followed_by_no_mask_of_the_next():
    forest = {"height": 6, "width": 6, "num_uavs": 2, "max_steps": 3, "mask_blocked_moves": True}
    columns = joint_steps(sample_of("forest_uav_v0", forest)).modules["shared"]
    masks = columns["next_action_mask"].reshape(12, 2, 2, 5)
    assert masks[2].all()
    np.testing.assert_array_equal(masks[:2], columns["action_mask"].reshape(12, 2, 2, 5)[1:3])


def numbered(first, count, capacity=None, replay=None):
    """Return a replay to which steps with the rewards ``first, first + 1, ...`` were added."""
    replay = replay or JointReplay(capacity, seed=1)
    rollout = sample_of("swarm_cooperative_v0", fragment=count, copies=1)
    rollout.modules["shared"].rewards[:] = np.arange(first, first + count)[:, None, None]
    assert replay.add(rollout) == count
    return replay


def kept(replay):
    return sorted({int(value) for value in replay.sample(2000).modules["shared"]["rewards"].ravel()})


def test_the_oldest_rows_give_way():
    replay = numbered(0, 6, capacity=10)
    assert (len(replay), kept(replay)) == (6, list(range(6)))
    numbered(6, 7, replay=replay)
    assert (len(replay), kept(replay)) == (10, list(range(3, 13)))
    numbered(100, 25, replay=replay)
    assert (len(replay), kept(replay)) == (10, list(range(115, 125)))


def test_draws_are_uniform():
    replay = numbered(0, 20, capacity=20)
    drawn = replay.sample(20_000).modules["shared"]["rewards"][:, 0].astype(int)
    assert np.bincount(drawn, minlength=20) == pytest.approx(1000, abs=5 * np.sqrt(950))


@pytest.mark.parametrize("rows", [4, 10, 13])
def test_a_state_goes_on_exactly(rows):
    replay = numbered(0, rows, capacity=10)
    other = JointReplay(10, seed=9)
    other.set_state(replay.get_state())
    for more in (0, 3):
        if more:
            numbered(50, more, replay=replay)
            numbered(50, more, replay=other)
        one, two = replay.sample(64), other.sample(64)
        for name, array in one.columns().items():
            np.testing.assert_array_equal(array, two.columns()[name], name)


def test_a_smaller_replay_takes_the_newest_rows_of_a_state():
    replay = numbered(0, 13, capacity=10)
    other = JointReplay(4, seed=9)
    other.set_state(replay.get_state())
    assert kept(other) == [9, 10, 11, 12]
    larger = JointReplay(12, seed=9)
    larger.set_state(replay.get_state())
    numbered(50, 3, replay=larger)
    assert kept(larger) == [4, *range(5, 13), 50, 51, 52]


def test_an_empty_replay_and_one_beyond_memory_are_refused():
    with pytest.raises(ValueError, match="empty"):
        JointReplay(10).sample(1)
    with pytest.raises(ConfigError, match=r"replay_capacity: 1000000000000 joint steps take [\d,]+ bytes"):
        numbered(0, 2, capacity=10**12)
    empty = JointReplay(10, seed=1)
    empty.set_state(JointReplay(10, seed=2).get_state())
    assert len(empty) == 0


def test_rollouts_without_states_have_none():
    register_env("lives", lambda env_config: Lives())
    batch = {"train_batch_size_per_learner": 24, "minibatch_size": 8}
    steps = joint_steps(sample_of("lives", config_class=PPOConfig, **batch))
    assert steps.states is None
    assert set(steps.columns()) == {f"shared/{name}" for name in steps.modules["shared"]}
