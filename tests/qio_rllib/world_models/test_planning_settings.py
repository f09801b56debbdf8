"""What settings of a planner are refused, with which message, and what follows from them."""

import dataclasses
import math

import pytest

from qio_envs.api import ConfigError
from qio_rllib.world_models import PlanningSettings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"horizn": 3},
            r"planner: unknown key 'horizn' \(did you mean 'horizon'\?\); allowed: method, horizon,",
        ),
        ([3], r"planner: expected a mapping of method, .*, got \[3\]"),
        (
            {"method": "iccem"},
            r"planner.method: expected one of cem, icem, mppi, got 'iccem' \(did you mean 'icem'\?\)",
        ),
        ({"method": None}, "planner.method: expected one of cem, icem, mppi, got None"),
        ({"horizon": 0}, "planner.horizon: expected an integer of at least 1, got 0"),
        ({"horizon": 2.0}, "planner.horizon: expected an integer of at least 1, got 2.0"),
        ({"iterations": 0}, "planner.iterations: expected an integer of at least 1, got 0"),
        ({"iterations": True}, "planner.iterations: expected an integer of at least 1, got True"),
        ({"candidates": 0}, "planner.candidates: expected an integer of at least 1, got 0"),
        ({"elites": 0}, "planner.elites: expected an integer of at least 1, got 0"),
        (
            {"elites": 600, "candidates": 500},
            "planner.elites: 600 elites of 500 candidates; expected at most as many elites as candidates",
        ),
        (
            {"keep_elites": 1.5},
            "planner.keep_elites: expected a finite number of at least 0 and at most 1, got 1.5",
        ),
        ({"keep_elites": -0.1}, "planner.keep_elites: expected a finite number of at least 0 .*, got -0.1"),
        ({"momentum": 1}, "planner.momentum: expected a finite number of at least 0 and below 1, got 1"),
        ({"initial_deviation": 0}, "planner.initial_deviation: expected a finite number above 0, got 0"),
        (
            {"initial_deviation": math.inf},
            "planner.initial_deviation: expected a finite number above 0, got inf",
        ),
        ({"least_deviation": -1}, "planner.least_deviation: expected a finite number of at least 0, got -1"),
        ({"least_deviation": 0.6}, "planner.least_deviation: 0.6 is above initial_deviation, which is 0.5"),
        (
            {"noise_exponent": math.nan},
            "planner.noise_exponent: expected a finite number of at least 0, got nan",
        ),
        ({"shrink": 0.9}, "planner.shrink: expected a finite number of at least 1, got 0.9"),
        ({"temperature": 0}, "planner.temperature: expected a finite number above 0, got 0"),
        ({"uniform_share": 2}, "planner.uniform_share: expected .* of at least 0 and at most 1, got 2"),
        ({"exploration": -1}, "planner.exploration: expected a finite number of at least 0, got -1"),
        ({"exploration": "much"}, "planner.exploration: expected a finite number of at least 0, got 'much'"),
        ({"exploration": True}, "planner.exploration: expected a finite number of at least 0, got True"),
        ({"warm_start": 1}, "planner.warm_start: expected true or false, got 1"),
        ({"method": "cem", "shrink": 2}, "planner.shrink: method cem does not use it; icem does"),
        ({"method": "mppi", "elites": 3}, "planner.elites: method mppi does not use it; cem and icem do"),
        ({"method": "icem", "temperature": 3}, "planner.temperature: method icem does not use it; mppi does"),
    ],
)
def test_bad_settings_are_refused(given, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        PlanningSettings.of(given)


def test_settings_are_checked_in_python_too():
    with pytest.raises(ConfigError, match="planner.horizon"):
        PlanningSettings(horizon=0)
    with pytest.raises(ConfigError, match="planner.elites"):
        dataclasses.replace(PlanningSettings(), candidates=4)


def test_missing_settings_take_the_defaults():
    assert PlanningSettings.of(None) == PlanningSettings.of({}) == PlanningSettings()
    given = PlanningSettings.of({"method": "mppi", "candidates": 3, "warm_start": False})
    assert given == PlanningSettings(method="mppi", candidates=3, warm_start=False)
    assert PlanningSettings.of(dataclasses.asdict(given)) == given


def test_the_defaults_evaluate_as_many_sequences_as_documented():
    counts = {method: PlanningSettings(method=method).rollouts for method in ("icem", "cem", "mppi")}
    assert counts == {"icem": 282, "cem": 401, "mppi": 401}
    assert "282 action sequences a decision, with cem and mppi 401" in str(PlanningSettings.__doc__)


def test_icem_draws_fewer_candidates_in_later_iterations():
    settings = PlanningSettings(candidates=100, iterations=4, elites=10, shrink=2.0)
    assert settings.candidate_counts == (100, 50, 25, 20)
    assert dataclasses.replace(settings, method="cem").candidate_counts == (100,) * 4
    assert dataclasses.replace(settings, elites=100).candidate_counts == (100,) * 4
    # 21 / 1.4 is 15.000000000000002, and 0.29 * 100 is 28.999999999999996
    assert dataclasses.replace(settings, candidates=21, elites=1, shrink=1.4).candidate_counts[:2] == (21, 15)
    assert dataclasses.replace(settings, elites=100, keep_elites=0.29).kept_elites == 29
    assert dataclasses.replace(settings, method="cem").kept_elites == 0
