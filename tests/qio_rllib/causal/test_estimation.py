"""Estimators against regressions, the formulas over frequencies, and their intervals' coverage."""

import numpy as np
import pytest

from qio_envs.api import ConfigError
from qio_rllib.causal.estimation import WeakInstrument, discrete_effect, linear_effect
from qio_rllib.causal.identification import BackDoor, FrontDoor, Instrument
from qio_rllib.causal.moments import DataError

BACK, FRONT = BackDoor("a", "y", ("s", "u")), FrontDoor("a", "y", ("m",))
INSTRUMENT = Instrument("a", "y", "z", ("s",))


def confounded(count, seed):
    rng = np.random.default_rng(seed)
    s, u, z = rng.standard_normal(count), 0.5 * rng.standard_normal(count), 0.3 * rng.standard_normal(count)
    a = -0.3 * s - u + z + 0.1 * rng.standard_normal(count)
    m = a + 0.3 * rng.standard_normal(count)
    y = s + 0.5 * m + u + 0.1 * rng.standard_normal(count)
    return {"s": s, "u": u, "z": z, "a": a, "m": m, "y": y}


def regression(data, target, *regressors):
    design = np.column_stack([np.ones(len(data["a"])), *(data[name] for name in regressors)])
    return np.linalg.lstsq(design, data[target], rcond=None)[0][1:], design


def test_estimates_are_those_of_regressions():
    data = confounded(500, 0)
    assert linear_effect(data, BACK).value == pytest.approx(regression(data, "y", "a", "s", "u")[0][0])
    slope, through = regression(data, "m", "a")[0][0], regression(data, "y", "m", "a")[0][0]
    assert linear_effect(data, FRONT).value == pytest.approx(slope * through)
    first, design = regression(data, "a", "z", "s")
    fitted = design[:, 1:] @ first
    stage = {**data, "fitted": fitted}
    found = linear_effect(data, INSTRUMENT)
    assert found.value == pytest.approx(regression(stage, "y", "fitted", "s")[0][0])
    # F of one variable is the square of its t
    residual = data["a"] - design @ np.linalg.lstsq(design, data["a"], rcond=None)[0]
    variance = residual @ residual / (500 - 3) * np.linalg.inv(design.T @ design)[1, 1]
    assert found.first_stage_f == pytest.approx(first[0] ** 2 / variance)
    assert linear_effect(data, BACK).first_stage_f is None


def test_all_three_find_the_effect_and_the_naive_one_does_not():
    data = confounded(20_000, 1)
    for how in (BACK, FRONT, INSTRUMENT):
        found = linear_effect(data, how, resamples=200)
        assert found.low < 0.5 < found.high
        assert found.value == pytest.approx(0.5, abs=0.05)
    assert linear_effect(data, BackDoor("a", "y", ("s",)), resamples=200).high < 0


def test_intervals_cover_the_truth_as_often_as_they_say():
    """A level of 80%, so that both too narrow and too wide show: 300 trials have a standard error of 2.3%."""
    hits = np.zeros(3)
    for seed in range(300):
        data = confounded(150, 100 + seed)
        for place, how in enumerate((BACK, FRONT, INSTRUMENT)):
            found = linear_effect(data, how, level=0.8, resamples=200, seed=seed)
            hits[place] += found.low <= 0.5 <= found.high
    assert ((hits / 300 > 0.72) & (hits / 300 < 0.88)).all()


def test_intervals_repeat_and_say_what_they_are():
    data = confounded(300, 2)
    one, other = linear_effect(data, BACK, seed=3), linear_effect(data, BACK, seed=3)
    assert one == other != linear_effect(data, BACK, seed=4)
    wide = linear_effect(data, BACK, level=0.99)
    assert wide.low < one.low < one.value < one.high < wide.high
    assert str(one).startswith("effect of a on y: ")
    assert "95% interval [" in str(one)
    assert "back-door, adjusting for s, u; 300 samples" in str(one)
    rows = np.stack(list(data.values()), axis=1)
    assert linear_effect(rows, BACK, list(data), seed=3).value == pytest.approx(one.value)


def binary(count, rng, hidden_effect=0.4):
    u = rng.random(count) < 0.5
    a = rng.random(count) < np.where(u, 0.8, 0.2)
    m = rng.random(count) < np.where(a, 0.9, 0.3)
    y = 0.5 * m + hidden_effect * u + 0.1 * rng.standard_normal(count)
    return {"u": u, "a": a, "m": m, "y": y}


def test_means_under_do_are_those_of_the_formulas():
    data = binary(50_000, np.random.default_rng(0))
    truth = {0.0: 0.5 * 0.3 + 0.2, 1.0: 0.5 * 0.9 + 0.2}
    for how in (BackDoor("a", "y", ("u",)), FrontDoor("a", "y", ("m",))):
        found = discrete_effect(data, how)
        assert found == pytest.approx(truth, abs=0.01)
    naive = discrete_effect(data, BackDoor("a", "y", ()))
    assert naive[1.0] - naive[0.0] > 0.5


def test_the_front_door_by_hand():
    rows = np.array(
        [[0, 0, 1.0], [0, 1, 2.0], [0, 1, 4.0], [1, 0, 5.0], [1, 1, 7.0], [1, 1, 8.0], [1, 1, 9.0]]
    )
    found = discrete_effect(rows, FrontDoor("a", "y", ("m",)), ["a", "m", "y"])
    by_mediator = [3 / 7 * 1.0 + 4 / 7 * 5.0, 3 / 7 * 3.0 + 4 / 7 * 8.0]
    assert found[0.0] == pytest.approx(1 / 3 * by_mediator[0] + 2 / 3 * by_mediator[1])
    assert found[1.0] == pytest.approx(1 / 4 * by_mediator[0] + 3 / 4 * by_mediator[1])


def changed(**columns):
    return {**confounded(100, 5), **columns}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: linear_effect(changed(z=np.random.default_rng(0).random(100)), INSTRUMENT),
            WeakInstrument,
            "z: a weak",
        ),
        (lambda: linear_effect(changed(a=np.ones(100)), BACK), DataError, "a: constant"),
        (lambda: linear_effect(changed(u=2 * confounded(100, 5)["s"]), BACK), DataError, "s, u: collinear"),
        (lambda: linear_effect(changed(y=np.full(100, np.nan)), BACK), DataError, "y: holds numbers"),
        (lambda: linear_effect(confounded(5, 0), BACK), DataError, "samples: 5; back-door"),
        (
            lambda: linear_effect({"a": np.ones(3), "y": np.ones(3)}, BACK),
            DataError,
            "there is no column 's'",
        ),
        (
            lambda: linear_effect(confounded(100, 0), BACK, level=95),
            ConfigError,
            "level: expected a number in (0, 1)",
        ),
        (lambda: linear_effect(confounded(100, 0), BACK, resamples=5), ConfigError, "at least 100"),
        (
            lambda: discrete_effect(
                {"a": [0, 0, 1], "u": [0, 1, 0], "y": [1, 2, 3]}, BackDoor("a", "y", ("u",))
            ),
            DataError,
            "a: the value 1 never occurs where u = 1; no overlap",
        ),
    ],
)
def test_what_is_wrong_is_refused(make, error, message):
    with pytest.raises(error) as found:
        make()
    assert message in str(found.value)
    assert "\n" not in str(found.value)
