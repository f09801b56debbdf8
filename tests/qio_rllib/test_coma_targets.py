"""The targets and advantages of COMA, and the gradient that they give."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from toy_matrix import PAYOFFS, coma_config, played
from toy_off_policy import moved_apart

from qio_rllib.learners.joint_rollouts import JointRollout, joint_rollout_of, lambda_returns
from qio_rllib.learners.transitions import outputs_of
from qio_rllib.sampling.runner import BatchedEnvRunner

MEMORY = {"use_gru": True, "gru_cell_size": 6, "max_seq_len": 5}


def probabilities(policy, rows, legal, share=0.2):
    """The policy by the textbook: a softmax over legal actions, mixed with uniform play."""
    with torch.no_grad():
        logits = policy.outputs(policy.features(rows, None)[0])
    legal = torch.ones_like(logits, dtype=torch.bool) if legal is None else legal
    probs = torch.softmax(logits.masked_fill(~legal, -torch.inf), -1)
    return (1 - share) * probs + share * legal / legal.sum(-1, keepdim=True)


# -- targets


def test_lambda_returns_are_mixtures_of_n_step_returns():
    """The forward view (Sutton and Barto, 2018, equation 12.3), written out for each step."""
    steps, lambda_ = 9, 0.7
    rng = np.random.default_rng(0)
    rewards, ahead = rng.normal(size=(2, steps, 4, 3))
    discounts = 0.9 * (rng.random((steps, 4, 3)) > 0.2)
    continuing = (rng.random((steps, 4, 3)) > 0.3) * (discounts > 0)
    continuing = continuing.astype(float)
    continuing[-1] = 0.0
    expected = np.zeros_like(rewards)
    for t, e, m in np.ndindex(rewards.shape):
        total, weight, discount, share = 0.0, 0.0, 1.0, 1.0
        for n in range(t, steps):
            total += discount * rewards[n, e, m]
            discount *= discounts[n, e, m]
            n_step, last = total + discount * ahead[n, e, m], not continuing[n, e, m]
            weight = share if last else share * (1 - lambda_)
            expected[t, e, m] += weight * n_step
            share *= lambda_
            if last:
                break
    found = lambda_returns(
        *(torch.from_numpy(array) for array in (rewards, discounts, ahead, continuing)), lambda_
    )
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("task", ["lives", "masked", "forest"])
def test_targets_are_those_of_each_agents_own_life_by_hand(task):
    """A critic that says the same everywhere, so that only what was done and the policy's means count."""
    learner, rollout, batch = played(coma_config(task, lambda_=0.6, gamma=0.9, steps=23))
    (module,), (part,) = learner.modules(), rollout.modules.values()
    head = module.critic(target=True).head
    worth = torch.linspace(-1.0, 2.0, head.out_features)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(worth)
    (found,) = learner.targets(batch)
    (columns,) = (part.next_observations(),)
    legal = None
    if part.action_mask is not None:
        legal = part.action_mask[1:].copy()
        legal[tuple(part.final_index.T)] = True
        legal = torch.from_numpy(legal)
    rows = torch.from_numpy(columns.reshape(*columns.shape[:3], -1))
    means = (probabilities(module.policy, rows, legal) * worth).sum(-1).numpy()
    steps, envs, agents = part.rewards.shape
    expected = np.zeros(part.rewards.shape)
    for e, m in np.ndindex(envs, agents):
        for t in reversed(range(steps)):
            if part.terminated[t, e, m]:
                ahead = 0.0
            elif part.truncated[t, e, m] or t + 1 == steps:
                ahead = means[t, e, m]
            else:
                ahead = 0.4 * float(worth[part.actions[t + 1, e, m]]) + 0.6 * expected[t + 1, e, m]
            expected[t, e, m] = part.rewards[t, e, m] + 0.9 * ahead
    assert part.truncated[part.acted].any()
    np.testing.assert_allclose(
        found.reshape(part.rewards.shape).numpy()[part.acted], expected[part.acted], rtol=1e-4, atol=1e-5
    )


def test_what_follows_the_end_is_valued_with_actions_that_the_others_draw():
    """In the matrix game's place: what follows is worth the payoff of my action and the other's, who does the same."""
    learner, _, batch = played(coma_config("discrete", exploration=0.0, steps=4, num_envs=40))
    (module,) = learner.modules()
    target = module.critic(target=True)
    moved_apart(target, by=0.5)
    with torch.no_grad():
        module.policy.head.layers[-1].bias[2] += 30.0  # everybody does this
    rows = torch.arange(len(batch.whole.rewards[0]))
    (found,) = learner._values_beyond(learner.modules(), batch, rows)
    done = torch.zeros_like(batch.whole.actions[0])
    done[..., 2] = 1.0
    with torch.no_grad():
        expected = target(batch.whole.next_view(None), [done])[..., 2]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_with_memory_the_policy_beyond_the_end_has_passed_the_steps_before():
    learner, _, batch = played(coma_config("pole", model=MEMORY))
    (module,), rows = learner.modules(), torch.tensor([4, 17, 35])
    moved_apart(module.policy, module.target_critics, by=0.5)
    (found,) = learner._values_beyond([module], batch, rows)
    outputs = outputs_of(module.policy, batch.whole, 0, 0, batch.whole.next_obs)[1]
    with torch.no_grad():  # one agent: its own action does not matter to its critic
        values = module.critic(target=True)(batch.whole.next_view(None), batch.whole.actions)
        expected = (learner.policy(module, outputs, None).probs * values).sum(-1)
    torch.testing.assert_close(found, expected[rows])


def test_targets_are_in_the_units_of_rewards_whatever_the_scale_of_the_values():
    learner, _, batch = played(coma_config("lives", normalize_values=True))
    (module,), (popart,) = learner.modules(), learner._popart.values()
    popart.mean, popart.deviation = 3.0, 2.0
    noise = learner.noise.get_state()
    (scaled,) = learner.targets(batch)
    head = module.critic(target=True).head
    with torch.no_grad():
        head.weight.mul_(2.0)
        head.bias.mul_(2.0).add_(3.0)
    popart.mean, popart.deviation = 0.0, 1.0
    learner.noise.set_state(noise)
    torch.testing.assert_close(learner.targets(batch)[0], scaled)


def test_rollouts_of_several_runners_lie_side_by_side():
    config = coma_config("lives")
    learner, one, batch = played(config)
    other = BatchedEnvRunner(config=config).sample(num_timesteps=36)[0]
    both = joint_rollout_of([one, other], learner.joint, config.gamma, "cpu")
    alone = joint_rollout_of([other], learner.joint, config.gamma, "cpu")
    for name in ("obs", "rewards", "actions", "acted", "present_next"):
        first, second, joined = (getattr(part.whole, name)[0] for part in (batch, alone, both))
        halves = joined.unflatten(0, (12, 6)).split(3, dim=1)
        torch.testing.assert_close(halves[0].flatten(0, 1), first)
        torch.testing.assert_close(halves[1].flatten(0, 1), second)
    short = BatchedEnvRunner(config=config).sample(num_timesteps=9)[0]
    with pytest.raises(ValueError, match=r"rollouts: expected one number of steps, got \[3, 12\]"):
        joint_rollout_of([one, short], learner.joint, config.gamma, "cpu")


# -- advantages and losses


@pytest.mark.parametrize("task", ["masked", "forest", "tag"])
def test_advantages_sum_to_nothing_under_the_policy(task):
    learner, _, batch = played(coma_config(task, amplification={}))
    for g, module in enumerate(learner.modules()):
        moved_apart(module.critic(), by=0.5)
        outputs = outputs_of(module.policy, batch.whole, g, 0)[0]
        probs = learner.policy(module, outputs, batch.whole.legal[g]).probs.detach()
        count, agents, actions = probs.shape
        total, largest = torch.zeros(count, agents), 0.0
        for m, action in itertools.product(range(agents), range(actions)):
            whole = dataclasses.replace(batch.whole, actions=[part.clone() for part in batch.whole.actions])
            whole.actions[g][:, m] = torch.eye(actions)[action]
            found = learner.advantages(module, whole, g, probs)[:, m]
            total[:, m] += probs[:, m, action] * found
            largest = max(largest, float(found.abs().max()))
        acted = batch.whole.acted[g] > 0
        assert largest > 0.05
        assert total[acted].abs().max() < 1e-5
        if batch.whole.legal[g] is not None:
            assert not probs[acted][~batch.whole.legal[g][acted]].any()


@pytest.mark.parametrize("task", ["masked", "forest"])
def test_losses_are_those_of_the_textbook(task):
    learner, rollout, batch = played(coma_config(task, entropy_coeff=0.03))
    (module,), (part,) = learner.modules(), rollout.modules.values()
    moved_apart(module.target_critics, by=0.5)  # which have no part in it
    obs = torch.from_numpy(part.observations[:-1].reshape(*part.rewards.shape, -1)).flatten(0, 1)
    legal = None
    if part.action_mask is not None:
        legal = torch.from_numpy(part.action_mask[:-1]).flatten(0, 1)
    acted = torch.from_numpy(part.acted).flatten(0, 1)
    chosen = torch.from_numpy(part.actions).flatten(0, 1)
    targets = torch.randn(acted.shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        values = module.critic()(batch.whole.view(), batch.whole.actions)
    taken = values.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
    error = float(((taken - targets)[acted] ** 2).mean())
    found = learner.critic_objective(batch.whole, [targets])
    assert found.losses["shared"].item() == pytest.approx(error, rel=1e-5)
    probs = probabilities(module.policy, obs, legal)
    mine = probs.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
    advantages = taken - (probs * values).sum(-1)
    entropy = -(probs * probs.clamp_min(1e-30).log()).sum(-1)
    loss = -(mine.log() * advantages)[acted].mean() - 0.03 * entropy[acted].mean()
    found = learner.actor_objective(batch)
    assert found.losses["shared"].item() == pytest.approx(float(loss), rel=1e-4)
    assert float(found.stats["shared", "entropy"]) == pytest.approx(float(entropy[acted].mean()), rel=1e-5)
    size = float((advantages[acted] ** 2).mean().sqrt())
    assert float(found.stats["shared", "advantage_size"]) == pytest.approx(size, rel=1e-5)
    learner.config = learner.config.copy(copy_frozen=False).training(standardize_advantages=True)
    loss = -(mine.log() * advantages / size)[acted].mean() - 0.03 * entropy[acted].mean()
    assert learner.actor_objective(batch).losses["shared"].item() == pytest.approx(float(loss), rel=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_with_an_exact_critic_the_expected_gradient_is_that_of_the_expected_payoff(share, monkeypatch):
    """All nine joint actions of a matrix game, each weighed by its probability."""
    learner, _, batch = played(coma_config("matrix", exploration=share, steps=1, num_envs=9))
    modules = learner.modules()
    for module in modules:
        moved_apart(module.policy, by=0.5)
    pairs = torch.tensor([*itertools.product(range(3), range(3))])
    whole = dataclasses.replace(
        batch.whole, actions=[torch.eye(3)[pairs[:, g]].unsqueeze(1) for g in range(2)]
    )
    payoffs = torch.from_numpy(PAYOFFS)

    def exact(critic, rows):
        other = rows.actions[1 - critic.own].argmax(-1)
        return payoffs.t()[other] if critic.own == 0 else payoffs[other]

    monkeypatch.setattr(learner, "values", exact)
    parameters = [parameter for module in modules for parameter in module.policy.parameters()]

    def policies(rows):
        found = [outputs_of(module.policy, rows, g, 0)[0] for g, module in enumerate(modules)]
        return [learner.policy(module, part, None).probs for module, part in zip(modules, found, strict=True)]

    one, other = (probs[0, 0] for probs in policies(whole))
    expected = torch.autograd.grad((one.unsqueeze(1) * other * payoffs).sum(), parameters)
    totals = [torch.zeros_like(parameter) for parameter in parameters]
    for row, (a, b) in enumerate(pairs.tolist()):
        alone = whole.rows(slice(row, row + 1))
        objective = learner.actor_objective(JointRollout(alone, [alone]))
        gradients = torch.autograd.grad(-sum(objective.losses.values()), parameters)
        for total, gradient in zip(totals, gradients, strict=True):
            total += float(one[a] * other[b]) * gradient
    for total, gradient in zip(totals, expected, strict=True):
        torch.testing.assert_close(total, gradient, rtol=1e-5, atol=1e-5)
    assert max(float(gradient.abs().max()) for gradient in expected) > 0.1
