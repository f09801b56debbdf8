"""MADDPG: targets and losses by hand, who learns from what, schedules, warming up, resuming, bad input."""

import copy
import math

import gymnasium
import numpy as np
import pytest
import torch
from qio_rllib.models.maddpg import sampled_one_hot
from ray.rllib.algorithms.algorithm import Algorithm
from toy_lives import Lives

from qio_envs.api import ConfigError
from qio_rllib.algorithms import MADDPGConfig
from qio_rllib.artifacts.run_directory import progress_row
from qio_rllib.exploration import normalized_entropy
from qio_rllib.learners.off_policy import MADDPGLearner
from qio_rllib.models.joint_critics import JointView
from qio_rllib.sampling.environments import register_env
from qio_rllib.sampling.replay import joint_steps
from qio_rllib.sampling.runner import BatchedEnvRunner
from qio_rllib.sampling.vector_env import InvalidSampleError

FOREST = {"height": 6, "width": 6, "num_uavs": 3, "max_steps": 7, "mask_blocked_moves": True}
TAG = {"chasers": ["adversary_0", "adversary_1", "adversary_2"], "prey": ["agent_0"]}
TASKS = {
    "swarm": ("swarm_cooperative_v0", {"max_steps": 9}, None),
    "discrete": ("swarm_cooperative_v0", {"max_steps": 9, "actions": "discrete"}, None),
    "forest": ("forest_uav_v0", FOREST, None),
    "tag": ("mpe2.simple_tag_v3", {"max_cycles": 9}, TAG),
    "speaker": ("mpe2.simple_speaker_listener_v4", {"max_cycles": 9, "continuous_actions": True}, None),
    "separate": ("swarm_mixed_v0", {"max_steps": 9}, "independent"),
    "alone": ("Pendulum-v1", {"max_episode_steps": 9}, None),
    "lives": ("lives", {}, None),
}
WHOLE = {"type": "attention", "hiddens": [16], "heads": 2}


def config_of(task, fragment=16, batch=32, **training):
    register_env("lives", lambda env_config: Lives())
    env, env_config, policies = TASKS[task]
    config = MADDPGConfig().environment(env, env_config=env_config)
    if policies:
        config.multi_agent(policies=policies)
    settings = {
        "train_batch_size_per_learner": batch,
        "num_steps_sampled_before_learning_starts": 128,
        "env_steps_per_update": 16,
        "critic": {"hiddens": [16]},
        "replay_capacity": 500,
    }
    return (
        config.env_runners(num_env_runners=0, num_envs_per_env_runner=4, rollout_fragment_length=fragment)
        .training(**settings | training)
        .rl_module(model_config={"fcnet_hiddens": [8]})
        .reporting(min_sample_timesteps_per_iteration=128)
        .debugging(seed=3)
    )


def learner_with_rows(config):
    runner = BatchedEnvRunner(config=config)
    learner = MADDPGLearner(
        config=config, module_spec=config.get_multi_rl_module_spec(spaces=runner.get_spaces())
    )
    learner.build()
    steps = joint_steps(runner.sample()[0])
    return learner, steps, learner._tensors(steps)


def modules_of(learner):
    return [learner.module[module_id].unwrapped() for module_id in learner._joint["modules"]]


# -- one gradient step, by hand


def test_the_critic_regresses_on_what_the_targets_say():
    """Lowe et al. (2017), equation 6, with present_next in the place of 1 - done, for continuous actions."""
    learner, steps, rows = learner_with_rows(config_of("swarm", critic_state=False))
    (module,) = modules_of(learner)
    with torch.no_grad():  # targets that differ from the present networks
        for parameter in [*module.target_actor.parameters(), *module.target_critic.parameters()]:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    columns = steps.modules["shared"]
    present = columns["present_next"]

    def q_of(critic, seen, alive, actions):
        flat = np.concatenate([np.concatenate([seen * alive[..., None], alive[..., None]], -1).reshape(len(seen), -1),
                               (actions * alive[..., None]).reshape(len(seen), -1)], -1).astype(np.float32)  # fmt: skip
        weight = torch.cat([critic.from_seen.weight, critic.from_actions.weight], dim=1)
        return critic.head(critic.body(torch.from_numpy(flat) @ weight.T + critic.from_seen.bias))

    following = (
        torch.tanh(module.target_actor(torch.from_numpy(columns["next_observations"]))).detach().numpy()
    )
    ahead = q_of(module.target_critic, columns["next_observations"], present, following).detach().numpy()
    targets = columns["rewards"] + learner.config.gamma * present * ahead
    worth = (
        q_of(module.critic, columns["observations"], columns["acted"], columns["actions"]).detach().numpy()
    )
    expected = ((worth - targets) ** 2)[columns["acted"]].mean()
    np.testing.assert_allclose(learner._targets([module], rows)[0].numpy(), targets, rtol=1e-4, atol=1e-5)
    assert float(learner.gradient_step(rows)["shared", "critic_loss"]) == pytest.approx(expected, rel=1e-4)


def test_an_actor_climbs_its_own_value_with_the_others_actions_from_replay():
    config = config_of("separate", action_regularization=0.0)
    learner, _, rows = learner_with_rows(config)
    untouched = copy.deepcopy(modules_of(learner))
    learner.config = learner.config.copy(copy_frozen=False)
    learner.config.critic_lr = 0.0
    for optimizer in (learner.get_optimizer(m, "critic") for m in learner._joint["modules"]):
        for group in optimizer.param_groups:
            group["lr"] = 0.0  # the critic of the actor's step is the one before
    stats = learner.gradient_step(rows)
    for g, (before, after) in enumerate(zip(untouched, modules_of(learner), strict=True)):
        actions = list(rows.actions)
        own = torch.tanh(before.actor(rows.seen[g]))
        actions[g] = own
        joint = JointView(rows.seen, rows.acted, None, rows.state)
        worth = before.critic(joint, actions)[rows.acted[g] > 0].mean()
        name = learner._joint["modules"][g]
        assert float(stats[name, "actor_loss"]) == pytest.approx(-worth.item(), abs=1e-5)
        gradients = torch.autograd.grad(-worth, [*before.actor.parameters()])
        norm = math.sqrt(sum(float((x**2).sum()) for x in gradients))
        assert float(stats[name, "actor_gradient_norm"]) == pytest.approx(norm, rel=1e-4)
        for old, new in zip(before.critic.parameters(), after.critic.parameters(), strict=True):
            torch.testing.assert_close(old, new)  # the actors' step leaves critics alone


@pytest.mark.parametrize("critic", [{"hiddens": [16]}, WHOLE], ids=["mlp", "attention"])
def test_what_absent_agents_hold_does_not_matter(critic):
    one, two = (learner_with_rows(config_of("lives", critic=critic, exploration=0.3)) for _ in range(2))
    rows = two[2]
    absent, gone = rows.acted[0] == 0, rows.present_next[0] == 0
    assert absent.any()
    assert gone.any()
    rows.seen[0][absent] = 77.0
    rows.actions[0][absent] = 77.0
    rows.rewards[0][absent] = 77.0
    rows.next_seen[0][gone] = 77.0
    for (learner, *_), data in ((one, one[2]), (two, rows)):
        learner.gradient_step(data)
    for left, right in zip(*(modules_of(part[0])[0].parameters() for part in (one, two)), strict=True):
        torch.testing.assert_close(left, right)


def test_targets_follow_slowly():
    learner, _, rows = learner_with_rows(config_of("swarm", tau=0.25))
    (module,) = modules_of(learner)
    before = [p.clone() for p in (*module.target_actor.parameters(), *module.target_critic.parameters())]
    learner.gradient_step(rows)
    present = [*module.actor.parameters(), *module.critic.parameters()]
    after = [*module.target_actor.parameters(), *module.target_critic.parameters()]
    for old, new, source in zip(before, after, present, strict=True):
        torch.testing.assert_close(new, 0.75 * old + 0.25 * source)


def test_discrete_samples_follow_the_policy_and_pass_gradients_on():
    logp = torch.log_softmax(torch.tensor([1.0, 0.0, -1.0]), -1).requires_grad_()
    many = logp.expand(20_000, 3)
    drawn = sampled_one_hot(many, 1.0, torch.Generator().manual_seed(0))
    assert set(drawn.detach().unique().tolist()) <= {0.0, 1.0} or torch.allclose(
        drawn.sum(-1), torch.ones(20_000)
    )
    np.testing.assert_allclose(drawn.detach().mean(0), logp.exp().detach(), atol=0.02)
    (drawn * torch.tensor([1.0, 0.0, 0.0])).sum().backward()
    assert logp.grad[0] > 0
    assert logp.grad[1] < 0


def test_illegal_actions_are_never_drawn():
    learner, _, rows = learner_with_rows(config_of("forest", amplification={"h_min": 0.3}))
    (module,) = modules_of(learner)
    assert not rows.legal[0].all()
    for _ in range(20):
        drawn, _ = learner._act(module, rows.seen[0], rows.legal[0])
        assert (drawn[~rows.legal[0]] < 1e-6).all()


@pytest.mark.parametrize("task", list(TASKS))
@pytest.mark.parametrize("critic", [{"hiddens": [16]}, WHOLE], ids=["mlp", "attention"])
def test_every_kind_of_task_is_learned_from(task, critic):
    learner, _, rows = learner_with_rows(config_of(task, critic=critic))
    before = [copy.deepcopy(module.state_dict()) for module in modules_of(learner)]
    stats = learner.gradient_step(rows)
    assert all(math.isfinite(float(value)) for value in stats.values())
    for old, module in zip(before, modules_of(learner), strict=True):
        for name in ("actor.0.weight", "actor.2.weight"):
            assert (old[name] != module.state_dict()[name]).any(), name


# -- what is sampled


def test_continuous_noise_has_the_deviation_that_exploration_says():
    runner = BatchedEnvRunner(config=config_of("swarm", fragment=200))
    runner.module["shared"].exploration.fill_(0.2)
    part = runner.sample()[0].modules["shared"]
    with torch.no_grad():
        mean = torch.tanh(runner.module["shared"].actor(torch.from_numpy(part.observations[:-1]))).numpy()
    assert np.std(part.actions - mean) == pytest.approx(0.2, rel=0.05)
    quiet = runner.sample(explore=False)[0].modules["shared"]
    with torch.no_grad():
        mean = torch.tanh(runner.module["shared"].actor(torch.from_numpy(quiet.observations[:-1]))).numpy()
    np.testing.assert_allclose(quiet.actions, mean, atol=1e-5)


def test_discrete_exploration_is_a_share_of_uniform_actions_on_top_of_the_operator():
    config = config_of("forest", amplification={"eta": 0.5, "h_min": 0.4})
    runner = BatchedEnvRunner(config=config)
    module = runner.module["shared"]
    with torch.no_grad():
        module.actor[-1].bias[1] += 50.0  # a policy that is sure of itself
    part = runner.sample()[0].modules["shared"]
    inputs, legal = torch.from_numpy(part.dist_inputs), torch.from_numpy(part.action_mask[:-1])
    assert float(normalized_entropy(inputs, legal)[legal.sum(-1) > 1].min()) >= 0.4 - 1e-5
    module.exploration.fill_(0.3)
    mixed = runner.sample()[0].modules["shared"]
    least = np.exp(mixed.dist_inputs)[mixed.action_mask[:-1]].min()
    assert least >= 0.3 / 5 - 1e-6
    assert not np.exp(mixed.dist_inputs)[~mixed.action_mask[:-1]].any()


# -- the algorithm


def numbers(result):
    row = progress_row(result)
    return {
        key: value for key, value in row.items() if not any(w in key for w in ("time", "per_s", "throughput"))
    }


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_it_warms_up_with_random_actions_and_says_so(caplog):
    config = config_of(
        "swarm", num_steps_sampled_before_learning_starts=256, exploration=[[0, 0.4], [512, 0.1]]
    )
    algorithm = config.build_algo()
    first = algorithm.train()
    assert first["replay"] == {"joint_steps": 128, "warming_up": 1}
    assert "critic_loss" not in first.get("learners", {}).get("shared", {})
    assert "warming up: it learns nothing before 256 environment steps" in caplog.text
    second, third = algorithm.train(), algorithm.train()
    assert (second["replay"]["warming_up"], third["replay"]["warming_up"]) == (0, 0)
    # one update for 16 steps, from the round on that fills the 256
    assert third["learners"]["shared"]["updates_lifetime"] == (384 - 256) // 16 + 64 // 16
    # by environment steps, on the runner too
    expected = 0.4 - 0.3 * 384 / 512
    assert third["learners"]["shared"]["exploration"] == pytest.approx(
        np.mean([expected, 0.4 - 0.3 * 320 / 512])
    )
    assert float(algorithm.env_runner.module["shared"].exploration) == pytest.approx(expected)
    algorithm.stop()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
@pytest.mark.parametrize("task", ["swarm", "speaker", "forest"])
def test_an_interrupted_run_goes_on_exactly(task, tmp_path):
    training = {"exploration": [[0, 0.4], [1000, 0.1]]}
    if task != "forest":
        training["communication"] = {"bandwidth": 2, "drop": 0.2}
    whole = config_of(task, **training).build_algo()
    for _ in range(2):
        whole.train()
    path = str(tmp_path / "checkpoint")
    whole.save_to_path(path)
    expected = [numbers(whole.train()) for _ in range(2)]
    weights = whole.learner_group.get_weights()
    whole.stop()
    resumed = Algorithm.from_checkpoint(path)
    assert len(resumed.replay) == 256
    found = [numbers(resumed.train()) for _ in range(2)]
    for one, two in zip(expected, found, strict=True):
        assert one == two
    for module_id, module in resumed.learner_group.get_weights().items():
        for name, array in module.items():
            np.testing.assert_array_equal(array, weights[module_id][name], name)
    resumed.stop()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_a_remote_runner_samples_for_it():
    config = config_of("tag").env_runners(num_env_runners=1)
    algorithm = config.build_algo()
    for _ in range(2):
        result = algorithm.train()
    assert result["num_env_steps_sampled_lifetime"] == 256
    assert math.isfinite(result["learners"]["prey"]["critic_loss"])
    ours = algorithm.learner_group.get_weights()["chasers"]["actor.0.weight"]
    (theirs,) = algorithm.env_runner_group.foreach_env_runner(
        lambda runner: runner.module["chasers"].state_dict()["actor.0.weight"].numpy(), local_env_runner=False
    )
    np.testing.assert_array_equal(ours, theirs)
    algorithm.stop()


def test_a_runner_holds_no_critic():
    module = BatchedEnvRunner(config=config_of("swarm")).module["shared"]
    assert {name.split(".")[0] for name in module.state_dict()} == {
        "actor",
        "exploration",
        "eta",
        "h_min",
        "tau",
    }


# -- bad input


class Unbounded(Lives):
    def action_space(self, agent):
        return gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)


class Picture(Lives):
    def observation_space(self, agent):
        return gymnasium.spaces.Box(0, 1, (4, 4), np.float32)


class Crowd(Lives):
    """It does not say who there can be."""

    possible_agents = property(lambda self: getattr(self, "unknown"))  # noqa: B009


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"tau": 0.0}, "tau: expected a number above 0, up to 1, got 0.0"),
        ({"gumbel_temperature": 0.0}, "gumbel_temperature: expected a number above 0"),
        ({"action_regularization": -1.0}, "action_regularization: expected a number of at least 0"),
        ({"exploration": [[0, 0.5], [10, -0.1]]}, "exploration: expected a number of at least 0, or"),
        (
            {"exploration": None},
            r"exploration: expected a number of at least 0, or \[\[0, first\], .* got None",
        ),
        ({"exploration": [[0, 0.5], [10]]}, "exploration: expected a number"),
        ({"exploration": [[5, 0.5], [10, 0.1]]}, "exploration: expected a number"),
        ({"exploration": [[0, 0.5], [10, 0.1], [10, 0.2]]}, "with rising steps"),
        ({"actor_lr": -1e-3}, "actor_lr: expected a number of at least 0"),
        ({"critic_lr": True}, "critic_lr: expected a number of at least 0"),
        ({"replay_capacity": 0}, "replay_capacity: expected an integer of at least 1, got 0"),
        ({"replay_capacity": 10}, "replay_capacity: 10 joint steps never hold a batch of 32"),
        (
            {"env_steps_per_update": 7},
            "env_steps_per_update: 7 does not divide the 64 environment steps of a round",
        ),
        ({"critic": {"type": "mpl"}}, "critic.type: expected one of mlp, attention, got 'mpl'"),
        ({"critic": {"hidens": [4]}}, r"critic: unknown key 'hidens' \(did you mean 'hiddens'\?\)"),
        ({"critic": {"hiddens": []}}, "critic.hiddens: expected sizes of at least 1"),
        (
            {"critic": {"type": "attention", "hiddens": [10], "heads": 3}},
            "critic.heads: 3 heads do not divide",
        ),
        ({"critic": "attention"}, "critic: expected a mapping of type, hiddens, activation, heads"),
        ({"central_value": "state"}, "central_value: MADDPG's critics are central as they are"),
        ({"normalize_values": True}, "normalize_values: MADDPG's critics learn values as they are"),
        ({"entropy_annealing": {"law": "quantum"}}, "entropy_annealing: MADDPG's loss has no entropy"),
    ],
)
def test_bad_settings_are_refused(training, message):
    with pytest.raises(ConfigError, match=message):
        config_of("swarm", **training).validate()


def test_what_it_cannot_do_is_said():
    with pytest.raises(ConfigError, match="num_learners: MADDPG learns in one Learner, got 2"):
        config_of("swarm").learners(num_learners=2).validate()
    with pytest.raises(ConfigError, match="env_runner_cls: MADDPG needs BatchedEnvRunner"):
        config_of("swarm").env_runners(env_runner_cls=None).validate()
    with pytest.raises(ConfigError, match=r"normalize_actions: MADDPG's actors act in \[-1, 1\]"):
        config_of("swarm").environment(normalize_actions=False).validate()
    with pytest.raises(ConfigError, match=r"model_config.use_lstm: MADDPG's actors have fcnet_hiddens and"):
        config_of("swarm").rl_module(model_config={"use_lstm": True}).validate()
    with pytest.raises(ConfigError, match=r"critic_state: Pendulum-v1 has no state\(\)"):
        config_of("alone", critic_state=True)


def test_another_environment_takes_the_states_of_the_one_before_away():
    config = MADDPGConfig().environment("swarm_cooperative_v0")
    assert config.model_config["state_source"] == "state"
    config.environment("Pendulum-v1")
    assert config.model_config.get("state_source") is None


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Unbounded, "MADDPG needs Discrete or bounded Box actions, a has Box"),
        (Picture, r"observations: MADDPG takes flat ones, got the shape \(4, 4\)"),
        (Crowd, "has no possible_agents; modules, runners and central critics need fixed agent slots"),
    ],
)
def test_environments_that_do_not_suit_are_named(cls, message):
    register_env("unsuitable", lambda env_config: cls())
    with pytest.raises(ConfigError, match=message):
        BatchedEnvRunner(config=MADDPGConfig().environment("unsuitable"))


def test_a_broken_environment_ends_the_run_with_its_own_message():
    runner = BatchedEnvRunner(config=config_of("lives"))
    runner.copies.envs[1].faults = {"observation": 3}
    with pytest.raises(InvalidSampleError, match="copy 1, step 3 of its episode: observation of c is nan"):
        runner.sample()


def test_a_loss_that_is_not_finite_stops_learning():
    learner, steps, _ = learner_with_rows(config_of("swarm"))
    steps.modules["shared"]["rewards"][0] = np.inf
    with pytest.raises(FloatingPointError, match="critic_loss of 'shared' is"):
        learner.update(episodes=[steps], timesteps={}, num_epochs=1)
