"""Agents with a world model: what is learned from the replay, acting, imagination, resumption, refusals."""

from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from resumed_runs import resumption
from toy_off_policy import setup_of
from toy_world_models import ACTOR, BEHAVIOURS, ENSEMBLE, KALMAN, PLANS, RSSM, models, world_model

from qio_envs.api import ConfigError
from qio_rllib.acting.world_model_actor import LATENT, PLAN, PREVIOUS_ACTION
from qio_rllib.algorithms import WorldModelConfig
from qio_rllib.cli import main
from qio_rllib.learners.model_sequences import sequences_of
from qio_rllib.sampling.environments import register_env
from qio_rllib.sampling.evaluation import policy_from_modules
from qio_rllib.sampling.replay import joint_transitions
from qio_rllib.sampling.runner import BatchedEnvRunner
from qio_rllib.sampling.vector_env import InvalidSampleError

PLANET = Path(__file__).parents[2] / "tune_configs" / "drift_control_planet.yaml"
MODELS = models()
PAIRS = [(task, model) for task in ("swarm", "forest") for model in (ENSEMBLE, RSSM)]
EVERYWHERE = pytest.mark.parametrize(("task", "model"), [*PAIRS, ("alone", KALMAN), ("pole", KALMAN)])


def setup(task, *settings, sequences=False, **more):
    return setup_of(world_model(task, *settings, **more), sequences=sequences)


# -- what is learned from


def test_a_model_learns_from_the_last_observation_of_an_episode_that_terminated():
    """CartPole: the observation after the last step lies beyond the limits; the one after the reset does not."""
    played = setup("pole", ENSEMBLE, PLANS, fragment=64)
    (part,) = played.rollout.modules.values()
    ended = part.terminated & part.acted
    assert ended.any()
    (columns,) = joint_transitions(played.rollout, 0.99).modules.values()
    last = np.abs(columns["next_observations"][ended])
    assert ((last[:, 0] > 2.4) | (last[:, 2] > 0.2095)).all()
    assert not ((np.abs(part.observations[1:][ended])[:, 2]) > 0.2).any()
    assert not columns["present_next"][ended].any()


def test_sequences_are_those_of_the_replay_by_agent():
    played = setup("lives", RSSM, PLANS, sequences=True)
    columns = played.steps.modules["shared"]
    found = sequences_of(played.rows, 0)
    samples, length, agents = columns["rewards"].shape
    assert found.obs.shape == (length, samples * agents, 3)
    for b in range(samples):
        for m in range(agents):
            row = b * agents + m
            np.testing.assert_array_equal(found.obs[:, row], columns["observations"][b, :, m])
            np.testing.assert_array_equal(found.next_obs[:, row], columns["next_observations"][b, :, m])
            np.testing.assert_array_equal(found.actions[:, row].argmax(-1), columns["actions"][b, :, m])
            np.testing.assert_array_equal(found.terminated[:, row] == 0, columns["present_next"][b, :, m])
            np.testing.assert_array_equal(found.learned[:, row] > 0, columns["acted"][b, :, m])
            np.testing.assert_array_equal(found.fresh[:, row], columns["fresh"][b, :, m])


def test_runners_record_no_memory_for_it():
    played = setup("swarm", RSSM, PLANS)
    assert all(part.memory == {} for part in played.rollout.modules.values())
    assert not any("memory" in name for name in next(iter(played.steps.modules.values())))


def test_episodes_shorter_than_the_window_are_learned_from_one_behind_the_other():
    """No agent of `Lives` has more than 5 steps, samples have 6."""
    played = setup("lives", RSSM, PLANS, sequences=True)
    found = sequences_of(played.rows, 0)
    assert len(found.obs) == 6
    assert ((found.fresh[1:] & (found.learned[1:] > 0)) | (found.learned[1:] == 0)).any(0).all()
    model = played.modules[0].policy.model
    before = model.decoder[0].weight.clone()
    stats = played.learner.gradient_step(played.rows)
    assert all(torch.isfinite(value) for value in stats.values())
    assert not torch.equal(before, model.decoder[0].weight)


# -- acting


@pytest.mark.parametrize("recurrent", [RSSM, KALMAN], ids=["rssm", "kalman"])
def test_a_state_that_a_runner_carries_is_the_one_of_the_whole_sequence(recurrent):
    config = world_model("swarm", recurrent, PLANS, num_envs=2)
    played = setup_of(config)
    module = played.modules[0]
    runner = BatchedEnvRunner(config=config)
    runner.set_state({"rl_module": played.learner.module.get_state(inference_only=True)})
    rollout = runner.sample(num_timesteps=2 * 13)[0]  # episodes of 9 steps
    (part,) = rollout.modules.values()
    (memory,) = runner.stepper.memory
    model, fresh = module.policy.model, part.fresh_steps()
    rows = memory[LATENT].shape[0] * memory[LATENT].shape[1]
    state, action = torch.zeros(rows, model.state_size), torch.zeros(rows, 2)
    with torch.no_grad():
        for t in range(13):
            begins = torch.from_numpy(fresh[t].reshape(rows, 1))
            state, action = state.masked_fill(begins, 0.0), action.masked_fill(begins, 0.0)
            obs = torch.from_numpy(part.observations[t].reshape(rows, -1))
            state = model.observe(state, action, obs)
            action = torch.from_numpy(part.actions[t].reshape(rows, -1)).clamp(-1, 1)
    np.testing.assert_allclose(memory[LATENT].reshape(rows, -1), state, atol=1e-6)
    np.testing.assert_array_equal(memory[PREVIOUS_ACTION].reshape(rows, -1), action)
    assert (memory[PLAN] != 0).any()


def test_random_actions_are_uniform_and_legal_and_remembered():
    config = world_model("forest", RSSM, PLANS)
    runner = BatchedEnvRunner(config=config)
    (part,) = runner.sample(num_timesteps=40, random_actions=True)[0].modules.values()
    legal = np.take_along_axis(part.action_mask[:-1], part.actions[..., None], -1)
    assert legal.all()
    memory = runner.stepper.memory[0][PREVIOUS_ACTION]
    np.testing.assert_array_equal(memory.argmax(-1)[part.continues[-1]], part.actions[-1][part.continues[-1]])
    box = BatchedEnvRunner(config=world_model("swarm", ENSEMBLE, PLANS))
    (part,) = box.sample(num_timesteps=400, random_actions=True)[0].modules.values()
    assert np.abs(part.actions).max() <= 1
    assert np.histogram(part.actions, bins=4, range=(-1, 1))[0].min() > 0.2 * part.actions.size


@MODELS
def test_a_planner_never_takes_an_illegal_action(model):
    runner = BatchedEnvRunner(config=world_model("forest", model, PLANS))
    (part,) = runner.sample(num_timesteps=60)[0].modules.values()
    assert np.take_along_axis(part.action_mask[:-1], part.actions[..., None], -1).all()
    assert not part.action_mask.all()


# -- learning


@EVERYWHERE
@BEHAVIOURS
def test_a_gradient_step_moves_what_it_should(task, model, behaviour):
    played = setup(task, model, behaviour, sequences=model is not ENSEMBLE)
    (module,) = played.modules
    before = {name: value.clone() for name, value in module.state_dict().items()}
    stats = {name: value for (_, name), value in played.learner.gradient_step(played.rows).items()}
    after = module.state_dict()
    assert all(torch.isfinite(value).all() for value in stats.values())

    def moved(prefix):
        return any(not torch.equal(before[name], after[name]) for name in before if name.startswith(prefix))

    assert moved("policy.model.")
    if behaviour is ACTOR:
        assert moved("policy.actor.")
        assert moved("critic.")
        assert moved("target_critic.")
        assert float(stats["return_range"]) > 0
    else:
        assert "model_loss" in stats
        assert "actor_loss" not in stats


@EVERYWHERE
def test_an_actors_losses_leave_the_model_alone_and_follow_the_imagined_returns(task, model):
    played = setup(task, model, ACTOR, sequences=model is not ENSEMBLE)
    (module,) = played.modules
    learner = played.learner
    model = module.policy.model
    model.requires_grad_(False)
    nothing = torch.zeros(8, model.state_size), torch.zeros(8, model.num_actions)
    starts = model.observe(*nothing, torch.randn(8, model.obs_size))
    actor_loss, critic_loss, _ = learner.imagined_losses(module, starts)
    module.zero_grad()
    (actor_loss + critic_loss).backward()
    grads = {name: parameter.grad for name, parameter in module.named_parameters()}
    assert all(grad is None for name, grad in grads.items() if name.startswith(("policy.model", "target")))
    assert any(
        grad is not None and grad.abs().max() > 0 for name, grad in grads.items() if "policy.actor" in name
    )
    assert any(
        grad is not None and grad.abs().max() > 0 for name, grad in grads.items() if name.startswith("critic")
    )


class Paid:
    """A model in which the first number of an action is the reward, whatever the state."""

    def __init__(self, model):
        self.model = model
        self.feature_size = model.feature_size

    def features(self, state):
        return state

    def step(self, state, action, generator=None, others=None):
        from qio_rllib.world_models.model import Predicted

        return Predicted(state, action[:, 0], torch.ones(len(state)))


@pytest.mark.parametrize("task", ["swarm", "forest"])
def test_an_actor_learns_what_its_model_pays_for(task):
    played = setup(task, ENSEMBLE, ACTOR, imagination_horizon=2, actor_lr=1e-2, critic_lr=1e-2)
    (module,) = played.modules
    learner, policy = played.learner, module.policy
    model = policy.model
    object.__setattr__(policy, "_modules", {**policy._modules})
    del policy._modules["model"]
    object.__setattr__(policy, "model", Paid(model))
    starts = torch.zeros(32, model.state_size)
    optimizer = torch.optim.Adam([*policy.actor.parameters(), *module.critic.parameters()], 1e-2)
    for _ in range(120):
        actor_loss, critic_loss, _ = learner.imagined_losses(module, starts)
        optimizer.zero_grad()
        (actor_loss + critic_loss).backward()
        optimizer.step()
    with torch.no_grad():
        outputs, _ = policy.actor(starts[:1])
    if policy.actor.spec.is_discrete:
        assert float(torch.softmax(outputs, -1)[0, 0]) > 0.9
    else:
        assert float(torch.tanh(outputs[0, 0])) > 0.8


# -- runs


def run_of(*settings, **more):
    config = world_model("swarm", *settings, fragment=8, num_envs=2, batch=8, **more)
    return config.training(num_steps_sampled_before_learning_starts=64)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_the_first_updates_are_more_and_several_can_follow_a_step():
    algorithm = run_of(ENSEMBLE, PLANS, pretraining_updates=40, env_steps_per_update=0.5).build_algo()
    try:
        for iteration in range(2):
            result = algorithm.train()
            updates = result["learners"]["shared"]["updates_lifetime"]
            sampled = algorithm.env_steps_sampled
            parts = [part["learners"]["shared"] for part in result.get("pretraining", [])]
            assert [part["updates_lifetime"] for part in parts] == ([32, 64, 72] if iteration == 0 else [])
            assert len({part["model_loss"] for part in parts}) == len(parts)
            assert updates == 40 + (sampled - 64 + 16) / 0.5  # the round that reaches 64 steps learns already
    finally:
        algorithm.stop()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_models_begin_anew_with_their_first_weights_and_more_updates():
    config = run_of(
        KALMAN, PLANS, pretraining_updates=5, env_steps_per_update=8, model_lr=[[0, 0.01], [96, 0.0]]
    )
    config.reporting(min_sample_timesteps_per_iteration=16).training(model_resets=[112])
    algorithm = config.build_algo()
    learner = algorithm.learner_group._learner

    def weights():
        state = learner.modules()[0].policy.model.state_dict()
        return {name: array.clone() for name, array in state.items() if "scale" not in name}

    try:
        first = weights()
        updates = []
        for expected in (64, 80, 96, 112, 128):
            while algorithm.env_steps_sampled < expected:
                result = algorithm.train()
            updates.append(result["learners"]["shared"]["updates_lifetime"])
            same = all(torch.equal(first[name], array) for name, array in weights().items())
            assert same == (expected >= 112)  # learning stands still from there on
        assert np.diff(updates).tolist() == [2, 2, 2 + 5, 2]
        steps = {int(state["step"]) for state in learner.get_optimizer("shared", "model").state.values()}
        assert steps == {2 + 5 + 2}
    finally:
        algorithm.stop()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
@pytest.mark.parametrize(
    "settings",
    [
        (ENSEMBLE, PLANS),
        (RSSM, {**ACTOR, "model_weight_decay": 0.5}),
        (KALMAN, {**PLANS, "model_resets": [150]}),
    ],
    ids=str,
)
def test_a_run_that_is_resumed_equals_one_that_is_not(settings, tmp_path):
    with resumption(run_of(*settings), tmp_path, before=1) as run:
        found, expected = run.found, run.expected
        assert found["learners"]["shared"]["model_loss"] == expected["learners"]["shared"]["model_loss"]
        assert found["env_runners"]["episode_return_mean"] == expected["env_runners"]["episode_return_mean"]
        learner = run.resumed.learner_group._learner
        for name, optimizer in learner.get_optimizers_for_module("shared"):
            (group,) = optimizer.param_groups
            decay = settings[1].get("model_weight_decay", 0.0) if name.endswith("model") else 0.0
            assert (group["weight_decay"], group["decoupled_weight_decay"]) == (decay, True)
        policy = policy_from_modules(dict(run.resumed.env_runner.module.items()), run.resumed.config)
        assert policy.team.groups[0].actor.memory


# -- bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"planner": {"horizon": 0}}, r"planner\.horizon: expected an integer of at least 1, got 0"),
        ({"planner": {"elites": 600, "candidates": 500}}, r"planner\.elites: 600 elites of 500 candidates"),
        ({"imagination_horizon": 0}, r"imagination_horizon: expected an integer of at least 1, got 0"),
        (
            {"world_model": {"type": "rssm", "reward_hiddens": []}},
            r"world_model\.reward_hiddens: expected sizes of at least 1, got \[\]",
        ),
        (
            {"world_model": {"type": "rssm", "latent_hiddens": [0]}},
            r"world_model\.latent_hiddens: expected sizes of at least 1, got \[0\]",
        ),
        (
            {"world_model": {"type": "rssm", "reconstruction": "l2"}},
            r"world_model\.reconstruction: expected one of squared, likelihood, got 'l2'",
        ),
        ({"planner": {"horizn": 3}}, r"planner: unknown key 'horizn'.*horizon"),
        (
            {"world_model": {"type": "rsm"}},
            r"world_model\.type: expected one of ensemble, rssm, kalman, got 'rsm'.*rssm",
        ),
        ({"world_model": {"type": "rssm", "members": 3}}, r"world_model: unknown key 'members'"),
        (
            {"world_model": {"type": "kalman", "unobserved": 0}},
            r"world_model\.unobserved: expected an integer of at least 1, got 0",
        ),
        (
            {"world_model": {"type": "kalman", "attention_heads": 2}},
            r"world_model: unknown key 'attention_heads'",
        ),
        ({"world_model": {"members": 0}}, r"world_model\.members: expected an integer of at least 1, got 0"),
        (
            {"world_model": {"attention_heads": -1}},
            r"world_model\.attention_heads: expected an integer of at least 0, got -1",
        ),
        (
            {"world_model": {"type": "rssm", "attention_heads": 3, "attention_size": 8}},
            r"world_model\.attention_size: expected a multiple of attention_heads, which is 3, got 8",
        ),
        (
            {"world_model": {"type": "rssm", "reward_bins": 40}},
            r"world_model\.reward_bins: expected an odd number, got 40",
        ),
        (
            {"world_model": {"type": "rssm", "reward_bins": 1}},
            r"world_model\.reward_bins: expected an integer of at least 3, got 1",
        ),
        ({"world_model": {"beta": 1.5}}, r"world_model\.beta: expected a number from 0 to 1, got 1\.5"),
        ({"world_model": {"beta": -0.5}}, r"world_model\.beta: expected a number of at least 0, got -0\.5"),
        ({"world_model": {"hiddens": []}}, r"world_model\.hiddens: expected sizes of at least 1, got \[\]"),
        (
            {"world_model": {"activation": "silux"}},
            r"world_model\.activation: expected one of .* got 'silux'",
        ),
        ({"behaviour": "plan"}, r"behaviour: expected planner or actor, got 'plan'"),
        ({"model_sequence_length": 1}, r"model_sequence_length: expected an integer of at least 2, got 1"),
        ({"burn_in": 2}, r"^burn_in: WorldModel learns from every step of its sequences; set it to 0$"),
        ({"central_value": "state"}, r"central_value: WorldModel's critic sees what its model does"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused_by_name(settings, message):
    with pytest.raises(ConfigError, match=message):
        WorldModelConfig().environment("swarm_cooperative_v0").training(**settings)


@pytest.mark.parametrize("memory", ["use_lstm", "use_gru"])
def test_a_memory_beside_that_of_the_model_is_refused(memory):
    config = world_model("swarm", RSSM, PLANS, model={memory: True})
    with pytest.raises(
        ConfigError,
        match=rf"{memory}: WorldModel's memory is that of its model \(world_model.type: rssm or kalman\); set use_lstm",
    ):
        config.validate()


@pytest.mark.parametrize(
    ("capacity", "samples"),
    [(20, 0), (24, 4), (28, 8)],  # 5, 6 and 7 steps of 4 environments, windows of 6
)
def test_a_replay_that_never_holds_a_batch_is_refused(capacity, samples):
    config = world_model("swarm", RSSM, PLANS, replay_capacity=capacity, batch=8)
    if samples == 8:
        config.validate()
        return
    with pytest.raises(
        ConfigError,
        match=rf"replay_capacity: {capacity} joint transitions are {capacity // 4} steps of each of 4 environments, "
        rf"which hold {samples} different samples of 6 steps, a batch needs 8 \(train_batch_size_per_learner\)",
    ):
        config.validate()


class Endless(gymnasium.Env):
    """One side of its actions has no bound."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Box(np.float32([-1, -1]), np.float32([1, np.inf]))


@MODELS
def test_actions_without_bounds_are_refused(model):
    register_env("endless", lambda env_config: Endless())
    config = WorldModelConfig().environment("endless").training(**model)
    with pytest.raises(
        ConfigError, match=r"env: Discrete or bounded Box actions are needed, the agent has Box"
    ):
        BatchedEnvRunner(config=config)


def test_a_reward_that_is_no_number_is_named():
    runner = BatchedEnvRunner(config=world_model("lives", RSSM, PLANS))
    runner.env.envs[2].faults = {"reward": 4}
    with pytest.raises(InvalidSampleError, match="environment 2, step 4 of its episode: reward of c is nan"):
        runner.sample()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["imagination_horizon=0"], "config.imagination_horizon: expected an integer of at least 1, got 0"),
        (["planner.horizon=0"], "planner.horizon: expected an integer of at least 1, got 0"),
        (["planner.elites=600"], "planner.elites: 600 elites of 128 candidates"),
        (
            ["replay_capacity=300"],
            "replay_capacity: 300 joint transitions are 30 steps of each of 10 environments",
        ),
        (["model_config.use_lstm=true"], "model_config.use_lstm: WorldModel's memory is that of its model"),
    ],
)
def test_bad_input_on_the_command_line_is_one_line(overrides, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sets = [part for override in overrides for part in ("--set", override)]
    assert main(["train", "--config", str(PLANET), *sets]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"rllib: {message}")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
