"""Every ready experiment can be run, and the results that it names are there."""

import re
from pathlib import Path

import pytest

from qio_rllib.experiments.experiment import load_experiment

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "tune_configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_ready_experiment_is_valid_and_its_results_are_there(path):
    experiment = load_experiment(path)
    assert experiment.name == path.stem.replace("_", "-")
    assert experiment.validate().algo_class.__name__ == experiment.algorithm
    for folder in re.findall(r"results/\w+", path.read_text()):
        assert (ROOT / folder).is_dir(), f"{path.name} names {folder}"
