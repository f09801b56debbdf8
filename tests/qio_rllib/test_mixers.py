"""Mixers: monotonicity, sums, the published formula, settings."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qio_envs.api import ConfigError
from qio_rllib.models.mixers import Mixer, MixerSettings, MonotonicMixer, SumMixer


def monotonic(agents=3, state=4, seed=0, **given):
    torch.manual_seed(seed)
    return Mixer.of(MixerSettings.of({"embedding": 5, "hypernet_hiddens": [6], **given}), agents, state)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.sampled_from([[], [4], [4, 3]]), st.floats(0.01, 100))
def test_a_teams_value_never_falls_when_an_agents_rises(seed, agents, hiddens, by):
    mixer = monotonic(agents, seed=seed, hypernet_hiddens=hiddens).double()
    generator = torch.Generator().manual_seed(seed)
    states = 3 * torch.randn(20, 4, generator=generator, dtype=torch.float64)
    values = 10 * torch.randn(20, agents, generator=generator, dtype=torch.float64)
    before = mixer(values, states)
    for agent in range(agents):
        raised = values.clone()
        raised[:, agent] += by
        assert (mixer(raised, states) >= before - 1e-9).all()
        assert (mixer(raised, states) > before + 1e-12).any()


def test_the_best_joint_action_is_each_agents_best():
    """What decentralised acting rests on (Rashid et al., 2018, equation 4)."""
    mixer, utilities = monotonic(3), torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    joint = torch.cartesian_prod(*[torch.arange(4)] * 3)
    values = torch.stack([utilities[agent, joint[:, agent]] for agent in range(3)], dim=1)
    for state in torch.randn(10, 1, 4, generator=torch.Generator().manual_seed(2)):
        best = joint[mixer(values, state.expand(len(joint), -1)).argmax()]
        assert torch.equal(best, utilities.argmax(dim=1))


def test_it_is_the_published_formula():
    mixer = monotonic(hypernet_hiddens=[])
    values, states = torch.randn(7, 3), torch.randn(7, 4)
    found = mixer(values, states).detach().numpy()
    layer = {name: value.detach().numpy() for name, value in mixer.named_parameters()}
    for row, (q, s) in enumerate(zip(values.numpy(), states.numpy(), strict=True)):
        first = np.abs(layer["first_weights.0.weight"] @ s + layer["first_weights.0.bias"]).reshape(3, 5)
        hidden = q @ first + layer["first_biases.weight"] @ s + layer["first_biases.bias"]
        hidden = np.where(hidden > 0, hidden, np.expm1(hidden))
        last = np.abs(layer["last_weights.0.weight"] @ s + layer["last_weights.0.bias"])
        bias = np.maximum(layer["last_bias.0.weight"] @ s + layer["last_bias.0.bias"], 0)
        wanted = hidden @ last + (layer["last_bias.2.weight"] @ bias + layer["last_bias.2.bias"])[0]
        assert found[row] == pytest.approx(wanted, rel=1e-4, abs=1e-5)


def test_states_are_normalised_before_anything_looks_at_them():
    """Against a mixer without, whose states were normalised by hand; large states then make no large values."""
    values, states = torch.randn(7, 3), 30 * torch.rand(7, 4)
    by_hand = (states - states.mean(dim=1, keepdim=True)) / states.std(dim=1, unbiased=False, keepdim=True)
    found = monotonic(layer_norm=True)(values, states)
    torch.testing.assert_close(found, monotonic()(values, by_hand))
    torch.testing.assert_close(
        found, monotonic(layer_norm=True)(values, 100 * states + 7), rtol=1e-3, atol=1e-3
    )
    assert (monotonic()(values, states).abs() > 3 * found.abs()).any()


def test_a_sum_needs_no_state_and_has_no_weights():
    mixer = Mixer.of(MixerSettings(type="sum"), 3, 0)
    assert isinstance(mixer, SumMixer)
    assert not [*mixer.parameters()]
    assert not MixerSettings(type="sum").needs_state
    assert mixer(torch.tensor([[1.0, 2.0, 4.0]]), None).tolist() == [7.0]
    assert isinstance(monotonic(), MonotonicMixer)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"type": "product"}, "mixer.type: expected one of sum, monotonic, got 'product'"),
        ({"state": "stat"}, "mixer.state: expected state, observations or null, got 'stat'"),
        ({"embedding": 0}, "mixer.embedding: expected an integer of at least 1, got 0"),
        ({"embedding": True}, "mixer.embedding: expected an integer of at least 1, got True"),
        ({"hypernet_hiddens": [64, 0]}, "mixer.hypernet_hiddens: expected a list of sizes of at least 1"),
        ({"hypernet_hiddens": 64}, "mixer.hypernet_hiddens: expected a list of sizes of at least 1, got 64"),
        ({"layer_norm": 1}, "mixer.layer_norm: expected true or false, got 1"),
        ({"embeding": 8}, "mixer: unknown key 'embeding' .did you mean 'embedding'"),
    ],
)
def test_bad_settings_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        MixerSettings.of(given)
