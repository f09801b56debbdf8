"""FedKL: the divergence from the global policy, its gradient, and what is reported of it."""

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Independent, Normal, kl_divergence
from toy_corrections import (
    MU,
    RATE,
    corrected,
    layout_of,
    on_policy,
    weights_of,
)
from toy_off_policy import moved_apart
from toy_runners import MASKED, config_of, forest

from qio_rllib.learners.client_correction import ClientCorrection, CorrectionSettings
from qio_rllib.learners.common import as_module

CONTINUOUS = ("swarm_cooperative_v0", {"max_steps": 9})
POLICIES = {
    "masked": lambda: forest(**MASKED),
    "continuous": lambda: config_of(*CONTINUOUS),
    "memory": lambda: forest().rl_module(
        model_config={"fcnet_hiddens": [8], "use_gru": True, "gru_cell_size": 4, "max_seq_len": 5}
    ),
    "amplified": lambda: forest().training(amplification={"eta": 0.5}),
}


def policies_of(learner, batch, module):
    """The distributions of torch of a module in the rows of a batch."""
    inputs = batch.flat(learner._forward(module, batch)[0]).double()
    if not batch.discrete:
        mean, log_deviation = inputs.chunk(2, dim=-1)
        return Independent(Normal(mean, log_deviation.exp()), 1)
    return Categorical(logits=inputs.clamp_min(-1e5))  # torch's divergence of two infinities is none


@pytest.mark.parametrize("make", POLICIES.values(), ids=POLICIES)
def test_fedkl_adds_the_divergence_from_the_global_policy(make):
    learner, rollout = on_policy(make())
    twin, _ = on_policy(make())
    for each in (learner, twin):
        correction = corrected(each, layout_of(each), "fedkl")
        moved_apart(each.module["shared"])
    reference = correction.reference("shared")
    assert not any(parameter.requires_grad for parameter in reference.parameters())
    twin.correction = None
    batch = learner.prepare("shared", [rollout.modules["shared"]])
    present = policies_of(twin, batch, twin.module["shared"])
    expected = kl_divergence(policies_of(twin, batch, reference), present).mean().item()
    config = learner.config.get_config_for_module("shared")
    before = weights_of(learner)
    found, plain = learner._step("shared", config, batch), twin._step("shared", config, batch)
    assert expected > 1e-3
    assert float(found["divergence_from_global"]) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert float(found["total_loss"] - plain["total_loss"]) == pytest.approx(MU * expected, rel=1e-3)
    assert "divergence_from_global" not in plain
    # What it adds to the gradient is the term's own, by autograd.
    other, _ = on_policy(make())
    moved_apart(other.module["shared"])
    term = kl_divergence(
        policies_of(other, batch, reference), policies_of(other, batch, other.module["shared"])
    ).mean()
    term.backward()
    layout = layout_of(learner)
    gradients = [
        torch.zeros_like(each) if each.grad is None else each.grad
        for each in layout.parameters(as_module(other.module))
    ]
    added = torch.cat([gradient.flatten() for gradient in gradients]).numpy()
    found = (weights_of(twin) - weights_of(learner)) / RATE
    assert np.abs(added).max() > 1e-2
    np.testing.assert_allclose(found, MU * added, atol=5e-4)
    assert (before != weights_of(learner)).any()


def test_descending_the_divergence_brings_the_policy_back_to_the_global_one():
    learner, rollout = on_policy(forest(num_envs=4))
    learner.correction = ClientCorrection(
        CorrectionSettings.of({"type": "fedkl", "coefficient": 50.0}), learner
    )
    learner.correction.begin(layout_of(learner), weights_of(learner))
    moved_apart(learner.module["shared"].policy, by=0.5)
    batch = learner.prepare("shared", [rollout.modules["shared"]])
    config = learner.config.get_config_for_module("shared")
    terms = [float(learner._step("shared", config, batch)["divergence_from_global"]) for _ in range(200)]
    assert terms[-1] < 0.05 * terms[0]


def test_an_update_reports_the_divergence_which_begins_at_nothing():
    learner, rollout = on_policy()
    corrected(learner, layout_of(learner), "fedkl")
    first = learner.update(episodes=[rollout], num_epochs=1)["shared"]
    second = learner.update(episodes=[rollout], num_epochs=1)["shared"]
    assert first["divergence_from_global"].peek() == pytest.approx(0, abs=1e-9)
    assert second["divergence_from_global"].peek() > 0
    learner.correction.begin(layout_of(learner), weights_of(learner))
    again = learner.update(episodes=[rollout], num_epochs=1)["shared"]
    assert again["divergence_from_global"].peek() == pytest.approx(0, abs=1e-9)
