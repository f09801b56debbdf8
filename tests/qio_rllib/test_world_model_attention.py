"""Agents whose world model sees the others of their module: acting, learning, imagination, resumption, diagnostics."""

import numpy as np
import pytest
import torch
import toy_world_models
from resumed_runs import resumption
from toy_lives import Lives
from toy_off_policy import setup_of
from toy_world_models import ACTOR, BEHAVIOURS, PLANS, world_model

from qio_envs.api import ConfigError
from qio_rllib.acting.actor import ActorInputs
from qio_rllib.acting.world_model_actor import LATENT, OTHERS, PREVIOUS_ACTION
from qio_rllib.experiments.diagnosis import diagnose
from qio_rllib.learners.model_sequences import sequences_of, starts_of
from qio_rllib.sampling.environments import make_vector_env
from qio_rllib.sampling.evaluation import policy_from_modules
from qio_rllib.sampling.object_vector_env import ObjectVectorEnv
from qio_rllib.sampling.recorded_episodes import record_episodes
from qio_rllib.sampling.runner import BatchedEnvRunner

SEEN = {"attention_heads": 2, "attention_size": 8}
ENSEMBLE, RSSM = (
    one | {"world_model": one["world_model"] | SEEN}
    for one in (toy_world_models.ENSEMBLE, toy_world_models.RSSM)
)
MODELS = toy_world_models.models(**SEEN)


def stirred(module):
    """Give the attention, whose output starts at 0, some effect."""
    torch.manual_seed(1)
    torch.nn.init.normal_(module.policy.model.others.output)
    return module


def runner_of(config):
    """Return a runner and its module, whose attention has some effect."""
    runner = BatchedEnvRunner(config=config)
    (module,) = (module.unwrapped() for _, module in runner.module.items())
    return runner, stirred(module)


# -- acting


@pytest.mark.parametrize("task", ["swarm", "lives"])
def test_what_a_runner_carries_is_that_of_the_whole_sequence_of_all_agents(task):
    """In `lives` agents leave and come at other times than their episodes' starts."""
    runner, module = runner_of(world_model(task, RSSM, PLANS, num_envs=2))
    (part,) = runner.sample(num_timesteps=2 * 13)[0].modules.values()
    (memory,) = runner.stepper.memory
    model, fresh = module.policy.model, part.fresh_steps()
    envs, agents = memory[LATENT].shape[:2]
    rows, count = envs * agents, model.num_actions
    state, action, others = (
        torch.zeros(rows, size) for size in (model.state_size, count, model.attended_size)
    )
    with torch.no_grad():
        for t in range(13):
            begins = torch.from_numpy(fresh[t].reshape(rows, 1))
            state, action, others = (part.masked_fill(begins, 0.0) for part in (state, action, others))
            state = model.observe(
                state, action, torch.from_numpy(part.observations[t].reshape(rows, -1)), others=others
            )
            taken = torch.from_numpy(part.actions[t].reshape(rows, -1))
            if task == "lives":
                taken = torch.nn.functional.one_hot(taken[:, 0], count).float()
            action = taken.clamp(-1, 1)
            here = torch.from_numpy(part.acted[t])
            others = model.attend(state, action, here)
    kept = part.acted[-1] & ~fresh[13]
    assert kept.any()
    for name, value in ((LATENT, state), (PREVIOUS_ACTION, action), (OTHERS, others)):
        np.testing.assert_allclose(memory[name][kept], value.unflatten(0, (envs, agents))[kept], atol=1e-6)
        assert (memory[name][~kept] == 0).all()
    assert (memory[OTHERS][kept] != 0).any()


def test_training_sees_the_states_that_acting_carries():
    """With most probable latents in both, sequences from the start of episodes give the states of the Actor."""
    runner, module = runner_of(world_model("lives", RSSM, PLANS, num_envs=2))
    model = module.policy.model
    model.latent.sample = lambda statistics, generator: model.latent.mode(statistics)
    played = setup_of(world_model("lives", RSSM, PLANS, num_envs=2), sequences=True)
    batch = sequences_of(played.rows, 0, joint=True)
    found = model.learn(batch, torch.Generator()).states
    rows = batch.obs.shape[1]
    state, action, others = (
        torch.zeros(rows, size) for size in (model.state_size, model.num_actions, model.attended_size)
    )
    with torch.no_grad():
        for step in range(len(batch.obs)):
            begins = batch.fresh[step].unsqueeze(-1)
            state, action, others = (part.masked_fill(begins, 0.0) for part in (state, action, others))
            state = model.observe(state, action, batch.obs[step], others=others)
            acted = batch.learned[step] > 0
            torch.testing.assert_close(found[step][acted], state[acted])
            action = batch.actions[step]
            others = model.attend(state, action, batch.present[step])
    assert (batch.present == 0).any()
    runner.stop()


@MODELS
@BEHAVIOURS
def test_what_an_agent_does_depends_on_others_that_are_there_alone(model, behaviour):
    """Of a planner at once; of an actor over a recurrent model one step later, over an ensemble never."""
    runner, module = runner_of(world_model("swarm", model, behaviour, num_envs=1))
    (group,) = runner.stepper.team.groups
    actor, agents = group.actor, len(group.index)
    with torch.no_grad():  # what comes from others counts for more than at the start of a training
        for parameter in module.policy.model.others.parameters():
            parameter.mul_(3.0)
    obs = np.random.default_rng(0).standard_normal((1, agents, 8)).astype(np.float32)
    other, alive = obs.copy(), np.array([[True, True, False]])
    other[0, 1] += 3.0
    absent = obs.copy()
    absent[0, 2] += 3.0

    def acts(first, alive):
        state = {name: np.zeros((1, agents, size), np.float32) for name, size in actor.memory.items()}
        found = []
        for seen in (first, obs):
            acted = actor.act(ActorInputs(seen, alive=alive), state, np.random.default_rng(0), explore=False)
            state = acted.state
            found.append(acted.actions[0, 0])
        return found

    now, then = acts(obs, alive)
    if behaviour is PLANS:
        assert not np.array_equal(acts(other, alive)[0], now)
    else:
        np.testing.assert_array_equal(acts(other, alive)[0], now)
    if model is RSSM:
        assert not np.array_equal(acts(other, alive)[1], then)
    for found, expected in zip(acts(absent, alive), (now, then), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert module.policy.model.sees_others


# -- learning


@MODELS
@BEHAVIOURS
@pytest.mark.parametrize("task", ["swarm", "lives"])
def test_a_gradient_step_moves_the_attention(task, model, behaviour):
    played = setup_of(world_model(task, model, behaviour), sequences=model is RSSM)
    module = stirred(played.modules[0])
    before = {name: value.clone() for name, value in module.state_dict().items()}
    stats = played.learner.gradient_step(played.rows)
    assert all(torch.isfinite(value).all() for value in stats.values())
    weighted = (
        ("query.weight", "key.weight") if task == "swarm" else ()
    )  # in `lives` at most two agents are there
    for name in ("embedding.weight", "value.weight", "output", *weighted):
        key = f"policy.model.others.{name}"
        assert not torch.equal(before[key], module.state_dict()[key]), name
    if behaviour is ACTOR:
        assert any(
            not torch.equal(before[name], value)
            for name, value in module.state_dict().items()
            if name.startswith("policy.actor.")
        )


@MODELS
def test_imagination_begins_where_somebody_acts_and_counts_who_is_there(model):
    played = setup_of(world_model("lives", model, ACTOR), sequences=model is RSSM)
    module = stirred(played.modules[0])
    batch = sequences_of(played.rows, 0, joint=True)
    states = module.policy.model.learn(batch, played.learner.noise).states
    starts, present = starts_of(states, batch)
    assert present.sum() == batch.learned.sum()
    assert (present.sum(-1) > 0).all()
    assert (present == 0).any()
    here = present.flatten() > 0
    assert torch.equal(starts[here], states[batch.learned > 0])
    losses = []
    for filling in (1.0, 5.0):
        played.learner.noise.manual_seed(0)
        module.return_range.fill_(2.0)
        filled = torch.where(here.unsqueeze(-1), starts, filling)
        losses.append(played.learner.imagined_losses(module, filled, present)[:2])
    assert torch.equal(losses[0][0], losses[1][0])
    assert torch.equal(losses[0][1], losses[1][1])


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
@pytest.mark.parametrize("settings", [(RSSM, PLANS), (ENSEMBLE, ACTOR)], ids=["planet", "ensemble actor"])
def test_a_run_that_is_resumed_equals_one_that_is_not(settings, tmp_path):
    config = world_model("swarm", *settings, fragment=8, num_envs=2, batch=8)
    config.training(num_steps_sampled_before_learning_starts=64)
    with resumption(config, tmp_path, before=1) as run:
        found, expected = run.found, run.expected
        assert found["learners"]["shared"]["model_loss"] == expected["learners"]["shared"]["model_loss"]
        assert found["env_runners"]["episode_return_mean"] == expected["env_runners"]["episode_return_mean"]
        assert run.resumed.env_runner.module["shared"].unwrapped().policy.model.sees_others


# -- diagnostics


@MODELS
def test_diagnostics_keep_agents_together(model, tmp_path):
    config = world_model("swarm", model, PLANS, num_envs=2)
    runner, _ = runner_of(config)
    policy = policy_from_modules(dict(runner.module.items()), config)
    env = make_vector_env(policy.env, dict(policy.env_config), 2)
    played = record_episodes(policy.team_for(env.agents), env, (0, 1))[0]["shared"]
    env.close()
    assert played.agents == 3
    assert played.lengths.numel() == 6
    (found,) = diagnose(policy, (0, 1), 3, tmp_path)
    assert found.calibration.count == int(found.episodes.lengths.sum())
    network = policy.team.groups[0].actor.network.model
    torch.nn.init.zeros_(network.others.output)
    (blind,) = diagnose(policy, (0, 1), 3, tmp_path)
    same = torch.equal(found.episodes.actions, blind.episodes.actions)
    assert not same or not np.array_equal(found.open_loop.predicted, blind.open_loop.predicted)


def test_diagnostics_refuse_agents_that_come_later():
    config = world_model("lives", ENSEMBLE, PLANS, num_envs=1)
    runner, _ = runner_of(config)
    env = ObjectVectorEnv(Lives, 2)
    with pytest.raises(ConfigError, match="diagnose: an agent appears after the first step"):
        record_episodes(runner.stepper.team, env, (0, 1))
