"""The model with a Kalman filter: against exact conditioning, sequences against single steps, episode starts."""

import numpy as np
import pytest
import torch
from test_rssm import check_single_steps_carry_the_states, sequences

from qio_rllib.world_models.heads import GaussianHead
from qio_rllib.world_models.kalman import KalmanModel, KalmanSettings
from qio_rllib.world_models.model import Sequences

SMALL = {"unobserved": 2, "dynamics_size": 8, "reward_hiddens": (8,), "continuation_hiddens": (8,)}
SIZE = 4  # of a state: two numbers are observed


def model_of(spread=0.1, **changes):
    """Return a model whose parameters all matter: each is moved by noise."""
    torch.manual_seed(0)
    model = KalmanModel(2, 1, KalmanSettings(**{**SMALL, **changes}))
    for parameter in model.parameters():
        parameter.data += spread * torch.randn_like(parameter)
    return model


def mean_and_covariance(model, state):
    size = model.feature_size
    return state[..., :size], state[..., size:-1].unflatten(-1, (size, size))


def exact_beliefs(model, obs, actions):
    """Condition the joint normal distribution of all states on what was observed, float64.

    Args:
        model: With linear dynamics.
        obs: Of one episode, in units of the model's scale, ``[T + 1, 2]``.
        actions: ``[T, 1]``.

    Returns:
        Mean ``[4]`` and covariance ``[4, 4]`` after each observation, and the log-likelihood of all up to its constant.
    """

    def numbers(parameter):
        return parameter.detach().double().numpy()

    weight, bias = numbers(model.linear.weight), numbers(model.linear.bias)
    move, push = np.eye(SIZE) + weight[:, :SIZE], weight[:, SIZE:]
    motion, sensor = (np.diag(np.exp(2 * numbers(part))) for part in (model.motion, model.sensor))
    means = [numbers(model.prior_mean[0])]
    blocks = [[np.diag(np.exp(2 * numbers(model.prior_deviation[0])))]]
    for action in actions:
        means.append(move @ means[-1] + push @ action + bias)
        row = [move @ block for block in blocks[-1]]  # with each earlier state
        blocks.append([*row, move @ blocks[-1][-1] @ move.T + motion])
    steps = len(means)
    mean, covariance = np.concatenate(means), np.zeros((steps * SIZE, steps * SIZE))
    for later in range(steps):
        for earlier in range(later + 1):
            one, other = slice(later * SIZE, (later + 1) * SIZE), slice(earlier * SIZE, (earlier + 1) * SIZE)
            covariance[one, other] = blocks[later][earlier]
            covariance[other, one] = blocks[later][earlier].T
    seen = np.concatenate([[step * SIZE, step * SIZE + 1] for step in range(steps)])
    noise = np.kron(np.eye(steps), sensor)
    found = []
    for step in range(steps):
        last, so_far = slice(step * SIZE, (step + 1) * SIZE), seen[: 2 * (step + 1)]
        spread = covariance[np.ix_(so_far, so_far)] + noise[: len(so_far), : len(so_far)]
        gain = covariance[last][:, so_far] @ np.linalg.inv(spread)
        error = obs[: step + 1].reshape(-1) - mean[so_far]
        found.append((mean[last] + gain @ error, covariance[last, last] - gain @ covariance[so_far][:, last]))
    likelihood = -0.5 * (error @ np.linalg.solve(spread, error) + np.linalg.slogdet(spread)[1])
    return found, likelihood


def test_with_linear_dynamics_beliefs_and_likelihood_are_those_of_exact_conditioning():
    model = model_of()
    model.last.weight.data.zero_()
    rng = np.random.default_rng(0)
    obs, actions = rng.normal(size=(7, 2)), rng.uniform(-1, 1, (6, 1))
    expected, likelihood = exact_beliefs(model, obs, actions)
    seen, done = (torch.from_numpy(rows.astype(np.float32)).unsqueeze(1) for rows in (obs, actions))
    state, action = torch.zeros(1, model.state_size), torch.zeros(1, 1)
    for step, (mean, covariance) in enumerate(expected):
        state = model.observe(state, action, seen[step])
        found = mean_and_covariance(model, state[0].detach())
        np.testing.assert_allclose(found[0], mean, rtol=0, atol=1e-4)
        np.testing.assert_allclose(found[1], covariance, rtol=0, atol=1e-4)
        if step < len(actions):
            action = done[step]
    zeros, fresh = torch.zeros(6, 1), torch.zeros(6, 1, dtype=torch.bool)
    fresh[0] = True
    batch = Sequences(seen[:-1], seen[1:], done, zeros, zeros, zeros + 1, fresh)
    loss = model.learn(batch, torch.Generator()).stats["observation_loss"]
    assert float(loss) * 7 == pytest.approx(-likelihood, abs=1e-3)


def test_uncertainty_moves_by_the_jacobian_of_the_dynamics():
    model = model_of()
    state = model.observe(torch.zeros(1, model.state_size), torch.zeros(1, 1), torch.randn(1, 2)).detach()
    action = torch.full((1, 1), 0.7)
    mean, covariance = mean_and_covariance(model, state[0])

    def moved(point):
        later = torch.cat([point, torch.zeros(SIZE * SIZE), torch.ones(1)])
        return model.step(later[None], action).state[0, :SIZE]

    slope = torch.autograd.functional.jacobian(moved, mean)
    spread = slope @ covariance @ slope.T + torch.diag((2 * model.motion).exp())
    drawn = model.step(state.expand(40_000, -1), action.expand(40_000, -1), torch.Generator().manual_seed(0))
    points = drawn.state[:, :SIZE].detach()
    torch.testing.assert_close(
        points.T.cov(), spread.detach(), rtol=0.03, atol=0.03 * float(spread.detach().max())
    )
    torch.testing.assert_close(points.mean(0), moved(mean).detach(), rtol=0, atol=0.03)


def test_states_of_a_sequence_are_those_that_single_steps_carry():
    model, batch = model_of(), sequences()
    batch.fresh[0] = True
    check_single_steps_carry_the_states(model, batch)


def test_a_sequence_that_begins_inside_an_episode_has_another_prior():
    model, batch = model_of(), sequences()
    batch.fresh[0, 0] = True
    batch.obs[0, 0] = batch.obs[0, 2]
    model.take_in(batch)
    learned = model.learn(batch, torch.Generator())
    begun, inside = learned.states[0, 0], learned.states[0, 2]
    assert not torch.allclose(begun[2:4], inside[2:4], atol=1e-3)
    learned.loss.backward()
    assert (model.prior_mean.grad != 0).all()
    assert (model.prior_deviation.grad != 0).all()
    batch.fresh[0] = True  # nothing begins inside an episode now
    model.zero_grad()
    model.learn(batch, torch.Generator()).loss.backward()
    assert not model.prior_mean.grad[1].any()


def test_what_came_before_an_episode_does_not_touch_it():
    model, batch = model_of(), sequences()
    model.take_in(batch)
    found = model.learn(batch, torch.Generator()).states
    batch.obs[:3, 1], batch.actions[:3, 1], batch.next_obs[:3, 1] = 5.0, -1.0, -7.0
    again = model.learn(batch, torch.Generator()).states
    assert torch.equal(found[3:, 1], again[3:, 1])
    assert not torch.equal(found[1:3, 1], again[1:3, 1])
    assert torch.equal(found[:, [0, 2]], again[:, [0, 2]])


def test_the_last_observation_of_an_episode_and_its_end_are_learned():
    model, batch = model_of(), sequences()
    model.take_in(batch)
    losses = [float(model.learn(batch, torch.Generator()).loss.detach())]
    batch.next_obs[2, 1] = -9.0
    losses.append(float(model.learn(batch, torch.Generator()).loss.detach()))
    batch.terminated[2, 1] = 0.0
    losses.append(float(model.learn(batch, torch.Generator()).loss.detach()))
    assert len(set(losses)) == 3


def test_steps_that_do_not_count_change_no_loss():
    model, batch = model_of(), sequences()
    model.take_in(batch)
    batch.learned[4:, 0] = 0.0
    before = model.learn(batch, torch.Generator()).loss
    batch.rewards[4:, 0], batch.next_obs[4:, 0], batch.terminated[4:, 0] = 50.0, 50.0, 1.0
    torch.testing.assert_close(before, model.learn(batch, torch.Generator()).loss)


def test_rewards_train_the_filter_and_every_parameter_learns():
    model, batch = model_of(reward_weight=2.0), sequences()
    batch.fresh[0, 0] = True
    model.take_in(batch)
    learned = model.learn(batch, torch.Generator())
    parts = (learned.stats[f"{name}_loss"] for name in ("observation", "continuation"))
    torch.testing.assert_close(learned.loss.detach(), sum(parts) + 2.0 * learned.stats["reward_loss"])
    learned.loss.backward()
    assert all(parameter.grad.any() for parameter in model.parameters())
    heads = [*model.reward.parameters(), *model.continuation.parameters()]
    kept = [parameter.grad.clone() for parameter in model.parameters()]
    batch.rewards[5, 0] += 3.0
    model.zero_grad()
    model.learn(batch, torch.Generator()).loss.backward()
    changed = [
        not torch.equal(before, parameter.grad)
        for before, parameter in zip(kept, model.parameters(), strict=True)
        if not any(parameter is one for one in heads)
    ]
    assert all(changed)


def test_predicted_states_are_certain_and_say_what_follows():
    model = model_of()
    state = model.observe(torch.zeros(5, model.state_size), torch.zeros(5, 1), torch.randn(5, 2))
    action = torch.rand(5, 1)
    found = model.step(state, action)
    mean, covariance = mean_and_covariance(model, found.state)
    assert not covariance.any()
    inputs = torch.cat([mean, action], dim=-1)
    torch.testing.assert_close(found.rewards, model.reward.mean(inputs))
    torch.testing.assert_close(found.continuation, model.continuation(inputs))
    drawn = [model.step(state, action, torch.Generator().manual_seed(seed)).state for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_drawn_observations_scatter_as_the_sensor_does():
    model, batch = model_of(), sequences()
    model.take_in(batch)
    state = model.observe(torch.zeros(1, model.state_size), torch.zeros(1, 1), batch.obs[0, :1]).detach()
    drawn = model.drawn_obs(state.expand(20_000, -1), torch.Generator().manual_seed(0)).detach()
    torch.testing.assert_close(
        drawn.std(0), model.sensor.exp().detach() * model.scale.deviation, rtol=0.03, atol=0
    )
    torch.testing.assert_close(drawn.mean(0), model.decode(state[0]), rtol=0, atol=0.1)


def test_what_nothing_observed_holds_does_not_grow_without_end():
    model = model_of(spread=0.0)
    model.linear.weight.data[3, 3] = 0.5  # an unobserved number that grows by half in each step
    model.linear.weight.data[3, 4] = 1.0
    state, action = torch.zeros(1, model.state_size), torch.ones(1, 1)
    with torch.no_grad():
        for step in range(500):
            state = model.observe(state, action, torch.full((1, 2), float(np.sin(step))))
    assert torch.isfinite(state).all()
    mean, covariance = mean_and_covariance(model, state[0])
    assert float(mean.abs().max()) <= 100.0
    assert float(torch.linalg.eigvalsh(covariance).min()) > -1e-3


def test_constant_observations_and_rewards_are_learned_without_blowing_up():
    model, batch = model_of(spread=0.0), sequences()
    constant = torch.tensor([0.1, 1e6])
    batch.obs[:], batch.next_obs[:], batch.rewards[:] = constant, constant, 1.0
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    for _ in range(50):
        model.take_in(batch)
        learned = model.learn(batch, torch.Generator())
        optimizer.zero_grad()
        learned.loss.backward()
        optimizer.step()
        assert all(torch.isfinite(value) for value in learned.stats.values())
    state = model.observe(torch.zeros(1, model.state_size), torch.zeros(1, 1), constant[None])
    torch.testing.assert_close(model.decode(state)[0], constant, rtol=1e-6, atol=0.01)
    assert float(model.step(state, torch.zeros(1, 1)).rewards.detach()) == pytest.approx(1.0, abs=0.01)


def test_it_learns_what_only_memory_can_know():
    """A speed, drawn at the start and never observed, shows in how the first number moves; it is what is paid."""
    rng = np.random.default_rng(0)
    length, rows = 5, 64
    speed = rng.normal(size=rows)
    obs = np.zeros((length + 1, rows, 2), np.float32)
    obs[:, :, 0] = np.arange(length + 1)[:, None] * 0.2 * speed + rng.normal(size=rows)
    actions = rng.uniform(-1, 1, (length, rows, 1)).astype(np.float32)
    rewards = np.broadcast_to(speed, (length, rows)).astype(np.float32)
    fresh = np.zeros((length, rows), bool)
    fresh[0] = True
    parts = [torch.from_numpy(array) for array in (obs[:-1], obs[1:], actions, rewards)]
    batch = Sequences(*parts, torch.zeros(length, rows), torch.ones(length, rows), torch.from_numpy(fresh))
    model = model_of(spread=0.0)
    model.take_in(batch)
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    for _ in range(100):
        optimizer.zero_grad()
        model.learn(batch, torch.Generator()).loss.backward()
        optimizer.step()
    state, action = torch.zeros(rows, model.state_size), torch.zeros(rows, 1)
    found = []
    for step in range(3):
        state = model.observe(state, action, batch.obs[step])
        action = batch.actions[step]
        returns = model.returns(state, batch.actions[3:].transpose(0, 1).unsqueeze(1), 1.0)[:, 0].detach()
        found.append(float(torch.corrcoef(torch.stack([returns, batch.rewards[0]]))[0, 1]))
    assert abs(found[0]) < 0.5
    assert found[2] > 0.9


def test_the_normal_distribution_of_a_reward_is_in_units_of_the_data():
    torch.manual_seed(0)
    head, features = GaussianHead(3, (4,), "silu"), torch.randn(5, 3)
    targets = 20.0 + 5.0 * torch.randn(5)
    before = head.mean(features)
    head.scale.update(torch.tensor([[10.0], [30.0]]))
    torch.testing.assert_close(head.mean(features), 20.0 + 10.0 * before)
    deviation = torch.nn.functional.softplus(head.spread(features)).squeeze(-1) + 2e-3
    normal = torch.distributions.Normal(head.mean(features), 10.0 * deviation)
    expected = (-normal.log_prob(targets) - 0.5 * np.log(2 * np.pi) - np.log(10.0)) * deviation
    torch.testing.assert_close(head.loss(features, targets), expected)
    head.loss(features, targets).sum().backward()
    error = (head.mean(features) - targets) / (10.0 * deviation)
    last = head.spread[-1]
    torch.testing.assert_close(
        last.bias.grad, ((1 - error**2) * torch.sigmoid(head.spread(features))[:, 0]).sum()[None]
    )


def test_the_mean_of_a_reward_has_a_quadratic_form():
    torch.manual_seed(0)
    head, features = GaussianHead(2, (4,), "silu"), torch.randn(5, 2)
    before = head.mean(features)
    head.form.weight.data = torch.tensor([[2.0, 3.0, 5.0]])
    x, y = features.T
    torch.testing.assert_close(head.mean(features), before + 2 * x * x + 3 * x * y + 5 * y * y)
