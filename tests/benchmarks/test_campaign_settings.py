"""A small part of the campaign against experiments, and that the campaign finds what it looks for."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import campaign_settings
from campaign_settings import HOSTILE, Case, Raw, experiment_cases, flow, outcome_of, outcomes, setting_cases

from qio_envs.api import ConfigError
from qio_rllib.artifacts.yaml_files import parse_yaml


def test_bad_experiments_end_in_one_line(tmp_path):
    cases = [*experiment_cases(18, seed=1), *setting_cases(22, seed=1)]
    found = {case.name: outcome_of(case.text, str(tmp_path)) for case in cases}
    wrong = {name: outcome for name, outcome in found.items() if outcome.verdict in ("traceback", "lines")}
    assert wrong == {}
    assert sum(outcome.verdict == "refused" for outcome in found.values()) >= 25


def test_cases_are_the_same_in_every_run_and_differ():
    one, two = ([*experiment_cases(10, seed=3), *setting_cases(30, seed=3)] for _ in range(2))
    assert one == two
    assert len({case.text for case in one}) > 37


@pytest.mark.parametrize("value", [value for value in HOSTILE if not isinstance(value, Raw)])
def test_a_value_is_written_as_yaml_that_reads_the_same(value):
    if isinstance(value, str) and "\x00" in value:
        with pytest.raises(ConfigError):
            parse_yaml(f"[\x00{flow(value)}]", "x")
        return
    assert repr(parse_yaml(flow(value), "x")) == repr(value)


def _ends(path):
    text = Path(path).read_text()
    if text == "lines":
        raise ConfigError("two\nlines")
    if text == "wrong":
        raise KeyError("x")
    while text == "slow":
        pass


def test_each_way_to_end_is_told_apart(monkeypatch, tmp_path):
    monkeypatch.setattr(campaign_settings, "dry_run", _ends)
    monkeypatch.setattr(campaign_settings, "PATIENCE", 0.5)
    assert outcome_of("fine", str(tmp_path), _ends).verdict == "accepted"
    assert outcome_of("lines", str(tmp_path), _ends).verdict == "lines"
    wrong = outcome_of("wrong", str(tmp_path), _ends)
    assert (wrong.verdict, wrong.failed) == ("traceback", True)
    assert "KeyError" in wrong.message
    monkeypatch.setattr(campaign_settings, "LIMIT", -1.0)
    assert outcome_of("fine", str(tmp_path), _ends).verdict == "slow"
    ((_, outcome),) = outcomes([Case("settings", "slow", "slow")], 1)
    assert outcome.verdict == "hang"
