"""Interventional consistency of ensembles: its value, its gradient, and that masked models have none to lose."""

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from qio_rllib.world_models.consistency import interventional_divergence
from qio_rllib.world_models.ensemble import Ensemble, EnsembleSettings
from qio_rllib.world_models.model import Sequences

SMALL = EnsembleSettings(members=2, hiddens=(16,))


def steps(rows=64, seed=0, learned=None):
    generator = torch.Generator().manual_seed(seed)
    obs, actions = torch.randn(1, rows, 3, generator=generator), torch.rand(1, rows, 1, generator=generator)
    after = obs + 0.3 * actions
    return Sequences(
        obs=obs,
        next_obs=after,
        actions=actions,
        rewards=-(obs[..., 0] ** 2),
        terminated=torch.zeros(1, rows),
        learned=torch.ones(1, rows) if learned is None else learned,
        fresh=torch.ones(1, rows, dtype=torch.bool),
    )


def causes():
    """Component 2 is a cause of nothing but itself; 0 and 1 of everything but 2."""
    found = torch.ones(5, 4, dtype=torch.bool)
    found[[0, 1, 3, 4], 2] = False
    found[2, :2] = False
    return found


def model_of(mask=None, seed=0):
    torch.manual_seed(seed)
    model = Ensemble(3, 1, SMALL, mask)
    model.take_in(steps())
    return model


def test_it_is_the_divergence_of_what_is_predicted_over_what_does_not_descend():
    model, batch = model_of(), steps(5)
    found = interventional_divergence(model, batch, causes(), torch.Generator().manual_seed(3))
    draws = torch.Generator().manual_seed(3)
    component = torch.randint(3, (5,), generator=draws)
    source = torch.randint(5, (5,), generator=draws)
    expected = 0.0
    for row, (i, other) in enumerate(zip(component.tolist(), source.tolist(), strict=True)):
        obs, action = batch.obs[0, row].clone(), batch.actions[0, row]
        before = model.predictions(obs.expand(2, 1, -1), action.expand(2, 1, -1))
        obs[i] = batch.obs[0, other, i]
        after = model.predictions(obs.expand(2, 1, -1), action.expand(2, 1, -1))
        for member in range(2):
            for target in range(5):
                if causes()[target, i]:
                    continue
                if target == 4:
                    first, second = (Bernoulli(logits=each[2][member, 0]) for each in (before, after))
                else:
                    first, second = (
                        Normal(each[0][member, 0, target], (0.5 * each[1][member, 0, target]).exp())
                        for each in (before, after)
                    )
                expected += kl_divergence(first, second) / 5
    torch.testing.assert_close(found, expected)
    assert found > 0


def test_a_model_masked_by_the_same_causes_has_none_and_a_graph_of_everything_asks_for_nothing():
    for seed in range(3):
        draws = torch.Generator().manual_seed(seed)
        assert interventional_divergence(model_of(causes(), seed), steps(), causes(), draws) == 0
        everything = torch.ones_like(causes())
        assert interventional_divergence(model_of(seed=seed), steps(), everything, draws) == 0


def test_steps_that_do_not_count_have_no_part_in_it():
    batch, other = steps(8, learned=torch.tensor([[1.0, 1, 1, 1, 0, 0, 0, 0]])), steps(4)
    other.obs, other.actions = batch.obs[:, :4], batch.actions[:, :4]
    model = model_of()
    draws = [torch.Generator().manual_seed(1) for _ in range(2)]
    first = interventional_divergence(model, batch, causes(), draws[0])
    torch.testing.assert_close(first, interventional_divergence(model, other, causes(), draws[1]))


@pytest.mark.parametrize(("weight", "least", "most"), [(0.0, 0.15, 0.5), (10.0, 0.0, 0.02)])
def test_a_dense_model_learns_to_leave_out_what_goes_along(weight, least, most):
    # Component 2 is a copy of component 0, whose change follows from it; without the term both are used.
    torch.manual_seed(0)
    model, noise = Ensemble(3, 1, SMALL), torch.Generator().manual_seed(0)
    batch = steps(500)
    batch.obs[..., 2] = batch.obs[..., 0] + 0.01 * torch.randn(1, 500, generator=noise)
    batch.next_obs = batch.obs.clone()
    batch.next_obs[..., 0] += 0.5 * batch.obs[..., 0] + 0.1 * torch.randn(1, 500, generator=noise)
    model.take_in(batch)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        loss = model.learn(batch, noise).loss
        (loss + weight * interventional_divergence(model, batch, causes(), noise)).backward()
        optimizer.step()
    with torch.no_grad():
        state, action = batch.obs[0, :100], batch.actions[0, :100]
        shifted = state.clone()
        shifted[:, 2] += 1.0
        moved = (model.step(shifted, action).state - model.step(state, action).state)[:, 0].abs().mean()
        right = (model.step(state, action).state[:, 0] - 1.5 * state[:, 0]).abs().mean()
    assert least <= moved < most
    assert right < 0.1  # what is to be learned is learned
