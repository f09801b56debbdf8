"""Messages that are worth their bits: a game that only they win."""

import pytest
from toy_whisper import SYMBOLS, Whisper

from qio_rllib.algorithms import PPOConfig
from qio_rllib.sampling.environments import register_env
from qio_rllib.sampling.evaluation import evaluate_algorithm

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_runtime")]


def whisper_config(communication, **env_config):
    register_env("whisper", lambda given: Whisper(**given))
    return (
        PPOConfig()
        .environment("whisper", env_config=env_config)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=16, rollout_fragment_length=16)
        .training(
            communication=communication,
            train_batch_size_per_learner=256,
            minibatch_size=256,
            num_epochs=6,
            lr=3e-3,
            entropy_coeff=0.01,
            gamma=0.0,
        )
        .rl_module(model_config={"fcnet_hiddens": [32]})
        .evaluation(evaluation_duration=20)
        .debugging(seed=0)
    )


def score(communication, iterations, **env_config):
    """Return the share of symbols that were named, and the bits that each agent sent."""
    algorithm = whisper_config(communication, **env_config).build_algo()
    for _ in range(iterations):
        algorithm.train()
    scores = evaluate_algorithm(algorithm)[0]["greedy"]
    algorithm.stop()
    return scores["episode_return"] / (3 * 8), scores["bits_sent"]


def test_what_one_sees_reaches_who_has_to_act_in_bits():
    """One bit tells two of four symbols apart, two bits more; whose messages do not arrive is no help."""
    one, sent = score({"bits": 1, "routing": "targeted", "signature": 3}, 25)
    assert 0.4 < one < 0.6
    assert sent == 4
    two, _ = score({"bits": 2, "routing": "targeted", "signature": 3}, 25)
    assert two > 0.7
    apart = {"bits": 2, "routing": "hierarchical", "leaders": [["idle", "ear"], ["eye"]]}
    assert score(apart, 10)[0] < 1.6 / SYMBOLS


def test_gates_close_where_a_message_is_not_worth_its_cost():
    named, sent = score({"bandwidth": 2, "gate": {"cost": 0.0}}, 25)
    assert named > 0.9
    as_well, less = score({"bandwidth": 2, "gate": {"cost": 0.1}}, 35)
    assert as_well > 0.9
    assert less <= 64 / 3 < sent  # who sees nothing keeps silent
    _, silent = score({"bandwidth": 2, "gate": {"cost": 5.0}}, 10)
    assert silent == 0
