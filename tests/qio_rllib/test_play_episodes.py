"""Episodes on fixed seeds: each depends on its own seed only, and none touches training."""

import numpy as np
import pytest
from small_runners import FOREST, MASKED, config_of, forest, metrics_of, runner_of

from qio_envs import environment
from qio_envs.api import ConfigError, episode_scores
from qio_rllib.acting.scripted import scripted_team
from qio_rllib.sampling.batched_vector_env import BatchedVectorEnv
from qio_rllib.sampling.environments import register_env
from qio_rllib.sampling.evaluation import evaluate, play_episodes, policy_from_modules

SWARM = {"max_steps": 6}
SEEDS = [11, 12, 13, 14]


def objects_of(env_id):
    """Give an environment of qio_envs a second name, under which it is a PettingZoo environment like any other."""
    register_env(f"objects of {env_id}", lambda config: environment(env_id).parallel_env(**config))
    return f"objects of {env_id}"


def policy_of(config):
    return policy_from_modules(dict(runner_of(config).module.items()), config)


CASES = [
    ("forest_uav_v0", FOREST | MASKED),
    ("forest_uav_v0", FOREST),
    ("swarm_cooperative_v0", SWARM),
    ("mpe2.simple_spread_v3", {"max_cycles": 6}),
]


@pytest.mark.parametrize("model_config", [{}, {"use_gru": True, "gru_cell_size": 4}])
@pytest.mark.parametrize(("env_id", "env_config"), CASES)
def test_a_sampled_episode_is_the_same_alone_and_among_others(env_id, env_config, model_config):
    config = config_of(env_id, env_config).rl_module(model_config={"fcnet_hiddens": [8]} | model_config)
    policy = policy_of(config)
    names = [env_id] if env_id.startswith("mpe2") else [env_id, objects_of(env_id)]
    for name in names:
        together = evaluate(policy, name, env_config, SEEDS, True)
        assert len({row["episode_return"] for row in together}) == 4
        alone = [row for seed in SEEDS for row in evaluate(policy, name, env_config, [seed], True)]
        backwards = evaluate(policy, name, env_config, SEEDS[::-1], True)[::-1]
        for one, two, three in zip(together, alone, backwards, strict=True):
            assert one == pytest.approx(two, rel=1e-6, abs=1e-6)
            assert one == pytest.approx(three, rel=1e-6, abs=1e-6)


def test_episodes_of_equal_starts_differ_by_their_noise():
    config = config_of("swarm_cooperative_v0", SWARM)
    policy, env = (
        policy_of(config),
        BatchedVectorEnv(environment("swarm_cooperative_v0").batched_env(2, **SWARM)),
    )
    started = env.reset
    env.reset = lambda seeds=None, mask=None: started(None if seeds is None else np.zeros_like(seeds), mask)
    one, other = play_episodes(policy.team_for(env.agents), env, [1, 2], True)
    assert one["episode_return"] != other["episode_return"]
    one, other = play_episodes(policy.team_for(env.agents), env, [1, 1], True)
    assert one["episode_return"] == other["episode_return"]


def weights_after_training(evaluated):
    config = forest(num_envs=2, fragment="auto", **MASKED)
    config.training(train_batch_size_per_learner=20, minibatch_size=10)
    if evaluated:
        config.evaluation(evaluation_interval=1, evaluation_duration=3)
    algorithm = config.build_algo()
    for _ in range(3):
        result = algorithm.train()
    weights = algorithm.learner_group.get_weights()["shared"]
    algorithm.stop()
    assert ("sampled" in result.get("evaluation", {})) == evaluated
    return weights


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_training_is_the_same_bit_for_bit_with_and_without_evaluations():
    plain, evaluated = weights_after_training(False), weights_after_training(True)
    assert plain.keys() == evaluated.keys()
    for name in plain:
        np.testing.assert_array_equal(plain[name], evaluated[name], name)


def test_numbers_that_each_agent_has_are_means_over_agents_in_training_and_evaluation_alike():
    ends = []

    def at_end(*, env, env_index, episode, **rest):
        ends.append((env.env.info()["distance"][env_index].astype(float), episode.info["distance"]))

    config = config_of("swarm_cooperative_v0", SWARM, fragment=12).callbacks(on_episode_end=at_end)
    runner = runner_of(config)
    runner.sample()
    assert len(ends) == 4
    for by_agent, told in ends:
        assert len(set(by_agent)) == 3
        assert told == pytest.approx(by_agent.mean())
    found = metrics_of(runner)["distance"]
    assert found == pytest.approx(np.mean([by_agent.mean() for by_agent, _ in ends]))

    policy = policy_of(config)
    batch = evaluate(policy, "swarm_cooperative_v0", SWARM, SEEDS, False)
    objects = evaluate(policy, objects_of("swarm_cooperative_v0"), SWARM, SEEDS, False)
    for one, other in zip(batch, objects, strict=True):
        assert {"distance", "agent_return", "team_return"} <= one.keys()
        assert one["agent_return"] == pytest.approx(one["episode_return"] / 3, rel=1e-5)
        assert one == pytest.approx(other, rel=1e-5)


@pytest.mark.parametrize(
    ("env_id", "env_config", "policy"),
    [
        ("forest_uav_v0", FOREST | MASKED, "random"),
        ("forest_uav_v0", FOREST, "greedy"),
        ("forest_uav_v0", FOREST, "lawnmower"),
        ("swarm_cooperative_v0", SWARM, "random"),
        ("swarm_cooperative_v0", {"max_steps": 40}, "controller"),
    ],
)
def test_a_scripted_policy_scores_what_the_environments_own_function_says(env_id, env_config, policy):
    env, other = (environment(env_id).batched_env(4, **env_config) for _ in range(2))
    rows = play_episodes(scripted_team(env, policy), BatchedVectorEnv(env), SEEDS, False)
    expected = episode_scores(other, other.scripted_policies[policy], SEEDS[0])
    assert len(set(expected)) > 1
    assert [row["team_return"] for row in rows] == expected.tolist()


def test_an_unknown_scripted_policy_is_refused():
    env = environment("forest_uav_v0").batched_env(1, **FOREST)
    with pytest.raises(ConfigError, match="no scripted policy 'gredy'; did you mean 'greedy'"):
        scripted_team(env, "gredy")
