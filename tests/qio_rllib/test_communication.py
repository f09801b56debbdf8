"""Learned communication: what is sent, what arrives, what is acted on, kept, learned from and saved."""

import numpy as np
import pytest
import torch
from toy_lives import Lives
from toy_off_policy import Setup, setup_of

from qio_envs import swarm_cooperative_v0
from qio_envs.api import ConfigError
from qio_envs.swarm import viewer
from qio_rllib.acting.policy import episode_generator
from qio_rllib.algorithms import MADDPGConfig, PPOConfig
from qio_rllib.artifacts.policy_file import load_policy, save_policy
from qio_rllib.artifacts.rendering import show_episodes
from qio_rllib.artifacts.video import record_episode
from qio_rllib.models.communication import Communication
from qio_rllib.models.messages import Spoken, inboxes_by_group
from qio_rllib.sampling.environments import make_vector_env, register_env
from qio_rllib.sampling.evaluation import evaluate, policy_from_modules
from qio_rllib.sampling.runner import BatchedEnvRunner
from qio_rllib.sampling.stepper import EnvStepper

ENV = {"scenario": "hidden_target", "max_steps": 10}
OTHERS = ~np.eye(4, dtype=bool)
PARTS = {"first": ["agent_0"], "others": ["agent_1", "agent_2"]}


def config_of(bandwidth=3, drop=0.3, policies=None, env="swarm_cooperative_v0", env_config=ENV, **training):
    config = MADDPGConfig().environment(env, env_config=env_config)
    if policies:
        config.multi_agent(policies=policies)
    return (
        config.env_runners(num_env_runners=0, num_envs_per_env_runner=4, rollout_fragment_length=16)
        .training(
            communication={"bandwidth": bandwidth, "drop": drop},
            train_batch_size_per_learner=32,
            num_steps_sampled_before_learning_starts=64,
            env_steps_per_update=32,
            critic={"hiddens": [16]},
            **training,
        )
        .rl_module(model_config={"fcnet_hiddens": [8]})
        .debugging(seed=3)
    )


def inbox(messages, delivered):
    """The mean of the messages that arrived, in NumPy."""
    weights = delivered.astype(np.float32)
    return (weights @ messages) / np.maximum(weights.sum(-1, keepdims=True), 1)


def policy_of(runner, module_id):
    return runner.module[module_id].unwrapped().policy


def mean_actions(policy, rows):
    with torch.no_grad():
        return torch.tanh(policy.outputs(policy.features(torch.as_tensor(rows), None)[0])).numpy()


def test_nobody_hears_itself_and_only_the_living_talk():
    alive = np.array([[True, True, False, True]])
    delivered = Communication(2).deliver(alive, OTHERS, np.random.default_rng(0))
    assert delivered[0].astype(int).tolist() == [[0, 1, 0, 1], [1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 0, 0]]


def test_messages_are_lost_as_often_as_said_each_link_by_itself():
    delivered = Communication(1, drop=0.3).deliver(
        np.ones((20_000, 3), bool), OTHERS[:3, :3], np.random.default_rng(0)
    )
    links = delivered[:, ~np.eye(3, dtype=bool)]  # receiver and sender: 01, 02, 10, 12, 20, 21
    np.testing.assert_allclose(links.mean(axis=0), 0.7, atol=0.02)
    np.testing.assert_allclose(np.corrcoef(links.T), np.eye(6), atol=0.03)
    deaf = Communication(1, drop=1.0)
    assert not deaf.deliver(np.ones((9, 3), bool), OTHERS[:3, :3], np.random.default_rng(0)).any()


def test_an_inbox_is_the_mean_of_what_arrived():
    rng = np.random.default_rng(1)
    messages = rng.normal(size=(5, 4, 3)).astype(np.float32)
    delivered = rng.random((5, 2, 4)) < 0.5
    delivered[0, 0] = False
    spoken = Spoken(torch.from_numpy(messages))
    (found,) = inboxes_by_group([spoken], [torch.from_numpy(delivered)], [range(4)])
    for e, receiver in np.ndindex(5, 2):
        arrived = messages[e][delivered[e, receiver]]
        expected = arrived.mean(axis=0) if len(arrived) else np.zeros(3)
        np.testing.assert_allclose(found[e, receiver], expected, atol=1e-6)


@pytest.mark.parametrize("policies", [None, PARTS, {"others": ["agent_1"], "rest": ["agent_0", "agent_2"]}])
def test_the_actions_are_those_of_the_messages_that_are_kept(policies):
    runner = BatchedEnvRunner(config=config_of(policies=policies))
    rollout = runner.sample(explore=False)[0]
    parts = rollout.modules.values()
    sent = np.zeros((16, 4, 3, 3), np.float32)
    for part in parts:
        sent[:, :, part.agent_index] = part.columns["messages"]
    losses = []
    for module_id, part in rollout.modules.items():
        policy, messages, delivered = (
            policy_of(runner, module_id),
            part.columns["messages"],
            part.columns["delivered"],
        )
        with torch.no_grad():
            said = policy.speak(torch.from_numpy(part.observations[:-1])).messages.numpy()
        np.testing.assert_allclose(messages, said, atol=1e-6)
        rows = np.concatenate([part.observations[:-1], inbox(sent, delivered)], axis=-1)
        np.testing.assert_allclose(part.actions, mean_actions(policy, rows), atol=1e-5)
        for m, sender in enumerate(part.agent_index):
            assert not delivered[:, :, m, sender].any()
            losses.append(1 - np.delete(delivered[:, :, m], sender, axis=-1).mean())
    assert np.mean(losses) == pytest.approx(0.3, abs=0.1)


@pytest.mark.parametrize("policies", [None, {"pair": ["b", "c"], "single": ["a"]}])
def test_agents_that_are_away_neither_send_nor_hear(policies):
    register_env("talking_lives", lambda env_config: Lives())
    config = config_of(drop=0.0, env="talking_lives", env_config={}, policies=policies)
    parts = BatchedEnvRunner(config=config).sample()[0].modules.values()
    acted = np.zeros((16, 4, 3), bool)
    for part in parts:
        acted[:, :, part.agent_index] = part.acted
    assert not acted.all()
    for part in parts:
        for column, receiver in enumerate(part.agent_index):
            expected = acted[:, :, receiver, None] & acted
            expected[:, :, receiver] = False
            np.testing.assert_array_equal(part.columns["delivered"][:, :, column], expected)


@pytest.mark.parametrize("policies", [None, {"others": ["agent_1"], "rest": ["agent_0", "agent_2"]}])
def test_the_critic_sees_the_messages_and_actions_that_were_executed(policies):
    setup = setup_of(config_of(policies=policies))
    given = []
    for module in setup.modules:
        critic = module.critics[0].critic
        for name in ("forward", "of_own"):
            original = getattr(critic, name)

            def spy(joint, actions, *own, original=original):
                given.append((joint.inbox, actions))
                return original(joint, actions, *own)

            setattr(critic, name, spy)
    with torch.no_grad():  # whatever agents would say now
        for module in setup.modules:
            for parameter in module.policy.speaker.parameters():
                parameter.add_(1.0)
    setup.learner.gradient_step(setup.rows)
    assert len(given) == 2 * len(setup.modules)
    parts = setup.rollout.modules.values()
    sent = np.zeros((64, 3, 3), np.float32)
    for part in parts:
        sent[:, part.agent_index] = part.columns["messages"].reshape(64, -1, 3)
    for inboxes, actions in given:
        for g, part in enumerate(parts):
            expected = inbox(sent, part.columns["delivered"].reshape(64, -1, 3))
            np.testing.assert_allclose(inboxes[g], expected, atol=1e-6)
            np.testing.assert_array_equal(actions[g], part.actions.reshape(64, -1, 2).clip(-1, 1))


def speaker_gradients(setup: Setup):
    setup.learner.gradient_step(setup.rows)
    return [
        sum(float(p.grad.abs().sum()) for p in module.policy.speaker.parameters() if p.grad is not None)
        for module in setup.modules
    ]


def test_the_loss_reaches_the_sender_through_the_receiver():
    """Cut the receiver's use of what it hears, or the link, and the sender learns nothing more."""
    config = config_of(policies=PARTS, drop=0.0)
    assert min(speaker_gradients(setup_of(config))) > 0

    setup = setup_of(config)
    with torch.no_grad():
        for module in setup.modules:
            module.policy.encoder.layers[0].weight[:, -3:] = 0  # the columns of the inbox
    assert max(speaker_gradients(setup)) == 0

    setup = setup_of(config)
    setup.rows.delivered = [torch.zeros_like(links) for links in setup.rows.delivered]
    assert max(speaker_gradients(setup)) == 0

    setup = setup_of(config)
    for links in setup.rows.delivered:
        links[..., 0] = False  # nobody hears agent_0, the only one of its module
    first, others = speaker_gradients(setup)
    assert first == 0
    assert others > 0


def test_every_part_of_a_speaker_learns():
    setup = setup_of(config_of(drop=0.0))
    setup.learner.gradient_step(setup.rows)
    for name, parameter in setup.modules[0].policy.speaker.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_inboxes_follow_the_indices_of_the_senders():
    """Module one has the agents 2 and 0, module two agent 1."""
    messages = [Spoken(torch.tensor(said)) for said in ([[[2.0], [0.5]]], [[[1.0]]])]
    only = torch.eye(3, dtype=torch.bool)
    delivered = [only[[2, 0]].unsqueeze(0), only[[1]].unsqueeze(0)]
    found = inboxes_by_group(messages, delivered, [[2, 0], [1]])
    assert [part.flatten().tolist() for part in found] == [[2.0, 0.5], [1.0]]


@pytest.mark.parametrize("drop", [0.0, 0.4])
def test_a_player_talks_as_the_runner_does_and_from_a_file(tmp_path, drop):
    config = config_of(drop=drop, policies=PARTS)
    runner = BatchedEnvRunner(config=config)
    policy = policy_from_modules(dict(runner.module.items()), config)
    env = swarm_cooperative_v0.parallel_env(**ENV)
    observations, _ = env.reset(seed=4)
    acted = policy.player(seed=7).act(observations)
    rows = np.stack(list(observations.values()))
    policies = [policy_of(runner, name) for name in ("first", "others", "others")]
    with torch.no_grad():
        sent = np.stack(
            [p.speak(torch.from_numpy(row)).messages for p, row in zip(policies, rows, strict=True)]
        )
    links = Communication(3, drop=drop).deliver(np.ones((1, 3), bool), OTHERS[:3, :3], episode_generator(7))[
        0
    ]
    inputs = np.concatenate([rows, inbox(sent, links)], axis=-1)
    expected = [mean_actions(p, row) for p, row in zip(policies, inputs, strict=True)]
    np.testing.assert_allclose(np.stack(list(acted.values())), expected, atol=1e-5)

    loaded = load_policy(save_policy(policy, tmp_path / "policy.pt"))
    assert loaded.team.communication == Communication(3, drop=drop)
    one, two = (evaluate(p, "swarm_cooperative_v0", ENV, [5, 6], explore=False) for p in (policy, loaded))
    assert one == two
    assert one == evaluate(policy, "swarm_cooperative_v0", ENV, [5, 6], explore=False)


def test_lossy_communication_draws_even_where_nothing_is_explored():
    config = config_of(drop=0.5)
    policy = policy_from_modules(dict(BatchedEnvRunner(config=config).module.items()), config)
    assert policy.team.draws
    observations = {
        f"agent_{i}": np.full(policy.spaces["shared"].observation_shape, 0.1 * i, np.float32)
        for i in range(3)
    }
    found = {
        tuple(np.stack(list(policy.player(seed=seed).act(observations).values())).ravel())
        for seed in range(20)
    }
    assert len(found) > 3
    again, other = (policy.player(seed=5).act(observations) for _ in range(2))
    for agent in again:
        np.testing.assert_array_equal(again[agent], other[agent])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bandwidth": -1}, "communication.bandwidth: expected an integer of at least 1, got -1"),
        ({"bandwidth": 1.5}, "communication.bandwidth: expected an integer of at least 1, got 1.5"),
        ({"bandwidth": True}, "communication.bandwidth: expected an integer of at least 1, got True"),
        ({"bandwidth": 2, "drop": 1.1}, "communication.drop: expected a number from 0 to 1, got 1.1"),
        ({"bandwidth": 0, "drop": -1}, "communication.drop: expected a number from 0 to 1, got -1"),
        ({"bandwith": 2}, r"communication: unknown key 'bandwith' \(did you mean 'bandwidth'\?\)"),
        ({"drop": 0.1}, "communication.bandwidth: missing"),
        ([2], "communication: expected a mapping or null, got"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        MADDPGConfig().training(communication=settings)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"bandwidth": 2, "bits": 2}, "communication.bandwidth: a message holds numbers .* got bandwidth 2 and bits"),
        ({"bits": -1}, "communication.bits: expected an integer of at least 1, got -1"),
        ({"bits": 1.5}, "communication.bits: expected an integer of at least 1, got 1.5"),
        ({"bits": 2, "routing": "radio"}, "communication.routing: expected broadcast, targeted, hierarchical, got"),
        ({"bits": 2, "signature": 2}, "communication.signature: belongs to routing targeted"),
        ({"bits": 2, "routing": "targeted", "signature": 0}, "communication.signature: expected an integer of at"),
        ({"bits": 2, "routing": "hierarchical"}, "communication.leaders: routing hierarchical needs them"),
        ({"bits": 2, "leaders": [["a"]]}, "communication.leaders: routing hierarchical needs them"),
        ({"bits": 2, "routing": "hierarchical", "leaders": "a"}, "communication.leaders: expected lists of agents"),
        ({"bits": 2, "routing": "hierarchical", "leaders": [["a"], []]}, "communication.leaders: expected lists"),
        ({"bits": 2, "routing": "hierarchical", "leaders": [["a", "a"]]}, "leaders: agent a stands there twice"),
        ({"bits": 2, "routing": "hierarchical", "leaders": [[1.5]]}, "leaders: expected agents by their ids, got 1.5"),
        ({"bits": 2, "gate": {"price": 1}}, r"communication.gate: unknown key 'price'"),
        ({"bits": 2, "gate": True}, "communication.gate: expected a mapping"),
        ({"bits": 2, "gate": {"cost": -1}}, "communication.gate.cost: expected a number of at least 0, got -1"),
        ({"bits": 0, "gate": {"cost": "x"}}, "communication.gate.cost: expected a number of at least 0, got 'x'"),
        ({"routing": "targeted"}, "communication.bandwidth: missing"),
    ],
)  # fmt: skip
def test_bad_routing_bits_and_gates_end_in_one_line(given, message):
    with pytest.raises(ConfigError, match=message) as caught:
        PPOConfig().training(communication=given)
    assert "\n" not in str(caught.value)


def test_a_bandwidth_of_zero_is_silence():
    runner = BatchedEnvRunner(config=config_of(bandwidth=0))
    part = runner.sample()[0].modules["shared"]
    assert "messages" not in part.columns
    assert policy_of(runner, "shared").speaker is None


# --- pictures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["video", "window"])
def test_pictures_show_what_agents_told_each_other_in_the_step(monkeypatch, how):
    config = config_of(drop=0.0, policies=PARTS)
    runner = BatchedEnvRunner(config=config)
    policy = policy_from_modules(dict(runner.module.items()), config)
    scenes, draw = [], viewer.draw
    monkeypatch.setattr(viewer, "draw", lambda scene: scenes.append(scene) or draw(scene))
    if how == "video":
        frames, _, row = record_episode(policy, "swarm_cooperative_v0", ENV, 5)
        assert {frame.shape for frame in frames} == {frames[0].shape}
    else:
        monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
        (row,) = show_episodes(policy, "swarm_cooperative_v0", ENV, [5])
    assert row["episode_length"] == 10
    assert [scene.step for scene in scenes] == list(range(11))
    assert (scenes[0].messages == 0).all()
    env = make_vector_env("swarm_cooperative_v0", ENV, 1)
    stepper = EnvStepper(env, policy.team_for(env.agents))
    stepper.reset(np.array([5], np.uint64))
    for scene in scenes[1:]:
        spoken = [
            group.actor.speak(seen, {}, None).messages[0]
            for group, seen in zip(stepper.team.groups, stepper.obs, strict=True)
        ]
        np.testing.assert_allclose(scene.messages, np.concatenate(spoken), atol=1e-6)
        stepper.advance(stepper.step(None, False))
    assert np.ptp([scene.messages for scene in scenes[1:]]) > 0.01
    # who does not talk has none
    scenes.clear()
    record_episode("controller", "swarm_cooperative_v0", ENV, 5)
    assert {scene.messages is None for scene in scenes} == {True}
