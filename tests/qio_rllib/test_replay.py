"""`JointReplay`: transitions are what happened, rings forget the oldest, sequences hold together, states go on."""

import numpy as np
import pytest
from toy_lives import Lives
from toy_off_policy import config_of

from qio_envs.api import ConfigError
from qio_rllib.algorithms import MADDPGConfig, PPOConfig
from qio_rllib.sampling.environments import register_env
from qio_rllib.sampling.replay import JointReplay, joint_transitions
from qio_rllib.sampling.rollout import Rollout, with_limits_as_ends
from qio_rllib.sampling.runner import BatchedEnvRunner

GAMMA = 0.9
MEMORY = {"use_gru": True, "gru_cell_size": 4, "max_seq_len": 4}


def sample_of(
    env, env_config=None, fragment=12, envs=2, config_class=MADDPGConfig, random=False, model=None, **training
):
    config = (
        config_class()
        .environment(env, env_config=env_config or {})
        .env_runners(num_env_runners=0, num_envs_per_env_runner=envs, rollout_fragment_length=fragment)
        .training(**training)
        .rl_module(model_config={"fcnet_hiddens": [8], **(model or {})})
        .debugging(seed=3)
    )
    return BatchedEnvRunner(config=config).sample(random_actions=random)[0]


def lives(**settings):
    register_env("lives", lambda env_config: Lives())
    return sample_of("lives", **settings)


# -- transitions


def test_transitions_are_the_steps_of_agents_that_come_and_go():
    """Agent a terminates in step 2, b comes then and terminates in step 5, in which c truncates and all begin anew."""
    columns = joint_transitions(lives(), GAMMA).modules["shared"]
    a, b, c = range(3)
    assert columns["rewards"].shape == (12, 2, 3)
    for t in range(10):
        now = t % 5 + 1
        acted, present_next, terminated, fresh = (
            columns[name][t, 0].tolist() for name in ("acted", "present_next", "terminated", "fresh")
        )
        assert acted == [now <= 2, now > 2, True]
        assert terminated == [now == 2, now == 5, False]
        # c goes on from its last observation where it was cut; b from the step in which it came
        assert present_next == [now < 2, 2 <= now < 5, True]
        assert [fresh[a], fresh[c]] == [now == 1 or now > 3 or now == 3, now == 1]
        assert fresh[b] == (now <= 3)
        assert columns["next_observations"][t, 0, c, 1] == now  # not 0, the time after the reset
        assert columns["observations"][t, 0, c, 1] == now - 1
        assert columns["rewards"][t, 0, c] == now
        assert columns["next_observations"][t, 0, c, 2] == columns["actions"][t, 0, c]
    assert (columns["discounts"] == np.float32(GAMMA)).all()


@pytest.mark.parametrize("n_step", [1, 3])
def test_without_bootstrapping_a_truncated_agent_does_not_go_on(n_step):
    rollout = lives()
    ended = Rollout({"shared": with_limits_as_ends(rollout.modules["shared"])})
    columns = joint_transitions(ended, GAMMA).modules["shared"]
    kept = joint_transitions(rollout, GAMMA).modules["shared"]
    c, now = 2, np.arange(12) % 5 + 1
    np.testing.assert_array_equal(columns["present_next"][:, 0, c], now < 5)
    for name in ("rewards", "fresh", "next_observations"):
        np.testing.assert_array_equal(columns[name], kept[name])
    replay = JointReplay(100, 1, n_step=n_step, gamma=GAMMA)
    replay.add(ended)
    drawn = replay.sample(300).modules["shared"]
    time = drawn["observations"][:, c, 1]
    np.testing.assert_array_equal(drawn["present_next"][:, c], time + n_step < 5)


def test_states_go_with_their_steps():
    rollout = sample_of("swarm_cooperative_v0", {"max_steps": 5})
    steps = joint_transitions(rollout, GAMMA)
    part = rollout.modules["shared"]
    following = steps.next_global_states
    np.testing.assert_array_equal(steps.global_states, part.global_states[:-1])
    np.testing.assert_array_equal(following[:4], part.global_states[1:5])
    assert (
        following[4] != part.global_states[5]
    ).any()  # the fifth step ends the episode: its next state is the last one
    np.testing.assert_array_equal(following[4, 0], part.final_global_states[part.final_index[:, 1] == 0][0])


def test_continuous_actions_are_kept_as_they_were_executed():
    rollout = sample_of("swarm_cooperative_v0", random=True)
    actions = joint_transitions(rollout, GAMMA).modules["shared"]["actions"]
    assert actions.dtype == np.float32
    assert np.abs(rollout.modules["shared"].actions).max() > 1.0
    np.testing.assert_array_equal(actions, rollout.modules["shared"].actions.clip(-1, 1))


def test_a_cut_episode_is_followed_by_no_mask_of_the_next():
    forest = {"height": 6, "width": 6, "num_uavs": 2, "max_steps": 3, "mask_blocked_moves": True}
    columns = joint_transitions(sample_of("forest_uav_v0", forest), GAMMA).modules["shared"]
    masks = columns["next_action_mask"]
    assert masks[2].all()
    np.testing.assert_array_equal(masks[:2], columns["action_mask"][1:3])


def test_rollouts_without_states_have_none():
    batch = {"train_batch_size_per_learner": 24, "minibatch_size": 8}
    steps = joint_transitions(lives(config_class=PPOConfig, **batch), GAMMA)
    assert steps.global_states is None
    assert set(steps.flat()) == {f"shared\n{name}" for name in steps.modules["shared"]}


def test_transitions_survive_being_flat():
    steps = joint_transitions(sample_of("swarm_cooperative_v0"), GAMMA)
    again = type(steps).from_flat(steps.flat())
    assert again.modules.keys() == steps.modules.keys()
    for name, array in steps.modules["shared"].items():
        np.testing.assert_array_equal(again.modules["shared"][name], array)
    np.testing.assert_array_equal(again.next_global_states, steps.next_global_states)


# -- the ring


def numbered(first, count, capacity=None, replay=None, runner=0, **settings):
    """Return a replay to which steps with the rewards ``first, first + 1, ...`` were added."""
    replay = replay or JointReplay(capacity, seed=1, **settings)
    rollout = sample_of("swarm_cooperative_v0", fragment=count, envs=1)
    rollout.runner = runner
    rollout.modules["shared"].rewards[:] = np.arange(first, first + count)[:, None, None]
    assert replay.add(rollout) == count
    return replay


def kept(replay):
    return sorted({int(value) for value in replay.sample(2000).modules["shared"]["rewards"].ravel()})


def test_the_oldest_transitions_give_way():
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


def test_each_runner_has_a_ring_and_all_transitions_are_equally_likely():
    replay = numbered(0, 10, capacity=40, num_runners=2)
    numbered(100, 30, replay=replay, runner=1)
    assert len(replay) == 10 + 20  # each has half of the capacity
    drawn = replay.sample(30_000).modules["shared"]["rewards"][:, 0].astype(int)
    values, counts = np.unique(drawn, return_counts=True)
    assert values.tolist() == [*range(10), *range(110, 130)]
    assert counts == pytest.approx(1000, abs=5 * np.sqrt(1000))


@pytest.mark.parametrize("rows", [4, 10, 13])
@pytest.mark.parametrize("length", [1, 3])
def test_a_state_goes_on_exactly(rows, length):
    settings = {"sequence_length": length, "num_runners": 2}
    replay = numbered(0, rows, capacity=20, **settings)
    numbered(30, 5, replay=replay, runner=1)
    other = JointReplay(20, seed=9, **settings)
    other.set_state(replay.get_state())
    for more in (0, 3):
        if more:
            numbered(50, more, replay=replay)
            numbered(50, more, replay=other)
        one, two = replay.sample(64), other.sample(64)
        for name, array in one.flat().items():
            np.testing.assert_array_equal(array, two.flat()[name], name)


def test_a_smaller_replay_takes_the_newest_transitions_of_a_state():
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
    with pytest.raises(
        ConfigError, match=r"replay_capacity: 1000000000000 joint transitions take [\d,]+ bytes"
    ):
        numbered(0, 2, capacity=10**12)
    empty = JointReplay(10, seed=1)
    empty.set_state(JointReplay(10, seed=2).get_state())
    assert len(empty) == 0


# -- sequences


def rewards_of(replay, count=4000):
    return replay.sample(count).modules["shared"]["rewards"][..., 0].astype(int)


@pytest.mark.parametrize("added", [(7,), (10,), (10, 3), (10, 9, 4)])
def test_sequences_are_successive_and_never_cross_what_is_written_next(added):
    replay, first = None, 0
    for count in added:
        replay = numbered(first, count, capacity=10, replay=replay, sequence_length=4)
        first += count
    sequences = rewards_of(replay)
    assert sequences.shape == (4000, 4)
    assert (np.diff(sequences, axis=1) == 1).all()
    oldest = max(0, first - 10)
    starts, counts = np.unique(sequences[:, 0], return_counts=True)
    assert starts.tolist() == list(range(oldest, first - 3))
    assert replay.num_samples == len(starts)
    assert counts == pytest.approx(4000 / len(starts), abs=5 * np.sqrt(4000 / len(starts)))  # uniform


def test_sequences_go_on_over_rollouts_of_their_runner_and_over_those_of_no_other():
    replay = numbered(0, 5, capacity=40, sequence_length=4, num_runners=2)
    numbered(100, 5, replay=replay, runner=1)
    numbered(5, 5, replay=replay)
    sequences = rewards_of(replay)
    assert (np.diff(sequences, axis=1) == 1).all()
    assert set(sequences[:, 0].tolist()) == {*range(7), 100, 101}


def test_sequences_carry_who_begins_and_the_memory_before_their_first_step():
    """A memory is that of the step before, and zeros where the agent begins."""
    runner = BatchedEnvRunner(config=config_of("lives", fragment=12, num_envs=2, model=MEMORY))
    policy = runner.module["shared"].unwrapped().policy
    replay = JointReplay(48, 1, sequence_length=4)
    parts = []
    for _ in range(2):  # two rollouts: the memory goes on from the first
        rollout = runner.sample()[0]
        parts.append(rollout.modules["shared"])
        replay.add(rollout)
    memory = np.concatenate([part.memory["policy"] for part in parts])
    fresh = np.concatenate([part.fresh_steps()[:-1] for part in parts])
    number = np.concatenate([part.observations[:-1] for part in parts])
    assert fresh[0].all()
    np.testing.assert_array_equal(fresh[12], parts[1].fresh)
    assert not fresh[12].all()
    found = replay.sample(300).modules["shared"]
    assert found["memory/policy"].shape == (300, 3, 4)
    assert (found["fresh"][:, 0] != fresh[0, 0]).any()
    for sequence in range(300):
        (place,) = [
            (t, e) for t in range(21) for e in range(2)
            if np.array_equal(number[t : t + 4, e], found["observations"][sequence])
        ]  # fmt: skip
        t, e = place
        np.testing.assert_array_equal(found["memory/policy"][sequence], memory[t, e])
        np.testing.assert_array_equal(found["fresh"][sequence], fresh[t : t + 4, e])
        assert not found["memory/policy"][sequence][fresh[t, e]].any()
    goes_on = ~fresh
    assert np.abs(memory[goes_on]).max() > 1e-3
    assert policy.state_size == 4


@pytest.mark.parametrize("sizes", [{"sequence_length": 6}, {"n_step": 6}])
def test_a_ring_that_cannot_hold_a_sample_is_refused(sizes):
    with pytest.raises(
        ConfigError, match="replay_capacity: 10 joint transitions are 5 steps of each .* needs 6"
    ):
        numbered(0, 8, capacity=10, num_runners=2, **sizes)
    numbered(0, 8, capacity=12, num_runners=2, **sizes).sample(3)
