"""MADDPG's gradient step: targets and losses by hand, who learns from what, masks, messages, exploration."""

import copy
import math

import numpy as np
import pytest
import torch
from toy_off_policy import ATTENTION, config_of, moved_apart, setup_of

from qio_rllib.exploration import normalized_entropy
from qio_rllib.learners.transitions import transitions_of
from qio_rllib.models import joint_module
from qio_rllib.models.joint_critics import JointView
from qio_rllib.models.joint_module import sampled_one_hot
from qio_rllib.models.messages import inboxes_by_group
from qio_rllib.sampling.environments import make_vector_env
from qio_rllib.sampling.evaluation import play_episodes, policy_from_modules
from qio_rllib.sampling.runner import BatchedEnvRunner


def policy_of(runner, module_id="shared"):
    return runner.module[module_id].unwrapped().policy


# -- one gradient step, by hand


def test_the_critic_regresses_on_what_the_targets_say():
    """Lowe et al. (2017), equation 6, with present_next in the place of 1 - done, for continuous actions."""
    learner, _, steps, rows = setup_of(config_of("swarm", critic_state=False))
    (module,) = learner.modules()
    moved_apart(module.target_policy, module.target_critics)
    columns = steps.modules["shared"]
    present = columns["present_next"]

    def q_of(network, obs, alive, actions):
        critic = network.critic
        flat = np.concatenate([np.concatenate([obs * alive[..., None], alive[..., None]], -1).reshape(len(obs), -1),
                               (actions * alive[..., None]).reshape(len(obs), -1)], -1).astype(np.float32)  # fmt: skip
        weight = torch.cat([critic.from_obs.weight, critic.from_actions.weight], dim=1)
        return (
            critic.head(critic.body(torch.from_numpy(flat) @ weight.T + critic.from_obs.bias))
            .detach()
            .numpy()
        )

    target = module.target_policy
    following = torch.tanh(target.head(target.encoder(torch.from_numpy(columns["next_observations"]))))
    ahead = q_of(module.target_critics[0], columns["next_observations"], present, following.detach().numpy())
    targets = columns["rewards"] + learner.config.gamma * present * ahead
    worth = q_of(module.critics[0], columns["observations"], columns["acted"], columns["actions"])
    expected = ((worth - targets) ** 2)[columns["acted"]].mean()
    np.testing.assert_allclose(learner.targets([module], rows)[0].numpy(), targets, rtol=1e-4, atol=1e-5)
    assert float(learner.gradient_step(rows)["shared", "critic_loss"]) == pytest.approx(expected, rel=1e-4)


def test_each_step_has_a_discount_of_its_own():
    learner, _, steps, rows = setup_of(config_of("swarm"))
    (module,) = learner.modules()
    moved_apart(module.target_critics)
    (plain,) = learner.targets([module], rows)
    rewards = torch.from_numpy(steps.modules["shared"]["rewards"])
    scale = torch.rand(rewards.shape, generator=torch.Generator().manual_seed(2))
    rows.discounts[0] = rows.discounts[0] * scale
    (scaled,) = learner.targets([module], rows)
    assert ((plain - rewards).abs() > 1e-3).any()
    torch.testing.assert_close(scaled - rewards, (plain - rewards) * scale, atol=1e-5, rtol=1e-4)


def test_an_actor_climbs_its_own_value_with_the_others_actions_from_replay():
    setup = setup_of(config_of("separate", action_regularization=0.0))
    learner, rows = setup.learner, setup.rows
    untouched = copy.deepcopy(setup.modules)
    for module_id in learner.joint["modules"]:
        for group in learner.get_optimizer(module_id, "critic").param_groups:
            group["lr"] = 0.0  # the critic of the actor's step is the one before
    stats = learner.gradient_step(rows)
    for g, (before, after) in enumerate(zip(untouched, setup.modules, strict=True)):
        actions = list(rows.actions)
        actions[g] = torch.tanh(before.policy.outputs(before.policy.features(rows.obs[g], None)[0]))
        joint = JointView(rows.obs, rows.acted, None, rows.global_state)
        worth = before.critics[0].critic(joint, actions)[rows.acted[g] > 0].mean()
        name = learner.joint["modules"][g]
        assert float(stats[name, "actor_loss"]) == pytest.approx(-worth.item(), abs=1e-5)
        gradients = torch.autograd.grad(-worth, [*before.policy.parameters()])
        norm = math.sqrt(sum(float((x**2).sum()) for x in gradients))
        assert float(stats[name, "actor_gradient_norm"]) == pytest.approx(norm, rel=1e-4)
        for old, new in zip(before.critics.parameters(), after.critics.parameters(), strict=True):
            torch.testing.assert_close(old, new)  # the actors' step leaves critics alone
            assert new.requires_grad


@pytest.mark.parametrize("task", ["swarm", "forest"])
def test_the_regulariser_is_the_mean_square_of_the_outputs_of_agents_that_acted(task):
    losses = {}
    for weight in (0.0, 0.5):
        setup = setup_of(config_of(task, action_regularization=weight, critic_state=False))
        (module,), rows = setup.modules, setup.rows
        with torch.no_grad():
            outputs = module.policy.outputs(module.policy.features(rows.obs[0], None)[0])
        expected = float((outputs**2).mean(-1)[rows.acted[0] > 0].mean())
        losses[weight] = float(setup.learner.gradient_step(rows)["shared", "actor_loss"])
    assert expected > 1e-4
    assert losses[0.5] - losses[0.0] == pytest.approx(0.5 * expected, rel=1e-3)


@pytest.mark.parametrize("critic", [{"hiddens": [16]}, ATTENTION], ids=["mlp", "attention"])
def test_what_absent_agents_hold_does_not_matter(critic):
    one, two = (setup_of(config_of("lives", critic=critic, exploration=0.3)) for _ in range(2))
    rows = two.rows
    absent, gone = rows.acted[0] == 0, rows.present_next[0] == 0
    assert absent.any()
    assert gone.any()
    rows.obs[0][absent] = 77.0
    rows.actions[0][absent] = 77.0
    rows.rewards[0][absent] = 77.0
    rows.next_obs[0][gone] = 77.0
    for setup in (one, two):
        setup.learner.gradient_step(setup.rows)
    for left, right in zip(*(setup.modules[0].parameters() for setup in (one, two)), strict=True):
        torch.testing.assert_close(left, right)


def test_targets_follow_slowly():
    setup = setup_of(config_of("swarm", tau=0.25, communication={"bandwidth": 2}))
    (module,) = setup.modules
    moved_apart(module.target_policy, module.target_critics)
    before = [p.clone() for p in (*module.target_policy.parameters(), *module.target_critics.parameters())]
    setup.learner.gradient_step(setup.rows)
    names = [name for name, _ in module.target_policy.named_parameters()]
    assert any(name.startswith("speaker") for name in names)
    present = [*module.policy.parameters(), *module.critics.parameters()]
    after = [*module.target_policy.parameters(), *module.target_critics.parameters()]
    for old, new, source in zip(before, after, present, strict=True):
        assert (source - old).abs().max() > 1e-4
        torch.testing.assert_close(new, 0.75 * old + 0.25 * source)


# -- discrete actions


def test_discrete_samples_follow_the_policy_and_pass_gradients_on():
    logp = torch.log_softmax(torch.tensor([1.0, 0.0, -1.0]), -1).requires_grad_()
    many = logp.expand(20_000, 3)
    drawn = sampled_one_hot(many, 1.0, torch.Generator().manual_seed(0))
    assert torch.equal(drawn.detach().round().sum(-1), torch.ones(20_000))
    torch.testing.assert_close(drawn.detach(), drawn.detach().round())
    np.testing.assert_allclose(drawn.detach().mean(0), logp.exp().detach(), atol=0.02)
    (drawn * torch.tensor([1.0, 0.0, 0.0])).sum().backward()
    assert logp.grad[0] > 0
    assert logp.grad[1] < 0


def test_the_gradient_of_a_sample_is_that_of_the_relaxation_at_the_temperature(monkeypatch):
    """Jang et al. (2017), with the noise that was drawn."""
    logp = torch.log_softmax(torch.randn(50, 3, generator=torch.Generator().manual_seed(1)), -1)
    weights = torch.tensor([1.0, -0.5, 2.0])
    uniform = torch.rand(logp.shape, generator=torch.Generator().manual_seed(7))
    noise = -torch.log(-torch.log(uniform))
    for temperature in (0.3, 1.0, 4.0):
        own, by_hand = (logp.clone().requires_grad_() for _ in range(2))
        drawn = sampled_one_hot(own, temperature, torch.Generator().manual_seed(7))
        (drawn * weights).sum().backward()
        (torch.softmax((by_hand + noise) / temperature, -1) * weights).sum().backward()
        torch.testing.assert_close(own.grad, by_hand.grad)
        assert torch.equal(drawn.argmax(-1), (logp + noise).argmax(-1))
    setup = setup_of(config_of("discrete", gumbel_temperature=0.3))
    seen = []

    def spy(log_probs, temperature, generator):
        seen.append(temperature)
        return joint_module.sampled_one_hot(log_probs, temperature, generator)

    monkeypatch.setattr("qio_rllib.algorithms.maddpg.sampled_one_hot", spy)
    setup.learner.gradient_step(setup.rows)
    assert seen == [0.3, 0.3]


@pytest.mark.parametrize("amplification", [None, {"h_min": 0.3}])
def test_neither_actors_nor_target_actors_do_what_is_illegal(amplification, monkeypatch):
    setup = setup_of(config_of("forest", amplification=amplification))
    (module,), rows = setup.modules, setup.rows
    drawn = []

    def spy(log_probs, temperature, generator):
        drawn.append(
            (log_probs.detach(), joint_module.sampled_one_hot(log_probs, temperature, generator).detach())
        )
        return drawn[-1][1].requires_grad_()

    monkeypatch.setattr("qio_rllib.algorithms.maddpg.sampled_one_hot", spy)
    with torch.no_grad():  # illegal actions that are wanted
        module.policy.head.layers[-1].bias[:] = torch.tensor([9.0, -9.0, -9.0, -9.0, -9.0])
        module.target_policy.head.layers[-1].bias[:] = torch.tensor([-9.0, 9.0, -9.0, -9.0, -9.0])
    for action in range(2):
        for legal in (rows.legal[0], rows.next_legal[0]):
            legal[:, :, action] &= (
                torch.rand(legal.shape[:2], generator=torch.Generator().manual_seed(5)) < 0.3
            )
            legal[:, :, 4] = True
    setup.learner.gradient_step(rows)
    (_, following), (_, own) = drawn  # targets come first
    for actions, legal in ((following, rows.next_legal[0]), (own, rows.legal[0])):
        assert not legal.all()
        assert actions[~legal].abs().max() < 1e-6
    # each by its own mask and its own network: what is legal is what is wanted
    assert (following[..., 1][rows.next_legal[0][..., 1]] > 0.99).float().mean() > (
        0.9 if amplification is None else 0.5
    )
    assert (own[..., 0][rows.legal[0][..., 0]] > 0.99).float().mean() > (
        0.9 if amplification is None else 0.5
    )


@pytest.mark.parametrize(
    "task", ["swarm", "discrete", "forest", "tag", "speaker", "separate", "alone", "lives"]
)
@pytest.mark.parametrize("critic", [{"hiddens": [16]}, ATTENTION, {"type": "own", "hiddens": [16]}],
                         ids=["mlp", "attention", "own"])  # fmt: skip
def test_every_kind_of_task_is_learned_from(task, critic):
    setup = setup_of(config_of(task, critic=critic))
    before = [copy.deepcopy(module.state_dict()) for module in setup.modules]
    stats = setup.learner.gradient_step(setup.rows)
    assert all(math.isfinite(float(value)) for value in stats.values())
    for old, module in zip(before, setup.modules, strict=True):
        for name in ("policy.encoder.layers.0.weight", "policy.head.layers.0.weight"):
            assert (old[name] != module.state_dict()[name]).any(), name


# -- messages in targets


@pytest.mark.parametrize("drop", [0.0, 0.5, 1.0])
def test_targets_hear_the_target_speakers_over_links_that_fail_as_often_as_said(drop, monkeypatch):
    setup = setup_of(config_of("lives", communication={"bandwidth": 2, "drop": drop}))
    (module,), rows, learner = setup.modules, setup.rows, setup.learner
    moved_apart(module.target_policy, by=0.5)
    drawn = []
    original = learner.next_delivered

    def spy(present):
        drawn.append(original(present))
        return drawn[-1]

    monkeypatch.setattr(learner, "next_delivered", spy)
    heard = []
    network = module.target_critics[0]
    forward = network.critic.forward
    network.critic.forward = lambda view, actions: heard.append(view.inbox) or forward(view, actions)
    learner.targets([module], rows)
    ((delivered,),) = drawn
    alive = rows.present_next[0] > 0
    possible = alive[:, :, None] & alive[:, None, :] & ~torch.eye(3, dtype=torch.bool)
    assert not (delivered & ~possible).any()
    assert float(delivered[possible].float().mean()) == pytest.approx(1 - drop, abs=0.15)
    with torch.no_grad():
        said, not_said = (policy.speak(rows.next_obs[0]) for policy in (module.target_policy, module.policy))
    expected, other = (inboxes_by_group([one], [delivered], [range(3)])[0] for one in (said, not_said))
    torch.testing.assert_close(heard[0][0], expected)
    assert drop == 1.0 or not torch.allclose(heard[0][0], other)


# -- what is sampled


def test_continuous_noise_has_the_deviation_that_exploration_says():
    runner = BatchedEnvRunner(config=config_of("swarm", fragment=200))
    policy = policy_of(runner)
    policy.exploration.fill_(0.2)

    def mean_of(part):
        with torch.no_grad():
            return torch.tanh(
                policy.outputs(policy.features(torch.from_numpy(part.observations[:-1]), None)[0])
            ).numpy()

    part = runner.sample()[0].modules["shared"]
    assert np.std(part.actions - mean_of(part)) == pytest.approx(0.2, rel=0.05)
    quiet = runner.sample(explore=False)[0].modules["shared"]
    np.testing.assert_allclose(quiet.actions, mean_of(quiet), atol=1e-5)


def distribution_of(policy, part, explore):
    with torch.no_grad():
        features = policy.features(torch.from_numpy(part.observations[:-1]), None)[0]
        legal = torch.from_numpy(part.action_mask[:-1])
        return policy.distribution(policy.outputs(features), legal, explore), legal


def test_discrete_exploration_is_a_uniform_share_of_the_legal_actions_on_top_of_the_operator():
    runner = BatchedEnvRunner(
        config=config_of("forest", fragment=300, amplification={"eta": 0.5, "h_min": 0.4})
    )
    policy = policy_of(runner)
    with torch.no_grad():
        policy.head.layers[-1].bias[1] += 50.0  # a policy that is sure of itself
    part = runner.sample()[0].modules["shared"]
    quiet, legal = distribution_of(policy, part, explore=True)
    assert float(normalized_entropy(quiet, legal)[legal.sum(-1) > 1].min()) >= 0.4 - 1e-5
    policy.exploration.fill_(0.3)
    mixed, _ = distribution_of(policy, part, explore=True)
    share = 0.3 / legal.sum(-1, keepdim=True)
    expected = 0.7 * torch.softmax(quiet, -1) + share * legal
    torch.testing.assert_close(mixed.exp(), expected, atol=1e-6, rtol=1e-5)
    assert not mixed.exp()[~legal].any()
    greedy, _ = distribution_of(policy, part, explore=False)
    torch.testing.assert_close(greedy, quiet)  # no exploration in greedy play
    part = runner.sample()[0].modules["shared"]
    mixed, legal = distribution_of(policy, part, explore=True)
    chosen = torch.from_numpy(part.actions).unsqueeze(-1)
    assert legal.gather(-1, chosen).all()
    count = legal.numel() // 5
    counted = np.bincount(part.actions.ravel(), minlength=5) / count
    wanted = mixed.exp().flatten(0, 2).mean(0).numpy()
    np.testing.assert_allclose(counted, wanted, atol=4 * np.sqrt(0.25 / count))


def test_a_sampled_evaluation_explores_as_training_does():
    """It draws from the same mixture, and a greedy one from none."""
    config = config_of("forest")
    runner = BatchedEnvRunner(config=config)
    policy_of(runner).exploration.fill_(1.0)
    with torch.no_grad():
        policy_of(runner).head.layers[-1].bias[0] += 50.0  # stays where it is unless it explores
    team = policy_from_modules(dict(runner.module.items()), config).team
    env = make_vector_env(config.env, config.env_config, 20)
    act, played = team.groups[0].actor.act, []

    def spy(inputs, *others):
        acted = act(inputs, *others)
        played.append((acted.actions != 0, 1 - 1 / inputs.action_mask.sum(-1)))
        return acted

    team.groups[0].actor.act = spy
    for explore in (False, True):
        played.clear()
        play_episodes(team, env, list(range(20)), explore)
        moved, expected = np.mean(played, axis=(0, 2, 3))
        assert moved == (pytest.approx(expected, abs=0.08) if explore else 0)


# -- transitions


def test_executed_actions_are_what_critics_are_given():
    """Noise leads beyond [-1, 1], where the environment clips."""
    setup = setup_of(config_of("moving", exploration=3.0))
    (part,) = setup.rollout.modules.values()
    assert np.abs(part.actions).max() > 1.5
    kept = setup.rows.actions[0].numpy().reshape(part.actions.shape)
    np.testing.assert_array_equal(kept, part.actions.clip(-1, 1))
    observed = part.observations[1:][part.continues & part.acted][:, 2]
    np.testing.assert_allclose(observed, 2 * kept[part.continues & part.acted][:, 0], atol=1e-6)


def test_whose_return_goes_on():
    """Agent a terminates in step 2, b comes then and terminates in step 5, in which c is cut."""
    setup = setup_of(config_of("lives", fragment=10, num_envs=1))
    rows, (module,) = setup.rows, setup.modules
    present = rows.present_next[0].reshape(10, 3)
    for t in range(10):
        now = t % 5 + 1
        assert present[t].tolist() == [now < 2, 2 <= now < 5, True]
    moved_apart(module.target_critics)
    (targets,) = setup.learner.targets([module], rows)
    alone = targets == rows.rewards[0]
    assert alone.reshape(10, 3).equal(present == 0)  # no bootstrap through a death, one through a cut


def test_transitions_are_tensors_of_the_same_numbers():
    setup = setup_of(config_of("tag"))
    again = transitions_of(setup.steps, setup.learner.joint, 0, "cpu")
    for g, module_id in enumerate(setup.rows.modules):
        columns = setup.steps.modules[module_id]
        np.testing.assert_array_equal(again.actions[g].argmax(-1), columns["actions"])
        assert (again.actions[g].sum(-1) == 1).all()
        np.testing.assert_array_equal(again.obs[g], columns["observations"])
        np.testing.assert_array_equal(again.learned[g], columns["acted"])
