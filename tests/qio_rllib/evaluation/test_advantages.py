"""True advantages beside numbers worked out by hand and beside simulation."""

import numpy as np
import pytest

from qio_rllib.evaluation.advantages import TrueAdvantages, is_distinguishable, mean_over_policy


def test_advantages_are_differences_branch_by_branch():
    returns = np.array([[[1.0, 5.0], [3.0, 9.0]]])  # 1 decision, 2 actions, 2 branches
    found = TrueAdvantages.of(returns, [[0.25, 0.75]])
    np.testing.assert_allclose(found.values, [[3.0, 6.0]])
    np.testing.assert_allclose(found.advantages, [[-2.25, 0.75]])
    # Branch by branch -1.5 and -3 for the first, 0.5 and 1 for the second: deviations sqrt(1.125), sqrt(0.125).
    np.testing.assert_allclose(found.by_branch(), [[[-1.5, -3.0], [0.5, 1.0]]])
    np.testing.assert_allclose(found.errors, [[np.sqrt(1.125 / 2), np.sqrt(0.125 / 2)]])
    # Apart: 0.75^2 (var q0 + var q1) and 0.25^2 (...), of variances 8 and 18 over 2 branches.
    np.testing.assert_allclose(found.unpaired_errors(), [[0.75 * np.sqrt(13), 0.25 * np.sqrt(13)]])


def test_illegal_actions_have_no_weight_and_no_advantage():
    returns = np.array([[[1.0, 2.0], [np.nan, np.nan], [3.0, 3.0]]])
    found = TrueAdvantages.of(returns, [[0.5, 0.0, 0.5]])
    np.testing.assert_allclose(found.advantages, [[-0.75, np.nan, 0.75]])
    assert np.isnan(found.errors[0, 1])
    assert np.isnan(found.unpaired_errors()[0, 1])
    assert np.isfinite(found.unpaired_errors()[0, [0, 2]]).all()
    assert mean_over_policy(returns, found.probabilities).tolist() == [[2.0, 2.5]]


def test_errors_are_the_spread_of_repeated_measurements():
    """Actions share a noise of deviation 2 and have one of 0.5 each; both kinds of error are those of simulations."""
    rng = np.random.default_rng(0)
    probabilities = np.broadcast_to([0.2, 0.3, 0.5], (4000, 3))
    shared, own = rng.normal(0, 2, (4000, 1, 16)), rng.normal(0, 0.5, (4000, 3, 16))
    paired = TrueAdvantages.of(shared + own, probabilities)
    apart = TrueAdvantages.of(rng.normal(0, 2, (4000, 3, 16)) + own, probabilities)
    for found, errors in ((paired, paired.errors), (apart, paired.unpaired_errors())):
        np.testing.assert_allclose(
            found.advantages.std(axis=0), np.sqrt(np.square(errors).mean(axis=0)), rtol=0.05
        )
    assert (apart.advantages.std(axis=0) > 3 * paired.advantages.std(axis=0)).all()


def test_with_one_branch_the_error_is_unknown_and_nothing_is_distinguishable():
    found = TrueAdvantages.of(np.array([[[1.0], [3.0]]]), [[0.5, 0.5]])
    assert found.advantages.tolist() == [[-1.0, 1.0]]
    assert np.isnan(found.errors).all()
    assert np.isnan(found.unpaired_errors()).all()
    assert not is_distinguishable(found.advantages, found.errors).any()


def test_more_than_two_standard_errors_and_more_than_rounding_distinguish():
    values, errors = np.array([1.9, -2.1, 5e-7, 1e-5]), np.array([1.0, 1.0, 0.0, 0.0])
    assert is_distinguishable(values, errors).tolist() == [False, True, False, True]


def test_pairs_of_actions_have_a_known_order_where_their_difference_is_large():
    returns = np.zeros((1, 3, 50))
    returns[0, 1] = 0.5
    returns[0, 2] = np.random.default_rng(0).normal(0, 10, 50)
    differences, known = TrueAdvantages.of(returns, [[0.3, 0.3, 0.4]]).ordered_pairs()
    assert differences[0, 0, 1] == -differences[0, 1, 0] == -0.5
    assert known[0].tolist() == [[False, True, False], [True, False, False], [False, False, False]]


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"probabilities: expected shape \(1, 2\), got \(2,\)"):
        TrueAdvantages.of(np.zeros((1, 2, 3)), [0.5, 0.5])
