"""Advantages against other actions in branches of the environment: what is recorded, what is learned from, refusals."""

import itertools

import numpy as np
import pytest
import torch
from ray.rllib.evaluation.postprocessing import Postprocessing
from toy_runners import learner_of, runner_of

from qio_envs.api import ConfigError
from qio_rllib.acting.actor import DIST_INPUTS
from qio_rllib.algorithms import A2CConfig, PPOConfig
from qio_rllib.learners.advantages import compute_advantages
from qio_rllib.learners.training_batch import PLAIN_ADVANTAGES
from qio_rllib.models.values import CentralInputs
from qio_rllib.sampling.counterfactuals import OBSERVATIONS, REWARDS, STATES, TERMINATED, Branches
from qio_rllib.sampling.rollout import ModuleRollout

FOREST = {"height": 6, "width": 6, "num_uavs": 3, "max_steps": 7, "mask_blocked_moves": True}
LEAVING = {"num_agents": 3, "out_radius": 2.0, "max_steps": 9, "process_noise": 0.5}
"""Agents of the swarm that soon leave, and are dead then."""


def config_of(env, env_config, policies=None, steps=12, **training):
    config = (
        PPOConfig()
        .environment(env, env_config=env_config)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2, rollout_fragment_length=steps)
        .training(
            **{
                "train_batch_size_per_learner": 2 * steps,
                "minibatch_size": 2 * steps,
                "num_epochs": 1,
                "counterfactual_baseline": {},
                **training,
            }
        )
        .rl_module(model_config={"fcnet_hiddens": [8]})
        .debugging(seed=3)
    )
    return config.multi_agent(policies=policies) if policies else config


CASES = {
    "masks, agent index, central": lambda: config_of(
        "forest_uav_v0", FOREST, agent_id=True, central_value="state"
    ),
    "several modules": lambda: config_of("forest_uav_v0", FOREST, "independent"),
    "dead agents, continuous": lambda: config_of(
        "swarm_cooperative_v0", LEAVING, counterfactual_baseline={"samples": 4}
    ),
    "dead agents, all observations": lambda: config_of(
        "swarm_mixed_v0", {"out_radius": 2.0, "process_noise": 0.5, "actions": "discrete", "max_steps": 9},
        central_value="observations", normalize_values=True,
    ),
    "an empty array among those of the environment": lambda: config_of("mpe_spread_v0", {"num_agents": 2}),
    "a team": lambda: config_of("chsh_v0", {"as_team": True}),
}  # fmt: skip


def recorded(config, monkeypatch):
    """Return runner, rollout and for each step a copy of the environments before it and the branches' actions."""
    runner, seen = runner_of(config), []
    actions = Branches._actions

    def spy(self, *given):
        joint = actions(self, *given)
        seen.append((self.source.branch(1), joint.copy()))
        return joint

    monkeypatch.setattr(Branches, "_actions", spy)
    (rollout,) = runner.sample()
    return runner, rollout, seen


def taken(runner, rollout, t):
    """Return what all agents really did in a step, as the environment takes it."""
    env = runner.env.env
    joint = np.zeros((env.num_envs, env.num_agents, *env.action_space.shape), env.action_space.dtype)
    for group, part in zip(runner.stepper.team.groups, rollout.modules.values(), strict=True):
        joint[:, group.index] = group.actor.action.to_env(part.actions[t])
    return joint


@pytest.mark.parametrize("case", CASES)
def test_columns_are_what_single_environments_give(case, monkeypatch):
    """The oracle steps a copy of the environments for one agent and one action at a time."""
    config = CASES[case]()
    runner, rollout, seen = recorded(config, monkeypatch)
    dead = 0
    for t, (before, joint) in enumerate(seen):
        real = taken(runner, rollout, t)
        agents = real.shape[1]
        joint = joint.reshape(agents, -1, *real.shape)
        for group, part in zip(runner.stepper.team.groups, rollout.modules.values(), strict=True):
            for m, n in enumerate(group.index):
                for k in range(joint.shape[1]):
                    others = np.arange(agents) != n
                    np.testing.assert_array_equal(joint[n, k][:, others], real[:, others])
                    if config.env != "swarm_cooperative_v0":
                        assert (joint[n, k][:, n] == k).all()
                    copy = before.branch(1)
                    rewards, terminated, truncated = copy.step(joint[n, k])
                    observed = copy.observe()
                    found = {name: part.columns[name][t, :, m, k] for name in (REWARDS, TERMINATED)}
                    np.testing.assert_array_equal(found[REWARDS], rewards[:, n])
                    np.testing.assert_array_equal(found[TERMINATED], terminated[:, n])
                    rows = observed[:, n].reshape(len(rewards), -1)
                    if group.agent_id:
                        one_hot = np.eye(len(group.index), dtype=np.float32)[m]
                        rows = np.concatenate([rows, np.tile(one_hot, (len(rows), 1))], axis=1)
                    np.testing.assert_array_equal(part.columns[OBSERVATIONS][t, :, m, k], rows)
                    state = None
                    if config.central_value == "state":
                        state = copy.state().reshape(len(rows), -1)
                    elif config.central_value == "observations":
                        present = copy.agents_alive() | (before.agents_alive() & truncated)
                        state = np.where(present[..., None], observed, 0).reshape(len(rows), -1)
                    assert (state is None) == (STATES not in part.columns)
                    if state is not None:
                        np.testing.assert_array_equal(part.columns[STATES][t, :, m, k], state)
                dead += int((~part.acted[t, :, m]).sum())
    assert ("dead" in case) == (dead > 0)


def test_the_branch_of_the_action_taken_is_what_happened(monkeypatch):
    """Where all weight is on it, the first temporal difference is 0, and so are one-step advantages."""
    runner, rollout, _ = recorded(config_of("forest_uav_v0", FOREST, lambda_=0.0), monkeypatch)
    part = rollout.modules["shared"]
    chosen = part.actions[..., None]
    for name, real in ((REWARDS, part.rewards), (TERMINATED, part.terminated)):
        np.testing.assert_array_equal(np.take_along_axis(part.columns[name], chosen, -1)[..., 0], real)
    following = part.observations[1:].copy()
    following[tuple(part.final_index.T)] = part.final_observations
    found = np.take_along_axis(part.columns[OBSERVATIONS], chosen[..., None], -2)[..., 0, :]
    np.testing.assert_array_equal(found, following)
    part.columns[DIST_INPUTS] = np.where(np.arange(5) == chosen, 0, -1e30).astype(np.float32)
    learner = learner_of(config_of("forest_uav_v0", FOREST, lambda_=0.0), runner)
    monkeypatch.setattr(learner, "_standardized", lambda advantages, valid: advantages)
    columns = learner.prepare("shared", [part]).columns
    assert float(columns[Postprocessing.ADVANTAGES].abs().max()) < 1e-5


# -- advantages ---------------------------------------------------------------------------------------------------


def by_hand(learner, module_id, part, config):
    """Return value targets, baselines and advantages ``[T, E, M]`` by plain loops, an observation at a time."""
    module, popart = learner.module[module_id], learner._popart[module_id]
    gamma, lambda_ = config.gamma, config.lambda_
    final = {tuple(place): k for k, place in enumerate(part.final_index)}

    def value(rows, state, m):
        central = None
        if config.central_value:
            central = CentralInputs(
                torch.tensor(state)[None], torch.tensor([0]), torch.tensor([part.agent_index[m]])
            )
        with torch.no_grad():
            found = float(module.value(torch.tensor(rows).reshape(1, -1), central)[0])
        return found * popart.deviation + popart.mean if config.normalize_values else found

    def states(t, e):
        return None if part.global_states is None else part.global_states[t, e]

    targets, baselines, advantages = (np.zeros(part.rewards.shape) for _ in range(3))
    for e, m in np.ndindex(part.rewards.shape[1:]):
        plain = later = 0.0
        for t in reversed(range(part.num_steps)):
            if not part.acted[t, e, m]:
                plain = later = 0.0
                continue
            here = value(part.observations[t, e, m], states(t, e), m)
            ahead = 0.0
            if part.terminated[t, e, m] or part.truncated[t, e, m]:
                plain = later = 0.0
                if not part.terminated[t, e, m]:
                    k = final[t, e, m]
                    state = None if part.final_global_states is None else part.final_global_states[k]
                    ahead = value(part.final_observations[k], state, m)
            else:
                ahead = value(part.observations[t + 1, e, m], states(t + 1, e), m)
            columns = {name: array[t, e, m] for name, array in part.columns.items()}
            outcomes = np.array([
                columns[REWARDS][k] + (0 if columns[TERMINATED][k] else gamma * value(
                    columns[OBSERVATIONS][k], columns.get(STATES, [None] * 99)[k], m))
                for k in range(len(columns[REWARDS]))
            ])  # fmt: skip
            weights = np.full(len(outcomes), 1 / len(outcomes))
            if part.actions.ndim == 3:
                weights = torch.softmax(torch.tensor(columns[DIST_INPUTS], dtype=torch.float64), 0).numpy()
                if part.action_mask is not None:
                    np.testing.assert_array_equal(weights > 0, part.action_mask[t, e, m])
            baselines[t, e, m] = base = weights @ outcomes
            target = part.rewards[t, e, m] + gamma * ahead
            advantages[t, e, m] = target - base + gamma * lambda_ * later
            average = (config.counterfactual_baseline or {}).get("average_later", False)
            later = (base if average else target) - here + gamma * lambda_ * later
            plain = target - here + gamma * lambda_ * plain
            targets[t, e, m] = plain + here
    return targets[part.acted], baselines[part.acted], advantages[part.acted]


@pytest.mark.parametrize("average_later", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_advantages_are_those_by_hand(case, average_later, monkeypatch):
    config = CASES[case]()
    given = {**config.counterfactual_baseline, "average_later": average_later}
    config.training(counterfactual_baseline=given, gamma=0.9, lambda_=0.8)
    runner, rollout, _ = recorded(config, monkeypatch)
    learner = learner_of(config, runner)
    learner.module.set_state(runner.get_state()["rl_module"])
    monkeypatch.setattr(learner, "_standardized", lambda advantages, valid: advantages)
    for module_id, part in rollout.modules.items():
        if config.normalize_values:
            learner._popart[module_id].mean, learner._popart[module_id].deviation = -3.0, 7.0
        targets, _, advantages = by_hand(learner, module_id, part, config)
        columns = learner.prepare(module_id, [part]).columns
        if config.normalize_values:
            popart = learner._popart[module_id]
            targets = (targets - popart.mean) / popart.deviation
        assert PLAIN_ADVANTAGES not in columns
        np.testing.assert_allclose(columns[Postprocessing.ADVANTAGES], advantages, rtol=1e-4, atol=2e-4)
        np.testing.assert_allclose(columns[Postprocessing.VALUE_TARGETS], targets, rtol=1e-4, atol=2e-4)


def test_every_kind_of_advantage_has_the_same_expected_gradient():
    """Two steps with two actions and two noises each, and values that are wrong: all 16 courses, weighed."""
    probabilities, noises = np.array([0.3, 0.7]), np.array([0.4, 0.6])
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=(2, 2, 2, 2))  # [step, state, action, noise]
    states = rng.integers(2, size=(2, 2, 2, 2))  # likewise, the next state
    value = np.array([[0.0, 0.0], [1.3, -0.8], [0.4, 2.0]], np.float32)  # [step, state]; the start is state 0
    courses = list(itertools.product((0, 1), repeat=4))
    weights, arrays = [], {"rewards": [], "values": [], "baseline": []}
    for a0, n0, a1, n1 in courses:
        weights.append(probabilities[a0] * noises[n0] * probabilities[a1] * noises[n1])
        between = states[0, 0, a0, n0]
        steps = [(0, 0, a0, n0), (1, between, a1, n1)]
        arrays["rewards"].append([rewards[step] for step in steps])
        arrays["values"].append([value[0, 0], value[1, between], value[2, states[1, between, a1, n1]]])
        arrays["baseline"].append([
            sum(
                probabilities[a] * (rewards[t, s, a, n] + 0.9 * value[t + 1, states[t, s, a, n]]) for a in (0, 1)
            )
            for t, s, _, n in steps
        ])  # fmt: skip
    rows = {name: np.array(found, np.float32).T[:, :, None] for name, found in arrays.items()}
    shape, flags = rows["rewards"].shape, np.zeros(rows["rewards"].shape, bool)
    part = ModuleRollout(
        agents=("a",),
        agent_index=np.zeros(1, np.int64),
        observations=np.zeros((3, *shape[1:], 1), np.float32),
        action_mask=None,
        actions=np.zeros(shape, np.int64),
        rewards=rows["rewards"],
        terminated=flags,
        truncated=flags,
        acted=~flags,
        continues=~flags,
        fresh=np.ones(shape[1:], bool),
        final_index=np.empty((0, 3), np.int64),
        final_observations=np.empty((0, 1), np.float32),
    )
    chosen = np.array(courses)[:, [0, 2]].T  # [step, course]
    score = np.where(chosen == 1, 1 / 0.7, -1 / 0.3)  # of d/dp1 log pi, times a constant

    def gradient(*more):
        found = compute_advantages(part, rows["values"], np.empty(0, np.float32), 0.9, 0.8, *more)[..., 0]
        return (score * found * weights).sum(axis=1)

    plain = gradient()
    for average_later in (False, True):
        np.testing.assert_allclose(gradient(rows["baseline"], average_later), plain, atol=1e-6)
    assert np.abs(plain).min() > 0.1  # there is something to be unbiased about


def test_the_noise_is_gone_from_the_advantages_of_the_chain(monkeypatch):
    """One-step returns: x3 less its mean over the drawn actions is 0.4 times the action less theirs, exactly."""
    config = config_of(
        "causal_chain_v0", {}, steps=50, gamma=0.0, counterfactual_baseline={"samples": 6}
    ).debugging(seed=1)
    runner, rollout, seen = recorded(config, monkeypatch)
    part = rollout.modules["shared"]
    drawn = np.stack([joint[:, 0, 0].reshape(6, 2) for _, joint in seen]).swapaxes(1, 2)  # [T, E, K]
    real = np.clip(part.actions[:, :, 0, 0], -1, 1)
    learner = learner_of(config, runner)
    monkeypatch.setattr(learner, "_standardized", lambda advantages, valid: advantages)
    found = learner.prepare("shared", [part]).columns[Postprocessing.ADVANTAGES].reshape(50, 2)
    np.testing.assert_allclose(found, 0.4 * (real - drawn.mean(axis=-1)), atol=1e-5)
    mean = part.columns[DIST_INPUTS][:, :, 0, 0]
    one, other = drawn[..., :3], drawn[..., 3:]  # in pairs about the mean
    inside = (np.abs(one) < 1) & (np.abs(other) < 1)
    assert inside.sum() > 50
    np.testing.assert_allclose(
        (one + other)[inside] / 2, np.repeat(mean[..., None], 3, -1)[inside], atol=1e-6
    )
    assert len(np.unique(drawn)) > 300  # of 600: drawn anew in each step, clipped to the bounds


# -- runs ---------------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_a_remote_runner_and_two_learners():
    config = config_of("swarm_cooperative_v0", LEAVING, central_value="state", normalize_values=True)
    config.env_runners(num_env_runners=1).learners(num_learners=2).training(
        train_batch_size_per_learner=12, minibatch_size=12
    )
    algorithm = config.build_algo()
    try:
        ratio = algorithm.train()["learners"]["shared"]["advantage_variance_ratio"]
        assert ratio > 0
        assert ratio != 1
    finally:
        algorithm.stop()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
@pytest.mark.parametrize(
    ("env", "env_config", "setting"),
    [
        ("chsh_v0", {"as_team": True}, {"coordination": {"num_agents": 2}}),
        ("qubit_control_v0", {}, {"circuit": {"num_qubits": 2, "num_layers": 1}}),
        ("forest_uav_v0", FOREST, {"imagination": {"horizon": 1, "members": 2, "model_hiddens": [4]}}),
    ],
)
def test_networks_of_other_kinds_learn_with_it(env, env_config, setting):
    config = A2CConfig().environment(env, env_config=env_config)
    config.env_runners(num_envs_per_env_runner=2, rollout_fragment_length=5)
    config.reporting(min_sample_timesteps_per_iteration=10)
    config.training(train_batch_size_per_learner=10, counterfactual_baseline={}, **setting)
    algorithm = config.debugging(seed=0).build_algo()
    try:
        assert np.isfinite(algorithm.train()["learners"]["shared"]["advantage_variance_ratio"])
    finally:
        algorithm.stop()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: config_of("CartPole-v1", {}), "counterfactual_baseline: CartPole-v1 cannot be branched"),
        (
            lambda: config_of("qubit_control_v0", {"gate_noise": 0.1}),
            "counterfactual_baseline: qubit_control_v0 has no exact counterfactuals with these settings: .*gate",
        ),
        (
            lambda: config_of("forest_uav_v0", FOREST).rl_module(
                model_config={"use_gru": True, "gru_cell_size": 4, "max_seq_len": 4}
            ),
            "counterfactual_baseline: follows other actions without memory; set use_gru to false",
        ),
        (
            lambda: config_of("forest_uav_v0", FOREST).env_runners(env_runner_cls=None),
            "env_runner_cls: counterfactual_baseline needs BatchedEnvRunner",
        ),
        (
            lambda: config_of("forest_uav_v0", FOREST, counterfactual_baseline={"samples": 0}),
            "counterfactual_baseline.samples: expected an integer of at least 1, got 0",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make().validate()
