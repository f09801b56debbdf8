import math

import numpy as np
import pytest
import torch

from qio_rllib.artifacts.contraction_plot import plot_contraction
from qio_rllib.exploration import LOG_FLOOR, METRICS, amplify, distance, estimate_contraction, sweep
from qio_rllib.exploration.contraction import MODES, _draw, _summarise


def random_policies(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    raw = torch.empty(count, 4, dtype=torch.float64).exponential_(generator=generator)
    return (raw / raw.sum(-1, keepdim=True)).log()


@pytest.mark.parametrize("metric", METRICS)
def test_metric_axioms(metric):
    p, q, r = (random_policies(500, seed) for seed in range(3))
    assert distance(metric, p, p).abs().max() < 1e-12
    assert distance(metric, p, q).min() > 0.0
    torch.testing.assert_close(distance(metric, p, q), distance(metric, q, p))
    assert (distance(metric, p, r) <= distance(metric, p, q) + distance(metric, q, r) + 1e-12).all()


def test_metric_values():
    p, q = (torch.tensor(x, dtype=torch.float64).log() for x in ([0.5, 0.5], [0.8, 0.2]))
    assert distance("total_variation", p, q).item() == pytest.approx(0.3)
    assert distance("hilbert", p, q).item() == pytest.approx(math.log(4.0))
    overlap = math.sqrt(0.4) + math.sqrt(0.1)
    assert distance("hellinger", p, q).item() == pytest.approx(math.sqrt(1.0 - overlap))


@pytest.mark.parametrize("zero", [-math.inf, LOG_FLOOR])
def test_clipped_actions_are_zeros(zero):
    left, right = (torch.tensor(x, dtype=torch.float64) for x in ([0.0, zero], [zero, 0.0]))
    assert distance("hellinger", left, right).item() == 1.0
    assert distance("total_variation", left, right).item() == 1.0
    assert distance("hilbert", left, right).item() == math.inf
    assert distance("hilbert", left, left).item() == 0.0
    half = math.log(0.5)
    p = torch.tensor([half, half, zero], dtype=torch.float64)
    q = torch.tensor([math.log(0.8), math.log(0.2), zero], dtype=torch.float64)
    assert distance("hilbert", p, q).item() == pytest.approx(math.log(4.0))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("tau", [0.5, 1.0, 4.0])
def test_a_temperature_scales_hilberts_metric_by_its_inverse(mode, tau):
    estimate = estimate_contraction(0.0, 0.0, tau, samples=500, mode=mode)["hilbert"]
    assert estimate.factor == pytest.approx(1.0 / tau, rel=1e-6)
    assert estimate.max_factor == pytest.approx(1.0 / tau, rel=1e-6)
    assert estimate.log_factor == pytest.approx(-math.log(tau), abs=1e-6)
    assert estimate.contracts_on_average == (tau > 1.0)


@pytest.mark.parametrize("mode", MODES)
def test_the_identity_neither_contracts_nor_expands(mode):
    for estimate in estimate_contraction(0.0, 0.0, 1.0, samples=300, mode=mode).values():
        assert estimate.factor == pytest.approx(1.0, abs=1e-6)
        assert (estimate.infinite_share, estimate.zero_share, estimate.samples) == (0.0, 0.0, 300)


@pytest.mark.parametrize("eta", [0.1, 1.0])
@pytest.mark.parametrize("metric", METRICS)
def test_the_uniform_policy_repels_by_one_plus_eta(metric, eta):
    uniform = torch.zeros(5, dtype=torch.float64)
    beside = 1e-6 * torch.tensor([1.0, -2.0, 0.5, 0.3, 0.2], dtype=torch.float64)
    before = distance(metric, uniform.log_softmax(-1), beside.log_softmax(-1))
    after = distance(metric, amplify(uniform, eta, 0.9), amplify(beside, eta, 0.9))
    assert (after / before).item() == pytest.approx(1.0 + eta, rel=1e-4)


def test_local_factor_agrees_with_the_jacobian():
    # Two actions, no clipping: the mean of |dQ/dp| over p, by quadrature of the closed form.
    eta, kept = 0.05, 0.05 / 1.05
    p = (np.arange(200_000) + 0.5) / 200_000

    def q(x):
        a, b = np.sqrt(x), np.sqrt(1.0 - x)
        mean = kept * (a + b) / 2.0
        a, b = np.maximum(a - mean, 0.0) ** 2, np.maximum(b - mean, 0.0) ** 2
        return a / (a + b)

    step = 1e-9 * np.minimum(p, 1.0 - p) + 1e-10
    expected = np.mean((q(p + step) - q(p - step)) / (2.0 * step))
    estimate = estimate_contraction(eta, 0.0, num_actions=2, samples=40_000, mode="local")["total_variation"]
    assert estimate.factor == pytest.approx(expected, abs=4 * (estimate.factor_high - estimate.factor_low))
    assert estimate.factor_high - estimate.factor_low < 0.01


def test_a_high_floor_contracts_and_amplification_alone_does_not():
    for mode in MODES:
        floored = estimate_contraction(0.1, 0.95, samples=1000, mode=mode)
        assert all(estimate.contracts_on_average for estimate in floored.values())
        free = estimate_contraction(0.1, 0.0, samples=1000, mode=mode)
        assert all(estimate.log_factor_low > 0.0 for estimate in free.values())


def test_infinite_hilbert_distances_are_reported():
    pairs = estimate_contraction(1.0, 0.0, samples=1000)
    assert 0.0 < pairs["hilbert"].infinite_share < 1.0
    assert pairs["hilbert"].max_factor == math.inf
    assert math.isfinite(pairs["hilbert"].factor)
    assert not pairs["hilbert"].contracts_on_average
    assert pairs["hellinger"].infinite_share == 0.0


def test_statistics():
    factors = torch.tensor([0.0, 1.0, 4.0, math.inf], dtype=torch.float64)
    estimate = _summarise("hilbert", "pairs", factors)
    assert estimate.factor == pytest.approx(5.0 / 3.0)
    half = 1.96 * np.std([0.0, 1.0, 4.0], ddof=1) / math.sqrt(3.0)
    assert estimate.factor_high - estimate.factor == pytest.approx(half)
    assert estimate.factor - estimate.factor_low == pytest.approx(half)
    assert estimate.log_factor == pytest.approx(math.log(2.0))
    assert (estimate.infinite_share, estimate.zero_share, estimate.max_factor) == (0.25, 0.25, math.inf)
    collapsed = _summarise("hellinger", "pairs", torch.zeros(5, dtype=torch.float64))
    assert (collapsed.factor, collapsed.log_factor) == (0.0, -math.inf)
    assert collapsed.contracts_on_average
    lost = _summarise("hilbert", "pairs", torch.full((5,), math.inf, dtype=torch.float64))
    assert math.isnan(lost.factor)
    assert not lost.contracts_on_average


def test_sampling_is_uniform_reproducible_and_private():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    p, q = _draw(4, 20_000, seed=3, mode="pairs")
    assert torch.equal(torch.get_rng_state(), state)
    again, _ = _draw(4, 20_000, seed=3, mode="local")
    assert torch.equal(p, again)
    assert not torch.equal(p, _draw(4, 20_000, seed=4, mode="pairs")[0])
    # Dirichlet(1) over 4 actions: mean 1/4 and variance 3/80 of each probability.
    torch.testing.assert_close(p.exp().mean(0), torch.full((4,), 0.25).double(), atol=0.006, rtol=0)
    torch.testing.assert_close(p.exp().var(0), torch.full((4,), 3 / 80).double(), atol=0.002, rtol=0)
    assert abs(torch.corrcoef(torch.stack([p[:, 0], q[:, 0]]))[0, 1]) < 0.03
    assert estimate_contraction(samples=50) == estimate_contraction(samples=50)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "global"}, "mode must be one of pairs, local, got 'global'"),
        ({"num_actions": 1}, "num_actions must be >= 2, got 1"),
        ({"samples": 1}, "samples must be >= 2"),
        ({"seed": -1}, "seed must be >= 0"),
        ({"h_min": 1.0}, "h_min must be in"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        estimate_contraction(**arguments)


def test_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="metric must be one of hellinger"):
        distance("euclid", torch.zeros(1), torch.zeros(1))


def test_sweep_and_plot(tmp_path):
    pytest.importorskip("matplotlib")
    rows = sweep(iter((0.0, 1.0)), iter((0.0, 0.9)), num_actions=3, samples=50, seed=2)
    assert len(rows) == 2 * 2 * len(METRICS) * len(MODES)
    chosen = next(
        row
        for row in rows
        if (row["mode"], row["metric"], row["eta"], row["h_min"]) == ("local", "hilbert", 1.0, 0.9)
    )
    alone = estimate_contraction(1.0, 0.9, num_actions=3, samples=50, seed=2, mode="local")["hilbert"]
    assert chosen["factor"] == alone.factor
    path = tmp_path / "new" / "map.png"
    plot_contraction(rows, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="grid"):
        plot_contraction(rows[:-1], path)
    with pytest.raises(ValueError, match="at least one cell"):
        plot_contraction([], path)
