"""What an inbox is made of: weights, bits, gates and links, by hand and against NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qio_rllib.models.communication import Communication, logistic
from qio_rllib.models.messages import Speaker, Spoken, inboxes_by_group, straight_through, weights_of


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), gated=st.booleans(), targeted=st.booleans(), agents=st.integers(2, 5))
def test_weights_are_those_of_a_softmax_or_mean_over_what_arrived(seed, gated, targeted, agents):
    rng = np.random.default_rng(seed)
    delivered = rng.random((6, agents, agents)) < 0.6
    gates = (rng.random((6, agents)) < 0.6).astype(np.float32) if gated else np.ones((6, agents), np.float32)
    scores = (30 * rng.normal(size=(6, agents, agents))).astype(np.float32)
    found = weights_of(
        torch.from_numpy(delivered),
        torch.from_numpy(gates) if gated else None,
        torch.from_numpy(scores) if targeted else None,
    ).numpy()
    arrived = delivered & (gates[:, None] > 0)
    assert (found[~arrived] == 0).all()
    sums = found.sum(axis=-1)
    np.testing.assert_allclose(sums[arrived.any(-1)], 1, atol=1e-6)
    assert (sums[~arrived.any(-1)] == 0).all()
    for e, receiver in np.ndindex(6, agents):
        here = arrived[e, receiver]
        if here.any():
            chosen = scores[e, receiver, here].astype(np.float64) * targeted
            expected = np.exp(chosen - chosen.max())
            np.testing.assert_allclose(
                found[e, receiver, here], expected / expected.sum(), atol=1e-6, rtol=1e-5
            )


@pytest.mark.parametrize("targeted", [False, True])
def test_what_did_not_arrive_has_exactly_no_influence_and_gates_learn_when_closed(targeted):
    generator = torch.Generator().manual_seed(0)
    messages = torch.randn(5, 4, 5, generator=generator).requires_grad_()
    queries = torch.randn(5, 4, 2, generator=generator) if targeted else None
    gates = torch.tensor([1.0, 0.0, 1.0, 1.0]).repeat(5, 1).requires_grad_()
    delivered = ~torch.eye(4, dtype=torch.bool).repeat(5, 1, 1)
    delivered[:, :, 3] = False  # nobody hears the last one

    def heard(said):
        return inboxes_by_group([Spoken(said, gates, None, queries)], [delivered], [range(4)])[0]

    inbox = heard(messages)
    changed = messages.detach().clone()
    changed[:, [1, 3]] = 1e6
    assert torch.equal(heard(changed), inbox)
    (inbox**2).sum().backward()
    assert not messages.grad[:, [1, 3]].any()
    assert messages.grad[:, [0, 2]].abs().min() > 0
    assert gates.grad[:, :3].abs().min() > 0  # opening the closed one would change something
    assert not gates.grad[:, 3].any()


def test_nobody_heard_is_silence_without_broken_gradients():
    queries = torch.randn(1, 2, 3).requires_grad_()
    spoken = Spoken(torch.randn(1, 2, 5), torch.zeros(1, 2, requires_grad=True), None, queries)
    (inbox,) = inboxes_by_group([spoken], [~torch.eye(2, dtype=torch.bool)[None]], [[0, 1]])
    assert not inbox.any()
    inbox.sum().backward()
    assert torch.isfinite(queries.grad).all()
    assert torch.isfinite(spoken.gates.grad).all()


def test_a_query_picks_the_signature_that_it_fits():
    """The order of the agents is that of their indices, whichever module they are of."""
    value = torch.tensor([[[10.0], [20.0]]])
    signatures = 40 * torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    pair = Spoken(torch.cat([value, signatures], dim=-1), queries=torch.tensor([[[1.0, 0.0], [1.0, 0.0]]]))
    single = Spoken(torch.tensor([[[30.0, 0.0, 0.0]]]), queries=torch.tensor([[[0.0, 1.0]]]))
    everybody = ~torch.eye(3, dtype=torch.bool)
    found = inboxes_by_group([pair, single], [everybody[[2, 0]][None], everybody[[1]][None]], [[2, 0], [1]])
    # agent 2 and agent 0 seek the first signature, that of agent 2 (who does not hear itself); agent 1 seeks agent 0's
    assert found[0][0, 1].item() == pytest.approx(10, abs=1e-3)
    assert found[1].item() == pytest.approx(20, abs=1e-3)
    assert found[0][0, 0].item() == pytest.approx((20 + 30) / 2)  # neither fits it


# -- bits and gates


def test_bits_are_drawn_as_often_as_their_probability_and_take_two_values():
    speaker = Speaker(2, [4], "tanh", 2, binary=True, gated=True)
    rows = torch.tensor([[0.3, -1.0]]).expand(40_000, 2)
    noise = torch.from_numpy(logistic(np.random.default_rng(0).random((40_000, 3), np.float32)))
    with torch.no_grad():
        said = speaker(rows, noise)
        logits = speaker.network(rows[:1])[0]
    assert set(said.messages.unique().tolist()) == {-1.0, 1.0}
    assert set(said.gates.unique().tolist()) == {0.0, 1.0}
    share = torch.cat([(said.messages + 1) / 2, said.gates[:, None]], dim=1).mean(0)
    torch.testing.assert_close(share, torch.sigmoid(logits), atol=0.01, rtol=0)
    torch.testing.assert_close(said.openness[0], torch.sigmoid(logits[2]))
    likeliest = speaker(rows[:1])
    assert likeliest.messages[0].tolist() == [1.0 if x > 0 else -1.0 for x in logits[:2]]
    assert torch.equal(speaker(rows[:1], torch.zeros(1, 3)).gates, likeliest.gates)


def test_gradients_pass_straight_through():
    logits = torch.tensor([-2.0, -0.1, 0.0, 3.0], requires_grad=True)
    bits = straight_through(logits)
    assert bits.tolist() == [0.0, 0.0, 0.0, 1.0]
    bits.sum().backward()
    probability = torch.sigmoid(logits.detach())
    torch.testing.assert_close(logits.grad, probability * (1 - probability))


def test_noise_is_finite_for_every_uniform_number():
    ends = np.array([0.0, 2.0**-24, 1 - 2.0**-24], np.float32)
    found = logistic(ends)
    assert np.isfinite(found).all()
    assert (np.diff(found) > 0).all()


# -- routing


def test_members_hear_their_leader_and_leaders_each_other():
    settings = Communication(2, routing="hierarchical", leaders=[["a", "b", "c"], ["d", "e"], ["f"]])
    agents = ["b", "a", "c", "d", "e", "f"]
    heard = {(agents[i], agents[j]) for i, j in np.argwhere(settings.links(agents))}
    pairs = {("a", "b"), ("a", "c"), ("d", "e"), ("a", "d"), ("a", "f"), ("d", "f")}
    assert heard == pairs | {(j, i) for i, j in pairs}
