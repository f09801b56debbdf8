"""A restored Learner takes the present configuration's learning rate and operator, and all else from its state."""

import pytest
import torch
from toy_runners import forest, learner_of, runner_of

OPERATOR = {"eta": 0.1, "h_min": 0.05, "tau": 1.0}
NAMES = tuple(OPERATOR)


def learner_with(operator=None, **training):
    config = forest().training(amplification={**OPERATOR, **(operator or {})}, **training)
    runner = runner_of(config)
    return learner_of(config, runner), runner


def operator_of(learner):
    policy = learner.module["shared"].policy
    return {name: pytest.approx(float(getattr(policy, name))) for name in NAMES}


def rate_of(learner):
    (optimizer,) = learner._named_optimizers.values()
    (group,) = optimizer.param_groups
    return float(group["lr"])


@pytest.mark.parametrize("changed", [{"eta": 0.4}, {"h_min": 0.3}, {"tau": 0.5}])
def test_an_operator_that_is_configured_otherwise_is_taken_from_the_configuration(changed):
    before, _ = learner_with()
    after, _ = learner_with(changed)
    weights = before.module["shared"].policy.head.state_dict()
    after.set_state(before.get_state())
    assert operator_of(after) == {**OPERATOR, **changed}
    for name, value in after.module["shared"].policy.head.state_dict().items():
        assert torch.equal(value, weights[name])


def test_an_operator_that_is_configured_as_before_stays_as_it_was_moved():
    before, _ = learner_with()
    moved = {"eta": 0.2, "h_min": 0.15, "tau": 0.8}
    for name, value in moved.items():
        getattr(before.module["shared"].policy, name).fill_(value)
    after, _ = learner_with()
    after.set_state(before.get_state())
    assert operator_of(after) == moved


def test_a_fixed_learning_rate_is_the_present_one_and_a_schedules_is_the_restored_one():
    before, runner = learner_with(lr=1e-2)
    before.update(episodes=runner.sample(), minibatch_size=30, num_epochs=1)
    after, _ = learner_with(lr=1e-4)
    after.set_state(before.get_state())
    assert rate_of(after) == 1e-4
    (optimizer,) = after._named_optimizers.values()
    assert optimizer.state_dict()["state"]  # Adam's moments are those of the state
    schedule = [[0, 1e-2], [100, 1e-3]]
    before, runner = learner_with(lr=schedule)
    before.update(episodes=runner.sample(), timesteps={"num_env_steps_sampled_lifetime": 50})
    assert rate_of(before) == pytest.approx(5.5e-3)
    after, _ = learner_with(lr=schedule)
    after.set_state(before.get_state())
    assert rate_of(after) == pytest.approx(5.5e-3)
