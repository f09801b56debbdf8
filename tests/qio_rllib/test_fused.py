"""Kernels of updates against torch: stacks, optimizer steps, and where torch computes after all."""

import copy
import logging

import hypothesis.strategies as st
import numba
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from torch import nn

from qio_rllib.fused import use
from qio_rllib.fused.adam import Adam, clip
from qio_rllib.fused.stack import Stack, chained
from qio_rllib.fused.use import fused_kernels, in_use
from qio_rllib.learners.common import clip_gradients, descend, learner_threads
from qio_rllib.models.networks import Encoder, Head, NetworkSettings

ACTIVATIONS = {"none": None, "relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh, "linear": nn.Identity}

pytestmark = pytest.mark.usefixtures("computing_on_one_thread")


def stack_of(sizes, activations, seed=0):
    torch.manual_seed(seed)
    parts: list[nn.Module] = []
    for before, after, name in zip(sizes, sizes[1:], activations, strict=False):
        parts.append(nn.Linear(before, after))
        if ACTIVATIONS[name] is not None:
            parts.append(ACTIVATIONS[name]())
    return Stack(*parts)


def differentiated(stack, rows, slopes):
    """Return outputs, and the gradients of rows and parameters."""
    rows = rows.clone().requires_grad_()
    outputs = stack(rows)
    found = torch.autograd.grad((outputs * slopes).sum(), [rows, *stack.parameters()])
    return [outputs.detach(), *found]


def assert_close(ours, theirs, tolerance=1e-5):
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine - other).abs().max() <= tolerance * max(1.0, float(other.abs().max()))


sizes = st.integers(1, 40)


@settings(max_examples=60)
@given(
    st.lists(sizes, min_size=2, max_size=5),
    st.lists(st.sampled_from(list(ACTIVATIONS)), min_size=4, max_size=4),
    st.integers(1, 210),
    st.integers(0, 2**16),
)
@example([77, 64, 64, 5], ["tanh", "tanh", "none", "none"], 1600, 0)
@example([80, 130, 48], ["relu", "silu", "none", "none"], 97, 0)  # wider than a tile, and nothing to pad
@example([3, 16], ["silu", "none", "none", "none"], 6, 0)
def test_outputs_and_gradients_are_torchs(widths, activations, rows, seed):
    stack = stack_of(widths, activations, seed)
    numbers = 2 * torch.randn(rows, widths[0])
    slopes = torch.randn(rows, widths[-1]) / rows
    # torch in double precision: both are then as near to the truth as float32 allows
    wide = stack_of(widths, activations, seed).double()
    expected = [found.float() for found in differentiated(wide, numbers.double(), slopes.double())]
    with fused_kernels():
        assert in_use()
        assert type(stack(numbers).grad_fn).__name__ == "_RunBackward"
        assert_close(differentiated(stack, numbers, slopes), expected)


def test_a_row_does_not_depend_on_the_others_and_leading_axes_stay():
    stack = stack_of([77, 64, 33], ["tanh", "silu"])
    rows = torch.randn(5, 41, 77)
    with fused_kernels(), torch.no_grad():
        whole = stack(rows)
        assert whole.shape == (5, 41, 33)
        for count in (1, 5, 6, 100):
            part = stack(rows.reshape(-1, 77)[:count])
            np.testing.assert_array_equal(part.numpy(), whole.reshape(-1, 33)[:count].numpy())


def test_extremes_of_activations():
    numbers = torch.tensor([[-3e38, -1e4, -9.5, -1e-8, 0.0, 1e-30, 9.5, 1e4, 3e38, torch.inf, torch.nan]]).T
    for name in ("tanh", "relu", "silu"):
        stack = stack_of([1, 1], [name])
        with torch.no_grad():
            stack[0].weight.fill_(1.0)
            stack[0].bias.zero_()
        with fused_kernels():
            found = stack(numbers)
            (slope,) = torch.autograd.grad(stack(rows := numbers[:-2].clone().requires_grad_()).sum(), rows)
        torch.testing.assert_close(found, stack(numbers), atol=1e-6, rtol=1e-6, equal_nan=True)
        (expected,) = torch.autograd.grad(stack(rows).sum(), rows)
        torch.testing.assert_close(slope, expected, atol=1e-6, rtol=1e-6)


def test_frozen_parameters_and_frozen_rows():
    stack = stack_of([9, 20, 3], ["tanh", "none"])
    stack[0].weight.requires_grad_(False)
    rows = torch.randn(50, 9, requires_grad=True)
    stack(rows).square().sum().backward()
    expected = [each.grad for each in (rows, *stack.parameters())]
    for each in (rows, *stack.parameters()):
        each.grad = None
    with fused_kernels():
        stack(rows).square().sum().backward()
        assert stack[0].weight.grad is None
        found = [each.grad for each in (rows, *stack.parameters())]
        assert_close([each for each in found if each is not None], [e for e in expected if e is not None])
        stack.requires_grad_(False)
        assert not stack(rows.detach()).requires_grad


def test_autograd_still_watches():
    stack = stack_of([4, 8, 2], ["tanh", "none"])
    rows = torch.randn(3, 4, requires_grad=True)
    with fused_kernels():
        outputs = stack(rows)
        with torch.no_grad():
            stack[0].weight.add_(1.0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            outputs.sum().backward()
        (slope,) = torch.autograd.grad(stack(rows).sum(), rows, create_graph=True)
        with pytest.raises(RuntimeError):
            slope.sum().backward()


@pytest.mark.parametrize("heads", [(), (7,)])
@pytest.mark.parametrize("free", [False, True])
def test_encoder_and_head_in_one(heads, free):
    made = NetworkSettings(fcnet_hiddens=(16, 8), head_fcnet_hiddens=heads, free_log_std=free)
    torch.manual_seed(1)
    encoder, head = Encoder((5,), 0, made), Head(8, 6, made, gaussian=True)
    rows = torch.randn(30, 5)
    expected = head(encoder(rows))
    with fused_kernels():
        found = head.behind(encoder, rows)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


# -- optimizers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_adam_is_torchs_with_absent_gradients_and_over_a_saved_state(decay):
    generator = torch.Generator().manual_seed(0)
    mine = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((64, 77), (5,), ())]
    theirs = [nn.Parameter(each.detach().clone()) for each in mine]
    ours, reference = Adam(mine, decay), torch.optim.AdamW(theirs, weight_decay=decay)
    for optimizer in (ours, reference):
        optimizer.param_groups[0]["lr"] = 3e-3
    with fused_kernels():
        for step in range(60):
            for one, other in zip(mine, theirs, strict=True):
                one.grad = torch.randn(one.shape, generator=generator) * (step + 1)
                other.grad = one.grad.clone()
            if step % 3 == 2:
                mine[1].grad = theirs[1].grad = None
            if step == 30:
                again = Adam(mine, decay)
                again.load_state_dict(copy.deepcopy(ours.state_dict()))
                ours = again
            if step == 40:
                ours.load_state_dict(copy.deepcopy(ours.state_dict()))
                ours.param_groups[0]["lr"] = reference.param_groups[0]["lr"] = 1e-3
            if not ours.fused_step():
                assert step == 0  # the state is not there before
                ours.step()
            reference.step()
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=2e-6, rtol=1e-6)
        for key, value in ours.state[one].items():
            torch.testing.assert_close(value, reference.state[other][key], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("by", ["value", "norm", "global_norm"])
@pytest.mark.parametrize("limit", [0.05, 3.0, 1e3])
def test_clipping_is_torchs(by, limit):
    torch.manual_seed(0)
    ours = [torch.randn(64, 77), torch.randn(5), torch.randn(())]
    theirs = [each.clone() for each in ours]
    expected = clip_gradients(theirs, limit, by)
    assert clip(ours, limit, by) is None  # outside
    with fused_kernels():
        assert clip([each.double() for each in ours], limit, by) is None
        found = clip_gradients(ours, limit, by)
    torch.testing.assert_close(found, expected)
    assert_close(ours, theirs, 1e-6)


def test_descending_by_kernels_is_descending_by_torch():
    made = []
    for inside in (False, True):
        stack = stack_of([6, 16, 2], ["tanh", "none"])
        optimizer = Adam(stack.parameters())
        rows = torch.randn(40, 6, generator=torch.Generator().manual_seed(3))
        with learner_threads(1 if inside else 2):
            assert in_use() == inside
            for _ in range(20):
                descend([optimizer], stack(rows).square().mean(), 0.5, "global_norm")
        made.append([each.detach() for each in stack.parameters()])
    assert_close(made[1], made[0])


# -- where torch computes -----------------------------------------------------------------------------------------


def test_what_kernels_do_not_know_is_torchs():
    rows = torch.randn(7, 4)
    stacks = [
        Stack(nn.Linear(4, 3), nn.LayerNorm(3), nn.Tanh()),
        Stack(nn.Linear(4, 3), nn.GELU()),
        Stack(nn.Linear(4, 3, bias=False)),
        Stack(nn.Linear(4, 3), nn.Tanh(), nn.Tanh()),
        Stack(nn.Tanh(), nn.Linear(4, 3)),
    ]
    for stack in stacks:
        with fused_kernels():
            assert stack.layers() is None
            assert torch.equal(stack(rows), nn.Sequential.forward(stack, rows))
            assert torch.equal(chained(stack, Stack(nn.Linear(3, 3)), rows)[:0], rows[:0, :3])
    with fused_kernels():
        known = stack_of([4, 3], ["tanh"])
        assert known.layers() is not None
        assert known(rows[:0]).shape == (0, 3)
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            known(rows[:, :3])
        known.double()
        assert known(rows.double()).dtype == torch.float64
        with pytest.raises(RuntimeError, match="same dtype"):
            known(rows)
        known.float()
        known.append(nn.Tanh())  # a second one behind the first
        assert torch.equal(known(rows), nn.Sequential.forward(known, rows))
        del known[2]
        assert type(known(rows).grad_fn).__name__ == "_RunBackward"


def test_kernels_are_used_inside_only_and_on_one_thread():
    assert not in_use()
    with fused_kernels():
        assert in_use()
        torch.set_num_threads(2)
        with fused_kernels():
            assert not in_use()
        torch.set_num_threads(1)
        assert in_use()
    assert not in_use()


def test_without_kernels_the_log_says_so_once(monkeypatch, caplog):
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    use.are_available.cache_clear()
    use.kernels.cache_clear()
    try:
        with caplog.at_level(logging.INFO):
            for _ in range(3):
                with fused_kernels():
                    assert not in_use()
        (record,) = caplog.records
        assert "computed by torch alone" in record.message
        assert "NUMBA_DISABLE_JIT" in record.message
    finally:
        use.are_available.cache_clear()
        use.kernels.cache_clear()
