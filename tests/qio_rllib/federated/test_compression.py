"""Quantisation, compression with error feedback, and the layout of parameters."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from qio_envs.api import ConfigError
from qio_rllib.federated.compression import COMPRESSORS, compressor
from qio_rllib.federated.layout import ParameterLayout
from qio_rllib.federated.quantization import Quantizer

VECTORS = arrays(np.float32, st.integers(1, 3000), elements=st.floats(-100, 100, width=32))


@settings(max_examples=40, deadline=None)
@given(VECTORS, st.integers(0, 9))
def test_int8_is_within_a_step_of_its_chunk(vector, seed):
    one = compressor("int8", vector.size)
    data = one.encode(vector, 0, np.random.default_rng(seed))
    found = one.decode(data, 0)
    assert len(data) == vector.size + 4 * -(-vector.size // 1024)
    for start in range(0, vector.size, 1024):
        part = slice(start, start + 1024)
        step = np.abs(vector[part]).max() / 127
        assert np.abs(found[part] - vector[part]).max() <= step * 1.001 + 1e-12


def test_int8_is_unbiased():
    vector = np.linspace(-1, 1, 50).astype(np.float32)
    one, rng = compressor("int8", 50), np.random.default_rng(0)
    many = np.mean([one.decode(one.encode(vector, 0, rng), 0) for _ in range(4000)], axis=0)
    assert np.abs(many - vector).max() < 5 * (1 / 127) / np.sqrt(4000)


@settings(max_examples=40, deadline=None)
@given(VECTORS, st.floats(0.01, 1.0))
def test_top_k_keeps_the_largest(vector, keep):
    one = compressor("top_k", vector.size, keep)
    data = one.encode(vector, 0, np.random.default_rng(0))
    found = one.decode(data, 0)
    count = max(1, round(keep * vector.size))
    assert len(data) == 8 * count
    sent = found != 0
    assert (found[sent] == vector[sent]).all()
    assert sent.sum() <= count
    left = np.abs(vector[~sent])
    if sent.sum() == count and left.size:
        assert np.abs(found[sent]).min() >= left.max()


def test_random_k_keeps_the_same_places_for_everybody():
    one, other = compressor("random_k", 100, 0.2), compressor("random_k", 100, 0.2)
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 100)).astype(np.float32)
    total = one.decode(one.encode(first, 7, rng), 7) + other.decode(other.encode(second, 7, rng), 7)
    assert total == pytest.approx(one.decode(one.encode(first + second, 7, rng), 7), abs=1e-6)
    assert len(one.places(7)) == len(set(one.places(7))) == 20
    assert (one.places(7) != one.places(8)).any()
    assert len(one.encode(first, 7, rng)) == 80


@pytest.mark.parametrize("name", COMPRESSORS)
def test_with_error_feedback_nothing_is_lost(name):
    """What was sent in all rounds, plus the residual, is the sum of all updates."""
    rng = np.random.default_rng(0)
    one = compressor(name, 200, *([0.1] if name.endswith("_k") else []))
    residual, sent, total = np.zeros(200, np.float32), np.zeros(200), np.zeros(200)
    for number in range(30):
        update = rng.normal(size=200).astype(np.float32)
        data, residual = one.encode_with_feedback(update, residual, number, rng)
        sent += one.decode(data, number)
        total += update
    assert sent + residual == pytest.approx(total, abs=1e-3)
    if name.endswith("_k"):
        assert np.abs(residual).max() < 40  # bounded: old remains are sent in their turn


def test_only_what_keeps_the_same_numbers_goes_with_sums():
    assert {name for name, kind in COMPRESSORS.items() if kind.fits_secure_sums} == {"none", "random_k"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compressor("topk", 9), r"compression.type: unknown 'topk' .did you mean 'top_k'"),
        (lambda: compressor("int8", 9, 0.5), "compression.keep: 'int8' sends every number"),
        (lambda: compressor("top_k", 9, 0.0), r"compression.keep: expected a share in \(0, 1\]"),
        (lambda: compressor("random_k", 9, 1.5), "compression.keep: expected a share"),
        (lambda: compressor("int8", 9).decode(b"123", 0), "expected 13 bytes for 9 numbers, got 3"),
        (lambda: compressor("none", 9).decode(b"123", 0), "expected 36 bytes"),
        (lambda: compressor("top_k", 9, 0.12).decode(b"\xff" * 8, 0), "a place beyond 9 numbers"),
        (lambda: Quantizer(bound=0.0), "bound: expected at least"),
        (lambda: Quantizer(bound=1e-9), "bound: expected at least"),
        (lambda: Quantizer(fraction_bits=31), "fraction_bits: expected an integer from 0 to 30"),
        (lambda: Quantizer().encode(np.array([np.nan]), None), "update: expected finite numbers"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


@settings(max_examples=40, deadline=None)
@given(VECTORS, st.integers(0, 12), st.integers(0, 9))
def test_fixed_point_numbers_are_within_a_step(vector, bits, seed):
    one = Quantizer(bound=50.0, fraction_bits=bits)
    found = one.encode(vector, np.random.default_rng(seed))
    clipped = np.clip(vector.astype(np.float64), -50, 50)
    assert np.abs(one.decode(found) - clipped).max() < 2.0**-bits + 1e-12
    assert np.abs(found).max() <= one.largest


def test_fixed_point_rounding_is_unbiased():
    one, rng = Quantizer(1.0, 2), np.random.default_rng(0)
    many = one.decode(one.encode(np.full(40_000, 0.3), rng))
    assert set(np.unique(many)) == {0.25, 0.5}
    assert many.mean() == pytest.approx(0.3, abs=5 * 0.125 / 200)


def test_sums_that_may_overflow_are_refused_and_the_largest_that_fits_is_exact():
    fits = Quantizer(bound=float(2**31 - 1), fraction_bits=0)  # n Q = 2^31 - 1
    fits.check_sum(1)
    with pytest.raises(ConfigError, match=r"come to 2147483648; expected less than 2\^31"):
        Quantizer(bound=float(2**30), fraction_bits=0).check_sum(2)
    with pytest.raises(ConfigError, match="expected less than"):
        Quantizer(bound=1.0, fraction_bits=20).check_sum(2047, noise_deviation=2**20)
    total = np.array([fits.largest], np.int64)
    assert total.astype(np.uint32).view(np.int32)[0] == 2**31 - 1


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.policy = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        self.value = nn.Linear(3, 1)
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.register_buffer("operator", torch.ones(3))


def test_a_layout_carries_all_trainable_parameters_and_nothing_else():
    torch.manual_seed(0)
    first, second = Net(), Net()
    layout = ParameterLayout.of(first)
    assert layout.size == sum(one.numel() for one in first.parameters() if one.requires_grad)
    assert {name for name, _ in layout.shapes} == {
        f"{part}.{kind}" for part in ("policy.0", "policy.2", "value") for kind in ("weight", "bias")
    }
    second.operator[:] = 5
    layout.write(second, layout.read(first))
    for name, parameter in first.named_parameters():
        assert (dict(second.named_parameters())[name] == parameter).all()
    assert (second.operator == 5).all()
    vector = layout.read(first)
    assert (layout.arrays(vector)["value.weight"] == first.value.weight.detach().numpy()).all()
    assert layout.hash == ParameterLayout.of(second).hash


def test_personal_parameters_stay_out():
    net = Net()
    shared = ParameterLayout.of(net, personal=["value"])
    assert all(name.startswith("policy") for name, _ in shared.shapes)
    assert shared.hash != ParameterLayout.of(net).hash
    before = net.value.weight.detach().clone()
    shared.write(net, np.ones(shared.size, np.float32))
    assert (net.value.weight == before).all()
    assert (net.policy[0].weight == 1).all()


def test_wrong_layouts():
    net = Net()
    layout = ParameterLayout.of(net)
    with pytest.raises(ConfigError, match="personal: no parameter begins with 'valu_'"):
        ParameterLayout.of(net, ["valu_"])
    with pytest.raises(ConfigError, match="no parameter is left"):
        ParameterLayout.of(net, ["policy", "value"])
    with pytest.raises(ConfigError, match=r"policy.0.bias is expected to have the shape \(4,\), found none"):
        layout.read(nn.Linear(3, 4))
    for wrong in (np.ones(3, np.float32), np.full(layout.size, np.inf)):
        with pytest.raises(ValueError, match="finite numbers"):
            layout.write(net, wrong)
