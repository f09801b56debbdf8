"""COMA: its updates, its runs, and what it refuses."""

import copy

import numpy as np
import pytest
import torch
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from resumed_runs import assert_goes_on_exactly
from toy_matrix import coma_config, played

from qio_envs.api import ConfigError
from qio_rllib.algorithms import COMAConfig
from qio_rllib.learners.transitions import outputs_of

MEMORY = {"use_gru": True, "gru_cell_size": 6, "max_seq_len": 5}


# -- an update


def test_the_critic_takes_its_steps_from_the_last_to_the_first_and_the_target_follows_in_time(monkeypatch):
    learner, rollout, _ = played(coma_config("forest", target_network_update_freq=5))
    (module,) = learner.modules()
    before = copy.deepcopy(module)
    sizes, losses, objective = [], [], learner.critic_objective

    def noted(rows, targets):
        found = objective(rows, targets)
        sizes.append(rows.obs[0])
        losses.append(found.losses["shared"].item())
        return found

    monkeypatch.setattr(learner, "critic_objective", noted)
    results = learner.update(episodes=[rollout])
    assert results["shared"]["critic_loss"].peek() == pytest.approx(np.mean(losses))
    assert results["shared"]["updates_lifetime"].peek() == 1  # of the policy
    part = torch.from_numpy(rollout.modules["shared"].observations[:-1]).flatten(3)
    for k, rows in enumerate(sizes):
        torch.testing.assert_close(rows, part[12 - 4 * (k + 1) : 12 - 4 * k].flatten(0, 1))
    assert len(sizes) == 3
    for name in ("critics", "policy", "target_critics"):
        same = all(
            torch.equal(old, new)
            for old, new in zip(
                getattr(before, name).parameters(), getattr(module, name).parameters(), strict=True
            )
        )
        assert same == (name == "target_critics")
    learner.update(episodes=[rollout])  # five of six gradient steps lie behind the move
    moved = [*module.target_critics.parameters()]
    assert all(
        not torch.equal(old, new) for old, new in zip(before.target_critics.parameters(), moved, strict=True)
    )


@pytest.mark.parametrize("combined", [None, "sum", "mean"])
def test_a_team_reward_is_what_all_agents_earned(combined, monkeypatch):
    learner, rollout, _ = played(coma_config("tag", team_reward=combined))
    batches, targets = [], learner.targets
    monkeypatch.setattr(learner, "targets", lambda batch: batches.append(batch) or targets(batch))
    learner.update(episodes=[rollout])
    own = [part.rewards for part in rollout.modules.values()]
    everybody = np.concatenate(own, axis=2)
    team = {"sum": everybody.sum(axis=2), "mean": everybody.mean(axis=2)}
    assert np.abs(everybody - everybody.mean(axis=2, keepdims=True)).max() > 0.01
    for found, alone in zip(batches[0].whole.rewards, own, strict=True):
        expected = alone if combined is None else np.repeat(team[combined][..., None], alone.shape[2], axis=2)
        np.testing.assert_allclose(found.reshape(alone.shape), expected, rtol=1e-5, atol=1e-6)


def test_a_new_scale_leaves_the_values_what_they_were():
    learner, rollout, batch = played(coma_config("forest", normalize_values=True))
    (module,), (popart,) = learner.modules(), learner._popart.values()
    learner.update(episodes=[rollout])
    assert popart.deviation != 1.0

    def values():
        with torch.no_grad():
            return [
                learner._scaled(0, learner.values(module.critic(target), batch.whole))
                for target in (False, True)
            ]

    before = values()
    targets = learner._normalized(batch.whole, [100.0 * batch.whole.rewards[0] + 7.0])
    for old, new in zip(before, values(), strict=True):
        torch.testing.assert_close(new, old, rtol=1e-3, atol=1e-3)
    acted = batch.whole.acted[0] > 0
    torch.testing.assert_close(
        learner._scaled(0, targets[0])[acted],
        (100.0 * batch.whole.rewards[0] + 7.0)[acted],
        rtol=1e-3,
        atol=1e-2,
    )


def test_a_schedule_of_the_entropy_coefficient_and_both_learning_rates_are_followed():
    config = coma_config("matrix", entropy_coeff=[[0, 0.1], [1000, 0.0]], actor_lr=1e-3, critic_lr=2e-3)
    learner, rollout, _ = played(config)
    assert learner.entropy_coefficients.current("a") == pytest.approx(0.1)
    learner.update(episodes=[rollout], timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: 500})
    assert learner.entropy_coefficients.current("a") == pytest.approx(0.05)
    for name, rate in (("actor", 1e-3), ("critic", 2e-3)):
        assert learner.get_optimizer("a", name).param_groups[0]["lr"] == pytest.approx(rate)


@pytest.mark.parametrize("task", ["masked", "matrix"])
def test_a_law_of_annealing_follows_the_entropy_of_those_that_act(task):
    """Of the legal actions' logarithm; see `EntropyCoefficients`."""
    law = {"law": "quantum", "alpha_0": 0.1, "alpha_min": 0.01, "decay": 0.5}
    learner, rollout, batch = played(coma_config(task, entropy_annealing=law))
    module, acted, legal = learner.modules()[0], batch.whole.acted[0] > 0, batch.whole.legal[0]
    outputs = outputs_of(module.policy, batch.whole, 0, 0)[0]
    policy = learner.policy(module, outputs, legal)
    count = torch.ones_like(policy.probs) if legal is None else legal
    share = policy.entropy()[acted] / count.sum(-1)[acted].clamp_min(2).log()
    found = learner.update(episodes=[rollout])[batch.whole.modules[0]]
    assert found["normalized_entropy"].peek() == pytest.approx(float(share.mean()), rel=1e-5)
    assert found["alpha"].peek() < 0.1


def test_windows_begin_with_the_memory_that_was_recorded_there():
    """What windows give is what the whole rollout gives in one go; gradients do not pass between windows."""
    learner, _, batch = played(coma_config("lives", model={**MEMORY, "max_seq_len": 7}))
    (module,) = learner.modules()
    whole = outputs_of(module.policy, batch.whole, 0, 0)[0]
    parts = [outputs_of(module.policy, part, 0, 0)[0] for part in batch.windows]
    assert [len(part) // 3 for part in parts] == [7, 5]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-5, atol=1e-6)
    assert not batch.whole.fresh[0].unflatten(0, (12, 3))[7].all()  # some go on into the second window


@pytest.mark.parametrize("model", [{}, MEMORY], ids=["memoryless", "gru"])
@pytest.mark.parametrize("task", ["lives", "masked"])
def test_what_absent_agents_hold_does_not_matter(task, model):
    found = []
    for value in (0.0, 77.0):
        learner, rollout, _ = played(coma_config(task, model=model, normalize_values=not model))
        (part,) = rollout.modules.values()
        absent = ~part.acted
        assert absent.any()
        part.observations[:-1][absent] += value
        part.actions[absent] = (part.actions[absent] + int(value)) % 3
        part.rewards[absent] += value
        learner.update(episodes=[rollout])
        found.append([*learner.modules()[0].parameters()])
    for left, right in zip(*found, strict=True):
        torch.testing.assert_close(left, right)
        assert left.isfinite().all()


@pytest.mark.parametrize(
    ("task", "model"),
    [("discrete", {}), ("forest", MEMORY), ("tag", {}), ("pole", MEMORY), ("masked", {}), ("matrix", {})],
)
def test_every_kind_of_task_is_learned_from(task, model):
    learner, rollout, _ = played(coma_config(task, model=model))
    before = [copy.deepcopy(module.state_dict()) for module in learner.modules()]
    results = learner.update(episodes=[rollout])
    for module_id, old, module in zip(learner.joint["modules"], before, learner.modules(), strict=True):
        assert np.isfinite(results[module_id]["critic_loss"].peek())
        for name in (
            "policy.encoder.layers.0.weight",
            "policy.head.layers.0.weight",
            "critics.0.head.weight",
        ):
            assert (old[name] != module.state_dict()[name]).any(), name


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
@pytest.mark.parametrize("model", [{}, MEMORY], ids=["memoryless", "gru"])
def test_an_interrupted_run_goes_on_exactly(model, tmp_path):
    law = {"law": "quantum", "alpha_0": 0.1, "alpha_min": 0.01, "decay": 0.5}
    settings = {"entropy_annealing": law, "normalize_values": True, "target_network_update_freq": 5}
    config = coma_config("forest", model=model, exploration=[[0, 0.5], [500, 0.0]], **settings)
    names = ("critic_loss", "actor_loss", "alpha", "entropy", "exploration", "value_mean", "q_mean")
    assert_goes_on_exactly(config, tmp_path, names)


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.usefixtures("ray_runtime")
def test_a_remote_runner_samples_and_evaluates():
    config = coma_config("discrete", steps=6, num_envs=2).env_runners(num_env_runners=2)
    config.training(train_batch_size_per_learner=24)
    algorithm = config.evaluation(evaluation_interval=1, evaluation_duration=2).build_algo()
    before = algorithm.learner_group.get_weights()["shared"]
    result = algorithm.train()
    after = algorithm.learner_group.get_weights()["shared"]
    algorithm.stop()
    assert result["env_runners"]["num_env_steps_sampled_lifetime"] >= 24
    assert np.isfinite(result["evaluation"]["greedy"]["team_return"])
    assert any(np.any(before[name] != after[name]) for name in before)


@pytest.mark.ray
@pytest.mark.learning
@pytest.mark.usefixtures("ray_runtime")
def test_it_learns_to_coordinate():
    """A matrix game: 3 at random, and 5, 6 or 8 for a joint action from which nobody gains by leaving alone."""
    torch.manual_seed(0)
    config = coma_config(
        "matrix",
        steps=1,
        num_envs=32,
        num_critic_updates=1,
        target_network_update_freq=10,
        exploration=[[0, 0.5], [8000, 0.0]],
        actor_lr=1e-2,
        critic_lr=1e-2,
    )
    algorithm = config.reporting(min_sample_timesteps_per_iteration=1600).build_algo()
    payoffs = [algorithm.train()["env_runners"]["payoff"] for _ in range(7)]
    algorithm.stop()
    assert payoffs[0] < 4.0
    assert payoffs[-1] >= 4.8


# -- settings


def test_critics_see_the_state_where_there_is_one_and_else_all_observations():
    assert coma_config("forest").central_value == "state"
    assert coma_config("lives").central_value == "observations"
    assert coma_config("forest").training(central_value="observations").central_value == "observations"
    config = coma_config("forest", central_value="observations")
    assert config.environment("forest_uav_v0").central_value == "observations"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lambda_": 1.5}, "lambda_: expected a number from 0 to 1, got 1.5"),
        ({"exploration": 1.5}, "exploration: expected a number from 0 to 1"),
        ({"num_critic_updates": 0}, "num_critic_updates: expected an integer of at least 1, got 0"),
        ({"num_critic_updates": 13}, "num_critic_updates: 13 are more than the 12 steps of a rollout"),
        ({"team_reward": "max"}, "team_reward: expected common or sum or mean or null, got 'max'"),
        ({"tau": 0.0}, "tau: expected a number above 0, up to 1, got 0.0"),
        (
            {"critic": {"type": "own"}},
            "critic: COMA's critic is an mlp over the state and .* actions, got own",
        ),
        ({"critic": {"hidens": [8]}}, "critic: unknown key 'hidens' .did you mean 'hiddens'"),
        (
            {"counterfactual_baseline": {}},
            "counterfactual_baseline: COMA's advantages are counterfactual as they",
        ),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        coma_config("lives").training(**change).validate()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda config: config.environment("Pendulum-v1"),
            "env: COMA needs Discrete actions, the environment has",
        ),
        (
            lambda config: config.environment("forest_uav_v0").env_runners(rollout_fragment_length="auto"),
            "rollout_fragment_length: a number of steps is needed, got 'auto'",
        ),
        (
            lambda config: config.environment("CartPole-v1").training(central_value="state"),
            "central_value: .*has no state",
        ),
        (
            lambda config: config.environment("forest_uav_v0").env_runners(env_runner_cls=None),
            "env_runner_cls: COMA needs BatchedEnvRunner",
        ),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        change(COMAConfig()).validate()
