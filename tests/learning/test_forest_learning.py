"""Does it learn? A small forest, a fixed budget, a fixed threshold."""

import pytest

from qio_envs import forest_uav_v0
from qio_envs.forest_uav import LawnmowerPolicy, RandomPolicy
from qio_rllib.algorithms import PPOConfig

SMALL = {"height": 8, "width": 8, "num_uavs": 3, "max_steps": 40}


def scripted_score(policy_class: type) -> float:
    env = forest_uav_v0.batched_env(64, **SMALL)
    env.reset(0)
    policy = policy_class(env)
    while env.running.any():
        env.step(policy.act())
    return float(env.info()["team_return"].mean())


@pytest.mark.ray
@pytest.mark.learning
@pytest.mark.usefixtures("ray_runtime")
def test_ppo_with_the_q_operator_learns_to_cover_a_small_forest():
    """14,080 environment steps; the score is the sampled policy's team return on 32 fixed seeds."""
    random, oracle = scripted_score(RandomPolicy), scripted_score(LawnmowerPolicy)
    config = (
        PPOConfig()
        .environment("forest_uav_v0", env_config={**SMALL, "reward": "local"})
        .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
        .evaluation(evaluation_interval=11, evaluation_duration=32)
        .training(
            lr=1e-3,
            gamma=0.97,
            lambda_=0.95,
            train_batch_size_per_learner=1280,
            minibatch_size=640,
            num_epochs=6,
            clip_param=0.2,
            vf_loss_coeff=0.5,
            vf_clip_param=1e4,
            use_kl_loss=False,
            grad_clip=0.5,
            amplification={},
            entropy_annealing={"law": "quantum", "alpha_0": 0.01, "alpha_min": 0.001, "decay": 0.05},
        )
        .rl_module(model_config={"fcnet_hiddens": [64, 64], "fcnet_activation": "tanh"})
        .debugging(seed=0)
    )
    algorithm = config.build_algo()
    for _ in range(10):
        assert "evaluation" not in algorithm.train()  # only the iterations that evaluate say so
    score = algorithm.train()["evaluation"]["sampled"]["team_return"]
    algorithm.stop()
    normalized = (score - random) / (oracle - random)
    assert normalized >= 0.7, f"team return {score:.1f}, random {random:.1f}, oracle {oracle:.1f}"
