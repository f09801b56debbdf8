"""MASAC: squashed Gaussians, discrete expectations, the lesser critic, temperatures, whose observations count."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from resumed_runs import assert_goes_on_exactly
from toy_off_policy import (
    ATTENTION,
    MASACConfig,
    assert_absent_agents_do_not_matter,
    config_of,
    moved_apart,
    setup_of,
)

from qio_envs.api import ConfigError
from qio_rllib.acting.distributions import sample
from qio_rllib.sampling.runner import BatchedEnvRunner

OWN = {"type": "own", "hiddens": [16]}


def masac(task, **settings):
    return setup_of(config_of(task, algorithm=MASACConfig, **settings))


# -- the policy


def squashed(mean, log_std):
    normal = torch.distributions.Independent(torch.distributions.Normal(mean, log_std.exp()), 1)
    return torch.distributions.TransformedDistribution(
        normal, torch.distributions.TanhTransform(cache_size=1)
    )


def test_log_probabilities_are_those_of_a_gaussian_behind_tanh():
    setup = masac("swarm")
    outputs = torch.randn(400, 3, 4, generator=torch.Generator().manual_seed(1)).clamp(-1.5, 1.5) * 0.7
    setup.learner.noise.manual_seed(5)
    actions, logp = setup.learner.reparametrized(outputs)
    mean, log_std = outputs.chunk(2, -1)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(actions, torch.tanh(mean + log_std.exp() * noise))
    inner = actions.abs().amax(-1) < 0.999  # beyond, atanh has lost the digits
    assert inner.float().mean() > 0.9
    torch.testing.assert_close(
        logp[inner], squashed(mean[inner], log_std[inner]).log_prob(actions[inner]), atol=1e-3, rtol=1e-3
    )


def test_log_probabilities_stay_finite_at_the_ends():
    setup = masac("swarm")
    outputs = torch.tensor([[40.0, -40.0, 5.0, -30.0]]).expand(6, 1, 4).clone().requires_grad_()
    actions, logp = setup.learner.reparametrized(outputs)
    assert logp.isfinite().all()
    (logp.sum() + actions.sum()).backward()
    assert outputs.grad.isfinite().all()


def test_gradients_of_a_sample_are_those_of_the_reparametrised_distribution():
    setup = masac("swarm")
    outputs = torch.randn(50, 1, 4, generator=torch.Generator().manual_seed(2)).clamp(-1.5, 1.5).double()
    one, two = (outputs.clone().requires_grad_() for _ in range(2))
    setup.learner.noise.manual_seed(3)
    actions, logp = setup.learner.reparametrized(one)
    noise = torch.randn(50, 1, 2, generator=torch.Generator().manual_seed(3))
    mean, log_std = two.chunk(2, -1)
    raw = mean + log_std.exp() * noise
    expected = (
        torch.distributions.Normal(mean, log_std.exp()).log_prob(raw) - (1 - torch.tanh(raw) ** 2).log()
    ).sum(-1)
    (logp.sum() + (actions**2).sum()).backward()
    (expected.sum() + (torch.tanh(raw) ** 2).sum()).backward()
    torch.testing.assert_close(one.grad, two.grad, atol=1e-4, rtol=1e-4)


def test_runners_play_the_squashed_gaussian_and_its_middle():
    runner = BatchedEnvRunner(config=config_of("swarm", algorithm=MASACConfig, fragment=100))
    policy = runner.module["shared"].unwrapped().policy
    for explore in (True, False):
        part = runner.sample(explore=explore)[0].modules["shared"]
        with torch.no_grad():
            inputs, _ = policy(torch.from_numpy(part.observations[:-1]).flatten(0, 2))
        mean, log_std = inputs.reshape(100, 4, -1, 4).chunk(2, -1)
        assert np.abs(part.actions).max() <= 1
        if not explore:
            np.testing.assert_allclose(part.actions, torch.tanh(mean), atol=1e-5)
            continue
        noise = (np.arctanh(part.actions.clip(-0.99999, 0.99999)) - mean.numpy()) / log_std.exp().numpy()
        inner = np.abs(part.actions) < 0.99
        assert np.median(noise[inner]) == pytest.approx(0, abs=0.15)
        assert np.std(noise[inner]) == pytest.approx(0.9, abs=0.15)
    noise = np.random.default_rng(0).standard_normal((30, 2)).astype(np.float32)
    inputs = np.random.default_rng(1).normal(size=(30, 4)).astype(np.float32) * 0.5
    actions, logp = sample(inputs, False, True, noise)
    expected = squashed(*torch.from_numpy(inputs).chunk(2, -1)).log_prob(torch.from_numpy(actions))
    np.testing.assert_allclose(logp, expected, atol=2e-3)


# -- targets and losses


@pytest.mark.parametrize("critic", [{"hiddens": [16]}, ATTENTION, OWN], ids=["mlp", "attention", "own"])
@pytest.mark.parametrize("task", ["masked", "forest"])
def test_discrete_values_are_expectations_over_the_agents_own_actions(task, critic):
    """By brute force: each action in turn in the joint action of what the others drew, by the lesser critic."""
    setup = masac(task, critic=critic, initial_alpha=0.4)
    (module,), rows, learner = setup.modules, setup.rows, setup.learner
    moved_apart(module.target_critics, by=0.3)
    learner.noise.manual_seed(8)
    (targets,) = learner.targets([module], rows)
    with torch.no_grad():
        policy, legal = module.policy, rows.next_legal[0]
        logits = policy.outputs(policy.features(rows.next_obs[0], None)[0]).masked_fill(~legal, -torch.inf)
        probs = torch.softmax(logits, -1)
        learner.noise.manual_seed(8)
        drawn = torch.rand(probs.shape, generator=learner.noise).clamp(1e-20, 1 - 1e-7)
        chosen = (logits - torch.log(-torch.log(drawn))).argmax(-1)
        others = torch.nn.functional.one_hot(chosen, probs.shape[-1]).float()
        count, agents, actions = probs.shape
        expected = torch.zeros(count, agents)
        view = rows.next_view(None)
        for agent, action in itertools.product(range(agents), range(actions)):
            joint = others.clone()
            joint[:, agent] = torch.eye(actions)[action]
            values = torch.stack([n.critic(view, [joint]) for n in module.target_critics]).amin(0)[:, agent]
            p = probs[:, agent, action]
            expected[:, agent] += torch.where(p > 0, p * (values - 0.4 * p.clamp_min(1e-30).log()), 0.0)
        expected = rows.rewards[0] + rows.discounts[0] * rows.present_next[0] * expected
    here = rows.acted[0] > 0
    torch.testing.assert_close(targets[here], expected[here], atol=1e-4, rtol=1e-4)
    assert (legal.gather(-1, chosen.unsqueeze(-1))).all()


@pytest.mark.parametrize("alpha", [1.5, 30.0])
def test_targets_are_finite_with_masks_and_any_temperature(alpha):
    setup = masac("masked", initial_alpha=alpha)
    assert not setup.rows.next_legal[0].all()
    (targets,) = setup.learner.targets(setup.modules, setup.rows)
    assert targets.isfinite().all()
    stats = setup.learner.gradient_step(setup.rows)
    assert all(math.isfinite(float(value)) for value in stats.values())
    assert all(p.isfinite().all() for p in setup.modules[0].parameters())


@pytest.mark.parametrize("task", ["swarm", "forest"])
def test_the_lesser_target_critic_counts(task):
    setup = masac(task)
    (module,), rows, learner = setup.modules, setup.rows, setup.learner
    weights = copy.deepcopy(module.target_critics[0].state_dict())
    found = {}
    for shift in ((0.0, 0.0), (5.0, 0.0), (0.0, 5.0), (5.0, 5.0)):
        for network, by in zip(module.target_critics, shift, strict=True):
            network.load_state_dict(weights)
            with torch.no_grad():
                network.critic.head.bias += by
        learner.noise.manual_seed(8)
        found[shift] = learner.targets([module], rows)[0]
    gamma = rows.discounts[0] * rows.present_next[0]
    torch.testing.assert_close(found[5.0, 0.0], found[0.0, 0.0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[0.0, 5.0], found[0.0, 0.0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[5.0, 5.0], found[0.0, 0.0] + 5.0 * gamma, atol=1e-4, rtol=1e-4)


def test_continuous_targets_are_soft():
    """Haarnoja et al. (2018), equations 3 and 6: the value minus alpha times the log-probability."""
    setup = masac("swarm", initial_alpha=0.3, critic_state=False)
    (module,), rows, learner = setup.modules, setup.rows, setup.learner
    moved_apart(module.target_critics)
    learner.noise.manual_seed(8)
    (targets,) = learner.targets([module], rows)
    with torch.no_grad():
        learner.noise.manual_seed(8)
        outputs = module.policy.outputs(module.policy.features(rows.next_obs[0], None)[0])
        actions, logp = learner.reparametrized(outputs)
        view = rows.next_view(None)
        values = torch.minimum(*(network.critic(view, [actions]) for network in module.target_critics))
        expected = rows.rewards[0] + 0.99 * rows.present_next[0] * (values - 0.3 * logp)
    torch.testing.assert_close(targets, expected, atol=1e-5, rtol=1e-5)


def test_both_critics_learn_and_the_policy_climbs_the_lesser_one():
    setup = masac("forest", initial_alpha=0.2)
    (module,), rows, learner = setup.modules, setup.rows, setup.learner
    before = copy.deepcopy(module)
    for group in learner.get_optimizer("shared", "critic").param_groups:
        group["lr"] = 0.0
    stats = learner.gradient_step(rows)
    acted = rows.acted[0] > 0
    with torch.no_grad():
        legal = rows.legal[0]
        logits = before.policy.outputs(before.policy.features(rows.obs[0], None)[0]).masked_fill(
            ~legal, -torch.inf
        )
        probs = torch.softmax(logits, -1)
        entropy = -(probs * probs.clamp_min(1e-30).log()).sum(-1)
        view, values = rows.view(), []
        for action in range(5):
            own = torch.eye(5)[action].expand_as(rows.actions[0])
            both = [n.critic.of_own(view, rows.actions, own) for n in before.critics]
            values.append(torch.minimum(*both))
        gain = (probs * torch.stack(values, -1)).sum(-1) + 0.2 * entropy
    assert float(stats["shared", "actor_loss"]) == pytest.approx(-float(gain[acted].mean()), rel=1e-4)
    assert float(stats["shared", "entropy"]) == pytest.approx(float(entropy[acted].mean()), rel=1e-4)
    for network in module.critics:
        assert all(p.requires_grad for p in network.parameters())
    setup = masac("forest")
    (module,) = setup.modules
    before = copy.deepcopy(module)
    setup.learner.gradient_step(setup.rows)
    for old, new in zip(before.critics, module.critics, strict=True):
        assert (old.critic.from_obs.weight != new.critic.from_obs.weight).any()


# -- the temperature


@pytest.mark.parametrize(("task", "settings", "rises"), [
    ("swarm", {"target_entropy": 50.0}, True),
    ("swarm", {"target_entropy": -50.0}, False),
    ("discrete", {"target_entropy_share": 1.0}, True),
    ("discrete", {"target_entropy_share": 0.0}, False),
    ("forest", {"target_entropy_share": 1.0}, True),
    ("forest", {"target_entropy_share": 0.2}, False),
])  # fmt: skip
def test_the_temperature_moves_towards_the_target_entropy(task, settings, rises):
    setup = masac(task, initial_alpha=0.5, alpha_lr=0.01, **settings)
    (module,) = setup.modules
    if rises and task != "swarm":  # a policy below the largest entropy
        with torch.no_grad():
            module.policy.head.layers[-1].bias[0] += 3.0
    stats = setup.learner.gradient_step(setup.rows)
    alpha = float(module.log_alpha.detach().exp())
    assert (alpha > 0.5) == rises
    assert alpha == pytest.approx(0.5, rel=0.02)
    assert float(stats["shared", "alpha"]) == pytest.approx(0.5)


def test_the_target_is_a_share_of_the_entropy_of_uniform_play_over_legal_actions():
    setup = masac("forest", target_entropy_share=0.6)
    (module,), rows = setup.modules, setup.rows
    found = setup.learner.target_entropy(module.policy, rows, 0)
    torch.testing.assert_close(found, 0.6 * rows.legal[0].sum(-1).float().log())
    assert masac("swarm").learner.target_entropy(masac("swarm").modules[0].policy, rows, 0) == -2.0
    discrete = masac("discrete", target_entropy_share=0.6)
    count = discrete.modules[0].policy.spec.num_actions
    assert discrete.learner.target_entropy(discrete.modules[0].policy, discrete.rows, 0) == pytest.approx(
        0.6 * math.log(count)
    )


def test_a_rate_of_zero_keeps_the_temperature():
    setup = masac("swarm", initial_alpha=0.7, alpha_lr=0.0)
    setup.learner.gradient_step(setup.rows)
    assert float(setup.modules[0].log_alpha.detach().exp()) == pytest.approx(0.7)


# -- whose observations count


@pytest.mark.parametrize(("critic", "sees"), [(OWN, False), ({"hiddens": [16]}, True), (ATTENTION, True)],
                         ids=["own", "mlp", "attention"])  # fmt: skip
def test_own_critics_do_not_see_the_others_and_joint_ones_do(critic, sees):
    setup = masac("swarm", critic=critic)
    (module,), rows = setup.modules, setup.rows
    obs, actions = rows.obs[0].clone().requires_grad_(), rows.actions[0].clone().requires_grad_()
    rows.obs[0] = obs
    for network in module.critics:
        for value in (
            network.critic(rows.view(), [actions]),
            network.critic.of_own(rows.view(), [actions], actions),
        ):
            seen, done = torch.autograd.grad(value[:, 0].sum(), (obs, actions), retain_graph=True)
            assert seen[:, 0].any()
            assert done[:, 0].any()
            assert bool(seen[:, 1:].any()) == sees
            assert bool(done[:, 1:].any()) == sees
    state = rows.global_state
    assert (state is not None) == sees


@pytest.mark.parametrize(
    "task", ["swarm", "discrete", "forest", "tag", "speaker", "separate", "alone", "masked"]
)
@pytest.mark.parametrize("critic", [{"hiddens": [16]}, ATTENTION, OWN], ids=["mlp", "attention", "own"])
def test_every_kind_of_task_is_learned_from(task, critic):
    setup = masac(task, critic=critic)
    before = [copy.deepcopy(module.state_dict()) for module in setup.modules]
    stats = setup.learner.gradient_step(setup.rows)
    assert all(math.isfinite(float(value)) for value in stats.values())
    for old, module in zip(before, setup.modules, strict=True):
        for name in ("policy.encoder.layers.0.weight", "policy.head.layers.0.weight", "log_alpha"):
            assert (old[name] != module.state_dict()[name]).any(), name


def test_what_absent_agents_hold_does_not_matter():
    assert_absent_agents_do_not_matter(lambda: masac("lives"))


# -- a run, and bad input


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_an_interrupted_run_goes_on_exactly(tmp_path):
    config = config_of("forest", algorithm=MASACConfig, alpha_lr=0.01)
    expected = assert_goes_on_exactly(
        config, tmp_path, ("critic_loss", "actor_loss", "alpha_loss", "alpha", "entropy")
    )
    assert expected["alpha"] != 1.0


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"initial_alpha": 0.0}, "initial_alpha: expected a number above 0, got 0.0"),
        ({"target_entropy_share": 1.5}, "target_entropy_share: expected a number from 0 to 1, got 1.5"),
        ({"alpha_lr": -1.0}, "alpha_lr: expected a number of at least 0"),
        ({"tau": 0.0}, "tau: expected a number above 0, up to 1"),
        ({"critic": {"type": "owm"}}, "critic.type: .*did you mean 'own'"),
        ({"entropy_annealing": {"law": "quantum"}}, "entropy_annealing: MASAC's temperature is learned"),
    ],
)
def test_bad_settings_are_refused(training, message):
    with pytest.raises(ConfigError, match=message):
        config_of("swarm", algorithm=MASACConfig, **training).validate()
