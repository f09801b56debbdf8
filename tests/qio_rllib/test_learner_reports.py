"""What an update of an on-policy Learner reports, and what it leaves alone."""

import numpy as np
import pytest
import torch
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from qio_rllib.algorithms import A2CConfig, PPOConfig
from qio_rllib.sampling.runner import BatchedEnvRunner

FOREST = {"height": 6, "width": 6, "num_uavs": 3, "max_steps": 20}
SWARM = {"actions": "discrete", "out_radius": 2.01, "max_steps": 12}


def runner_and_learner(config):
    """Return a runner and a Learner with the same weights, without a Ray runtime."""
    torch.set_num_threads(1)
    runner = BatchedEnvRunner(config=config)
    learner = config.build_learner(spaces=runner.get_spaces())
    runner.set_state({"rl_module": learner.get_state(components="rl_module")["rl_module"]})
    return runner, learner


def config_of(config_class, env, env_config, **training):
    return (
        config_class()
        .environment(env, env_config=env_config)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2, rollout_fragment_length=20)
        .training(train_batch_size_per_learner=40, **training)
        .rl_module(model_config={"fcnet_hiddens": [16]})
        .debugging(seed=0)
    )


@pytest.mark.parametrize("config_class", [PPOConfig, A2CConfig])
def test_losses_are_means_over_all_minibatches_and_epochs(config_class, monkeypatch):
    runner, learner = runner_and_learner(config_of(config_class, "forest_uav_v0", FOREST, lr=0.01))
    steps, step = [], learner._step
    monkeypatch.setattr(learner, "_step", lambda *given: steps.append(step(*given)) or steps[-1])
    results = learner.update(episodes=runner.sample(num_timesteps=40), num_epochs=2, minibatch_size=40)
    assert len(steps) == 6
    for name in steps[0]:
        mean = np.mean([float(stats[name]) for stats in steps])
        assert float(results["shared"][name].peek()) == pytest.approx(mean, rel=1e-4, abs=1e-6)
    losses = [float(stats["total_loss"]) for stats in steps]
    assert abs(np.mean(losses) - losses[-1]) > 1e-3  # the last alone would be another number


@pytest.mark.parametrize("config_class", [PPOConfig, A2CConfig])
def test_steps_that_were_learned_from_are_counted_as_often_as_they_were(config_class):
    config = config_of(config_class, "swarm_cooperative_v0", SWARM)
    runner, learner = runner_and_learner(
        config.multi_agent(policies={"pair": ["agent_0", "agent_1"], "single": ["agent_2"]})
    )
    epochs = 3 if config_class is PPOConfig else 1
    (rollout,) = runner.sample(num_timesteps=40)
    counts = {name: int(part.acted.sum()) * epochs for name, part in rollout.modules.items()}
    counts["__all_modules__"] = sum(counts.values())
    found = learner.update(episodes=[rollout], num_epochs=epochs, minibatch_size=20)
    for name, count in counts.items():
        assert found[name]["num_module_steps_trained"].peek() == count
        assert found[name]["num_module_steps_trained_lifetime"].peek() == count  # the Algorithm adds them up
    for name in ("num_env_steps_trained", "num_env_steps_trained_lifetime"):
        assert found["__all_modules__"][name].peek() == 40


def test_a_module_none_of_whose_agents_acted_stays_as_it_is_and_the_others_learn():
    config = config_of(PPOConfig, "swarm_cooperative_v0", SWARM, normalize_values=True, minibatch_size=20)
    runner, learner = runner_and_learner(config.multi_agent(policies="independent"))
    (rollout,) = runner.sample(num_timesteps=40)
    absent, present, *_ = rollout.modules
    rollout.modules[absent].acted[:] = False

    def weights():
        return {
            (module_id, name): value.detach().clone()
            for module_id, module in learner.module.items()
            for name, value in module.unwrapped().named_parameters()
        }

    before, coefficient = weights(), float(learner.curr_kl_coeffs_per_module[absent])
    learner.update(episodes=[rollout], num_epochs=1, minibatch_size=20)
    moved = {key[0] for key, value in weights().items() if not torch.equal(value, before[key])}
    assert absent not in moved
    assert present in moved
    assert float(learner.curr_kl_coeffs_per_module[absent]) == coefficient


def test_of_several_learners_losses_are_averaged():
    config = config_of(A2CConfig, "forest_uav_v0", FOREST)
    runner, learner = runner_and_learner(config)
    rollouts = runner.sample(num_timesteps=40)
    found = [learner.update(episodes=rollouts) for _ in range(2)]
    names = ("total_loss", "policy_loss", "vf_loss", "entropy", "normalized_entropy", "gradient_norm")
    each = [{name: float(result["shared"][name].peek()) for name in names} for result in found]
    logger = MetricsLogger(root=True)
    logger.aggregate(found, key="learners")
    for name in names:
        mean = np.mean([values[name] for values in each])
        assert float(logger.peek(("learners", "shared", name))) == pytest.approx(mean), name
