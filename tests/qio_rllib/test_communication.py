"""Learned communication: what is sent, what arrives, what is acted on, kept, learned from and saved."""

import numpy as np
import pytest
import torch

from qio_envs import swarm_cooperative_v0
from qio_envs.api import ConfigError
from qio_rllib.acting.communication import Communication, inbox
from qio_rllib.algorithms import MADDPGConfig
from qio_rllib.artifacts.policy_file import load_policy, save_policy
from qio_rllib.learners.off_policy import MADDPGLearner, heard_by_group
from qio_rllib.sampling.evaluation import evaluate, policy_from_modules
from qio_rllib.sampling.replay import joint_steps
from qio_rllib.sampling.runner import BatchedEnvRunner

ENV = {"scenario": "hidden_target", "max_steps": 10}
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


def learner_of(config, runner):
    learner = MADDPGLearner(
        config=config, module_spec=config.get_multi_rl_module_spec(spaces=runner.get_spaces())
    )
    learner.build()
    return learner


def rows_of(config):
    """Return a Learner, and joint steps that its own actors have played."""
    runner = BatchedEnvRunner(config=config)
    learner = learner_of(config, runner)
    runner.set_state({"rl_module": learner.module.get_state(inference_only=True)})
    rollout = runner.sample()[0]
    return learner, rollout, learner._tensors(joint_steps(rollout))


def test_nobody_hears_itself_and_only_the_living_talk():
    alive = np.array([[True, True, False, True]])
    delivered = Communication(2).deliver(alive, np.random.default_rng(0))
    assert delivered[0].astype(int).tolist() == [[0, 1, 0, 1], [1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 0, 0]]


def test_messages_are_lost_as_often_as_said():
    delivered = Communication(1, drop=0.3).deliver(np.ones((20_000, 2), bool), np.random.default_rng(0))
    assert delivered[:, 0, 1].mean() == pytest.approx(0.7, abs=0.02)
    assert np.corrcoef(delivered[:, 0, 1], delivered[:, 1, 0])[0, 1] == pytest.approx(0, abs=0.03)
    assert not Communication(1, drop=1.0).deliver(np.ones((9, 3), bool), np.random.default_rng(0)).any()


def test_an_inbox_is_the_mean_of_what_arrived():
    rng = np.random.default_rng(1)
    messages = rng.normal(size=(5, 4, 3)).astype(np.float32)
    delivered = rng.random((5, 2, 4)) < 0.5
    delivered[0, 0] = False
    found = inbox(messages, delivered)
    for e, receiver in np.ndindex(5, 2):
        arrived = messages[e][delivered[e, receiver]]
        expected = arrived.mean(axis=0) if len(arrived) else np.zeros(3)
        np.testing.assert_allclose(found[e, receiver], expected, atol=1e-6)
    np.testing.assert_allclose(
        inbox(torch.from_numpy(messages), torch.from_numpy(delivered)).numpy(), found, atol=1e-6
    )


@pytest.mark.parametrize("policies", [None, PARTS, {"others": ["agent_1"], "rest": ["agent_0", "agent_2"]}])
def test_the_actions_are_those_of_the_messages_that_are_kept(policies):
    runner = BatchedEnvRunner(config=config_of(policies=policies))
    rollout = runner.sample()[0]
    parts = rollout.modules.values()
    sent = np.zeros((16, 4, 3, 3), np.float32)
    for part in parts:
        sent[:, :, part.slots] = part.messages
    losses = []
    for module_id, part in rollout.modules.items():
        module = runner.module[module_id]
        with torch.no_grad():
            said = module.speak(torch.from_numpy(part.observations[:-1])).numpy()
            np.testing.assert_allclose(part.messages, said, atol=1e-6)
            heard = inbox(sent, part.delivered)
            inputs = torch.from_numpy(np.concatenate([part.observations[:-1], heard], axis=-1))
            np.testing.assert_allclose(
                module._forward({"obs": inputs})["action_dist_inputs"], part.dist_inputs, atol=1e-5
            )
        for m, slot in enumerate(part.slots):
            assert not part.delivered[:, :, m, slot].any()
            losses.append(1 - np.delete(part.delivered[:, :, m], slot, axis=-1).mean())
    assert np.mean(losses) == pytest.approx(0.3, abs=0.1)


@pytest.mark.parametrize("policies", [None, {"others": ["agent_1"], "rest": ["agent_0", "agent_2"]}])
def test_the_critic_sees_the_messages_and_actions_that_were_executed(policies):
    learner, rollout, rows = rows_of(config_of(policies=policies))
    seen = []
    for module_id in learner._joint["modules"]:
        critic = learner.module[module_id].unwrapped().critic
        for name in ("forward", "of_own"):
            original = getattr(critic, name)

            def spy(joint, actions, *own, original=original):
                seen.append((joint.heard, actions))
                return original(joint, actions, *own)

            setattr(critic, name, spy)
    with torch.no_grad():  # whatever agents would say now
        for module_id in learner._joint["modules"]:
            for parameter in learner.module[module_id].unwrapped().speaker.parameters():
                parameter.add_(1.0)
    learner.gradient_step(rows)
    assert len(seen) == 2 * len(learner._joint["modules"])
    sent = np.zeros((64, 3, 3), np.float32)
    for part in rollout.modules.values():
        sent[:, part.slots] = part.messages.reshape(64, -1, 3)
    for heard, actions in seen:
        for g, part in enumerate(rollout.modules.values()):
            expected = inbox(sent, part.delivered.reshape(64, -1, 3))
            np.testing.assert_allclose(heard[g], expected, atol=1e-6)
            np.testing.assert_array_equal(actions[g], part.actions.reshape(64, -1, 2).clip(-1, 1))


def speaker_gradients(learner, rows):
    learner.gradient_step(rows)
    parts = [learner.module[key].unwrapped().speaker for key in learner._joint["modules"]]
    return [sum(float(p.grad.abs().sum()) for p in part.parameters() if p.grad is not None) for part in parts]


def test_the_loss_reaches_the_sender_through_the_receiver():
    """Cut the receiver's use of what it hears, or the link, and the sender learns nothing more."""
    config = config_of(policies=PARTS, drop=0.0)
    learner, _, rows = rows_of(config)
    assert min(speaker_gradients(learner, rows)) > 0

    learner, _, rows = rows_of(config)
    with torch.no_grad():
        for module_id in PARTS:
            learner.module[module_id].unwrapped().actor[0].weight[:, -3:] = 0  # the columns of the inbox
    assert max(speaker_gradients(learner, rows)) == 0

    learner, _, rows = rows_of(config)
    rows.delivered = [torch.zeros_like(links) for links in rows.delivered]
    assert max(speaker_gradients(learner, rows)) == 0

    learner, _, rows = rows_of(config)
    for links in rows.delivered:
        links[..., 0] = False  # nobody hears agent_0, the only one of its module
    first, others = speaker_gradients(learner, rows)
    assert first == 0
    assert others > 0


def test_every_part_of_a_speaker_learns():
    learner, _, rows = rows_of(config_of(drop=0.0))
    learner.gradient_step(rows)
    for name, parameter in learner.module["shared"].unwrapped().speaker.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_inboxes_follow_the_slots_of_the_senders():
    """Module one has slots 2 and 0, module two slot 1."""
    messages = [torch.tensor([[[2.0], [0.5]]]), torch.tensor([[[1.0]]])]
    only = torch.eye(3, dtype=torch.bool)
    delivered = [only[[2, 0]].unsqueeze(0), only[[1]].unsqueeze(0)]
    found = heard_by_group(messages, delivered, [[2, 0], [1]])
    assert [part.flatten().tolist() for part in found] == [[2.0, 0.5], [1.0]]


@pytest.mark.parametrize("drop", [0.0, 0.4])
def test_a_policy_talks_as_the_runner_does_and_from_a_file(tmp_path, drop):
    config = config_of(drop=drop, policies=PARTS)
    runner = BatchedEnvRunner(config=config)
    policy = policy_from_modules(dict(runner.module.items()), config)
    env = swarm_cooperative_v0.parallel_env(**ENV)
    observations, _ = env.reset(seed=4)
    acted = policy.act(observations, rng=np.random.default_rng(7))
    rows = np.stack(list(observations.values()))
    with torch.no_grad():
        modules = [runner.module["first"], runner.module["others"], runner.module["others"]]
        sent = np.stack([m.speak(torch.from_numpy(row)) for m, row in zip(modules, rows, strict=True)])
        links = Communication(3, drop).deliver(np.ones((1, 3), bool), np.random.default_rng(7))[0]
        inputs = torch.from_numpy(np.concatenate([rows, inbox(sent, links)], axis=-1))
        expected = [torch.tanh(m.actor(row)).numpy() for m, row in zip(modules, inputs, strict=True)]
    np.testing.assert_allclose(np.stack(list(acted.values())), expected, atol=1e-5)

    loaded = load_policy(save_policy(policy, tmp_path / "policy.pt"))
    assert loaded.communication == Communication(3, drop)
    one, two = (evaluate(p, "swarm_cooperative_v0", ENV, [5, 6], explore=False) for p in (policy, loaded))
    for row, other in zip(one, two, strict=True):
        assert row == pytest.approx(other, rel=1e-4)
    assert one == evaluate(policy, "swarm_cooperative_v0", ENV, [5, 6], explore=False)


def test_lossy_communication_needs_a_generator():
    config = config_of(drop=0.4)
    policy = policy_from_modules(dict(BatchedEnvRunner(config=config).module.items()), config)
    with pytest.raises(ValueError, match="lossy communication need a numpy"):
        policy.act({"agent_0": np.zeros(10, np.float32)})


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
        ([2], "communication: expected a mapping of bandwidth, drop, got"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        MADDPGConfig().training(communication=settings)


def test_a_bandwidth_of_zero_is_silence():
    runner = BatchedEnvRunner(config=config_of(bandwidth=0))
    part = runner.sample()[0].modules["shared"]
    assert part.messages is None
    assert runner.module["shared"].speaker is None
