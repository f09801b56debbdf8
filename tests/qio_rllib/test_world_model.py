"""Agents with a world model: what is learned from the replay, acting, imagination, resumption, refusals."""

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from toy_off_policy import config_of, setup_of

from qio_envs.api import ConfigError
from qio_rllib.acting.world_model_actor import LATENT, PLAN, PREVIOUS_ACTION
from qio_rllib.algorithms import WorldModelConfig
from qio_rllib.algorithms.world_model import sequences_of
from qio_rllib.sampling.evaluation import policy_from_modules
from qio_rllib.sampling.replay import joint_transitions
from qio_rllib.sampling.runner import BatchedEnvRunner

ENSEMBLE = {"world_model": {"members": 2, "hiddens": [8]}}
RSSM = {
    "world_model": {
        "type": "rssm", "deterministic": 8, "stochastic": 3, "embedding": 6, "hiddens": [8], "head_hiddens": [8],
    },
    "model_sequence_length": 6,
}  # fmt: skip
PLANS = {"planner": {"horizon": 3, "candidates": 6, "elites": 2, "iterations": 2}}
ACTOR = {"behaviour": "actor", "imagination_horizon": 3}
MODELS = pytest.mark.parametrize("model", [ENSEMBLE, RSSM], ids=["ensemble", "rssm"])
BEHAVIOURS = pytest.mark.parametrize("behaviour", [PLANS, ACTOR], ids=["planner", "actor"])


def world_model(task, *settings, **more):
    merged = {key: value for part in settings for key, value in part.items()} | more
    return config_of(task, algorithm=WorldModelConfig, **merged)


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


# -- acting


def test_a_latent_that_a_runner_carries_is_the_one_of_the_whole_sequence():
    config = world_model("swarm", RSSM, PLANS, num_envs=2)
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


@MODELS
@BEHAVIOURS
@pytest.mark.parametrize("task", ["swarm", "forest"])
def test_a_gradient_step_moves_what_it_should(task, model, behaviour):
    played = setup(task, model, behaviour, sequences=model is RSSM)
    (module,) = played.modules
    before = {name: value.clone() for name, value in module.state_dict().items()}
    stats = played.learner.gradient_step(played.rows)
    after = module.state_dict()
    assert all(torch.isfinite(value).all() for value in stats.values())

    def moved(prefix):
        return any(not torch.equal(before[name], after[name]) for name in before if name.startswith(prefix))

    assert moved("policy.model.")
    if behaviour is ACTOR:
        assert moved("policy.actor.")
        assert moved("critic.")
        assert moved("target_critic.")
        assert float(stats["shared", "return_range"]) > 0
    else:
        assert ("shared", "model_loss") in stats
        assert ("shared", "actor_loss") not in stats


@MODELS
@pytest.mark.parametrize("task", ["swarm", "forest"])
def test_an_actors_losses_leave_the_model_alone_and_follow_the_imagined_returns(task, model):
    played = setup(task, model, ACTOR, sequences=model is RSSM)
    (module,) = played.modules
    learner = played.learner
    starts = torch.randn(8, module.policy.model.state_size)
    module.policy.model.requires_grad_(False)
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

    def step(self, state, action, generator=None):
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
        for _ in range(2):
            updates = algorithm.train()["learners"]["shared"]["updates_lifetime"]
            sampled = algorithm.env_steps_sampled
            assert updates == 40 + (sampled - 64 + 16) / 0.5  # the round that reaches 64 steps learns already
    finally:
        algorithm.stop()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
@pytest.mark.parametrize("settings", [(ENSEMBLE, PLANS), (RSSM, ACTOR), (RSSM, PLANS)], ids=str)
def test_a_run_that_is_resumed_equals_one_that_is_not(settings, tmp_path):
    config = run_of(*settings)
    algorithm = config.build_algo()
    try:
        algorithm.train()
        algorithm.save_to_path(tmp_path / "here")
        expected = algorithm.train()
    finally:
        algorithm.stop()
    again = Algorithm.from_checkpoint(str(tmp_path / "here"))
    try:
        found = again.train()
        assert found["learners"]["shared"]["model_loss"] == expected["learners"]["shared"]["model_loss"]
        assert found["env_runners"]["episode_return_mean"] == expected["env_runners"]["episode_return_mean"]
        policy = policy_from_modules(dict(again.env_runner.module.items()), again.config)
        assert policy.team.groups[0].actor.memory
    finally:
        again.stop()


# -- bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"planner": {"horizon": 0}}, r"planner\.horizon: expected an integer of at least 1, got 0"),
        ({"planner": {"elites": 600, "candidates": 500}}, r"planner\.elites: 600 elites of 500 candidates"),
        ({"planner": {"horizn": 3}}, r"planner: unknown key 'horizn'.*horizon"),
        (
            {"world_model": {"type": "rsm"}},
            r"world_model\.type: expected one of ensemble, rssm, got 'rsm'.*rssm",
        ),
        ({"world_model": {"type": "rssm", "members": 3}}, r"world_model: unknown key 'members'"),
        ({"world_model": {"members": 0}}, r"world_model\.members: expected an integer of at least 1, got 0"),
        ({"world_model": {"beta": 1.5}}, r"world_model\.beta: expected a number from 0 to 1, got 1\.5"),
        ({"world_model": {"beta": -0.5}}, r"world_model\.beta: expected a number of at least 0, got -0\.5"),
        ({"world_model": {"hiddens": []}}, r"world_model\.hiddens: expected sizes of at least 1, got \[\]"),
        (
            {"world_model": {"activation": "silux"}},
            r"world_model\.activation: expected one of .* got 'silux'",
        ),
        ({"behaviour": "plan"}, r"behaviour: expected planner or actor, got 'plan'"),
        ({"model_sequence_length": 1}, r"model_sequence_length: expected an integer of at least 2, got 1"),
        ({"central_value": "state"}, r"central_value: WorldModel's critic sees what its model does"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused_by_name(settings, message):
    with pytest.raises(ConfigError, match=message):
        WorldModelConfig().environment("swarm_cooperative_v0").training(**settings)


def test_what_does_not_fit_together_is_refused():
    config = world_model("swarm", RSSM, PLANS, model={"use_lstm": True})
    with pytest.raises(
        ConfigError,
        match=r"use_lstm: WorldModel's memory is that of its model \(world_model.type: rssm\); set use_lstm",
    ):
        config.validate()
    config = world_model("swarm", RSSM, PLANS).training(replay_capacity=40, train_batch_size_per_learner=8)
    algorithm = BatchedEnvRunner(config=config)
    from qio_rllib.sampling.replay import JointReplay

    replay = JointReplay(12, 1, config.sequence_length)
    with pytest.raises(ConfigError, match=r"replay_capacity: 12 joint transitions are 3 steps .* needs 6"):
        replay.add(algorithm.sample(num_timesteps=40)[0])
