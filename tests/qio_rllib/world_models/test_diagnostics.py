"""Diagnostics: errors over a horizon and calibration, against models whose predictions are known."""

import dataclasses

import numpy as np
import pytest
import torch
from diagnostic_models import Pushed, Still, pushed

from qio_rllib.world_models.diagnostics import LEVELS, calibration, open_loop_errors
from qio_rllib.world_models.ensemble import Ensemble, EnsembleSettings
from qio_rllib.world_models.episodes import Episodes, filtered_states
from qio_rllib.world_models.rssm import RSSM, RSSMSettings

ERRORS = ("obs", "reward", "obs_persistence", "reward_persistence")


# -- open loop


@pytest.mark.parametrize("start", [1, 4, [1, 4, 6]])
def test_a_model_that_is_the_truth_has_no_error(start):
    """Its hidden speed is the sum of the actions: an action too early, too late or left out would show."""
    found = open_loop_errors(Pushed(), pushed(), start, 5)
    assert found.counted.all()
    np.testing.assert_allclose(found.obs, 0, atol=1e-5)
    np.testing.assert_allclose(found.reward, 0, atol=1e-5)
    assert (found.obs_persistence.mean(1) > 0.1).all()


def test_a_model_that_predicts_no_change_is_as_good_as_persistence():
    found = open_loop_errors(Still(), pushed(), 3, 6)
    np.testing.assert_allclose(found.obs, found.obs_persistence, rtol=1e-6)
    np.testing.assert_allclose(found.reward, found.reward_persistence, rtol=1e-6)


def test_errors_are_root_mean_squares_in_deviations_of_the_data():
    """Two components on different scales and a constant one, which counts in its own unit, by hand."""
    obs = torch.tensor([[0.0, 0, 7], [0, 100, 7], [3, 100, 7], [3, 100, 7], [0, 0, 7]])[:, None]
    rewards = torch.tensor([[1.0], [2], [5], [0]])
    flags = torch.zeros(4, 1, dtype=torch.bool)
    episodes = Episodes(obs, torch.zeros(4, 1, 1), rewards, flags, ~flags)
    model = Ensemble(3, 1, EnsembleSettings(members=1, hiddens=(4,)))
    with torch.no_grad():
        for parameter in model.networks.parameters():
            parameter.zero_()
    model.networks.layers[-1].bias.data[0, 0, :3] = torch.tensor([0.0, 0.0, 0.5])
    found = open_loop_errors(
        model, episodes, 1, 2
    )  # predicts (0, 100, 7.5), then (0, 100, 8), and rewards of 0
    deviations = obs[:, 0].numpy().std(axis=0)
    np.testing.assert_allclose(found.predicted[:, 0], [[0, 100, 7.5], [0, 100, 8]])
    expected = [np.sqrt(((3 / deviations[0]) ** 2 + last**2) / 3) for last in (0.5, 1.0)]
    np.testing.assert_allclose(found.obs[:, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(found.reward[:, 0], np.array([2, 5]) / rewards.numpy().std(), rtol=1e-5)
    np.testing.assert_allclose(
        found.obs_persistence[:, 0], [np.sqrt((3 / deviations[0]) ** 2 / 3)] * 2, rtol=1e-5
    )
    np.testing.assert_allclose(
        found.reward_persistence[:, 0], np.array([1, 4]) / rewards.numpy().std(), rtol=1e-5
    )


def test_an_episode_counts_up_to_the_step_that_ends_it():
    lengths = [12, 5, 3, 2]
    found = open_loop_errors(Still(), pushed(count=4, lengths=lengths), 2, 4)
    expected = np.array([[2 + step < length for length in lengths] for step in range(4)])
    np.testing.assert_array_equal(found.counted, expected)
    for name in ERRORS:
        np.testing.assert_array_equal(np.isnan(getattr(found, name)), ~expected)
    assert [row["rows"] for row in found.rows()] == [3, 2, 2, 1]
    assert np.nanmax(found.obs) < 100  # what fills short sequences is a million


def test_what_fills_short_sequences_touches_no_number():
    short, whole = pushed(count=3, lengths=[12, 6, 4]), pushed(count=3)
    cut = open_loop_errors(Still(), dataclasses.replace(whole, present=short.present), 2, 4)
    filled = open_loop_errors(Still(), short, 2, 4)
    for name in ERRORS:
        np.testing.assert_array_equal(getattr(cut, name), getattr(filled, name))


def test_the_band_is_of_quantiles_over_the_rows_that_are_left():
    found = open_loop_errors(Still(), pushed(count=9, lengths=[12, 12, 12, 12, 12, 4, 4, 4, 4]), 2, 5)
    for name in ERRORS:
        errors, band = getattr(found, name), found.band(name)
        for step, left in enumerate([9, 9, 5, 5, 5]):
            kept = errors[step, :left].astype(float)
            assert band.mean[step] == pytest.approx(kept.mean())
            assert band.low[step] == pytest.approx(np.quantile(kept, 0.1))
            assert band.high[step] == pytest.approx(np.quantile(kept, 0.9))
            assert found.rows()[step][f"{name}_error_high"] == band.high[step]
    assert found.rows()[0]["step"] == 1


def test_steps_without_rows_are_nan():
    found = open_loop_errors(Still(), pushed(count=2, lengths=[4, 3]), 2, 5)
    np.testing.assert_array_equal(np.isnan(found.band("obs").mean), [False, False, True, True, True])


def test_rows_are_starts_in_sequences():
    episodes = pushed(count=3)
    found = open_loop_errors(Still(), episodes, [2, 7], 4)
    np.testing.assert_array_equal(found.starts, [2, 2, 2, 7, 7, 7])
    np.testing.assert_array_equal(found.sequences, [0, 1, 2, 0, 1, 2])
    alone = open_loop_errors(Still(), episodes, 7, 4)
    np.testing.assert_array_equal(found.obs[:, 3:], alone.obs)
    np.testing.assert_array_equal(found.predicted[0, :, 0], episodes.obs[[2, 7], :, 0].flatten())


def test_the_mean_of_draws_is_closer_than_one_draw():
    model, episodes = Pushed(deviation=1.0), pushed(count=200)
    one, many = (
        open_loop_errors(model, episodes, 1, 3, torch.Generator().manual_seed(0), number).obs.mean()
        for number in (1, 100)
    )
    assert many == pytest.approx(one / 10, rel=0.2)
    again = open_loop_errors(model, episodes, 1, 3, torch.Generator().manual_seed(0)).obs.mean()
    assert again == one


class Blurred(Pushed):
    """Draws positions in its observations alone."""

    def drawn_obs(self, state, generator):
        return self.decode(state) + 0.5 * torch.randn(len(state), 1, generator=generator)


def test_intervals_take_in_what_a_state_leaves_open_of_its_observation():
    episodes = pushed(length=40, count=30, noise=0.5)
    sure, blurred = (
        calibration(model, episodes, torch.Generator().manual_seed(0)).obs_error
        for model in (Pushed(), Blurred())
    )
    assert blurred < 0.03
    assert sure > 0.3


def test_a_recurrent_model_remembers_what_it_saw_and_did():
    torch.manual_seed(0)
    model = RSSM(
        1,
        1,
        RSSMSettings(
            deterministic=5,
            stochastic=2,
            embedding=4,
            hiddens=(6,),
            latent_hiddens=(6,),
            reward_hiddens=(6,),
            continuation_hiddens=(6,),
        ),
    )
    episodes = pushed(length=5, count=3)
    state, action = torch.zeros(3, model.state_size), torch.zeros(3, 1)
    with torch.no_grad():
        for step in range(4):
            state = model.observe(state, action, episodes.obs[step])
            torch.testing.assert_close(filtered_states(model, episodes, 3)[step], state)
            action = episodes.actions[step]
        first = model.step(state, episodes.actions[3])
        second = model.step(first.state, episodes.actions[4])
    found = open_loop_errors(model, episodes, 3, 2)
    np.testing.assert_allclose(found.predicted[0], model.decode(first.state).detach(), rtol=1e-5)
    np.testing.assert_allclose(found.predicted[1], model.decode(second.state).detach(), rtol=1e-5)
    np.testing.assert_allclose(found.predicted_rewards[1], second.rewards, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("start", "horizon", "message"),
    [
        (1, 0, "horizon: expected at least 1 step, got 0"),
        (0, 3, "start: expected steps of at least 1, got 0"),
        ([], 3, "start: expected steps of at least 1"),
        (8, 5, "start 8 \\+ horizon 5 is more than the 12 steps"),
        ([1, 10], 3, "start 10 \\+ horizon 3 is more than the 12 steps"),
        (6, 3, "no episode goes on after step 6"),
    ],
)
def test_horizons_that_do_not_fit_are_refused(start, horizon, message):
    with pytest.raises(ValueError, match=message):
        open_loop_errors(Pushed(), pushed(count=2, lengths=[5, 6]), start, horizon)


def test_a_horizon_may_reach_the_last_step():
    assert open_loop_errors(Pushed(), pushed(), 8, 4).counted.all()


def test_draws_need_a_generator():
    with pytest.raises(
        ValueError, match="num_draws: expected at least 1, and more than 1 with a generator, got 2"
    ):
        open_loop_errors(Pushed(), pushed(), 1, 2, num_draws=2)
    with pytest.raises(ValueError, match="a Pushed has no closed form, draws need a generator"):
        calibration(Pushed(), pushed())
    with pytest.raises(ValueError, match="num_draws: expected at least 1, got 0"):
        calibration(Pushed(), pushed(), torch.Generator(), 0)


def test_data_of_other_sizes_are_refused():
    with pytest.raises(ValueError, match="obs: the model takes 2 numbers, got 1"):
        open_loop_errors(Ensemble(2, 1), pushed(), 1, 2)
    with pytest.raises(ValueError, match="actions: the model takes 3 numbers, got 1"):
        calibration(Ensemble(1, 3), pushed())
    whole = pushed()
    for change, message in (
        (
            {"obs": whole.obs[:-1]},
            r"obs: expected torch.float32 of the shape \[13, 7, ...\], got .*\[12, 7, 1\]",
        ),
        ({"actions": whole.actions.double()}, "actions: expected torch.float32 .*, got torch.float64"),
        ({"present": whole.present.float()}, "present: expected torch.bool"),
        ({"rewards": whole.rewards[0]}, r"rewards: expected the shape \[T, B\]"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(whole, **change)
    gap = whole.present.clone()
    gap[3] = False
    with pytest.raises(ValueError, match="present: an episode goes on"):
        dataclasses.replace(whole, present=gap)
    with pytest.raises(ValueError, match="there is no transition"):
        calibration(Pushed(), dataclasses.replace(whole, present=torch.zeros_like(gap)), torch.Generator())


# -- calibration


def drawn_calibration(deviation, num_draws, noise=0.5):
    episodes = pushed(length=20, count=200, noise=noise)
    return calibration(Pushed(deviation), episodes, torch.Generator().manual_seed(1), num_draws)


@pytest.mark.parametrize("num_draws", [1, 4, 100])
def test_draws_of_the_true_distribution_are_calibrated_whatever_their_number(num_draws):
    found = drawn_calibration(0.5, num_draws)
    assert found.count == 4000
    np.testing.assert_allclose(found.obs_shares[:, 0], LEVELS, atol=0.03)  # 4 standard errors at most
    np.testing.assert_allclose(found.reward_shares, LEVELS, atol=0.03)
    assert found.obs_error < 0.02


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_shares_of_a_wrong_deviation_are_those_of_the_normal_distribution(factor):
    """P(|n| < z_p factor) for the quantile z_p of a central interval."""
    found = drawn_calibration(0.5 * factor, 400)
    normal = torch.distributions.Normal(0.0, 1.0)
    quantiles = normal.icdf(torch.tensor(LEVELS) / 2 + 0.5)
    expected = (2 * normal.cdf(factor * quantiles) - 1).numpy()
    np.testing.assert_allclose(found.obs_shares[:, 0], expected, atol=0.03)
    assert found.obs_error == pytest.approx(np.abs(expected - LEVELS).mean(), abs=0.02)
    assert (found.obs_shares[:, 0] < LEVELS).all() == (factor < 1)  # too sure: too little lies inside


def mixture(log_variance=-3.0, factor=1.0, rows=6000):
    """An ensemble of two members that are of different opinions, and transitions drawn from their mixture."""
    model = Ensemble(2, 1, EnsembleSettings(members=2, hiddens=(4,)))
    with torch.no_grad():
        for parameter in model.networks.parameters():
            parameter.zero_()
        bias = model.networks.layers[-1].bias
        bias[:, 0, :3] = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, 1.0]])
        bias[:, 0, 3:6] = log_variance
    model.target_scale.count.fill_(1.0)
    model.target_scale.mean.copy_(torch.tensor([0.3, -0.2, 5.0]))
    model.target_scale.squares.copy_(torch.tensor([4.0, 0.25, 9.0]))
    generator = torch.Generator().manual_seed(0)
    obs = torch.randn(1, rows, 2, generator=generator)
    actions = torch.zeros(1, rows, 1)
    with torch.no_grad():
        mean, found, _ = model.predictions(obs.expand(2, rows, 2), actions.expand(2, rows, 1))
        member = torch.randint(2, (rows, 3), generator=generator)
        noise = factor * torch.randn(rows, 3, generator=generator)
        scaled = torch.where(member == 0, mean[0], mean[1]) + (0.5 * found[0]).exp() * noise
        change = model.target_scale.inverse(scaled)
    flags = torch.zeros(1, rows, dtype=torch.bool)
    after = torch.cat([obs, obs + change[:, :2]])
    return model, Episodes(after, actions, change[None, :, 2], flags, ~flags)


@pytest.mark.parametrize("log_variance", [-3.0, 0.0])
def test_the_mixture_of_an_ensemble_is_calibrated_to_its_own_draws(log_variance):
    found = calibration(*mixture(log_variance))
    np.testing.assert_allclose(found.obs_shares, np.tile(LEVELS, (2, 1)).T, atol=0.03)
    np.testing.assert_allclose(found.reward_shares, LEVELS, atol=0.03)
    drawn = calibration(*mixture(log_variance), torch.Generator().manual_seed(0), 50)
    np.testing.assert_allclose(drawn.obs_shares, found.obs_shares, atol=0.04)
    np.testing.assert_allclose(drawn.reward_shares, found.reward_shares, atol=0.04)


def test_an_ensemble_that_is_too_sure_is_not_calibrated():
    found = calibration(*mixture(factor=3.0))
    assert (found.obs_shares[1:, 1] < np.array(LEVELS[1:]) - 0.1).all()
    assert found.obs_error > 0.1
    assert found.reward_error > 0.03


def test_errors_of_components_do_not_cancel():
    found = drawn_calibration(0.5, 10)
    apart = dataclasses.replace(
        found, obs_shares=np.array(LEVELS)[:, None] + [[-0.1, 0.1]], components=np.arange(2)
    )
    assert apart.obs_error == pytest.approx(0.1)
    names = [row["quantity"] for row in apart.rows()]
    assert list(dict.fromkeys(names)) == ["obs", "obs[0]", "obs[1]", "reward", "continuation"]


def test_constant_numbers_are_left_out():
    whole = pushed(noise=0.5)
    episodes = dataclasses.replace(whole, rewards=torch.ones_like(whole.rewards))
    found = calibration(Pushed(0.5), episodes, torch.Generator())
    assert np.isnan(found.reward_error)
    assert "reward" not in {row["quantity"] for row in found.rows()}
    flat = dataclasses.replace(episodes, obs=torch.full_like(whole.obs, 0.1))
    found = calibration(Pushed(0.5), flat, torch.Generator())
    assert found.obs_shares.shape == (9, 0)
    assert np.isnan(found.obs_error)


def test_continuation_is_what_was_predicted_beside_what_happened():
    """20 sequences of 5 steps, of which each ends: a step goes on with probability 0.8; time limits go on."""
    ends = pushed(length=5, count=20, terminated=True)
    for goes_on, error in ((0.8, 0.0), (0.95, 0.15)):
        found = calibration(Pushed(0.1, goes_on), ends, torch.Generator())
        (predicted,), (observed,), (count,) = found.continuation
        assert (predicted, observed, count) == (pytest.approx(goes_on), pytest.approx(0.8), 100)
        assert found.continuation_error == pytest.approx(error, abs=1e-6)
    limit = calibration(Pushed(0.1, 1.0), pushed(length=5, count=20), torch.Generator())
    assert limit.continuation_error == 0


def test_continuation_is_binned_by_the_prediction():
    class Unsure(Pushed):
        def step(self, state, action, generator=None, others=None):
            found = super().step(state, action, generator)
            return found._replace(continuation=torch.where(state[:, 0] > 0, 0.9, 0.25))

    episodes = pushed(length=5, count=30, terminated=True)
    found = calibration(Unsure(0.1), episodes, torch.Generator()).continuation
    above, ended = episodes.obs[:-1, :, 0] > 0, episodes.terminated
    np.testing.assert_allclose(found.predicted, [0.25, 0.9], rtol=1e-5)
    np.testing.assert_array_equal(found.transitions, [(~above).sum(), above.sum()])
    np.testing.assert_allclose(
        found.observed, [1 - ended[side].float().mean() for side in (~above, above)], rtol=1e-6
    )


def test_transitions_of_short_episodes_alone_count():
    episodes = pushed(count=3, lengths=[12, 6, 4], noise=0.5)
    found = calibration(Pushed(0.5), episodes, torch.Generator())
    assert found.count == 22
    assert found.continuation.transitions.sum() == 22
