"""The recurrent model: sequences against single steps, episode starts, learning what only memory knows."""

import numpy as np
import pytest
import torch

from qio_rllib.world_models.model import Sequences
from qio_rllib.world_models.rssm import RSSM, RSSMSettings

SMALL = {
    "deterministic": 16,
    "stochastic": 4,
    "classes": 4,
    "embedding": 16,
    "hiddens": (16,),
    "latent_hiddens": (16,),
    "reward_hiddens": (16,),
    "continuation_hiddens": (16,),
}


def model_of(latent="gaussian", **changes):
    torch.manual_seed(0)
    return RSSM(2, 1, RSSMSettings(**{**SMALL, "latent": latent, **changes}))


def check_single_steps_carry_the_states(model, batch):
    """Compare the states of sequences with those of single steps, which begin with zeros where an episode does."""
    model.take_in(batch)
    found = model.learn(batch, torch.Generator()).states
    state, action = torch.zeros(3, model.state_size), torch.zeros(3, 1)
    for step in range(6):
        begins = batch.fresh[step].unsqueeze(-1)
        state, action = state.masked_fill(begins, 0.0), action.masked_fill(begins, 0.0)
        state = model.observe(state, action, batch.obs[step])
        action = batch.actions[step]
        torch.testing.assert_close(found[step], state.detach())


def sequences(length=6, rows=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    obs = torch.randn(length + 1, rows, 2, generator=generator)
    fresh = torch.zeros(length, rows, dtype=torch.bool)
    fresh[3, 1] = True
    after = obs[1:].clone()
    after[2, 1] = 9.0  # what the episode that ends there shows last
    terminated = torch.zeros(length, rows)
    terminated[2, 1] = 1.0
    return Sequences(
        obs=obs[:-1],
        next_obs=after,
        actions=torch.rand(length, rows, 1, generator=generator) * 2 - 1,
        rewards=torch.randn(length, rows, generator=generator),
        terminated=terminated,
        learned=torch.ones(length, rows),
        fresh=fresh,
    )


class Sure(RSSM):
    """Draws the most probable latents, so that sequences and single steps can be compared."""

    def __init__(self, *args):
        super().__init__(*args)
        self.latent.sample = lambda statistics, generator: self.latent.mode(statistics)


@pytest.mark.parametrize("latent", ["gaussian", "categorical"])
def test_states_of_a_sequence_are_those_that_single_steps_carry(latent):
    torch.manual_seed(0)
    model = Sure(2, 1, RSSMSettings(**SMALL, latent=latent))
    batch = sequences()
    check_single_steps_carry_the_states(model, batch)


def test_what_came_before_an_episode_does_not_touch_it():
    model, batch = model_of(), sequences()
    model.take_in(batch)
    found = model.learn(batch, torch.Generator().manual_seed(1)).states
    batch.obs[:3, 1], batch.actions[:3, 1], batch.next_obs[:3, 1] = 5.0, -1.0, -7.0
    again = model.learn(batch, torch.Generator().manual_seed(1)).states
    assert torch.equal(found[3:, 1], again[3:, 1])
    assert not torch.equal(found[1:3, 1], again[1:3, 1])
    assert torch.equal(found[:, [0, 2]], again[:, [0, 2]])


def test_the_last_observation_of_an_episode_and_its_end_are_learned():
    model, batch = model_of(), sequences()
    model.take_in(batch)

    def loss():
        return model.learn(batch, torch.Generator().manual_seed(1)).loss

    before = loss()
    batch.next_obs[2, 1] = -9.0
    changed = loss()
    batch.terminated[2, 1] = 0.0
    assert len({float(before.detach()), float(changed.detach()), float(loss().detach())}) == 3


def test_steps_that_do_not_count_change_no_loss():
    model, batch = model_of(), sequences()
    model.take_in(batch)
    batch.learned[4:, 0] = 0.0
    before = model.learn(batch, torch.Generator().manual_seed(1)).loss
    batch.rewards[4:, 0], batch.next_obs[4:, 0], batch.terminated[4:, 0] = 50.0, 50.0, 1.0
    torch.testing.assert_close(before, model.learn(batch, torch.Generator().manual_seed(1)).loss)


def test_rewards_have_as_many_classes_as_asked_for():
    model = model_of(reward_bins=101)
    assert model.reward(torch.zeros(3, model.state_size)).shape == (3, 101)
    assert float(model.reward.bins[51] - model.reward.bins[50]) == pytest.approx(0.2, abs=1e-5)


def test_predictions_are_those_of_the_prior():
    model = model_of()
    state, action = torch.randn(5, model.state_size), torch.rand(5, 1)
    found = model.step(state, action)
    memory = found.state[:, :16]
    expected = model.latent.mode(model.latent.statistics(model.prior(memory)))
    torch.testing.assert_close(found.state[:, 16:], expected)
    torch.testing.assert_close(found.rewards, model.reward.mean(found.state))
    drawn = [model.step(state, action, torch.Generator().manual_seed(seed)).state for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(drawn[0][:, :16], memory)  # the memory is not drawn


def test_the_published_sizes_give_the_published_number_of_parameters():
    """601,830 in all; those of encoder, decoder and heads, which have no normalisation there, are 546,310."""
    model = RSSM(
        4,
        2,
        RSSMSettings(deterministic=100, stochastic=20, embedding=256, hiddens=(256, 512), latent_hiddens=()),
    )
    parts = (model.cell, model.prior, model.posterior)
    assert sum(parameter.numel() for part in parts for parameter in part.parameters()) == 601_830 - 546_310
    sizes = [layer.out_features for layer in model.encoder if isinstance(layer, torch.nn.Linear)]
    assert sizes == [256, 512, 256]
    sizes = [layer.out_features for layer in model.decoder if isinstance(layer, torch.nn.Linear)]
    assert sizes == [512, 256, 4]


def test_hidden_layers_are_those_of_their_part():
    model = model_of(latent_hiddens=(5,), reward_hiddens=(6, 7), continuation_hiddens=(8,))

    def hidden(layers):
        return [layer.out_features for layer in layers if isinstance(layer, torch.nn.Linear)][:-1]

    assert hidden(model.prior) == hidden(model.posterior) == [5]
    assert hidden(model.reward.layers) == [6, 7]
    assert hidden(model.continuation.layers) == [8]


def test_the_likelihood_weighs_each_component_by_its_own_errors():
    """The loss is that of Gaussians whose deviations, of the decoder's errors in the batch, fit best."""
    squared, likely, batch = model_of(), model_of(reconstruction="likelihood"), sequences()
    for model in (squared, likely):
        model.take_in(batch)
    rest, whole = (model.learn(batch, torch.Generator().manual_seed(1)) for model in (squared, likely))
    rebuilt = []
    hook = likely.decoder.register_forward_hook(lambda layer, inputs, output: rebuilt.append(output))
    likely.learn(batch, torch.Generator().manual_seed(1))
    hook.remove()
    begins = batch.fresh.clone()
    begins[0] = True
    errors = (rebuilt[0] - likely.scale(torch.cat([batch.next_obs, batch.obs]))) ** 2
    errors = errors[torch.cat([torch.ones(6, 3, dtype=torch.bool), begins])]
    variances = errors.mean(0)
    deviations = variances.sqrt()
    gaussian = -torch.distributions.Normal(0.0, deviations).log_prob(errors.sqrt()).mean(0).sum()
    constants = 2 * (0.5 * np.log(2 * np.pi) + 0.5)
    expected = rest.loss - 0.5 * variances.sum() + gaussian - constants
    torch.testing.assert_close(whole.loss, expected, rtol=0, atol=1e-4)


def test_drawn_observations_scatter_as_the_decoder_errs():
    model, batch = model_of(), sequences()
    model.take_in(batch)
    for seed in range(300):
        model.learn(batch, torch.Generator().manual_seed(seed))
    expected = model.learn(batch, torch.Generator().manual_seed(1)).stats["reconstruction_loss"]
    torch.testing.assert_close(model.residual.sum(), expected, rtol=0.1, atol=0)
    state = torch.randn(1, model.state_size).expand(20_000, -1)
    drawn = model.drawn_obs(state, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.std(0), model.residual.sqrt() * model.scale.deviation, rtol=0.03, atol=0)
    torch.testing.assert_close(drawn.mean(0), model.decode(state[0]), rtol=0, atol=0.05)


@pytest.mark.parametrize("reconstruction", ["squared", "likelihood"])
def test_constant_observations_are_learned_without_blowing_up(reconstruction):
    model, noise = model_of(reconstruction=reconstruction), torch.Generator().manual_seed(0)
    batch, constant = sequences(), torch.tensor([0.1, 1e6])
    batch.obs[:], batch.next_obs[:] = constant, constant
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(100):
        model.take_in(batch)
        learned = model.learn(batch, noise)
        optimizer.zero_grad()
        learned.loss.backward()
        optimizer.step()
        assert all(torch.isfinite(value) for value in learned.stats.values())
        assert learned.stats["reconstruction_loss"] < 100
    state = model.observe(torch.zeros(1, model.state_size), torch.zeros(1, 1), constant[None])
    torch.testing.assert_close(model.decode(state)[0], constant, rtol=1e-6, atol=0.01)


@pytest.mark.parametrize("latent", ["gaussian", "categorical"])
def test_it_learns_what_only_memory_can_know(latent):
    """The first observation says which reward all steps will pay; later observations do not."""
    rng = np.random.default_rng(0)
    length, rows = 8, 64
    sign = rng.choice([-1.0, 1.0], rows)
    obs = np.zeros((length + 1, rows, 2), np.float32)
    obs[0, :, 0] = sign
    actions = rng.uniform(-1, 1, (length, rows, 1)).astype(np.float32)
    rewards = np.broadcast_to(sign, (length, rows)).astype(np.float32)
    fresh = np.zeros((length, rows), bool)
    parts = [torch.from_numpy(array) for array in (obs[:-1], obs[1:], actions, rewards)]
    batch = Sequences(*parts, torch.zeros(length, rows), torch.ones(length, rows), torch.from_numpy(fresh))
    model, noise = model_of(latent, free_nats=0.1), torch.Generator().manual_seed(0)
    model.take_in(batch)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        learned = model.learn(batch, noise)
        learned.loss.backward()
        optimizer.step()
        assert learned.stats["kl"] >= 0
    start = model.observe(torch.zeros(rows, model.state_size), torch.zeros(rows, 1), batch.obs[0])
    found = model.returns(start, batch.actions.transpose(0, 1).unsqueeze(1), 1.0)[:, 0]
    truth = batch.rewards.sum(0)
    assert float(torch.corrcoef(torch.stack([found.detach(), truth]))[0, 1]) > 0.9
