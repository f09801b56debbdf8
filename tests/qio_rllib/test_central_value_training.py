"""A central value: credit, gradients, standardised values, checkpoints and policies."""

import numpy as np
import pytest
import torch
from ray import tune
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.ppo import PPO
from ray.rllib.algorithms.ppo import PPOConfig as StockPPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing
from toy_central import ENDS, FOREST, SMALL, SPREAD, EndingsWithState, concatenated, small_config
from toy_lives import Lives, Masked

from qio_envs.api import ConfigError
from qio_rllib.algorithms import A2CConfig, PPOConfig
from qio_rllib.artifacts.policy_file import load_policy, save_policy
from qio_rllib.learners.popart import PopArt
from qio_rllib.models.values import ValueNetwork
from qio_rllib.sampling.environments import register_env
from qio_rllib.sampling.evaluation import evaluate, evaluation_seeds, load_policy_from_checkpoint

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_runtime")]

TAG = {"adversaries": ["adversary_0", "adversary_1", "adversary_2"], "good": ["agent_0"]}


@pytest.fixture(autouse=True, scope="module")
def toys(ray_runtime):
    register_env("central_endings", lambda env_config: EndingsWithState(ENDS))
    register_env("central_lives", lambda env_config: Lives())
    register_env("central_masked", lambda env_config: Masked())


# -- credit -------------------------------------------------------------------------------------------------------

CASES = {
    "masks": (FOREST, "state", None),
    "spread": (SPREAD, "state", None),
    "different ends": ("central_endings", "state", "independent"),
    "come and go": ("central_lives", "observations", "independent"),
    "one module, come and go": ("central_masked", "observations", "shared"),
    "speaker and listener": ("mpe2.simple_speaker_listener_v4", "observations", "independent"),
    "tag": ("mpe2.simple_tag_v3", "state", TAG),
}


def textbook_targets(critic: ValueNetwork, part, gamma: float, lambda_: float) -> np.ndarray:
    """Return advantage + value of every step in which an agent acted, by plain loops and long input vectors."""
    final = {
        tuple(index): (seen, state)
        for index, seen, state in zip(
            part.final_index, part.final_observations, part.final_global_states, strict=True
        )
    }

    def value(state, seen, m):
        with torch.no_grad():
            rows = torch.from_numpy(state)[None], torch.from_numpy(np.asarray(seen))[None]
            return float(concatenated(critic, *rows, torch.tensor([part.agent_index[m]])))

    targets = np.zeros_like(part.rewards)
    for e, m in np.ndindex(part.rewards.shape[1:]):
        carried = 0.0
        for t in reversed(range(part.num_steps)):
            if not part.acted[t, e, m]:
                continue
            here = value(part.global_states[t, e], part.observations[t, e, m], m)
            if part.terminated[t, e, m]:
                ahead = carried = 0.0
            elif part.truncated[t, e, m]:
                seen, state = final[t, e, m]
                ahead, carried = value(state, seen, m), 0.0
            else:
                ahead = value(part.global_states[t + 1, e], part.observations[t + 1, e, m], m)
            carried = part.rewards[t, e, m] + gamma * ahead - here + gamma * lambda_ * carried
            targets[t, e, m] = carried + here
    return targets[part.acted]


@pytest.mark.parametrize("case", CASES)
def test_value_targets_equal_the_textbooks_and_every_part_learns(case):
    env, source, policies = CASES[case]
    config = small_config(env, central_value=source, policies=policies, gamma=0.9, lambda_=0.8)
    algorithm = config.build_algo()
    learner = algorithm.learner_group._learner
    (rollout,) = algorithm.env_runner.sample(num_timesteps=60)
    cut = 0
    for module_id, part in rollout.modules.items():
        critic = learner.module[module_id].value
        batch = learner.prepare(module_id, [part])
        pointer = part.global_states.__array_interface__["data"][0]
        assert batch.inputs.central.states.data_ptr() == pointer  # no copy
        np.testing.assert_allclose(
            batch.columns[Postprocessing.VALUE_TARGETS],
            textbook_targets(critic, part, 0.9, 0.8),
            rtol=2e-4,
            atol=2e-4,
        )
        cut += len(part.final_index)
        assert (batch.inputs.legal is None) == (part.action_mask is None)
    assert cut  # there was something to continue
    before = {
        module_id: {name: value.clone() for name, value in learner.module[module_id].state_dict().items()}
        for module_id in rollout.modules
    }
    learner.update(episodes=[rollout], num_epochs=1, minibatch_size=10)
    for module_id, weights in before.items():
        for name, moved in learner.module[module_id].state_dict().items():
            if name.endswith("weight"):
                assert not torch.equal(weights[name], moved), (module_id, name)
    algorithm.stop()


def test_rollouts_of_several_runners_have_one_table():
    algorithm = small_config("central_lives", central_value="observations", policies="shared").build_algo()
    learner = algorithm.learner_group._learner
    parts = [algorithm.env_runner.sample(num_timesteps=n)[0].modules["shared"] for n in (20, 30)]
    inputs = learner.prepare("shared", parts).inputs
    assert inputs.central.states.shape == (2 * 11 + 2 * 16, 9)
    expected = np.concatenate([part.observations[:-1][part.acted] for part in parts])
    np.testing.assert_array_equal(inputs.rows, expected)
    for row in range(0, len(expected), 7):
        state = inputs.central.states[inputs.central.rows[row]].reshape(3, 3)
        np.testing.assert_array_equal(state[inputs.central.agents[row]], inputs.rows[row])
    algorithm.stop()


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_central_value_with_memory_learns_in_every_part(kind):
    config = small_config(minibatch_size=10)
    config.rl_module(
        model_config={"fcnet_hiddens": [8], f"use_{kind}": True, f"{kind}_cell_size": 8, "max_seq_len": 5}
    )
    algorithm = config.build_algo()
    module = algorithm.learner_group._learner.module["shared"]
    assert module.value.is_central
    assert module.value.memory.kind == kind
    before = {name: value.clone() for name, value in module.value.state_dict().items()}
    algorithm.train()
    for name, moved in module.value.state_dict().items():
        assert not torch.equal(before[name], moved), name
    algorithm.stop()


# -- gradients ----------------------------------------------------------------------------------------------------


def gradients_of(monkeypatch, choose) -> tuple[dict[str, torch.Tensor | None], ValueNetwork]:
    """Return the gradients that one step of a chosen loss leaves behind."""
    algorithm = small_config(grad_clip=None).build_algo()
    learner = algorithm.learner_group._learner
    (rollout,) = algorithm.env_runner.sample()
    batch = learner.prepare("shared", [rollout.modules["shared"]]).select(slice(5, 60))
    module, central = learner.module["shared"], batch.inputs.central
    expected = concatenated(module.value, central.states[central.rows], batch.inputs.rows, central.agents)

    def loss(module_id, config, batch, policy, values):
        torch.testing.assert_close(values, expected)
        return choose(policy, values), {}

    monkeypatch.setattr(learner, "losses", loss)
    learner._step("shared", learner.config.get_config_for_module("shared"), batch)
    algorithm.stop()
    return {name: parameter.grad for name, parameter in module.named_parameters()}, module.value


def test_the_value_loss_reaches_every_part_of_the_critic_and_nothing_of_the_actor(monkeypatch):
    gradients, critic = gradients_of(monkeypatch, lambda policy, values: (values**2).mean())
    for name, gradient in gradients.items():
        if name.startswith("value."):
            assert gradient.abs().sum() > 0, name
        else:
            assert gradient is None or not gradient.any(), name
    for part in gradients["value.encoder.first.weight"].split(critic.encoder.widths, dim=1):
        assert part.abs().sum() > 0


def test_the_policy_loss_leaves_the_critic_alone(monkeypatch):
    gradients, _ = gradients_of(monkeypatch, lambda policy, values: policy.entropy().mean())
    assert all((value is None) == name.startswith("value.") for name, value in gradients.items())


# -- standardised values ------------------------------------------------------------------------------------------


def test_a_new_scale_leaves_the_estimates_as_they_were_but_for_the_first():
    torch.manual_seed(0)
    layer, inputs, scale = torch.nn.Linear(4, 1), torch.randn(9, 4), PopArt()
    first = layer(inputs).detach()
    scale.update(-20.0, 409.0, layer)
    assert (scale.mean, scale.deviation) == (pytest.approx(-20.0), pytest.approx(3.0))
    torch.testing.assert_close(layer(inputs), first, rtol=0, atol=0)
    before = layer(inputs).detach() * scale.deviation + scale.mean
    scale.update(-10.0, 104.0, layer)
    mean, square = (-20.0 * 0.99 - 10.0) / 1.99, (409.0 * 0.99 + 104.0) / 1.99  # the debiased running moments
    assert scale.mean == pytest.approx(mean)
    assert scale.deviation == pytest.approx((square - mean**2) ** 0.5)
    torch.testing.assert_close(layer(inputs) * scale.deviation + scale.mean, before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("central_value", ["state", None])
def test_standardised_targets_are_learned_and_estimates_stay_in_units_of_reward(central_value):
    config = small_config(SPREAD, central_value=central_value, normalize_values=True, lr=1e-6)
    algorithm = config.build_algo()
    metrics = algorithm.train()["learners"]["shared"]
    mean, deviation = metrics["value_mean"], metrics["value_deviation"]
    assert mean < -1
    assert metrics["vf_loss"] == pytest.approx(1.0, abs=0.5)  # of targets with mean 0 and deviation 1
    learner = algorithm.learner_group._learner
    assert learner.get_state()["popart"]["shared"]["mean"] == pytest.approx(mean)
    (rollout,) = algorithm.env_runner.sample()
    batch = learner.prepare("shared", [rollout.modules["shared"]])
    scale = learner._popart["shared"]
    targets = batch.columns[Postprocessing.VALUE_TARGETS] * scale.deviation + scale.mean
    assert abs(float(targets.mean()) - mean) < 3 * deviation
    algorithm.stop()


# -- algorithms, checkpoints, policies ----------------------------------------------------------------------------


def test_acting_needs_no_critic(tmp_path):
    algorithm = small_config().build_algo()
    algorithm.train()
    runner = algorithm.env_runner.module["shared"]
    assert not any("value" in name for name in runner.state_dict())
    learner = algorithm.learner_group._learner.module["shared"]
    assert any(name.startswith("value.encoder.first") for name in learner.state_dict())
    for name, values in runner.state_dict().items():
        torch.testing.assert_close(values, learner.state_dict()[name], rtol=0, atol=0)
    path = algorithm.save_to_path(str(tmp_path / "checkpoint"))
    algorithm.stop()
    policy = load_policy_from_checkpoint(path)
    loaded = load_policy(save_policy(policy, tmp_path / "policy.pt"))
    for explore in (False, True):
        rows = [evaluate(p, FOREST, SMALL, evaluation_seeds(3), explore) for p in (policy, loaded)]
        assert rows[0] == rows[1]


def test_evaluation_scores_it():
    algorithm = small_config().evaluation(evaluation_interval=1, evaluation_duration=2).build_algo()
    assert np.isfinite(algorithm.train()["evaluation"]["greedy"]["episode_return"])
    algorithm.stop()


def test_rllibs_own_ppo_takes_it_as_a_plain_mapping(tmp_path):
    settings = small_config(SPREAD).to_dict()
    algorithm = PPO(config=settings)
    assert type(algorithm.config) is StockPPOConfig
    module = algorithm.learner_group._learner.module["shared"]
    assert module.has_central_value
    before = module.value.encoder.first.weight.detach().clone()
    algorithm.train()
    for part in (module.value.encoder.first.weight - before).split(module.value.encoder.widths, dim=1):
        assert part.any()
    algorithm.stop()


@pytest.mark.long
def test_tune_runs_it(tmp_path):
    analysis = tune.run(
        "PPO",
        config=small_config(SPREAD),
        stop={"training_iteration": 1},
        storage_path=str(tmp_path),
        verbose=0,
    )
    assert np.isfinite(analysis.trials[0].last_result["learners"]["shared"]["vf_loss"])


@pytest.mark.parametrize("config_class", [PPOConfig, A2CConfig])
def test_a_resumed_run_equals_an_uninterrupted_one(config_class, tmp_path):
    def losses(algorithm, count):
        return [algorithm.train()["learners"]["shared"]["total_loss"] for _ in range(count)]

    config = small_config(config_class=config_class, normalize_values=True)
    config.reporting(min_sample_timesteps_per_iteration=40)
    whole = config.copy(copy_frozen=False).build_algo()
    expected = losses(whole, 4)
    whole.stop()
    first = config.copy(copy_frozen=False).build_algo()
    assert losses(first, 2) == expected[:2]
    path = first.save_to_path(str(tmp_path / "checkpoint"))
    first.stop()
    second = Algorithm.from_checkpoint(path)
    assert losses(second, 2) == expected[2:]
    second.stop()


def test_remote_runners_and_learners_share_the_work():
    """Learners have the same weights, scale of values and entropy coefficient, of the steps of both."""
    law = {"law": "quantum", "alpha_0": 0.1, "alpha_min": 0.01, "decay": 0.5}
    config = small_config(train_batch_size_per_learner=20, minibatch_size=20, normalize_values=True)
    config.training(entropy_annealing=law).env_runners(num_env_runners=1).learners(num_learners=2)
    algorithm = config.build_algo()
    before = algorithm.learner_group.get_weights()["shared"]
    result = algorithm.train()["learners"]
    mean = result["shared"]["value_mean"]
    assert result["__all_modules__"]["num_env_steps_trained_lifetime"] == 40

    def parts(learner):
        module, state = learner.module["shared"].unwrapped(), learner.get_state()
        weights = {name: value.detach().numpy().copy() for name, value in module.named_parameters()}
        return weights, state["popart"]["shared"], state["entropy_coefficients"]["laws"]["shared"]

    found = algorithm.learner_group.foreach_learner(parts)
    (first, scale, annealed), (second, other, others) = (entry.get() for entry in found)
    assert scale == other
    assert annealed == others
    assert scale["mean"] == pytest.approx(mean)
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])
        assert name not in before or (values != before[name]).any()
    assert any(name.startswith("value.") for name in first)
    algorithm.stop()


def test_rollouts_without_states_are_refused():
    algorithm = small_config().build_algo()
    learner = algorithm.learner_group._learner
    (rollout,) = algorithm.env_runner.sample()
    rollout.modules["shared"].global_states = None
    with pytest.raises(ConfigError, match="central_value: the rollouts have no global states"):
        learner.update(episodes=[rollout])
    with pytest.raises(ConfigError, match="central_value: there are no global states in the batch"):
        learner.module["shared"].compute_values({Columns.OBS: torch.zeros(1, 3)})
    algorithm.stop()
