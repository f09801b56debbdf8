"""The influence reward: what is measured, what is learned from, its controls, refusals."""

import dataclasses

import numpy as np
import pytest
import torch
from ray.rllib.evaluation.postprocessing import Postprocessing
from scipy import special, stats
from toy_runners import config_of, learner_of, metrics_of, runner_of

from qio_envs.api import ConfigError
from qio_rllib.causal.influence import InfluenceSettings, influence_of
from qio_rllib.sampling.influence import INFLUENCE

FOREST = {"height": 5, "width": 5, "num_uavs": 3, "max_steps": 7, "mask_blocked_moves": True}
SWARM = {"actions": "discrete", "out_radius": 2.0, "process_noise": 0.5, "max_steps": 9}


def forest(policies=None, **training):
    config = config_of("forest_uav_v0", FOREST, 2, 9, **{"influence_reward": {}, **training})
    return config.multi_agent(policies=policies) if policies else config


def test_influence_is_the_divergence_from_the_policy_without_the_action():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 4, 2, 3, 4))
    logits[:, 2, :, :, 3] = -1e30  # illegal after the third action
    weights = rng.dirichlet(np.ones(4), size=(2, 3))
    taken, counts = rng.integers(4, size=(2, 3)), np.ones((3, 2, 3), bool)
    counts[0, 1, 2] = False
    found = influence_of(logits, weights, taken, counts)
    probs = special.softmax(logits, axis=-1)
    for e, i in np.ndindex(2, 3):
        total = 0.0
        for j in range(3):
            if j != i and counts[i, e, j]:
                marginal = sum(weights[e, i, k] * probs[i, k, e, j] for k in range(4))
                total += stats.entropy(probs[i, taken[e, i], e, j], marginal)
        assert found[e, i] == pytest.approx(total, abs=1e-6)
    assert found.min() > 0
    same = np.broadcast_to(logits[:, :1], logits.shape)
    np.testing.assert_allclose(influence_of(same, weights, taken, counts), 0, atol=1e-6)


@pytest.mark.parametrize(
    "config",
    [
        lambda: forest(agent_id=True, central_value="state"),
        lambda: forest("independent"),
        lambda: config_of("swarm_mixed_v0", SWARM, 2, 10, influence_reward={}),
    ],
)
def test_recorded_influence_is_that_of_single_environments(config, monkeypatch):
    """The oracle steps a copy of the environments for one agent and one action, and asks each network by itself."""
    runner, seen = runner_of(config()), []
    for network in (module.policy for _, module in runner.module.items()):
        with torch.no_grad():  # policies that look at what they see
            for parameter in network.parameters():
                parameter.mul_(10)
    step = runner.env.step
    monkeypatch.setattr(
        runner.env, "step", lambda moves: (seen.append(runner.env.env.branch(1)), step(moves))[1]
    )
    (rollout,) = runner.sample()
    groups, parts = runner.stepper.team.groups, list(rollout.modules.values())
    agents, ended = runner.env.env.num_agents, 0
    for t, before in enumerate(seen):
        actions = np.zeros((2, agents), np.int64)
        weights = np.zeros((2, agents, 5))
        for group, part in zip(groups, parts, strict=True):
            actions[:, group.index] = part.actions[t]
            weights[:, group.index] = special.softmax(part.columns["dist_inputs"][t], axis=-1)
        logits, alive = np.zeros((agents, 5, 2, agents, 5)), np.ones((agents, 2, agents), bool)
        for i, k in np.ndindex(agents, 5):
            copy, joint = before.branch(1), actions.copy()
            joint[:, i] = k
            copy.step(joint)
            alive[i] &= copy.agents_alive()
            for group in groups:
                for m, j in enumerate(group.index):
                    rows = torch.from_numpy(copy.observe()[:, j].reshape(2, -1))
                    if group.agent_id:
                        rows = torch.cat([rows, torch.eye(len(group.index))[m].expand(2, -1)], 1)
                    legal = torch.from_numpy(copy.action_mask()[:, j] != 0) if copy.has_action_mask else None
                    with torch.no_grad():
                        network = runner.module[group.module_id].policy
                        logits[i, k, :, j] = network(rows, legal, None)[0].numpy()
        expected = influence_of(logits, weights, actions, alive)
        for group, part in zip(groups, parts, strict=True):
            real = np.where(part.acted[t], expected[:, group.index], 0)
            np.testing.assert_allclose(part.columns[INFLUENCE][t], real, rtol=1e-2, atol=1e-5)
        over = ~np.logical_or.reduce([part.continues[t].any(axis=1) for part in parts])
        ended += int(over.sum())
        assert all((part.columns[INFLUENCE][t][over] == 0).all() for part in parts)  # nobody acts next
    assert ended
    assert max(part.columns[INFLUENCE].max() for part in parts) > 1e-3


def test_rewards_are_learned_from_with_influence_and_reported_without(monkeypatch):
    config = forest(influence_reward={"coefficient": 5.0})
    runner, plain = runner_of(config), runner_of(forest(influence_reward={"coefficient": 0}))
    (rollout,), (same,) = runner.sample(), plain.sample()
    part = rollout.modules["shared"]
    np.testing.assert_array_equal(part.rewards, same.modules["shared"].rewards)
    for key in ("episode_return_mean", "team_return"):
        assert metrics_of(runner)[key] == metrics_of(plain)[key]
    learner = learner_of(config, runner)
    paid = dataclasses.replace(part, rewards=part.rewards + 5 * part.columns[INFLUENCE])
    other = learner_of(forest(influence_reward=None), runner)
    other.module.set_state(learner.module.get_state())
    for name in (Postprocessing.ADVANTAGES, Postprocessing.VALUE_TARGETS):
        ours, theirs = (
            one.prepare("shared", [rows]).columns[name] for one, rows in ((learner, part), (other, paid))
        )
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    reported = float(learner.metrics.peek(("shared", "influence")))
    assert reported == pytest.approx(part.columns[INFLUENCE][part.acted].mean(), rel=1e-5)


def test_the_permuted_control_pays_the_same_in_another_order():
    influence = np.random.default_rng(0).random((6, 4, 3), np.float32)
    acted = np.random.default_rng(1).random((6, 4, 3)) < 0.7
    plain = InfluenceSettings(2.0).added(influence, acted)
    np.testing.assert_array_equal(plain, np.where(acted, 2 * influence, 0))
    settings = InfluenceSettings(2.0, permuted=True)
    shuffled = settings.added(influence, acted)
    np.testing.assert_array_equal(shuffled, settings.added(influence, acted))  # resumed runs repeat it
    np.testing.assert_array_equal(np.sort(shuffled[acted]), np.sort(plain[acted]))
    assert (shuffled[~acted] == 0).all()
    assert abs(np.corrcoef(shuffled[acted], plain[acted])[0, 1]) < 0.4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: config_of("swarm_cooperative_v0", influence_reward={}),
            "influence_reward: needs discrete actions, swarm_cooperative_v0 has Box",
        ),
        (
            lambda: config_of("chsh_v0", {"as_team": True}, influence_reward={}),
            "influence_reward: chsh_v0 has a single agent",
        ),
        (
            lambda: config_of("mpe2.simple_spread_v3", influence_reward={}),
            "influence_reward: mpe2.simple_spread_v3 cannot be branched",
        ),
        (
            lambda: forest(counterfactual_baseline={}),
            "influence_reward: does not go with counterfactual_baseline",
        ),
        (
            lambda: forest().rl_module(model_config={"use_gru": True, "gru_cell_size": 4, "max_seq_len": 4}),
            "influence_reward: follows other actions without memory; set use_gru to false",
        ),
        (
            lambda: forest(influence_reward={"coefficient": -1}),
            "influence_reward.coefficient: expected a number of at least 0, got -1",
        ),
        (
            lambda: forest(influence_reward={"permuted": 1}),
            "influence_reward.permuted: expected true or false, got 1",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make().validate()
