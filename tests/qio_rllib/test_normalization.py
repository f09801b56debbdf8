"""Running normalisation of observations and rewards: exact moments, over runners and resumption, frozen in acting."""

import copy

import numpy as np
import pytest
import torch
from toy_runners import config_of, forest, learner_of, runner_of

from qio_envs.api import ConfigError
from qio_rllib.algorithms import A2CConfig, PPOConfig
from qio_rllib.artifacts.policy_file import load_policy, save_policy
from qio_rllib.learners import normalization
from qio_rllib.learners.normalization import RunningMoments
from qio_rllib.models.normalization import LIMIT, RunningScale
from qio_rllib.sampling.discounted_returns import DISCOUNTED_RETURNS
from qio_rllib.sampling.evaluation import policy_from_modules


def test_moments_are_those_of_all_rows_in_any_batches():
    rows = np.random.default_rng(0).normal(1e4, 3.0, (1000, 2)).astype(np.float32)
    moments, other = RunningMoments(), RunningMoments()
    for begin, end in ((0, 1), (1, 400), (400, 400), (400, 1000)):
        moments.add(rows[begin:end])
        other.set_state(copy.deepcopy(moments.get_state()))
    for found in (moments, other):
        np.testing.assert_allclose(found.mean, rows.mean(0, dtype=np.float64), rtol=1e-12)
        np.testing.assert_allclose(found.deviation, rows.std(0, dtype=np.float64), rtol=1e-9)


def test_several_learners_take_in_each_others_rows(monkeypatch):
    rows = np.random.default_rng(1).normal(3.0, 2.0, (50, 3)).astype(np.float32)
    mine, theirs = rows[:20].astype(np.float64), rows[20:].astype(np.float64)
    shares = iter([torch.tensor([30.0]), torch.from_numpy(theirs.sum(0)),
                   torch.from_numpy(((theirs - rows.astype(np.float64).mean(0)) ** 2).sum(0))])  # fmt: skip
    monkeypatch.setattr(normalization, "reduce_over_learners", lambda values: values + next(shares))
    moments = RunningMoments()
    moments.add(mine)
    np.testing.assert_allclose(moments.mean, rows.mean(0, dtype=np.float64))
    np.testing.assert_allclose(moments.deviation, rows.std(0, dtype=np.float64))


def test_numbers_are_moved_and_clipped_and_constants_break_nothing():
    scale = RunningScale(3)
    scale.put(torch.tensor([1.0, 2.0, 5.0]), torch.tensor([2.0, 0.5, 0.0]))
    rows = torch.tensor([[3.0, 100.0, 5.0]])
    torch.testing.assert_close(scale(rows), torch.tensor([[1.0, LIMIT, 0.0]]))


@pytest.mark.parametrize("central", [None, "state"])
@pytest.mark.parametrize("memory", [False, True])
def test_an_update_sees_the_scale_that_acted_and_moves_it_behind(central, memory):
    config = forest().training(normalize_observations=True, central_value=central)
    config.rl_module(
        model_config={"fcnet_hiddens": [8], "use_gru": memory, "gru_cell_size": 4, "max_seq_len": 5}
    )
    runner = runner_of(config)
    learner = learner_of(config, runner)
    seen, states = [], []
    for _ in range(2):
        runner.set_state({"rl_module": learner.module.get_state(), "weights_seq_no": 0})
        (rollout,) = runner.sample()
        part = rollout.modules["shared"]
        module = learner.module["shared"]
        before = module.policy.scale.mean.clone()
        batch = learner.prepare("shared", [part])
        inputs, _, _ = learner._forward(module, batch)
        torch.testing.assert_close(
            batch.policy(inputs).logp(batch.flat_columns()["actions"]),
            batch.flat_columns()["action_logp"], rtol=1e-4, atol=1e-4,
        )  # fmt: skip
        torch.testing.assert_close(module.policy.scale.mean, before)
        learner.update(episodes=[rollout], num_epochs=1, minibatch_size=20)
        seen.append(part.observations[:-1][part.acted])
        states.append(None if part.global_states is None else part.global_states[:-1].reshape(20, -1))
        rows = np.concatenate(seen).astype(np.float64)
        np.testing.assert_allclose(module.policy.scale.mean, rows.mean(0), rtol=1e-5, atol=1e-6)
        deviation = rows.std(0).clip(1e-4)
        np.testing.assert_allclose(module.policy.scale.deviation, deviation, rtol=1e-5, atol=1e-6)
        if central:
            expected = np.concatenate(states).astype(np.float64).mean(0)
            np.testing.assert_allclose(module.value.state_scale.mean, expected, rtol=1e-5, atol=1e-6)


def test_values_and_policy_look_at_normalised_observations():
    config = forest().training(normalize_observations=True)
    runner = runner_of(config)
    learner = learner_of(config, runner)
    module = learner.module["shared"]
    module.policy.scale.put(torch.full((153,), 0.5), torch.full((153,), 0.1))
    (rollout,) = runner.sample()
    part = rollout.modules["shared"]
    rows = torch.from_numpy(part.observations[:-1].reshape(-1, 153))
    batch = learner.prepare("shared", [part])
    torch.testing.assert_close(batch.inputs.rows, ((rows - 0.5) / 0.1).clamp(-10, 10))
    with torch.no_grad():
        expected = module.value(batch.inputs.rows)[0]
    found = module.compute_values({"obs": rows})
    torch.testing.assert_close(found, expected)


def test_rewards_are_divided_by_the_deviation_of_discounted_returns_over_rollouts():
    config = config_of("Pendulum-v1", {"max_episode_steps": 7}, normalize_rewards=True, gamma=0.9)
    runner, returns, present = runner_of(config), [], np.zeros(2)
    learner = learner_of(config, runner)
    for _ in range(3):  # rollouts of 10 steps, episodes of 7
        (rollout,) = runner.sample()
        part = rollout.modules["default_policy"]
        fresh = part.fresh_steps()
        for t in range(10):
            present = np.where(fresh[t, :, 0], 0.0, present)
            present = part.rewards[t, :, 0] + 0.9 * present
            returns.append(present)
        np.testing.assert_allclose(part.columns[DISCOUNTED_RETURNS][:, :, 0], returns[-10:], rtol=1e-5)
        raw = part.rewards.copy()
        scaled = learner._normalization.scaled_rewards("default_policy", [part])[0]
        deviation = np.std(np.array(returns))
        np.testing.assert_allclose(scaled.rewards, raw / deviation, rtol=1e-5)
        np.testing.assert_array_equal(part.rewards, raw)
    assert deviation > 2.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normalize_observations": True, "circuit": {"num_qubits": 2}}, "normalize_obs.*: does not go with circuit"),
        ({"normalize_observations": True, "interventional_consistency": {}}, "does not go with interventional_consist"),
        ({"normalize_rewards": True, "influence_reward": {}}, "normalize_rewards: does not go with influence_reward"),
        ({"normalize_rewards": True, "team_reward": "sum", "central_value": "state"}, "does not go with team_reward"),
    ],
)  # fmt: skip
def test_what_needs_plain_units_is_refused(change, message):
    with pytest.raises(ConfigError, match=message) as caught:
        forest().training(**change).validate()
    assert "\n" not in str(caught.value)


def test_rllibs_own_runner_is_refused():
    with pytest.raises(ConfigError, match="env_runner_cls: normalize_rewards needs BatchedEnvRunner"):
        forest().training(normalize_rewards=True).env_runners(env_runner_cls=None).validate()


def numbers(state):
    """Return every array of a nested state, in order."""
    if isinstance(state, dict):
        return [one for key in state for one in numbers(state[key])]
    return [np.asarray(state)] if isinstance(state, np.ndarray | float | torch.Tensor) else []


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
@pytest.mark.parametrize("config_class", [PPOConfig, A2CConfig])
def test_a_resumed_run_goes_on_with_the_same_moments_and_evaluation_leaves_them(config_class, tmp_path):
    config = (
        config_class()
        .environment("Pendulum-v1")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2, rollout_fragment_length=30)
        .training(train_batch_size_per_learner=60, normalize_observations=True, normalize_rewards=True)
        .evaluation(evaluation_duration=1)
        .rl_module(model_config={"fcnet_hiddens": [8]})
        .debugging(seed=3)
    )
    config.min_sample_timesteps_per_iteration = 0
    if config_class is PPOConfig:
        config.training(minibatch_size=30, num_epochs=2)
    first = config.build_algo()
    first.train()
    path = first.save_to_path(str(tmp_path / "checkpoint"))
    second = config.build_algo()
    second.restore_from_path(path)
    moments = [algorithm.learner_group._learner._normalization.get_state() for algorithm in (first, second)]
    assert set(moments[0]) == {("default_policy", "observations"), ("default_policy", "returns")}
    for one, other in zip(*map(numbers, moments), strict=True):
        np.testing.assert_array_equal(one, other)
    before = numbers(first.learner_group._learner.module.get_state())
    first.evaluate()
    for one, other in zip(before, numbers(first.learner_group._learner.module.get_state()), strict=True):
        np.testing.assert_array_equal(one, other)
    for algorithm in (first, second):
        algorithm.train()
    states = [algorithm.learner_group._learner.get_state() for algorithm in (first, second)]
    for part in ("rl_module", "normalization"):
        for one, other in zip(numbers(states[0][part]), numbers(states[1][part]), strict=True):
            np.testing.assert_array_equal(one, other)
    policy = policy_from_modules(dict(first.env_runner.module.items()), config)
    scale = load_policy(save_policy(policy, tmp_path / "policy.pt")).team.groups[0].actor.network.scale
    assert scale.mean.abs().sum() > 0
    np.testing.assert_array_equal(
        scale.mean, first.learner_group._learner.module["default_policy"].policy.scale.mean
    )
    for algorithm in (first, second):
        algorithm.stop()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_the_moments_are_those_of_all_remote_runners():
    config = forest(num_envs=1).env_runners(num_env_runners=2)
    config.training(train_batch_size_per_learner=40, normalize_observations=True, normalize_rewards=True)
    algorithm = config.build_algo()
    algorithm.train()
    moments = algorithm.learner_group._learner._normalization.moments
    assert {key: found.count for key, found in moments.items()} == {
        ("shared", "observations"): 120.0,
        ("shared", "returns"): 120.0,
    }
    expected = algorithm.learner_group._learner.module["shared"].policy.scale.mean.numpy()
    found = algorithm.env_runner_group.foreach_env_runner(
        lambda runner: runner.module["shared"].policy.scale.mean.numpy(), local_env_runner=False
    )
    assert len(found) == 2
    for mean in found:
        np.testing.assert_array_equal(mean, expected)
    algorithm.stop()
