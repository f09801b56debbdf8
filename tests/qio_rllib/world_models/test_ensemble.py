"""Ensembles: members, masks, scales and learning."""

import dataclasses

import numpy as np
import pytest
import torch

from qio_rllib.world_models.batched import BatchedMLP
from qio_rllib.world_models.ensemble import Ensemble, EnsembleSettings
from qio_rllib.world_models.model import Sequences

SMALL = EnsembleSettings(members=3, hiddens=(16,))


def linear_steps(rows, seed=0, ends=False):
    """One step of ``s' = s + 0.5 a + 0.1 noise, r = -s^2`` for each of some rows; the episode ends beyond 1."""
    generator = torch.Generator().manual_seed(seed)
    obs = torch.randn(rows, 2, generator=generator)
    actions = torch.rand(rows, 1, generator=generator) * 2 - 1
    noise = torch.randn(rows, 2, generator=generator)
    after = obs + torch.cat([0.5 * actions, torch.zeros(rows, 1)], 1) + torch.tensor([0.1, 0.02]) * noise
    over = (after[:, 0].abs() > 1.0).float() if ends else torch.zeros(rows)
    return Sequences(
        obs=obs[None],
        next_obs=after[None],
        actions=actions[None],
        rewards=-(obs[None, :, 0] ** 2),
        terminated=over[None],
        learned=torch.ones(1, rows),
        fresh=torch.ones(1, rows, dtype=torch.bool),
    )


def trained(settings=SMALL, mask=None, steps=400, ends=False, seed=0):
    torch.manual_seed(seed)
    model = Ensemble(2, 1, settings, mask)
    batch, noise = linear_steps(1000, ends=ends), torch.Generator().manual_seed(seed)
    model.take_in(batch)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        model.learn(batch, noise).loss.backward()
        optimizer.step()
    return model


def test_batched_networks_are_so_many_networks():
    torch.manual_seed(0)
    batched = BatchedMLP(3, (4, 5, 2), "tanh")
    rows = torch.randn(3, 7, 4)
    first, second = batched.layers[0], batched.layers[2]
    for k in range(3):
        hidden = torch.tanh(rows[k] @ first.weight[k] + first.bias[k])
        torch.testing.assert_close(batched(rows)[k], hidden @ second.weight[k] + second.bias[k])


def test_it_learns_dynamics_noise_rewards_and_ends():
    model = trained(ends=True)
    check = linear_steps(500, seed=1, ends=True)
    obs, actions = check.obs[0], check.actions[0]
    found = model.step(obs, actions)
    truth = obs + torch.cat([0.5 * actions, torch.zeros(500, 1)], 1)
    assert (found.state - truth).abs().mean() < 0.03
    assert (found.rewards - check.rewards[0]).abs().mean() < 0.1
    certain = (truth[:, 0].abs() - 1.0).abs() > 0.4  # noise decides nothing
    ended = truth[:, 0].abs() > 1.0
    assert ((found.continuation < 0.5) == ended)[certain].float().mean() > 0.97
    _, log_variance, _ = model.predictions(obs.expand(3, -1, -1), actions.expand(3, -1, -1))
    deviation = (0.5 * log_variance).exp().mean((0, 1))[:2] * model.target_scale.deviation[:2]
    np.testing.assert_allclose(deviation.detach().numpy(), [0.1, 0.02], rtol=0.35)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_the_likelihood_is_weighted_by_a_power_of_the_variance(beta):
    torch.manual_seed(0)
    model = Ensemble(2, 1, EnsembleSettings(members=1, hiddens=(16,), beta=beta))
    batch = linear_steps(50)
    model.take_in(batch)
    learned = model.learn(batch, torch.Generator().manual_seed(3))
    drawn = torch.randint(50, (50,), generator=torch.Generator().manual_seed(3))  # the member's resample
    obs, actions = batch.obs[:, drawn], batch.actions[:, drawn]
    mean, log_variance, logits = model.predictions(obs, actions)
    change = torch.cat([batch.next_obs - batch.obs, batch.rewards[..., None]], -1)[:, drawn]
    errors = mean - model.target_scale(change)
    variance = log_variance.exp()
    nll = (variance.detach() ** beta * (errors**2 / variance + log_variance)).sum(-1).mean()
    ends = torch.nn.functional.softplus(-logits).mean()  # none of these episodes ends
    loss = nll + ends + 0.01 * (model.max_log_variance - model.min_log_variance).sum()
    torch.testing.assert_close(learned.loss, loss)
    weights = list(model.networks.parameters())
    for found, expected in zip(
        torch.autograd.grad(learned.loss, weights), torch.autograd.grad(loss, weights), strict=True
    ):
        torch.testing.assert_close(found, expected)


def test_with_beta_ends_are_learned_where_all_else_is_certain():
    """Constant rewards, and motion without noise: their likelihood grows without limit, that of the ends does not."""
    found = {}
    for beta in (0.0, 1.0):
        torch.manual_seed(0)
        model = Ensemble(2, 1, EnsembleSettings(members=2, hiddens=(16,), beta=beta))
        batch = linear_steps(500, ends=True)
        change = torch.cat([0.5 * batch.actions, torch.zeros(1, 500, 1)], -1)
        batch = dataclasses.replace(batch, next_obs=batch.obs + change, rewards=torch.ones(1, 500))
        model.take_in(batch)
        optimizer, noise = torch.optim.Adam(model.parameters(), 3e-3), torch.Generator().manual_seed(0)
        for _ in range(400):
            optimizer.zero_grad()
            learned = model.learn(batch, noise)
            learned.loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 100.0)
            optimizer.step()
        found[beta] = float(learned.stats["continuation_loss"])
    assert found[1.0] < 0.5 * found[0.0]


def test_draws_come_from_single_members_with_their_deviation():
    model = trained()
    obs, actions = torch.zeros(4000, 2), torch.zeros(4000, 1)
    noise = torch.Generator().manual_seed(3)
    drawn = model.step(obs, actions, noise).state
    mean = model.step(obs[:1], actions[:1]).state
    np.testing.assert_allclose(drawn.mean(0).detach(), mean[0].detach(), atol=0.01)
    np.testing.assert_allclose(drawn.std(0).detach(), [0.1, 0.02], rtol=0.4)


def test_returns_are_the_mean_of_what_each_member_expects_by_itself():
    model = trained(ends=True)
    state, actions = torch.randn(2, 2), torch.rand(2, 5, 4, 1) * 2 - 1
    value = lambda features: features.sum(-1)  # noqa: E731
    found = model.returns(state, actions, 0.9, value)
    expected = torch.zeros(3, 2, 5)
    for k in range(3):
        for b in range(2):
            for n in range(5):
                present, weight = state[b].expand(3, 1, -1), 1.0
                for h in range(4):
                    mean, _, logits = model.predictions(present, actions[b, n, h].expand(3, 1, -1))
                    change = model.target_scale.inverse(mean)[k, 0]
                    expected[k, b, n] += weight * change[-1]
                    weight = weight * 0.9 * torch.sigmoid(logits[k, 0])
                    present = present + change[:-1]
                expected[k, b, n] += weight * value(model.features(present[k, 0]))
    torch.testing.assert_close(found, expected.mean(0), rtol=1e-4, atol=1e-4)


def test_a_masked_input_has_no_influence_and_no_gradient():
    mask = torch.tensor([[1, 0, 1], [0, 1, 0], [1, 0, 0], [1, 1, 0]])  # two components, reward, continuation
    model = trained(mask=mask, steps=3)
    obs = torch.randn(3, 6, 2, requires_grad=True)
    actions = torch.randn(3, 6, 1, requires_grad=True)
    mean, log_variance, logits = model.predictions(obs, actions)
    targets = [mean[..., 0] + log_variance[..., 0], mean[..., 1] + log_variance[..., 1]]
    targets += [mean[..., 2] + log_variance[..., 2], logits]
    for place, target in enumerate(targets):
        of_obs, of_actions = torch.autograd.grad(target.sum(), (obs, actions), retain_graph=True)
        influence = torch.cat([of_obs, of_actions], -1).abs().amax((0, 1))
        assert ((influence > 0) == mask[place].bool()).all()
        assert (influence[~mask[place].bool()] == 0).all()


def test_a_masked_model_learns_and_a_mask_of_another_shape_is_refused():
    mask = torch.tensor([[1, 0, 1], [0, 1, 0], [1, 0, 0], [1, 1, 1]])
    model = trained(mask=mask)
    check = linear_steps(500, seed=1)
    found = model.step(check.obs[0], check.actions[0])
    assert (found.state - check.next_obs[0]).abs().mean() < 0.1
    with pytest.raises(ValueError, match=r"input_mask: expected the shape \(4, 3\), got \(3, 3\)"):
        Ensemble(2, 1, SMALL, mask[:3])


def test_members_learn_from_resamples_of_their_own_and_rows_that_do_not_count_change_nothing():
    batch = linear_steps(64)
    torch.manual_seed(0)
    model = Ensemble(2, 1, EnsembleSettings(members=2, hiddens=(8,)))
    for parameter in model.networks.parameters():
        parameter.data[1] = parameter.data[0]  # equal members
    model.take_in(batch)
    model.learn(batch, torch.Generator().manual_seed(0)).loss.backward()
    gradients = model.networks.layers[0].weight.grad
    assert not torch.allclose(gradients[0], gradients[1])

    half = linear_steps(64)
    half.learned[:, 32:] = 0
    model.zero_grad()
    before = model.learn(half, torch.Generator().manual_seed(1))
    half.next_obs[:, 32:], half.rewards[:, 32:], half.terminated[:, 32:] = 1e3, -1e3, 1.0
    after = model.learn(half, torch.Generator().manual_seed(1))
    torch.testing.assert_close(before.loss, after.loss)
    fresh = Ensemble(2, 1, SMALL)
    fresh.take_in(half)
    torch.testing.assert_close(fresh.input_scale.mean[:2], half.obs[0, :32].mean(0))
    assert fresh.target_scale.mean.abs().max() < 10


def test_features_are_scaled_observations():
    model = Ensemble(2, 1, SMALL)
    batch = linear_steps(500)
    batch.obs = batch.obs * 40 + 100
    model.take_in(batch)
    features = model.features(batch.obs[0])
    torch.testing.assert_close(features.mean(0), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(features.std(0, unbiased=False), torch.ones(2), atol=1e-4, rtol=0)
    assert torch.equal(model.observe(batch.obs[0] * 0, batch.actions[0], batch.obs[0]), batch.obs[0])


def test_returns_of_a_masked_model_leave_out_what_no_reward_depends_on():
    # Reward and end see component 0, which sees 1, which sees 3; nothing of these sees 2.
    mask = torch.zeros(6, 6, dtype=torch.bool)
    mask[[0, 1, 4, 5, 4], [1, 3, 0, 0, 4]] = True
    mask[2] = True
    torch.manual_seed(0)
    model = Ensemble(4, 2, SMALL, mask)
    model.target_scale.update(torch.randn(50, 5) + 1.0)
    assert model.relevant_targets().tolist() == [0, 1, 3, 4, 5]
    state, actions = torch.randn(3, 4), torch.rand(3, 7, 5, 2)
    with torch.no_grad():
        whole = model.returns(state, actions, 0.9, value=lambda features: features.new_zeros(()))
        torch.testing.assert_close(model.returns(state, actions, 0.9), whole)
        other = state.clone()
        other[:, 2] += 5.0
        assert torch.equal(model.returns(other, actions, 0.9), model.returns(state, actions, 0.9))
    assert Ensemble(4, 2, SMALL).relevant_targets().tolist() == [0, 1, 2, 3, 4, 5]
