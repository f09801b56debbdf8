"""Actions of several numbers: independent distributions, the operator on each, and what is refused."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from toy_runners import config_of, learner_of, runner_of
from toy_spaces import ACTIONS, OBSERVATIONS, Nested

from qio_envs.api import ConfigError
from qio_rllib.acting.actions import ActionSpec
from qio_rllib.acting.distributions import Distributions, noise_of, sample
from qio_rllib.algorithms import A2CConfig, PPOConfig
from qio_rllib.artifacts.policy_file import load_policy, save_policy
from qio_rllib.cli import main
from qio_rllib.exploration import Amplification, operate
from qio_rllib.models.policy_network import PolicyNetwork, PolicySpec
from qio_rllib.sampling.environments import register_env
from qio_rllib.sampling.evaluation import policy_from_modules

FACTORS, REAL = (3, 1, 4), 2


def parts_of(inputs):
    """Return torch's own distributions over the same numbers."""
    logits, rest = inputs[:, :8].split(FACTORS, dim=-1), inputs[:, 8:]
    mean, log_std = rest.chunk(2, dim=-1)
    kinds = [torch.distributions.Categorical(logits=one) for one in logits]
    return [*kinds, torch.distributions.Independent(torch.distributions.Normal(mean, log_std.exp()), 1)]


def test_values_are_those_of_independent_distributions():
    generator = torch.Generator().manual_seed(0)
    inputs, others = (torch.randn(30, 12, generator=generator, dtype=torch.float64) for _ in range(2))
    ours, other = Distributions(inputs, False, FACTORS), Distributions(others, False, FACTORS)
    theirs, their_other = parts_of(inputs), parts_of(others)
    drawn = [one.sample() for one in theirs]
    actions = torch.cat([torch.stack(drawn[:3], dim=-1).double(), drawn[3]], dim=-1)
    expected = sum(one.log_prob(value) for one, value in zip(theirs, drawn, strict=True))
    torch.testing.assert_close(ours.logp(actions), expected)
    torch.testing.assert_close(ours.entropy(), sum(one.entropy() for one in theirs))
    divergence = sum(map(torch.distributions.kl_divergence, theirs, their_other))
    torch.testing.assert_close(ours.divergence(other), divergence)
    assert ours.num_outcomes is None
    assert Distributions(inputs[:, :8], False, FACTORS).num_outcomes == 12


def test_samples_have_the_frequencies_and_log_probabilities_of_the_factors():
    rng = np.random.default_rng(0)
    spec = ActionSpec.of(spaces.Tuple([spaces.MultiDiscrete([3, 2]), spaces.Box(-1, 1, (2,))]), rescaled=True)
    row = np.array([0.0, 1.0, -1.0, 0.5, 0.0, 0.3, -0.3, 0.0, -1.0], np.float32)
    inputs = np.broadcast_to(row, (40_000, 9)).copy()
    actions, logp = sample(inputs, False, False, noise_of(rng, (40_000,), spec), spec.factors)
    kinds = Distributions(torch.from_numpy(inputs), False, spec.factors)
    np.testing.assert_allclose(kinds.logp(torch.from_numpy(actions)), logp, rtol=1e-4, atol=1e-4)
    for column, part in enumerate(kinds.parts[:2]):
        shares = np.bincount(actions[:, column].astype(int), minlength=part.probs.shape[1]) / len(actions)
        np.testing.assert_allclose(shares, part.probs[0], atol=0.01)
    np.testing.assert_allclose(actions[:, 2:].mean(0), [0.3, -0.3], atol=0.02)
    np.testing.assert_allclose(np.corrcoef(actions.T) - np.eye(4), 0, atol=0.02)
    best, _ = sample(inputs[:1], False, False, None, spec.factors)
    np.testing.assert_allclose(best[0], [1, 0, 0.3, -0.3], rtol=1e-6)


def test_the_operator_acts_on_each_discrete_factor_alone():
    spec = PolicySpec(
        (2,), "product", REAL, network={"amplification": {"eta": 0.4, "h_min": 0.3}}, factors=(3, 4)
    )
    network = PolicyNetwork(spec)
    outputs = torch.randn(6, 11, generator=torch.Generator().manual_seed(1)) * 3
    found = network.distribution(outputs, None)
    settings = Amplification(0.4, 0.3, 1.0)
    for begin, end in ((0, 3), (3, 7)):
        alone = operate(settings, outputs[:, begin:end], network.eta, network.h_min, network.tau, None)
        torch.testing.assert_close(found[:, begin:end], alone)
        assert not torch.allclose(torch.softmax(outputs[:, begin:end], -1), alone.exp(), atol=1e-2)
    torch.testing.assert_close(found[:, 7:], outputs[:, 7:])


@pytest.mark.parametrize("memory", [False, True])
def test_what_was_sampled_is_what_is_learned_from(memory):
    register_env("nested", lambda config: Nested())
    config = config_of("nested", amplification={"eta": 0.3}).rl_module(
        model_config={"fcnet_hiddens": [8], "use_gru": memory, "gru_cell_size": 4, "max_seq_len": 5}
    )
    runner = runner_of(config)
    (rollout,) = runner.sample()
    learner = learner_of(config, runner)
    learner.module.set_state(runner.get_state()["rl_module"])
    batch = learner.prepare("default_policy", [rollout.modules["default_policy"]])
    inputs, _, _ = learner._forward(learner.module["default_policy"], batch)
    columns = batch.flat_columns()
    policy = batch.policy(inputs)
    torch.testing.assert_close(policy.logp(columns["actions"]), columns["action_logp"], rtol=1e-4, atol=1e-4)
    assert columns["actions"].shape[-1] == 7


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
@pytest.mark.parametrize("config_class", [PPOConfig, A2CConfig])
def test_both_algorithms_learn_nested_actions_and_their_policy_files_act(config_class, tmp_path):
    register_env("nested", lambda config: Nested())
    config = (
        config_class()
        .environment("nested")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=8, rollout_fragment_length=25)
        .training(train_batch_size_per_learner=200, lr=0.01, gamma=0.0, entropy_coeff=0.0)
        .rl_module(model_config={"fcnet_hiddens": [16]})
        .debugging(seed=0)
    )
    config.min_sample_timesteps_per_iteration = 0
    if config_class is PPOConfig:
        config.training(minibatch_size=100, num_epochs=4)
    algorithm = config.build_algo()
    for _ in range(15 if config_class is PPOConfig else 80):
        result = algorithm.train()
    assert (
        result["env_runners"]["episode_return_mean"] > 22
    )  # of 30; random play earns 10 (1/3 + 1/4 + 1/2) = 10.8
    policy = policy_from_modules(dict(algorithm.env_runner.module.items()), config)
    algorithm.stop()
    env, again = Nested(), load_policy(save_policy(policy, tmp_path / "policy.pt"))
    assert again.spaces == policy.spaces
    seen, total, player, first = env.reset(seed=5)[0], 0.0, again.player(), policy.player()
    for _ in range(10):
        action = player.act(seen)
        assert ACTIONS.contains(action)
        assert repr(action) == repr(first.act(seen))
        seen, reward, *_ = env.step(action)
        total += reward
    assert total > 25
    with pytest.raises(ConfigError, match="observation: it has no part room"):
        player.act({"bag": seen["bag"]})
    assert OBSERVATIONS.contains(seen)


class Moves(gymnasium.Env):
    """Nothing but spaces."""

    observation_space = spaces.Box(-1, 1, (2,))

    def __init__(self, action_space):
        self.action_space = action_space


PRODUCT = spaces.MultiDiscrete([2, 3])


@pytest.mark.parametrize(
    ("space", "change", "message"),
    [
        (PRODUCT, {"circuit": {"num_qubits": 2}}, r"circuit: needs Discrete .*MultiDiscrete.*; set it to null"),
        (PRODUCT, {"imagination": {"horizon": 2}}, "imagination: needs Discrete"),
        (spaces.Box(-1, 1, (2, 2)), {"amplification": {}}, "amplification: needs discrete numbers in actions"),
        (spaces.Tuple([spaces.Discrete(2), spaces.Box(-1, 1, (1,))]), {"entropy_annealing": {"law": "quantum"}},
         "entropy_annealing.law: quantum follows .* which Box actions do not have"),
        (spaces.Text(3), {}, r"env: actions are Text\(.*\); Text has no fixed number of values"),
    ],
)  # fmt: skip
def test_what_takes_an_action_for_one_choice_is_refused(space, change, message):
    register_env("moves", lambda config: Moves(space))
    with pytest.raises(ConfigError, match=message) as caught:
        PPOConfig().environment("moves").training(**change).validate()
    assert "\n" not in str(caught.value)


def test_rllibs_own_runner_is_refused():
    register_env("moves", lambda config: Moves(PRODUCT))
    with pytest.raises(ConfigError, match="env_runner_cls: such actions need BatchedEnvRunner"):
        PPOConfig().environment("moves").env_runners(env_runner_cls=None).validate()


@pytest.mark.parametrize("name", ["DQN", "MASAC"])
def test_the_command_refuses_such_actions_for_other_algorithms_in_a_dry_run(name, capsys):
    register_env("moves", lambda config: Moves(PRODUCT))
    command = ["train", "--run", name, "--env", "moves", "--stop", '{"training_iteration": 1}', "--dry-run"]
    assert main(command) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"env: {name} takes a discrete number from 0 or a row of real numbers as an action" in said
    assert "MultiDiscrete([2 3])" in said
