"""Off-policy Learners by kernels against the same Learners by torch: gradients of every objective, and the parts."""

import contextlib
import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from toy_off_policy import ATTENTION, DQNConfig, MADDPGConfig, MASACConfig, config_of, moved_apart, setup_of

from qio_rllib.algorithms import QMIXConfig, VDNConfig
from qio_rllib.fused.adam import approach
from qio_rllib.fused.choices import relaxed_choice
from qio_rllib.fused.means import masked_mean
from qio_rllib.fused.mixing import mixed
from qio_rllib.fused.q_values import best_value, dueling, value_of
from qio_rllib.fused.stack import Stack
from qio_rllib.fused.use import fused_kernels, kernels
from qio_rllib.learners import common
from qio_rllib.learners.common import learner_threads, polyak_update
from qio_rllib.models.joint_critics import GroupShape, JointView, MLPCritic
from qio_rllib.models.joint_module import sampled_one_hot
from qio_rllib.models.mixers import MixerSettings, MonotonicMixer
from qio_rllib.sampling.replay import JointReplay
from qio_rllib.sampling.runner import BatchedEnvRunner
from qio_rllib.sampling.team_reward import with_team_reward

GRU = {"use_gru": True, "gru_cell_size": 6, "max_seq_len": 5}
DEEP = {"hiddens": [16, 9], "activation": "silu"}

pytestmark = pytest.mark.usefixtures("computing_on_one_thread")


# name -> (task, algorithm, settings, kernels that the losses need)
CASES = {
    "DQN, masks": ("forest", DQNConfig, {}, {"join_dueling", "value_of", "best_value", "mean_of"}),
    "DQN, deaths": ("masked", DQNConfig, {"double_q": False}, {"best_value", "mean_of"}),
    "DQN, not dueling": ("lives", DQNConfig, {"dueling": False, "reward_scale": 0.5}, {"value_of"}),
    "DQN, memory": ("masked", DQNConfig, {"model": GRU, "burn_in": 2, "n_step": 2}, {"best_value"}),
    "QMIX": ("forest", QMIXConfig, {}, {"mix", "part_mix", "part_dueling", "spread_value"}),
    "QMIX, deaths": ("masked", QMIXConfig, {"double_q": False}, {"mix", "part_mix"}),
    "QMIX, two modules": ("tag", QMIXConfig, {}, {"mix", "part_mix"}),
    "QMIX, linear hypernetworks": ("tag", QMIXConfig, {"mixer": {"hypernet_hiddens": []}}, {"part_mix"}),
    "QMIX, memory": ("forest", QMIXConfig, {"model": GRU, "burn_in": 1}, {"mix", "part_mix"}),
    "VDN": ("masked", VDNConfig, {}, {"mean_of"}),
    "MADDPG": ("swarm", MADDPGConfig, {}, {"others_first", "part_others_first", "mean_of"}),
    "MADDPG, discrete": ("forest", MADDPGConfig, {}, {"others_first", "relaxed_choice", "part_choice"}),
    "MADDPG, deaths": ("masked", MADDPGConfig, {"critic": DEEP}, {"others_first", "part_choice"}),
    "MADDPG, two modules": ("tag", MADDPGConfig, {"critic": DEEP}, {"part_others_first"}),
    "MADDPG, tanh": ("moving", MADDPGConfig, {"critic": {"hiddens": [20], "activation": "tanh"}}, {"others_first"}),
    "MADDPG, own critic": ("swarm", MADDPGConfig, {"critic": {"type": "own"}}, {"mean_of"}),
    "MADDPG, attention": ("swarm", MADDPGConfig, {"critic": ATTENTION}, {"mean_of"}),
    "MADDPG, operator": ("forest", MADDPGConfig, {"amplification": {"eta": 0.4}}, {"part_choice"}),
    "MADDPG, messages": ("forest", MADDPGConfig, {"communication": {"bandwidth": 2}}, {"others_first"}),
    "MADDPG, memory": ("swarm", MADDPGConfig, {"model": GRU, "burn_in": 2}, {"part_others_first"}),
    "MASAC": ("swarm", MASACConfig, {"critic": DEEP}, {"others_first", "part_others_first"}),
    "MASAC, discrete": ("masked", MASACConfig, {}, {"others_first", "mean_of"}),
}  # fmt: skip


def learning(name):
    """Return a Learner away from its targets, with transitions: of several steps, sequences, or single ones."""
    task, algorithm, given_settings, _ = CASES[name]
    config = config_of(task, algorithm=algorithm, **given_settings)
    setup = setup_of(config, sequences="model" in given_settings)
    for module in setup.modules:
        moved_apart(module, by=0.2)
    return setup


class Counted:
    """A kernel that notes that it was called."""

    def __init__(self, name, kernel, called):
        self.name, self.kernel, self.called = name, kernel, called

    def __call__(self, *arguments):
        self.called.add(self.name)
        return self.kernel(*arguments)


def objectives(setup, fused, monkeypatch):
    """Return (gradients, losses, stats) of each objective without a step, and which kernels were called."""
    learner, called, found = setup.learner, set(), []
    learner.noise.manual_seed(5)
    with monkeypatch.context() as patch:
        for name, kernel in list(vars(kernels()).items()):
            if type(kernel).__name__ == "Kernel":
                patch.setattr(kernels(), name, Counted(name, kernel, called))
        if not fused:
            patch.setattr(common, "fused_kernels", contextlib.nullcontext)
        with learner_threads(1):
            for objective in learner.losses(setup.rows):
                parameters = learner.parameters_of(objective.optimizer)
                total = torch.stack([*objective.losses.values()]).sum()
                gradients = torch.autograd.grad(total, parameters, allow_unused=True)
                numbers = [*objective.losses.values(), *objective.stats.values()]
                found.append((gradients, [float(number.detach()) for number in numbers]))
    return found, called


@pytest.mark.parametrize("name", list(CASES))
def test_gradients_and_losses_are_those_of_torch(name, monkeypatch):
    setup = learning(name)
    expected, none = objectives(setup, False, monkeypatch)
    found, called = objectives(setup, True, monkeypatch)
    assert not none
    assert CASES[name][3] <= called
    assert len(found) == len(expected) >= 1
    for (ours, mine), (theirs, other) in zip(found, expected, strict=True):
        assert mine == pytest.approx(other, rel=1e-5, abs=1e-6)
        scale = max(float(each.abs().max()) for each in theirs if each is not None)
        assert scale > 0
        for one, two in zip(ours, theirs, strict=True):
            assert (one is None) == (two is None)
            if one is not None:
                assert one.is_contiguous()  # or Adam's kernel does not take it
                assert (one - two).abs().max() <= 1e-5 * scale


def replayed(config):
    """Return a batch of transitions over several steps, as an algorithm would draw it."""
    runner = BatchedEnvRunner(config=config)
    replay = JointReplay(500, 1, n_step=config.replay_n_step, gamma=config.gamma, team=True)
    replay.add(with_team_reward(runner.sample()[0], "common"))
    return replay.sample(24)


def test_updates_repeat_and_numbers_that_are_not_finite_end_them():
    config = config_of("masked", algorithm=QMIXConfig, n_step=3)
    batch, weights = replayed(config), []
    for _ in range(2):
        learner = setup_of(config).learner
        learner.update(episodes=[batch], num_epochs=2)
        weights.append([each.detach().clone() for each in learner.modules()[0].parameters()])
    assert all(torch.equal(one, two) for one, two in zip(*weights, strict=True))
    assert any((one != 0).any() for one in weights[0])
    batch.modules["shared"]["rewards"][3] = np.nan
    with pytest.raises(FloatingPointError):
        learner.update(episodes=[batch], num_epochs=2)


@pytest.mark.parametrize("where", ["policy", "critics"])
def test_weights_that_are_not_finite_end_an_update(where):
    setup = setup_of(config_of("swarm", algorithm=MADDPGConfig))
    with torch.no_grad():
        next(getattr(setup.modules[0], where).parameters()).fill_(math.nan)
    with pytest.raises(FloatingPointError):
        setup.learner.update(episodes=[setup.steps], num_epochs=1)


# -- the parts ----------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(
    st.integers(1, 40),
    st.integers(1, 5),
    st.integers(1, 37),
    st.lists(st.integers(1, 20), max_size=2),
    st.integers(0, 2**16),
)
@example(513, 3, 32, [64], 0)
def test_a_mixer_is_torchs_in_double_precision(rows, agents, size, hiddens, seed):
    torch.manual_seed(seed)
    mixer = MonotonicMixer(agents, 7, MixerSettings(embedding=size, hypernet_hiddens=tuple(hiddens)))
    values, states, slopes = 3 * torch.randn(rows, agents), torch.randn(rows, 7), torch.randn(rows)
    wide = MonotonicMixer(agents, 7, MixerSettings(embedding=size, hypernet_hiddens=tuple(hiddens)))
    wide.load_state_dict(mixer.state_dict())
    wide.double()

    def differentiated(network, own, seen, weights):
        own = own.clone().requires_grad_()
        found = network(own, seen)
        gradients = torch.autograd.grad((found * weights).sum(), [own, *network.parameters()])
        assert (type(found.grad_fn).__name__ == "_MixedBackward") == (own.dtype == torch.float32)
        return [found.detach(), *gradients]

    expected = differentiated(wide, values.double(), states.double(), slopes.double())
    with fused_kernels():
        found = differentiated(mixer, values, states, slopes)
        with torch.no_grad():
            assert torch.equal(mixer(values, states), found[0])
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).abs().max() <= 1e-5 * max(1.0, float(theirs.abs().max()))


@pytest.mark.parametrize("kind", ["difference", "square", "huber"])
@pytest.mark.parametrize("width", [None, 3])
def test_means_over_rows_that_count(kind, width):
    torch.manual_seed(1)
    shape = (9, 4) if width is None else (9, 4, width)
    values, targets = (3 * torch.randn(shape)).requires_grad_(), torch.randn(shape)
    for mask in ((torch.rand(9, 4) < 0.5).float(), torch.zeros(9, 4)):
        errors = values - targets
        if kind == "square":
            errors = errors**2
        elif kind == "huber":
            errors = torch.nn.functional.smooth_l1_loss(values, targets, reduction="none")
        errors = errors if width is None else errors.mean(-1)
        expected = (errors * mask).sum() / mask.sum().clamp_min(1.0)
        (theirs,) = torch.autograd.grad(expected, values)
        assert masked_mean(values, mask, targets, kind) is None
        with fused_kernels():
            found = masked_mean(values, mask, targets, kind)
            (ours,) = torch.autograd.grad(2 * found, values)
            without = masked_mean(values.detach(), mask, targets, kind)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(without, expected)
        torch.testing.assert_close(ours, 2 * theirs)


def test_the_best_action_is_legal_and_the_first_of_equals_and_nan_shows():
    q_values = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 9], [1, 2, 3], [1, 2, 3]])
    chooser = torch.tensor(
        [[0.0, 5, 5], [9, 9, 1], [3, 2, 1], [2, torch.nan, 3], [-torch.inf, -torch.inf, 0]]
    )
    legal = torch.ones(5, 3, dtype=torch.bool)
    legal[1, 0] = legal[2, :2] = legal[4, 2] = False
    mask = torch.tensor([1.0, 1, 0.5, 1, 1])
    with fused_kernels():
        assert best_value(q_values, chooser, legal, mask).tolist() == [2, 5, 4.5, 2, 1]
        assert best_value(q_values, chooser, None, torch.ones(5)).tolist() == [2, 4, 7, 2, 3]
    expected = chooser.masked_fill(~legal, -torch.inf).argmax(-1)
    assert (q_values.gather(1, expected[:, None])[:, 0] * mask).tolist() == [2, 5, 4.5, 2, 1]


def test_a_relaxed_choice_is_torchs_for_extremes_too():
    lowest = torch.finfo(torch.float32).min
    logits = torch.tensor([[0.0, 1, 2, lowest], [lowest, lowest, 0, lowest], [80.0, -80, 3, 4]]).repeat(
        300, 1
    )
    slopes = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))
    for temperature in (0.3, 1.0, 4.0):
        made = []
        for context in (contextlib.nullcontext, fused_kernels):
            own = logits.clone().requires_grad_()
            with context():
                drawn = sampled_one_hot(own, temperature, torch.Generator().manual_seed(7))
                made.append([drawn.detach(), *torch.autograd.grad((drawn * slopes).sum(), own)])
        torch.testing.assert_close(made[1], made[0], atol=2e-6, rtol=1e-5)
        assert not made[1][0][:, 3].any()
        assert ((made[1][0] == 0) | (made[1][0] == 1)).all()
    with fused_kernels():
        drawn = relaxed_choice(torch.full((2, 3), torch.nan), torch.rand(2, 3), 1.0)
    assert drawn.isnan().all()


@pytest.mark.parametrize("tau", [0.0, 0.02, 0.7, 1.0])
def test_targets_follow_as_torchs_do(tau):
    torch.manual_seed(0)
    targets, presents = ([torch.nn.Parameter(torch.randn(size)) for size in (1, 70, 300)] for _ in range(2))
    expected = [
        torch.lerp(one.detach(), two.detach(), tau) for one, two in zip(targets, presents, strict=True)
    ]
    assert not approach(targets, presents, tau)
    with fused_kernels():
        polyak_update(targets, presents, tau)
    torch.testing.assert_close([each.detach() for each in targets], expected, atol=1e-7, rtol=1e-6)
    if tau == 1.0:
        assert all(torch.equal(one, two) for one, two in zip(targets, presents, strict=True))


def test_a_choice_is_the_same_whatever_constant_is_added_to_its_logits():
    """As it has to be, since the Learner gives logits as they come; log-probabilities are such logits."""
    logits = torch.randn(200, 4, generator=torch.Generator().manual_seed(3))
    slopes = torch.randn(logits.shape, generator=torch.Generator().manual_seed(4))
    for context in (contextlib.nullcontext, fused_kernels):
        made = []
        for own in (logits, torch.log_softmax(logits, -1), logits + torch.linspace(-20, 20, 200)[:, None]):
            own = own.clone().requires_grad_()
            with context():
                drawn = sampled_one_hot(own, 0.7, torch.Generator().manual_seed(7))
                made.append([drawn.detach(), *torch.autograd.grad((drawn * slopes).sum(), own)])
        torch.testing.assert_close(made[1], made[0], atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(made[2], made[0], atol=2e-5, rtol=1e-4)


def test_a_critic_looks_at_its_layers_again_when_they_become_others():
    group = GroupShape(agents=2, obs=3, actions=2)
    critic = MLPCritic([group], 0, 0, [8, 8], "relu")
    obs, actions = torch.randn(5, 2, 3), torch.randn(5, 2, 2)
    joint = JointView([obs], [torch.ones(5, 2)], None, None)
    with fused_kernels():
        before = critic(joint, [actions])
        assert type(before.grad_fn).__name__ == "_JointValuesBackward"
        critic.body[2] = torch.nn.GELU()
        other = critic(joint, [actions])
        assert type(other.grad_fn).__name__ == "AddmmBackward0"
        critic.body[2] = torch.nn.ReLU()
        assert type(critic(joint, [actions]).grad_fn).__name__ == "_JointValuesBackward"
        critic.double()
        double = JointView([obs.double()], [torch.ones(5, 2).double()], None, None)
        after = critic(double, [actions.double()])
    assert after.dtype == torch.float64
    torch.testing.assert_close(after.float(), before)


def test_what_the_kernels_do_not_take_is_torchs():
    mask, wide = torch.ones(4), torch.randn(4, 3)
    with fused_kernels():
        assert dueling(wide.double()) is None
        assert dueling(wide[:, ::2]) is None
        assert dueling(wide[:0]) is None
        assert value_of(wide, wide[:, :2].contiguous(), mask) is None
        assert value_of(wide, wide.clone().requires_grad_(), mask) is None
        assert value_of(wide, wide, torch.ones(3)) is None
        assert best_value(wide, wide, torch.ones(4, 3), mask) is None
        assert best_value(wide, wide[:3], None, mask) is None
        assert masked_mean(wide, torch.ones(3)) is None
        assert masked_mean(wide, mask, wide[:, :2]) is None
        assert masked_mean(wide, mask.clone().requires_grad_()) is None
        assert relaxed_choice(wide, wide[:3], 1.0) is None
        normalised = Stack(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2)).layers()
        known = Stack(torch.nn.Linear(3, 2)).layers()
        assert mixed(wide[:, :1].contiguous(), wide, [normalised, known, known, known]) is None
        assert mixed(wide[:, :1].contiguous(), wide[:, :2], [known] * 4) is None
