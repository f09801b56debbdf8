"""Memory off policy: sequences give what stepping gives, gradients included; burn-in passes none; resets; bad input."""

import copy
import dataclasses
import math

import pytest
import torch
from toy_off_policy import DQNConfig, MADDPGConfig, MASACConfig, config_of, setup_of

from qio_envs.api import ConfigError
from qio_rllib.algorithms import MAACConfig
from qio_rllib.learners.transitions import outputs_of
from qio_rllib.models.joint_critics import JointView

ALGORITHMS = {"maddpg": MADDPGConfig, "masac": MASACConfig, "maac": MAACConfig, "dqn": DQNConfig}
MODELS = {
    "lstm": {"use_lstm": True, "lstm_cell_size": 5, "max_seq_len": 5},
    "gru": {"use_gru": True, "gru_cell_size": 5, "max_seq_len": 5},
}
everybody = pytest.mark.parametrize("algorithm", ALGORITHMS)
both = pytest.mark.parametrize("kind", MODELS)


def recurrent(algorithm, kind, task="lives", burn_in=2, **training):
    """Return a Learner with sequences of 7 steps, in which agents begin, end and are cut."""
    config = config_of(
        task,
        fragment=24,
        algorithm=ALGORITHMS[algorithm],
        model=MODELS[kind],
        burn_in=burn_in,
        **training,
    )
    setup = setup_of(config, sequences=True, count=30)
    setup.rows.obs[0] = setup.rows.obs[0].double()
    setup.rows.next_obs[0] = setup.rows.next_obs[0].double()
    setup.rows.memory[0] = setup.rows.memory[0].double()
    for module in setup.modules:
        module.double()
    return setup


def stepped(network, rows, burn_in=0):
    """Walk through sequences one step at a time: outputs for observations, and for those that follow each."""
    batch, agents = rows.memory[0].shape[:2]
    state = rows.memory[0].flatten(0, 1)
    found, following = [], []
    for step in range(rows.length):
        at = slice(step * batch, (step + 1) * batch)
        state = state * (~rows.fresh[0][at]).flatten().unsqueeze(-1)
        features, state = network.features(rows.obs[0][at].flatten(0, 1), state)
        if step < burn_in:
            features, state = features.detach(), state.detach()
        after, _ = network.features(rows.next_obs[0][at].flatten(0, 1), state)
        found.append(network.outputs(features).unflatten(0, (batch, agents)))
        following.append(network.outputs(after).unflatten(0, (batch, agents)))
    return torch.cat(found), torch.cat(following)


@everybody
@both
def test_a_sequence_gives_what_stepping_gives(algorithm, kind):
    """With agents that begin in the middle, and what follows a cut is its own last observation."""
    setup = recurrent(algorithm, kind)
    (module,), rows = setup.modules, setup.rows
    assert rows.fresh[0].reshape(7, -1)[1:].any()
    cut = (rows.present_next[0] > 0) & (rows.acted[0] > 0)
    assert (cut[:-30] & rows.fresh[0][30:]).any()
    for burn_in in (0, 2, 6):
        found = outputs_of(module.policy, rows, 0, burn_in, rows.next_obs)
        for one, other in zip(found, stepped(module.policy, rows), strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)
    only, nothing = outputs_of(module.policy, rows, 0, 2)
    torch.testing.assert_close(only, found[0])
    assert nothing is None


@everybody
@both
@pytest.mark.parametrize("burn_in", [0, 2])
def test_gradients_are_those_of_stepping_and_none_passes_through_burn_in(algorithm, kind, burn_in):
    setup = recurrent(algorithm, kind)
    (module,), rows = setup.modules, setup.rows
    learned = (torch.arange(7) >= burn_in).repeat_interleave(30).double()[:, None, None]
    weights = torch.randn(rows.obs[0].shape[0], 1, 1, generator=torch.Generator().manual_seed(1)) * learned
    parameters = dict(module.policy.named_parameters())
    parameters = {name: value for name, value in parameters.items() if "speaker" not in name}
    gradients = []
    for outputs in (
        outputs_of(module.policy, rows, 0, burn_in)[0],
        stepped(module.policy, rows, burn_in)[0],
    ):
        gradients.append(torch.autograd.grad((outputs * weights).sum(), [*parameters.values()]))
    for name, one, other in zip(parameters, *gradients, strict=True):
        assert one.abs().max() > 1e-8, name
        torch.testing.assert_close(one, other, atol=1e-8, rtol=1e-6, msg=name)
    rows.obs[0].requires_grad_()
    (outputs_of(module.policy, rows, 0, burn_in)[0] * weights).sum().backward()
    early = rows.obs[0].grad[: burn_in * 30]
    assert not early.any()
    assert rows.obs[0].grad[burn_in * 30 :].any()


@both
@pytest.mark.parametrize("burn_in", [0, 3])
def test_a_critics_memory_runs_through_a_sequence_as_through_its_steps(kind, burn_in):
    setup = recurrent("maddpg", kind, burn_in=3)
    (module,), rows = setup.modules, setup.rows
    network = module.critics[0]
    fresh = rows.fresh_environments
    assert fresh[1:].any()
    assert not fresh.all(dim=1).any()
    numbers = [part.double() for part in (rows.acted[0], rows.present_next[0])]
    joint = JointView(rows.obs, numbers[:1], None, None)
    following = JointView(rows.next_obs, numbers[1:], None, None)
    size, state = network.memory.size, joint.flat.new_zeros(30, network.memory.state_size)
    own, after = [], []
    for step in range(8):
        at = slice(step * 30, (step + 1) * 30)
        state = state * ~fresh[step].unsqueeze(-1)
        _, state = network.memory(joint.flat[at], state)
        state = state.detach() if step < burn_in else state
        own.append(state[:, :size])
        after.append(network.memory(following.flat[at], state)[0])
    found, nothing = network.remembering(joint, 8, fresh, burn_in=burn_in)
    assert nothing is None
    one, two = network.remembering(joint, 8, fresh, following)
    for view, expected in ((found, own), (one, own), (two, after)):
        torch.testing.assert_close(view.global_state, torch.cat(expected), atol=1e-6, rtol=1e-6)
    weights = torch.randn(240, size, generator=torch.Generator().manual_seed(1)).double()
    weights[: burn_in * 30] = 0
    parameters = [*network.memory.parameters()]
    gradients = [
        torch.autograd.grad((states * weights).sum(), parameters)
        for states in (found.global_state, torch.cat(own))
    ]
    for left, right in zip(*gradients, strict=True):
        assert left.abs().max() > 1e-8
        torch.testing.assert_close(left, right, atol=1e-8, rtol=1e-6)


def single_precision(setup):
    """Make networks and rows what learners take."""
    rows = setup.rows
    for module in setup.modules:
        module.float()
    rows.obs[0], rows.next_obs[0], rows.memory[0] = (
        part.float() for part in (rows.obs[0], rows.next_obs[0], rows.memory[0])
    )


@pytest.mark.parametrize("algorithm", ["maddpg", "masac", "maac"])
def test_learners_let_no_gradient_of_critics_pass_through_burn_in(algorithm, monkeypatch):
    setup = recurrent(algorithm, "gru")
    single_precision(setup)
    given = []
    for module in setup.modules:
        for network in module.critics:
            original = network.remembering
            monkeypatch.setattr(
                network,
                "remembering",
                lambda *arguments, original=original, **named: (
                    given.append(named) or original(*arguments, **named)
                ),
            )
    setup.learner.gradient_step(setup.rows)
    assert given == [{"burn_in": 2}] * len(given)
    assert len(given) == (4 if algorithm == "masac" else 2)


@everybody
def test_learners_let_no_gradient_of_policies_pass_through_burn_in(algorithm, monkeypatch):
    setup, given = recurrent(algorithm, "gru"), []
    single_precision(setup)
    memory = setup.modules[0].policy.memory
    original = memory.burnt_in
    monkeypatch.setattr(
        memory, "burnt_in", lambda *arguments: given.append(arguments[3]) or original(*arguments)
    )
    setup.learner.gradient_step(setup.rows)
    assert given
    assert set(given) == {2}


@everybody
def test_rows_that_do_not_count_move_nothing(algorithm):
    alone = {"maac": {"attention_regularization": 0.0, "alpha_lr": 0.01}}.get(algorithm, {})
    setup = recurrent(algorithm, "gru", **alone)
    single_precision(setup)
    setup.rows.learned[0].zero_()
    before = copy.deepcopy(dict(setup.modules[0].named_parameters()))
    setup.learner.gradient_step(setup.rows)
    for name, value in setup.modules[0].named_parameters():
        torch.testing.assert_close(value, before[name], msg=name)


@pytest.mark.parametrize("algorithm", ["masac", "maac"])
def test_targets_know_nothing_of_the_episode_before(algorithm):
    setup = recurrent(algorithm, "gru")
    single_precision(setup)
    rows, learner, found = setup.rows, setup.learner, []
    fresh = rows.fresh_environments
    before = torch.zeros_like(fresh)  # steps that an episode's start follows
    before[:-1] = fresh.flip(0).cumsum(0).flip(0)[1:] > 0
    before = before.flatten()
    for change in (0.0, 5.0):
        rows.obs[0][before] += change
        learner.noise.manual_seed(1)
        found.append(learner.targets(setup.modules, rows)[0])
    torch.testing.assert_close(found[1][~before], found[0][~before])
    assert (found[1][before] != found[0][before]).any()


@everybody
@both
def test_only_steps_behind_burn_in_are_learned_from(algorithm, kind):
    setups = [recurrent(algorithm, kind) for _ in range(2)]
    for setup in setups:
        single_precision(setup)
        rows = setup.rows
        torch.testing.assert_close(rows.learned[0].reshape(7, 30, 3).sum(dim=(1, 2))[:2], torch.zeros(2))
        torch.testing.assert_close(rows.learned[0][60:], rows.acted[0][60:])
    changed = setups[1].rows
    changed.rewards[0][:60] += 100.0
    for setup in setups:
        before = copy.deepcopy(setup.modules[0].state_dict())
        stats = setup.learner.gradient_step(setup.rows)
        assert all(math.isfinite(float(value)) for value in stats.values())
        after = setup.modules[0].state_dict()
        assert any((before[name] != after[name]).any() for name in before if "policy.memory" in name)
    for left, right in zip(*(setup.modules[0].parameters() for setup in setups), strict=True):
        torch.testing.assert_close(left, right)


@pytest.mark.parametrize("algorithm", ["maddpg", "masac"])
def test_own_critics_have_no_memory_of_what_others_observe(algorithm):
    setup = recurrent(algorithm, "gru", critic={"type": "own", "hiddens": [8]})
    (module,), rows = setup.modules, setup.rows
    rows.obs[0] = rows.obs[0].requires_grad_()
    for network in module.critics:
        view, _ = network.remembering(rows.view(), rows.length, rows.fresh_environments, burn_in=2)
        value = network.critic(view, [actions.double() for actions in rows.actions])
        (gradient,) = torch.autograd.grad(value[:, 0].sum(), rows.obs, retain_graph=True)
        assert gradient[:, 0].any()
        assert not gradient[:, 1:].any()
        assert not [name for name, _ in network.named_parameters() if "memory" in name]


@pytest.mark.parametrize("algorithm", ["maddpg", "masac"])
def test_whole_updates_with_messages_and_states(algorithm):
    training = {"communication": {"bandwidth": 2, "drop": 0.3}} if algorithm == "maddpg" else {}
    config = config_of("swarm", algorithm=ALGORITHMS[algorithm], model=MODELS["gru"], burn_in=1, **training)
    setup = setup_of(config, sequences=True, count=20)
    assert setup.rows.global_state is not None
    found = setup.learner.update(episodes=[setup.steps], timesteps={}, num_epochs=2)
    assert math.isfinite(found["shared"]["critic_loss"].peek())


def test_a_fresh_environment_is_one_in_which_all_agents_begin():
    setup = recurrent("maddpg", "gru")
    fresh = [torch.tensor([[True, True], [True, False]]), torch.tensor([[True], [True]])]
    rows = dataclasses.replace(setup.rows, length=2, fresh=fresh)
    assert rows.fresh_environments.tolist() == [[True], [False]]


def test_bad_memory_settings_are_refused():
    with pytest.raises(ConfigError, match="use_lstm and use_gru exclude each other"):
        config_of("pole", algorithm=DQNConfig, model=MODELS["gru"] | MODELS["lstm"]).validate()
