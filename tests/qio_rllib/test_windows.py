"""Windows of modules with memory, where agents come and go: what is learned from is what was played, and its credit."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toy_runners import learner_of, lives, runner_of

from qio_rllib.acting.distributions import Distributions
from qio_rllib.algorithms import PPOConfig
from qio_rllib.learners.advantages import compute_advantages
from qio_rllib.learners.training_batch import TrainingBatch
from qio_rllib.models.actor_critic import ActorCritic
from qio_rllib.models.values import CentralInputs
from qio_rllib.sampling.rollout import ModuleRollout

GAMMA, LAMBDA, LENGTH = 0.9, 0.8, 2
PARTS = {"pair": ["b", "c"], "single": ["a"]}
CRITICS = {"own": {}, "shared layers": {"vf_share_layers": True}, "central": {}}


def config_of(critic: str = "own", kind: str = "gru", length: int = LENGTH, **training) -> PPOConfig:
    memory = {f"use_{kind}": True, f"{kind}_cell_size": 5, "max_seq_len": length}
    config = lives(fragment=13).multi_agent(policies=PARTS)
    config.rl_module(model_config={"fcnet_hiddens": [6], **memory, **CRITICS[critic]})
    if critic == "central":
        training["central_value"] = "observations"
    return config.training(gamma=GAMMA, lambda_=LAMBDA, **training)


def played(config: PPOConfig) -> SimpleNamespace:
    """Return a Learner and a rollout that begins and ends within episodes."""
    runner = runner_of(config)
    runner.sample()
    learner = learner_of(config, runner)
    learner.module.set_state(runner.get_state()["rl_module"])
    return SimpleNamespace(rollout=runner.sample()[0], learner=learner)


def value_step(
    module: ActorCritic, part: ModuleRollout, obs: np.ndarray, state: torch.Tensor, where: tuple
) -> tuple[float, torch.Tensor]:
    """Return the value of one agent's observation, and its next memory; ``where`` is its global state and column."""
    row = torch.from_numpy(obs)[None]
    global_state, m = where
    with torch.no_grad():
        if module.shares_layers:
            features, following = module.policy.features(row, state)
            return float(module.value(features)[0]), following
        central = None
        if module.has_central_value:
            agent = torch.tensor([part.agent_index[m]])
            central = CentralInputs(torch.from_numpy(global_state)[None], torch.tensor([0]), agent)
        value, following = module.value(row, central, state)
        return float(value), following


def values_step_by_step(module: ActorCritic, part: ModuleRollout) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of all observations and of the final ones, each agent's life by itself."""
    name = "policy" if module.shares_layers else "value"
    values = np.zeros((part.num_steps + 1, *part.rewards.shape[1:]), np.float32)
    final = np.zeros(len(part.final_index), np.float32)
    rows = {tuple(index): row for row, index in enumerate(part.final_index.tolist())}
    goes_on = ~part.fresh
    for e, m in np.ndindex(goes_on.shape):
        state = torch.from_numpy(part.memory[name][0, e, m])[None]
        for t in range(part.num_steps + 1):
            if not goes_on[e, m]:
                state = torch.zeros_like(state)
            seen = None if part.global_states is None else part.global_states[t, e]
            values[t, e, m], state = value_step(module, part, part.observations[t, e, m], state, (seen, m))
            if t < part.num_steps:
                goes_on[e, m] = part.acted[t, e, m] and part.continues[t, e, m]
            if (t, e, m) in rows:
                row = rows[t, e, m]
                seen = None if part.final_global_states is None else part.final_global_states[row]
                final[row], _ = value_step(module, part, part.final_observations[row], state, (seen, m))
    return values, final


def in_windows(array: np.ndarray, part: ModuleRollout, length: int = LENGTH) -> np.ndarray:
    """Return the rows in which an agent acted, in the order of windows, steps first."""
    found = []
    steps = part.num_steps
    starts = range(0, steps, length)
    for k in range(length):
        for start in starts:
            for e, m in np.ndindex(part.rewards.shape[1:]):
                if start + k < steps and part.acted[start + k, e, m]:
                    found.append(array[start + k, e, m])
    return np.array(found)


def given_to_the_loss(learner, module_id: str, batch: TrainingBatch, monkeypatch) -> SimpleNamespace:
    """Take a gradient step; return what the loss was given of it."""
    given = SimpleNamespace()
    losses = learner.losses

    def recording(module_id, config, batch, policy, values):
        given.columns, given.log_probs, given.values = batch, policy.log_probs.detach(), values.detach()
        return losses(module_id, config, batch, policy, values)

    monkeypatch.setattr(learner, "losses", recording)
    learner._step(module_id, learner.config.get_config_for_module(module_id), batch)
    monkeypatch.undo()
    return given


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("critic", CRITICS)
def test_windows_give_the_probabilities_and_values_of_the_steps_that_were_played(critic, kind, monkeypatch):
    setup = played(config_of(critic, kind))
    for module_id, part in setup.rollout.modules.items():
        module = setup.learner.module[module_id].unwrapped()
        batch = setup.learner.prepare(module_id, [part])
        count = -(-part.num_steps // LENGTH)
        assert batch.units < count * part.rewards[0].size  # in some windows an agent never acts
        assert (
            batch.rows == part.acted.sum() < batch.valid.numel()
        )  # and in some it acts in a part of the steps
        expected, _ = values_step_by_step(module, part)
        recorded = Distributions(torch.from_numpy(in_windows(part.columns["dist_inputs"], part)), True)
        given = given_to_the_loss(setup.learner, module_id, batch, monkeypatch)
        torch.testing.assert_close(given.log_probs, recorded.log_probs, rtol=0, atol=1e-5)
        np.testing.assert_allclose(given.values, in_windows(expected, part), rtol=0, atol=1e-5)
        for name, array in (("actions", part.actions), ("action_logp", part.columns["logp"])):
            np.testing.assert_array_equal(given.columns[name], in_windows(array, part))
        # Some begin with a memory that holds something, and an episode ends within some.
        assert all(memory.any() for memory in batch.inputs.memory.values())
        assert batch.inputs.fresh[1:][batch.valid[1:]].any()


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("critic", CRITICS)
def test_credit_is_that_of_values_with_each_agents_own_memory(critic, kind):
    setup = played(config_of(critic, kind))
    cut = 0
    for module_id, part in setup.rollout.modules.items():
        module = setup.learner.module[module_id].unwrapped()
        values, final = values_step_by_step(module, part)
        expected = compute_advantages(part, values, final, GAMMA, LAMBDA)
        batch = setup.learner.prepare(module_id, [part])
        targets = batch.flat_columns()["value_targets"]
        found = in_windows(expected + values[:-1], part)
        np.testing.assert_allclose(targets, found, rtol=1e-4, atol=1e-4)
        cut += len(part.final_index)
    assert cut


@pytest.mark.parametrize("critic", CRITICS)
def test_windows_of_several_rollouts_stand_side_by_side(critic):
    config = config_of(critic)
    runner = runner_of(config)
    learner = learner_of(config, runner)
    learner.module.set_state(runner.get_state()["rl_module"])
    for module_id in PARTS:
        parts = [runner.sample()[0].modules[module_id] for _ in range(2)]
        one, two, both = (learner.prepare(module_id, each) for each in (parts[:1], parts[1:], parts))
        assert one.units > 1
        assert two.units > 1
        columns = [name for name in both.columns if name != "advantages"]  # those have the whole batch's mean
        assert {"actions", "action_logp", "value_targets"} <= {*columns}
        for name in columns:
            joined = torch.cat([one.columns[name], two.columns[name]], dim=1)
            torch.testing.assert_close(both.columns[name], joined, rtol=1e-5, atol=1e-5)
        for name in ("rows", "fresh"):
            joined = torch.cat([getattr(each.inputs, name) for each in (one, two)], dim=1)
            assert torch.equal(getattr(both.inputs, name), joined)
        assert torch.equal(both.valid, torch.cat([one.valid, two.valid], dim=1))
        for name, memory in both.inputs.memory.items():
            assert torch.equal(memory, torch.cat([one.inputs.memory[name], two.inputs.memory[name]]))
        if critic == "central":
            seen = [each.inputs.central.states[each.inputs.central.rows] for each in (one, two, both)]
            # what stands where no agent acted is of no account
            assert torch.equal(seen[2][both.valid], torch.cat(seen[:2], dim=1)[both.valid])


def test_padding_has_no_part_in_means_and_deviations():
    setup = played(config_of(normalize_values=True))
    part = setup.rollout.modules["pair"]
    plain = played(config_of()).learner
    plain.module.set_state(setup.learner.module.get_state())
    targets = plain.prepare("pair", [part]).flat_columns()["value_targets"].double()
    batch = setup.learner.prepare("pair", [part])
    scale = setup.learner._popart["pair"]
    assert scale.mean == pytest.approx(float(targets.mean()), rel=1e-5)
    assert scale.deviation == pytest.approx(float(targets.std(correction=0)), rel=1e-5)
    advantages = batch.flat_columns()["advantages"].double()
    assert float(advantages.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(advantages.std(correction=0)) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("minibatch_size", [1, 7, 1000])
def test_no_minibatch_is_empty_and_every_window_is_in_one(minibatch_size, monkeypatch):
    setup = played(config_of(length=6))
    learner, part = setup.learner, setup.rollout.modules["pair"]
    units = learner.prepare("pair", [part]).units
    sizes, logps, losses = [], [], learner.losses

    def recording(module_id, config, batch, policy, values):
        if module_id == "pair":
            sizes.append(len(values))
            logps.extend(batch["action_logp"].tolist())
            assert len(batch["value_targets"]) == len(policy.entropy()) == len(values)
        return losses(module_id, config, batch, policy, values)

    monkeypatch.setattr(learner, "losses", recording)
    learner.update(episodes=[setup.rollout], minibatch_size=minibatch_size, num_epochs=1)
    rows = int(part.acted.sum())
    assert len(sizes) == min(units, max(1, round(rows / minibatch_size)))
    assert min(sizes) > 0
    np.testing.assert_array_equal(np.sort(logps), np.sort(part.columns["logp"][part.acted]))
