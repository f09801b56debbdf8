"""Does memory learn what only memory can? A small task; a quarter of the committed experiment's steps; controls."""

import gymnasium
import numpy as np
import pytest

import qio_envs
from qio_envs.api import normalized_score, reference_scores
from qio_rllib.algorithms import PPOConfig
from qio_rllib.experiments.experiment import load_experiment
from qio_rllib.sampling.environments import register_env
from qio_rllib.sampling.evaluation import (
    FIRST_EVALUATION_SEED,
    evaluate,
    evaluate_algorithm,
    evaluation_seeds,
    policy_from_modules,
)

EPISODES = 40
SETTINGS = {"scenario": "remembered_target"}


class Recall(gymnasium.Env):
    """One of two symbols is shown in the first step, and earns 1 when it is named in the fourth and last."""

    observation_space = gymnasium.spaces.Box(0, 1, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.symbol, self.step_count = int(self.np_random.integers(2)), 0
        return np.eye(3, dtype=np.float32)[self.symbol], {}

    def step(self, action):
        self.step_count += 1
        over = self.step_count == 4
        return np.eye(3, dtype=np.float32)[2], float(over and action == self.symbol), over, False, {}


def recalled(use_gru: bool) -> float:
    """Return the share of symbols that a policy names after 8,000 steps."""
    register_env("recall", lambda env_config: Recall())
    config = (
        PPOConfig()
        .environment("recall")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=16, rollout_fragment_length=16)
        .training(train_batch_size_per_learner=256, minibatch_size=128, num_epochs=6, lr=1e-2)
        .rl_module(
            model_config={"fcnet_hiddens": [8], "use_gru": use_gru, "gru_cell_size": 8, "max_seq_len": 8}
        )
        .evaluation(evaluation_duration=100)
        .debugging(seed=0)
    )
    algorithm = config.build_algo()
    for _ in range(32):
        algorithm.train()
    score = evaluate_algorithm(algorithm)[0]["sampled"]["episode_return"]
    algorithm.stop()
    return score


@pytest.mark.ray
@pytest.mark.learning
@pytest.mark.usefixtures("ray_runtime")
def test_what_was_seen_three_steps_ago_is_recalled_with_memory_alone():
    assert recalled(use_gru=True) >= 0.9
    assert 0.3 <= recalled(use_gru=False) <= 0.7


def score_after(env_steps: int, use_lstm: bool) -> float:
    """Return the score with sampled actions between random play and the controller."""
    overrides = ["evaluation_interval=null", f"model_config.use_lstm={str(use_lstm).lower()}"]
    experiment = load_experiment("tune_configs/swarm_memory_ppo.yaml", overrides)
    algorithm = experiment.algorithm_config().build_algo()
    steps = 0
    while steps < env_steps:
        steps = algorithm.train()["num_env_steps_sampled_lifetime"]
    policy = policy_from_modules(dict(algorithm.env_runner.module.items()), algorithm.config)
    rows = evaluate(policy, experiment.env, SETTINGS, evaluation_seeds(EPISODES), explore=True)
    algorithm.stop()
    env = qio_envs.environment(experiment.env).batched_env(EPISODES, **SETTINGS)
    scripted = reference_scores(env, FIRST_EVALUATION_SEED)
    mean = sum(row["team_return"] for row in rows) / EPISODES
    return normalized_score(mean, scripted["random"], scripted["controller"])


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.learning
@pytest.mark.usefixtures("ray_runtime")
def test_a_policy_with_memory_remembers_the_target():
    assert score_after(130_000, use_lstm=True) >= 0.4


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.learning
@pytest.mark.usefixtures("ray_runtime")
def test_a_policy_without_memory_cannot():
    assert abs(score_after(60_000, use_lstm=False)) <= 0.25
