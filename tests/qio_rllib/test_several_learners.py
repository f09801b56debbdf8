"""What Learners settle among each other, the other one being made up: scales, and how many steps to take."""

import math

import numpy as np
import pytest
import torch
from toy_runners import forest, learner_of, runner_of

from qio_rllib.learners import on_policy, rollout_batches
from qio_rllib.learners.on_policy import OnPolicyLearner

OTHERS = np.array([4.0, -1.0, 10.0, 3.0])
"""Advantages, or value targets, of the other Learner."""


def beside_another(monkeypatch, rows: int = 60, units: int = 60) -> list[str]:
    """Let a Learner have a second one beside it, with `OTHERS` and so many rows; return the operations it asks for."""
    asked = []
    counts = {"min": units, "max": rows}

    def reduced(values: torch.Tensor, operation: str = "sum") -> torch.Tensor:
        asked.append(operation)
        if operation == "sum":
            moments = [len(OTHERS), OTHERS.sum(), (OTHERS**2).sum()]
            return values + torch.tensor(moments, dtype=torch.float64)
        choose = torch.minimum if operation == "min" else torch.maximum
        return choose(values, torch.tensor([counts[operation]]))

    for module in (on_policy, rollout_batches):
        monkeypatch.setattr(module, "reduce_over_learners", reduced)
    return asked


def learner_and_part(**training) -> tuple[OnPolicyLearner, object]:
    config = forest().training(**training)
    runner = runner_of(config)
    rollout = runner.sample()[0]
    learner = learner_of(config, runner)
    learner.module.set_state(runner.get_state()["rl_module"])
    return learner, rollout


def test_advantages_are_standardised_over_the_rows_of_all_learners(monkeypatch):
    learner, _ = learner_and_part()
    mine = torch.tensor([1.0, 2.0, -3.0, 0.5, 7.0])
    valid = torch.tensor([True, True, True, True, False])
    together = np.concatenate([mine[valid].numpy(), OTHERS])
    assert beside_another(monkeypatch) == []
    expected = (mine.numpy() - together.mean()) / together.std()
    np.testing.assert_allclose(learner._standardized(mine, valid), expected, rtol=1e-5)


def test_the_scale_of_values_is_that_of_the_targets_of_all_learners(monkeypatch):
    plain, rollout = learner_and_part()
    parts = [rollout.modules["shared"]]
    learner, _ = learner_and_part(normalize_values=True)
    learner.module.set_state(plain.module.get_state())
    mine = plain.prepare("shared", parts).columns["value_targets"].double().numpy()
    beside_another(monkeypatch)
    learner.prepare("shared", parts)
    together = np.concatenate([mine, OTHERS])
    assert learner._popart["shared"].mean == pytest.approx(together.mean(), rel=1e-4)
    assert learner._popart["shared"].deviation == pytest.approx(together.std(), rel=1e-4)


@pytest.mark.parametrize(
    ("rows", "units", "steps"),
    [
        (60, 60, 3),  # as many as here: 60 rows in minibatches of 20
        (100, 100, 5),  # the larger share says how many steps there are
        (40, 40, 3),
        (100, 2, 2),  # nobody can take more steps than it has rows or windows
    ],
)
def test_learners_take_equally_many_steps_whatever_their_shares(rows, units, steps, monkeypatch):
    learner, rollout = learner_and_part()
    batch = learner.prepare("shared", [rollout.modules["shared"]])
    assert batch.rows == batch.units == 60
    taken, step = [], learner._step
    monkeypatch.setattr(learner, "_step", lambda *given: taken.append(given[2].rows) or step(*given))
    beside_another(monkeypatch, rows, units)
    learner._epochs("shared", batch, 1, 20)
    assert len(taken) == steps
    assert sum(taken) == 60
    assert max(taken) - min(taken) <= 1


def test_a_module_rests_where_another_learner_has_nothing_for_it(monkeypatch):
    learner, rollout = learner_and_part()
    before = {name: value.clone() for name, value in learner.module["shared"].state_dict().items()}
    beside_another(monkeypatch, units=0)
    learner.update(episodes=[rollout], minibatch_size=20, num_epochs=1)
    for name, value in learner.module["shared"].state_dict().items():
        assert torch.equal(value, before[name])
    assert math.isfinite(float(learner.curr_kl_coeffs_per_module["shared"]))
