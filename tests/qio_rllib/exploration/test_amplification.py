import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import brentq
from scipy.special import entr, logsumexp

from qio_rllib.exploration import (
    LOG_FLOOR,
    Amplification,
    amplification,
    amplify,
    normalized_entropy,
    validate_parameters,
)

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
DTYPES = (torch.float32, torch.float64)


def oracle(logits, eta, h_min, tau, mask=None):
    """Probabilities of one row, straight from the defining equations."""
    legal = np.ones(len(logits), bool) if mask is None else mask
    scores = logits[legal] / tau
    probs = np.exp(scores - logsumexp(scores))
    amplitudes = np.sqrt(probs)
    raised = np.maximum(amplitudes + eta * (amplitudes - amplitudes.mean()), 0.0)
    probs = raised**2 / (raised**2).sum()
    n = len(probs)

    def excess(w):
        return entr((1 - w) * probs + w / n).sum() / math.log(n) - h_min

    if n > 1 and excess(0.0) < 0.0:
        w = brentq(excess, 0.0, 1.0, xtol=1e-16, rtol=1e-14)
        probs = (1 - w) * probs + w / n
    result = np.zeros(len(logits))
    result[legal] = probs
    return result


@st.composite
def problems(draw, max_actions=12, spread=60.0):
    n = draw(st.integers(1, max_actions))
    rows = draw(st.integers(1, 4))
    scale = draw(st.sampled_from([0.1, 1.0, 10.0, spread]))
    unit = st.floats(-1.0, 1.0, allow_subnormal=False)
    logits = draw(hnp.arrays(np.float64, (rows, n), elements=unit)) * scale
    mask = draw(hnp.arrays(bool, (rows, n)))
    mask[:, draw(st.integers(0, n - 1))] = True
    eta = draw(st.one_of(st.just(0.0), st.floats(1e-3, 5.0)))
    h_min = draw(st.sampled_from([0.0, 1e-6, 0.05, 0.3, 0.8, 0.99]))
    tau = draw(st.floats(0.3, 3.0))
    return logits, mask, eta, h_min, tau


@settings(max_examples=150, deadline=None)
@given(problems(), st.booleans())
def test_agrees_with_the_defining_equations(problem, masked):
    logits, mask, eta, h_min, tau = problem
    result = amplify(torch.tensor(logits), eta, h_min, tau, torch.tensor(mask) if masked else None)
    for i, row in enumerate(logits):
        expected = oracle(row, eta, h_min, tau, mask[i] if masked else None)
        np.testing.assert_allclose(result[i].exp().numpy(), expected, atol=1e-10)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=100, deadline=None)
@given(
    n=st.sampled_from([2, 3, 5, 17, 128, 512]),
    scale=st.sampled_from([0.0, 0.3, 3.0, 100.0, 1e4]),
    h_min=st.one_of(st.sampled_from([0.0, 1e-6, 0.05, 0.99]), st.floats(0.0, 0.99)),
    eta=st.sampled_from([0.0, 0.1, 1.0, 1e8]),
    masked=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_is_a_distribution_above_the_floor(dtype, n, scale, h_min, eta, masked, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(16, n, generator=generator).to(dtype) * scale
    mask = torch.rand(16, n, generator=generator) < 0.6
    mask[:, :2] = True
    mask = mask if masked else torch.ones_like(mask)
    before = torch.where(mask, logits, -math.inf)
    result = amplify(logits, eta, h_min, mask=mask if masked else None)
    tolerance = TOLERANCE[dtype]
    assert result.dtype == dtype
    assert result.isfinite().all()
    assert (result.exp()[~mask] == 0.0).all()
    assert (result.double().exp().sum(-1) - 1.0).abs().max() < tolerance
    assert normalized_entropy(result.double(), mask).min() > h_min - tolerance
    ranked = result.gather(-1, before.argsort(-1))
    assert (ranked.diff(dim=-1) >= -tolerance).all()


@settings(max_examples=60, deadline=None)
@given(problems(spread=20.0), st.floats(-50.0, 50.0), st.randoms(use_true_random=False))
def test_ignores_shifts_and_commutes_with_permutations(problem, shift, random):
    logits, mask, eta, h_min, tau = problem
    logits, mask = torch.tensor(logits), torch.tensor(mask)
    order = list(range(logits.shape[-1]))
    random.shuffle(order)
    probs = amplify(logits, eta, h_min, tau, mask).exp()
    torch.testing.assert_close(
        amplify(logits + shift, eta, h_min, tau, mask).exp(), probs, atol=1e-10, rtol=0
    )
    permuted = amplify(logits[:, order], eta, h_min, tau, mask[:, order]).exp()
    torch.testing.assert_close(permuted, probs[:, order], atol=1e-10, rtol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_identity_is_log_softmax(dtype, scale):
    logits = torch.randn(64, 6, generator=torch.Generator().manual_seed(0)).to(dtype) * scale
    mask = torch.rand(64, 6, generator=torch.Generator().manual_seed(1)) < 0.5
    mask[:, 2] = True
    assert torch.equal(amplify(logits, 0.0, 0.0, 1.0), logits.log_softmax(-1))
    masked = amplify(logits, 0.0, 0.0, 1.0, mask)
    assert torch.equal(masked[mask], logits.masked_fill(~mask, -math.inf).log_softmax(-1)[mask])


def test_hand_computed_values():
    # p = (0.64, 0.36): a = (0.8, 0.6), mean 0.7, eta = 1: a' = (0.9, 0.5).
    result = amplify(torch.tensor([0.64, 0.36], dtype=torch.float64).log(), 1.0, 0.0).exp()
    torch.testing.assert_close(result, torch.tensor([0.81, 0.25], dtype=torch.float64) / 1.06)
    # a = (0.91, 0.41, 0.1), mean 0.47, eta = 1: the last amplitude becomes 0.1 - 0.37 < 0 and is clipped.
    clipped = amplify(torch.tensor([0.82, 0.17, 0.01]).log(), 1.0, 0.0)
    assert clipped[2].item() == pytest.approx(LOG_FLOOR)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_minus_infinity_is_probability_zero_even_if_all_else_is_masked(dtype):
    logits = torch.tensor([[0.0, -math.inf, 1.0], [-math.inf, 0.0, 3.0]], dtype=dtype, requires_grad=True)
    mask = torch.tensor([[True, True, True], [True, True, False]])
    for eta, h_min in ((0.0, 0.0), (0.1, 0.0), (0.1, 0.9), (0.0, 0.9)):
        result = amplify(logits, eta, h_min, mask=mask)
        assert result.isfinite().all()
        if h_min == 0.0:
            assert result.exp()[0, 1] < 1e-37
            assert result[1, 1].item() == pytest.approx(0.0, abs=1e-7)
        (grad,) = torch.autograd.grad(result[mask].sum(), logits)
        assert grad.isfinite().all()


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 1e38])
@pytest.mark.parametrize("h_min", [0.0, 0.9])
def test_logits_of_illegal_actions_poison_nothing(garbage, h_min):
    logits = torch.tensor([[3.0, garbage, -3.0, 0.5]], requires_grad=True)
    mask = torch.tensor([[True, False, True, True]])
    result = amplify(logits, 0.1, h_min, mask=mask)
    alone = amplify(logits[:, [0, 2, 3]], 0.1, h_min)
    torch.testing.assert_close(result[:, [0, 2, 3]], alone)
    weights = torch.tensor([1.0, -2.0, 0.5])
    (grad,) = torch.autograd.grad((result[mask] * weights).sum(), logits)
    (expected,) = torch.autograd.grad((alone * weights).sum(), logits)
    torch.testing.assert_close(grad, expected)
    assert grad[0, 1] == 0.0


def gradient_case(seed, masked):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, 5, dtype=torch.float64, generator=generator) * 1.5
    mask = torch.ones(6, 5, dtype=torch.bool)
    if masked:
        mask[torch.arange(6), torch.arange(6) % 5] = False
    return logits.requires_grad_(), mask


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("eta", "h_min", "tau"), [(0.0, 0.0, 0.7), (0.02, 0.05, 1.0), (0.4, 0.8, 1.5)])
def test_gradients_equal_finite_differences(eta, h_min, tau, masked):
    logits, mask = gradient_case(3, masked)
    chosen = mask if masked else None
    with torch.no_grad():
        loose = normalized_entropy(amplify(logits, eta, 0.0, tau, chosen), chosen)
    # Both branches of the floor are exercised, none of them at its kink.
    assert (loose < h_min).any() == (h_min == 0.8)
    assert (loose > h_min).any()
    assert (loose - h_min).abs().min() > 1e-3

    def legal_values(x):
        result = amplify(x, eta, h_min, tau, chosen)
        return result[mask & (result > LOG_FLOOR)]

    assert torch.autograd.gradcheck(legal_values, (logits,), eps=1e-7, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("n", [2, 5, 300])
def test_gradients_of_floored_rows_equal_finite_differences(n):
    logits = torch.randn(3, n, dtype=torch.float64, generator=torch.Generator().manual_seed(n)) * 6
    logits[:, 0] += 10.0

    def loss(x):
        return (amplify(x, 0.0, 0.7) * torch.linspace(-1.0, 1.0, n, dtype=torch.float64)).sum()

    assert (normalized_entropy(amplify(logits, 0.0, 0.0)) < 0.7).all()
    # of many actions along a random direction, which takes one difference in place of one for each number
    assert torch.autograd.gradcheck(
        loss, (logits.requires_grad_(),), eps=1e-6, atol=1e-6, rtol=1e-5, fast_mode=n > 5
    )


def test_rounding_at_the_floor_is_harmless():
    # Floors between the float32 and the float64 entropy of a row: below in one, above in the other.
    logits = torch.randn(200, 5, generator=torch.Generator().manual_seed(0)) * 3
    logits.requires_grad_()
    log_probs = logits.detach().log_softmax(-1)
    narrow = normalized_entropy(log_probs).double()
    wide = normalized_entropy(log_probs.double().log_softmax(-1))
    tried = 0
    for i in (wide - narrow > 4e-8).nonzero().squeeze(-1).tolist()[:5]:
        result = amplify(logits[i], 0.0, (0.5 * (narrow + wide))[i].item())
        torch.testing.assert_close(result, log_probs[i], atol=1e-5, rtol=0)
        (grad,) = torch.autograd.grad(result @ torch.arange(5.0), logits)
        assert grad.isfinite().all()
        tried += 1
    assert tried > 0


def test_newtons_iteration_needs_few_steps(monkeypatch):
    calls = []
    inner = amplification._gap_and_slope
    monkeypatch.setattr(amplification, "_gap_and_slope", lambda *args: calls.append(0) or inner(*args))
    generator = torch.Generator().manual_seed(0)
    for h_min in (1e-9, 0.05, 0.5, 0.99, 1.0 - 1e-9):
        for n in (2, 5, 512):
            for scale in (0.1, 3.0, 1e4):
                calls.clear()
                amplify(torch.randn(50, n, dtype=torch.float64, generator=generator) * scale, 0.1, h_min)
                assert len(calls) <= 10


def test_the_entropy_of_a_floored_row_does_not_move():
    logits = torch.tensor([[4.0, 0.0, -1.0]], dtype=torch.float64, requires_grad=True)
    entropy = normalized_entropy(amplify(logits, 0.1, 0.6))
    (grad,) = torch.autograd.grad(entropy.sum(), logits)
    assert grad.abs().max() < 1e-12


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=60, deadline=None)
@given(
    eta=st.sampled_from([0.0, 1e-12, 0.1, 2.0, 1e6]),
    h_min=st.sampled_from([0.0, 1e-12, 0.05, 0.99]),
    scale=st.sampled_from([0.0, 1.0, 30.0, 1e4]),
    n=st.sampled_from([1, 2, 5, 64]),
    seed=st.integers(0, 2**31),
)
def test_gradients_of_policy_losses_are_finite(dtype, eta, h_min, scale, n, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(8, n, generator=generator).to(dtype) * scale).requires_grad_()
    log_probs = amplify(logits, eta, h_min)
    actions = torch.multinomial(log_probs.detach().exp(), 1, generator=generator)
    loss = log_probs.gather(-1, actions).mean() + normalized_entropy(log_probs).mean()
    (grad,) = torch.autograd.grad(loss, logits)
    assert grad.isfinite().all()


def test_clipped_actions_have_no_gradient():
    logits = torch.tensor([2.0, 1.0, -8.0], requires_grad=True)
    result = amplify(logits, 0.5, 0.0)
    assert result[2].item() == pytest.approx(LOG_FLOOR)
    (own,) = torch.autograd.grad(result[2], logits, retain_graph=True)
    assert (own == 0.0).all()
    (others,) = torch.autograd.grad(result[0], logits)
    assert others.isfinite().all()
    assert others[0] > 0.0


def test_ratios_of_amplified_policies_are_finite_in_float32():
    ends = amplify(torch.tensor([[50.0, 0.0], [0.0, 50.0]]), 0.1, 0.0)
    assert (ends[0] - ends[1]).exp().isfinite().all()


@pytest.mark.parametrize("h_min", [0.05, 0.99])
def test_shapes_and_inference(h_min):
    logits = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)) * 9
    full = amplify(logits, h_min=h_min)
    with torch.no_grad():
        assert torch.equal(amplify(logits, h_min=h_min), full)
    torch.testing.assert_close(amplify(logits[1], h_min=h_min), full[1])
    torch.testing.assert_close(amplify(logits[1, 2], h_min=h_min), full[1, 2])
    mask = torch.ones(3, 4, 5, dtype=torch.bool)
    torch.testing.assert_close(amplify(logits, h_min=h_min, mask=mask), full)
    assert normalized_entropy(full).shape == (3, 4)
    with torch.inference_mode():
        assert torch.equal(amplify(logits, h_min=h_min), full)
    assert amplify(torch.zeros(0, 5), h_min=h_min).shape == (0, 5)


def test_a_single_legal_action_is_certain():
    mask = torch.tensor([[False, True, False]])
    result = amplify(torch.zeros(1, 3), 0.1, 0.9, mask=mask)
    assert result.exp().tolist() == [[0.0, 1.0, 0.0]]
    assert normalized_entropy(result, mask).tolist() == [0.0]
    assert amplify(torch.tensor([[7.0]]), 0.1, 0.9).tolist() == [[0.0]]


def test_parameters_may_be_buffers():
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    buffers = [torch.tensor(value, dtype=torch.float64) for value in (0.3, 0.7, 2.0)]
    assert torch.equal(amplify(logits, *buffers), amplify(logits, 0.3, 0.7, 2.0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_normalized_entropy(dtype):
    probs = torch.tensor([[0.5, 0.25, 0.25, 0.0], [1.0, 0.0, 0.0, 0.0], [0.25] * 4], dtype=dtype)
    entropy = normalized_entropy(probs.log().requires_grad_())
    torch.testing.assert_close(entropy, torch.tensor([0.75, 0.0, 1.0], dtype=dtype))
    log_probs = torch.tensor([math.log(0.5), math.nan, math.log(0.5)], dtype=dtype, requires_grad=True)
    masked = normalized_entropy(log_probs, torch.tensor([True, False, True]))
    assert masked.item() == pytest.approx(1.0)
    (grad,) = torch.autograd.grad(masked, log_probs)
    assert grad[1] == 0.0
    assert grad.isfinite().all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"eta": -0.1}, r"eta must be finite and >= 0, got -0.1"),
        ({"eta": math.inf}, "eta must be finite"),
        ({"eta": math.nan}, "eta must be finite"),
        ({"h_min": 1.0}, r"h_min must be in \[0, 1\), got 1.0"),
        ({"h_min": -1e-9}, r"h_min must be in \[0, 1\)"),
        ({"tau": 0.0}, "tau must be finite and > 0, got 0.0"),
        ({"tau": math.inf}, "tau must be finite and > 0"),
        ({"tau": "warm"}, "tau must be a number or a 0-d tensor, got 'warm'"),
        ({"eta": torch.zeros(2)}, "eta must be a number or a 0-d tensor"),
        ({"eta": None}, "eta must be a number or a 0-d tensor, got None"),
    ],
)
def test_impossible_parameters_are_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        amplify(torch.zeros(2, 3), **parameters)
    with pytest.raises(ValueError, match=message):
        Amplification(**parameters)


def test_parameters_are_a_frozen_value():
    assert Amplification() == Amplification(eta=0.1, h_min=0.05, tau=1.0)
    assert validate_parameters(torch.tensor(1.0), 0, 2) == (1.0, 0.0, 2.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Amplification().eta = 1.0


@pytest.mark.parametrize("eta", [0.0, 0.1])
@pytest.mark.parametrize("h_min", [0.0, 0.9])
@pytest.mark.parametrize(
    ("logits", "mask", "message"),
    [
        (torch.zeros(2, 3), torch.ones(2, 3), "mask must be bool, got torch.float32"),
        (torch.zeros(2, 3), torch.ones(3, dtype=torch.bool), r"mask must have the shape of logits \(2, 3\)"),
        (torch.zeros(2, 2), torch.tensor([[True, False], [False, False]]), "at least one legal action"),
        (torch.tensor([[0.0, math.nan]]), None, "1 are NaN"),
        (torch.tensor([[0.0, math.inf]]), None, r"1 are \+inf"),
        (torch.tensor([[0.0, math.nan]]), torch.tensor([[False, True]]), "1 are NaN"),
        (torch.tensor([[-math.inf, -math.inf]]), None, "at least one legal action in each row above -inf"),
        (torch.zeros(2, 3, dtype=torch.int64), None, "logits must be float32 or float64, got torch.int64"),
        (torch.zeros(2, 3, dtype=torch.float16), None, "logits must be float32 or float64"),
        (torch.tensor(1.0), None, r"logits must have shape \[..., A\]"),
        (torch.zeros(2, 0), None, r"with A >= 1, got \(2, 0\)"),
    ],
)
def test_impossible_inputs_are_refused(logits, mask, message, eta, h_min):
    with pytest.raises(ValueError, match=message):
        amplify(logits, eta, h_min, mask=mask)
