"""The controls of the Q operator: what they share with it, and that they are policies in the full sense."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from qio_rllib.models.amplified import AmplifiedActorCritic
from ray.rllib.core.columns import Columns

from qio_envs.api import ConfigError
from qio_rllib.algorithms import PPOConfig
from qio_rllib.algorithms.ppo import PPOLearner
from qio_rllib.artifacts.policy_file import load_policy, save_policy
from qio_rllib.exploration import (
    OPERATORS,
    Amplification,
    amplify,
    controls,
    normalized_entropy,
    operate,
    random_control,
    temperature_control,
)
from qio_rllib.sampling.evaluation import load_policy_from_checkpoint

CONTROLS = (temperature_control, random_control)
BOTH = pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.__name__)
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@st.composite
def problems(draw, spread=60.0):
    """Logits ``[R, n]``, legal actions, and parameters of the operator."""
    n, rows = draw(st.integers(1, 8)), draw(st.integers(1, 4))
    scale = draw(st.sampled_from([0.0, 0.1, 1.0, 10.0, spread]))
    unit = st.floats(-1.0, 1.0, allow_subnormal=False, width=32)
    logits = draw(hnp.arrays(np.float64, (rows, n), elements=unit)) * scale
    mask = draw(hnp.arrays(bool, (rows, n)))
    mask[:, draw(st.integers(0, n - 1))] = True
    eta = draw(st.one_of(st.just(0.0), st.floats(1e-3, 5.0)))
    h_min = draw(st.sampled_from([0.0, 1e-6, 0.05, 0.3, 0.8, 0.99]))
    tau = draw(st.floats(0.3, 3.0))
    return torch.tensor(logits), torch.tensor(mask), eta, h_min, tau


def entropy(log_probs):
    """Shannon entropy in nats, ``[R]``; actions of probability 0 count nothing."""
    probs = log_probs.double().exp()
    return -torch.where(probs > 0, probs * log_probs.double(), 0.0).sum(-1)


def turned_amplitudes(logits, eta, tau, mask, seed):
    """Plain amplitudes, and those turned by the operator's angle towards ``R a``; NumPy, one row."""
    legal = np.flatnonzero(mask)
    scores = logits[legal] / tau
    probs = np.exp(scores - scores.max())
    before = np.sqrt(probs / probs.sum())
    raised = np.maximum(before + eta * (before - before.mean()), 0)
    after = raised / np.linalg.norm(raised)
    size = len(logits)
    matrix = torch.randn(
        size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).numpy()
    full = np.zeros(size)
    full[legal] = before
    direction = (full @ matrix)[legal]
    direction -= (direction @ before) * before
    if len(legal) == 1:
        return before, before, legal
    angle = 2 * np.arcsin(np.linalg.norm(after - before) / 2)
    return before, np.cos(angle) * before + np.sin(angle) * direction / np.linalg.norm(direction), legal


# -- temperature: as much entropy, another shape ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@settings(max_examples=80, deadline=None)
@given(problem=problems(), masked=st.booleans())
def test_a_temperature_gives_each_row_the_entropy_of_the_amplified_policy(dtype, problem, masked):
    logits, mask, eta, h_min, tau = problem
    logits, mask = logits.to(dtype), mask if masked else None
    result = temperature_control(logits, eta, h_min, tau, mask)
    amplified = amplify(logits, eta, h_min, tau, mask)
    tolerance = TOLERANCE[dtype]
    assert result.dtype == dtype
    assert result.isfinite().all()
    assert (result.double().exp().sum(-1) - 1).abs().max() < tolerance
    assert (entropy(result) - entropy(amplified)).abs().max() < tolerance
    legal = torch.ones_like(logits, dtype=torch.bool) if mask is None else mask
    assert (result.exp()[~legal] == 0).all()
    order = torch.where(legal, logits, -math.inf).argsort(-1)
    assert (result.exp().gather(-1, order).diff(dim=-1) >= -tolerance).all()


def test_it_is_a_softmax_of_the_logits_at_one_temperature_a_row():
    logits = torch.randn(50, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    log_probs = temperature_control(logits, 0.4, 0.3, 0.9)
    centred, given = (x - x.mean(-1, keepdim=True) for x in (log_probs, logits))
    inverse = (centred * given).sum(-1, keepdim=True) / given.square().sum(-1, keepdim=True)
    torch.testing.assert_close(centred, inverse * given, atol=1e-9, rtol=0)
    assert (inverse > 0).all()
    assert inverse.std() > 0.01


def test_without_operator_it_is_the_plain_softmax():
    logits = 3 * torch.randn(20, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = torch.log_softmax(logits / 0.7, -1)
    torch.testing.assert_close(temperature_control(logits, 0.0, 0.0, 0.7), expected, atol=1e-9, rtol=0)
    probs = random_control(logits, 0.0, 0.0, 0.7).exp()
    torch.testing.assert_close(probs, expected.exp(), atol=1e-10, rtol=0)


# -- random: as strong, another direction -------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(problems(spread=12.0), st.integers(0, 2**40))
def test_the_random_control_turns_amplitudes_by_the_operators_angle(problem, seed):
    logits, mask, eta, _, tau = problem
    result = random_control(logits, eta, 0.0, tau, mask, seed).exp().numpy()
    assert (result[~mask.numpy()] == 0).all()
    for row, probs, legal_row in zip(logits.numpy(), result, mask.numpy(), strict=True):
        before, turned, legal = turned_amplitudes(row, eta, tau, legal_row, seed)
        np.testing.assert_allclose(probs[legal], turned**2, atol=1e-8)
        np.testing.assert_allclose(probs.sum(), 1, atol=1e-9)
        # Amplitudes that were turned below 0 are mirrored by the Born rule, which can only bring them nearer.
        moved = np.linalg.norm(np.sqrt(probs[legal]) - before)
        strength = np.linalg.norm(turned - before)
        assert moved <= strength + 1e-6
        if (turned >= 0).all():
            assert moved == pytest.approx(strength, abs=1e-6)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@settings(max_examples=60, deadline=None)
@given(problem=problems(), masked=st.booleans(), seed=st.integers(0, 100))
def test_the_random_control_keeps_the_floor(dtype, problem, masked, seed):
    logits, mask, eta, h_min, tau = problem
    mask = mask if masked else torch.ones_like(mask)
    result = random_control(logits.to(dtype), eta, h_min, tau, mask, seed)
    assert result.dtype == dtype
    assert result.isfinite().all()
    several = mask.sum(-1) > 1
    assert (normalized_entropy(result.double(), mask)[several] > h_min - TOLERANCE[dtype]).all()


def test_the_random_direction_is_the_seeds():
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    one, again, other = (random_control(logits, 0.3, 0.0, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert (one.exp() - other.exp()).abs().max() > 1e-3
    state = torch.get_rng_state()
    controls._matrix.cache_clear()
    assert torch.equal(random_control(logits, 0.3, 0.0, seed=1), one)
    assert torch.equal(torch.get_rng_state(), state)


# -- both ---------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(("eta", "h_min"), [(0.3, 0.0), (0.4, 0.6), (0.0, 0.7)])
def test_gradients_are_those_of_the_map(control, eta, h_min):
    logits = 1.5 * torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    mask = torch.ones(5, 4, dtype=torch.bool)
    mask[1, 2] = mask[3, 0] = mask[3, 1] = False
    for legal in (None, mask):
        assert torch.autograd.gradcheck(
            lambda x, legal=legal: control(x, eta, h_min, 0.8, legal).exp(),
            logits.clone().requires_grad_(),
            atol=1e-6,
            rtol=1e-4,
        )


@BOTH
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("eta", "h_min"), [(0.1, 0.05), (0.5, 0.0), (2.0, 0.0), (0.0, 0.0), (0.0, 0.99)])
def test_extreme_rows_stay_finite_with_finite_gradients(control, dtype, eta, h_min):
    rows = torch.tensor(
        [
            [1e4, -1e4, 0.0, 5.0],
            [-1e4, -1e4, -1e4, 1e4],
            [1e4, 1e4, -1e4, -1e4],
            [1e4, 1e4 - 1, -1e4, -1e4],
            [1e-3, 0.0, 0.0, 0.0],
            [0.0, 0.0, 0.0, 0.0],
            [1e4, 1e4, 1e4, 1e4],
            [-1e4, -1e4, -1e4, -1e4],
        ],
        dtype=dtype,
    ).requires_grad_()
    result = control(rows, eta, h_min)
    assert result.isfinite().all()
    assert (result.exp().sum(-1) - 1).abs().max() < TOLERANCE[dtype]
    for head in (result.sum(), (result.exp() * torch.arange(4, dtype=dtype)).sum(), -entropy(result).sum()):
        (gradient,) = torch.autograd.grad(head, rows, retain_graph=True)
        assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_rows_of_equal_logits_stay_uniform(dtype):
    rows = torch.tensor([0.0, 3.7, -1e4], dtype=dtype)[:, None].expand(3, 5).clone().requires_grad_()
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[1, 1:3] = False
    for legal, count in ((None, torch.tensor([5, 5, 5])), (mask, torch.tensor([5, 3, 5]))):
        for control in CONTROLS:
            result = control(rows, 0.5, 0.2, 1.0, legal).exp()
            chosen = torch.ones_like(mask) if legal is None else legal
            expected = torch.where(chosen, 1 / count[:, None].to(dtype), 0)
            torch.testing.assert_close(result, expected, atol=1e-6, rtol=0)
            (gradient,) = torch.autograd.grad(result[:, 0].sum(), rows)
            assert gradient.isfinite().all()


@BOTH
def test_a_single_legal_action_is_certain(control):
    logits = torch.tensor([[3.0, math.nan, -2.0], [0.0, 1e4, 5.0]]).nan_to_num(7.0).requires_grad_()
    mask = torch.tensor([[False, True, False], [True, False, False]])
    result = control(logits, 0.5, 0.3, 1.0, mask)
    assert torch.equal(result.exp(), mask.float())
    (gradient,) = torch.autograd.grad(result[mask].sum(), logits)
    assert torch.equal(gradient, torch.zeros_like(gradient))
    assert torch.equal(control(torch.tensor([[4.0]])), torch.zeros(1, 1))


@BOTH
def test_illegal_logits_do_not_matter(control):
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(4, 5, dtype=torch.bool)
    mask[:, 2] = False
    other = logits.masked_fill(~mask, 1e4)
    torch.testing.assert_close(
        control(logits, 0.3, 0.2, 1.0, mask), control(other, 0.3, 0.2, 1.0, mask), atol=1e-6, rtol=0
    )


@BOTH
def test_errors_are_those_of_the_operator(control):
    logits = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="eta"):
        control(logits, -1.0)
    with pytest.raises(ValueError, match="h_min"):
        control(logits, 0.1, 1.0)
    with pytest.raises(ValueError, match="legal action"):
        control(logits, mask=torch.zeros(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="NaN"):
        control(torch.tensor([[0.0, math.nan]]))


@BOTH
def test_batch_axes_and_no_rows(control):
    logits = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(5))
    flat = control(logits.reshape(6, 4), 0.3, 0.2)
    torch.testing.assert_close(control(logits, 0.3, 0.2), flat.reshape(2, 3, 4), atol=1e-6, rtol=0)
    assert control(torch.zeros(0, 4)).shape == (0, 4)


@BOTH
def test_after_inference_mode_there_is_a_gradient(control):
    controls._matrix.cache_clear()
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        control(logits, 0.3, 0.2)
    rows = logits.clone().requires_grad_()
    control(rows, 0.3, 0.2)[:, 0].sum().backward()
    assert rows.grad.abs().sum() > 0


@pytest.mark.parametrize("spread", [1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_near_the_uniform_policy_the_temperature_is_the_operators_own_limit(dtype, spread):
    """There the operator multiplies logits by (1 + eta) / tau, in value and gradient, and so must the control."""
    logits = torch.randn(300, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = (spread * logits).to(dtype).requires_grad_()
    result = temperature_control(rows, 0.5, 0.0, 0.8)
    factor = 1.5 / 0.8
    centred = factor * (rows - rows.mean(-1, keepdim=True)).double()
    torch.testing.assert_close(
        result.double() + math.log(5), centred, atol=5 * spread**2 + 0.01 * spread + 1e-6, rtol=0
    )
    (gradient,) = torch.autograd.grad(result[:, 0].sum(), rows)
    expected = factor * (torch.eye(5, dtype=dtype)[0] - 0.2).expand(300, 5)
    torch.testing.assert_close(gradient, expected, atol=5 * spread + 0.02, rtol=0)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_gradients_stay_bounded_nearer_to_it(dtype):
    for exponent in range(-7, -3):
        rows = 10.0**exponent * torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
        rows = rows.to(dtype).requires_grad_()
        (gradient,) = torch.autograd.grad(temperature_control(rows, 0.5, 0.0)[:, 0].sum(), rows)
        assert gradient.abs().max() < 10


def test_the_setting_names_the_operator():
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([True, True, False, True, True]).expand(4, 5)
    arguments = (0.3, 0.2, 0.9, mask)
    expected = {
        "amplify": amplify(logits, *arguments),
        "temperature": temperature_control(logits, *arguments),
        "random": random_control(logits, *arguments, seed=7),
    }
    assert tuple(expected) == OPERATORS
    for name, value in expected.items():
        given_settings = Amplification(0.3, 0.2, 0.9, operator=name, operator_seed=7)
        assert torch.equal(operate(given_settings, logits, *arguments), value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"operator": "temperatur"}, r"operator must be one of amplify, .*'temperatur' .did you mean 'temp"),
        ({"operator": "xyz"}, "operator must be one of amplify, temperature, random, got 'xyz'$"),
        ({"operator": None}, "operator must be one of"),
        ({"operator": 3}, "operator must be one of"),
        ({"operator_seed": -1}, "operator_seed must be an integer >= 0, got -1"),
        ({"operator_seed": True}, "operator_seed must be an integer >= 0, got True"),
        ({"operator_seed": 1.0}, r"operator_seed must be an integer >= 0, got 1.0"),
    ],
)
def test_unknown_operators_and_seeds_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Amplification(**wrong)
    with pytest.raises(ConfigError, match=f"^amplification: {message}"):
        PPOConfig().training(amplification=wrong)


# -- in a policy --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_module_learns_through_the_operator_of_its_settings(operator):
    wanted = Amplification(0.3, 0.1, 0.9, operator, 5)
    module = AmplifiedActorCritic(
        observation_space=gymnasium.spaces.Box(-1, 1, (3,), np.float32),
        action_space=gymnasium.spaces.Discrete(4),
        model_config={"fcnet_hiddens": [8], "amplification": dataclasses.asdict(wanted)},
    )
    assert module.amplification == wanted
    seen = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        acted = module._forward({Columns.OBS: seen})[Columns.ACTION_DIST_INPUTS].clone()
    learned = module._forward_train({Columns.OBS: seen})[Columns.ACTION_DIST_INPUTS]
    expected = operate(wanted, module.policy_logits(seen), 0.3, 0.1, 0.9)
    torch.testing.assert_close(learned, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(acted, expected, atol=1e-5, rtol=1e-5)
    learned[:, 0].sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in module.pi.parameters())


class FirstRatio(PPOLearner):
    """Keeps the ratio of the first minibatch of the last update."""

    ratio: ClassVar[torch.Tensor]

    def rollout_loss(self, module_id, config, batch, policy, values) -> Any:
        if not self._entropy_sums:
            log_ratio = policy.logp(batch[Columns.ACTIONS]) - batch[Columns.ACTION_LOGP]
            FirstRatio.ratio = log_ratio.exp().detach()
        return super().rollout_loss(module_id, config, batch, policy, values)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
@pytest.mark.parametrize("operator", ["temperature", "random"])
def test_ppo_with_a_control_from_sampling_to_the_policy_file(operator, tmp_path):
    small = {"height": 6, "width": 6, "num_uavs": 3, "max_steps": 20, "mask_blocked_moves": True}
    wanted = Amplification(0.3, 0.4, 0.9, operator, 5)
    algorithm = (
        PPOConfig()
        .environment("forest_uav_v0", env_config=small)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2)
        .learners(learner_class=FirstRatio)
        .training(
            lr=1e-2,
            train_batch_size_per_learner=40,
            minibatch_size=40,
            num_epochs=2,
            amplification={"eta": 0.3, "h_min": 0.4, "tau": 0.9, "operator": operator, "operator_seed": 5},
        )
        .rl_module(model_config={"fcnet_hiddens": [8]})
        .debugging(seed=0)
        .build_algo()
    )
    for _ in range(2):  # the second update has weights that were synced
        algorithm.train()
        torch.testing.assert_close(FirstRatio.ratio, torch.ones(40), atol=1e-5, rtol=0)
    module = algorithm.env_runner.module["shared"]
    assert module.amplification == wanted
    algorithm.save_to_path(str(tmp_path / "checkpoint"))
    seen = torch.rand(4, *module.observation_space.shape)
    legal = torch.ones(4, 5)
    legal[1:, 2] = 0
    observed = {"observation": seen, "action_mask": legal}
    with torch.no_grad():
        probs = module._forward({Columns.OBS: observed})[Columns.ACTION_DIST_INPUTS].exp().numpy()
    algorithm.stop()
    policy = load_policy_from_checkpoint(tmp_path / "checkpoint")
    loaded = load_policy(save_policy(policy, tmp_path / "policy.pt"))
    noise = (np.arange(2000) + 0.5) / 2000
    for each in (policy, loaded):
        part = each.modules["shared"]
        assert dataclasses.asdict(part.amplification) == pytest.approx(dataclasses.asdict(wanted))
        for row in range(4):
            actions = part.act(
                np.tile(seen[row].numpy(), (2000, 1)), np.tile(legal[row].numpy(), (2000, 1)), noise
            )
            np.testing.assert_allclose(np.bincount(actions, minlength=5) / 2000, probs[row], atol=2e-3)
