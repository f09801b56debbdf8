"""Policies that do not follow what no reward depends on: the term, its components, checkpoints, refusals."""

import dataclasses

import gymnasium
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from torch.distributions import Categorical, Independent, Normal, kl_divergence

from qio_envs import drift_control_v0
from qio_envs.api import ConfigError
from qio_rllib.acting.distributions import Distributions
from qio_rllib.algorithms import A2CConfig, PPOConfig
from qio_rllib.causal.datasets import observed_transitions
from qio_rllib.learners.policy_consistency import (
    ConsistencySettings,
    PolicyConsistency,
    components_of_graph,
)
from qio_rllib.learners.training_batch import TrainingBatch
from qio_rllib.models.actor_critic import ActorCritic, ModuleInputs
from qio_rllib.sampling.environments import register_env
from qio_rllib.sampling.rollout import ModuleRollout

BOX = gymnasium.spaces.Box(-1, 1, (4,), np.float32)
TWO = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
THREE = gymnasium.spaces.Discrete(3)


def module_of(actions):
    torch.manual_seed(0)
    return ActorCritic(observation_space=BOX, action_space=actions, model_config={"fcnet_hiddens": [8]})


def batch_of(rows, legal=None):
    columns = {"action_logp": torch.zeros(len(rows))}
    return TrainingBatch(ModuleInputs(rows, legal), columns, None, legal is not None, (), (4,))


def term_of(module, rows, legal=None, components=(1, 3), seed=5):
    consistency = PolicyConsistency(ConsistencySettings(), seed, {"shared": list(components)})
    policy = Distributions(module.policy(rows, legal)[0], module.policy.spec.is_discrete)
    draws = torch.Generator()
    draws.set_state(consistency._noise.get_state())
    return consistency.divergence("shared", module, batch_of(rows, legal), policy), draws


@pytest.mark.parametrize("actions", [TWO, THREE], ids=["box", "discrete"])
def test_the_term_is_the_divergence_from_the_policy_under_an_intervention(actions):
    module, rows = module_of(actions), torch.randn(6, 4)
    legal = None
    if actions is THREE:
        legal = torch.ones(6, 3, dtype=torch.bool)
        legal[2, 0] = False
    found, draws = term_of(module, rows, legal)
    components = torch.tensor([1, 3])[torch.randint(2, (6, 1), generator=draws)][:, 0]
    source = torch.randint(6, (6,), generator=draws)
    changed = rows.clone()
    for row, (i, other) in enumerate(zip(components.tolist(), source.tolist(), strict=True)):
        changed[row, i] = rows[other, i]

    def distribution(inputs, row):
        parameters = module.policy(inputs, legal)[0][row]
        if actions is THREE:
            return Categorical(logits=parameters if legal[row].all() else parameters[legal[row]])
        mean, log_deviation = parameters.chunk(2)
        return Independent(Normal(mean, log_deviation.exp()), 1)

    expected = [kl_divergence(distribution(rows, row), distribution(changed, row)) for row in range(6)]
    torch.testing.assert_close(found, torch.stack(expected).mean())
    assert found > 0


def test_a_policy_that_ignores_the_components_has_no_term_and_no_gradient():
    module, rows = module_of(TWO), torch.randn(50, 4)
    weights = next(iter(module.policy.encoder.parameters()))
    with torch.no_grad():
        weights[:, [1, 3]] = 0.0
    found, _ = term_of(module, rows)
    assert found == 0
    found.backward()
    assert all((p.grad == 0).all() for p in module.policy.parameters() if p.grad is not None)
    follows, _ = term_of(module, rows, components=(0,))
    follows.backward()
    assert (weights.grad != 0).any()


def test_descending_the_term_makes_a_policy_ignore_the_components():
    module, rows = module_of(TWO), torch.randn(200, 4)
    consistency = PolicyConsistency(ConsistencySettings(), 0, {"shared": [1, 3]})
    optimizer = torch.optim.Adam(module.policy.parameters(), 1e-2)
    terms = []
    for _ in range(150):
        policy = Distributions(module.policy(rows)[0], False)
        terms.append(consistency.divergence("shared", module, batch_of(rows), policy))
        optimizer.zero_grad()
        (terms[-1] + (policy.mean - rows[:, [0, 2]]).square().mean()).backward()
        optimizer.step()
    assert terms[-1] < 0.05 * terms[0]
    assert (module.policy(rows)[0][:, :2] - rows[:, [0, 2]]).abs().mean() < 0.3  # what it may follow it does


def rollout_of(data, steps, size=12):
    """Some recorded steps as a rollout of one environment, each of them the end of an episode."""
    data = dataclasses.replace(data, inputs=data.inputs[steps], targets=data.targets[steps])
    count = len(data.inputs)
    obs = data.inputs[:, None, None, :size].astype(np.float32)
    ends = np.ones((count, 1, 1), bool)
    return ModuleRollout(
        agents=(None,),
        agent_index=np.zeros(1, np.int64),
        observations=np.concatenate([obs, obs[:1]]),
        action_mask=None,
        actions=data.inputs[:, None, None, size:].astype(np.float32),
        rewards=data.targets[:, None, None, size].astype(np.float32),
        terminated=~ends,
        truncated=ends,
        acted=ends,
        continues=~ends,
        fresh=np.ones((1, 1), bool),
        final_index=np.stack([np.arange(count), np.zeros(count, int), np.zeros(count, int)], axis=1),
        final_observations=data.targets[:, :size].astype(np.float32),
    )


def test_components_are_found_once_there_are_enough_transitions_and_stay_so():
    env = drift_control_v0.batched_env(16, scenario="distractors")
    module = ActorCritic(
        observation_space=env.observation_space,
        action_space=env.action_space,
        model_config={"fcnet_hiddens": [4]},
    )
    consistency = PolicyConsistency(ConsistencySettings(samples=2000), 0, {})
    played = observed_transitions(env, 3000, 0)
    data = [rollout_of(played, slice(start, start + 1000)) for start in (0, 1000, 2000)]
    consistency.prepare("shared", module, data[:1])
    rows = torch.zeros(5, 12)
    policy = Distributions(module.policy(rows)[0], False)
    assert consistency.divergence("shared", module, batch_of(rows), policy) is None
    again = PolicyConsistency(ConsistencySettings(samples=2000), 1, {})
    again.set_state(consistency.get_state())
    for each in (consistency, again):
        each.prepare("shared", module, data[1:2])
        assert each.components == {"shared": [4, 5, 6, 7, 8, 9, 10, 11]}
    assert consistency.divergence("shared", module, batch_of(torch.randn(5, 12)), policy) is not None
    consistency.prepare("shared", module, data[2:])
    assert consistency.components == again.components


def test_the_graph_of_the_environment_tells_components_too():
    assert components_of_graph("drift_control_v0", {"scenario": "sensor_shift"}) == [*range(4, 12)]
    assert components_of_graph("drift_control_v0", {}) == []
    discrete = {"scenario": "distractors", "actions": "discrete"}
    assert components_of_graph("drift_control_v0", discrete) == [*range(4, 12)]
    assert components_of_graph("causal_chain_v0", {}) == [1, 2]  # x2 and x3 of the last round


def config_of(base=PPOConfig, env="drift_control_v0", scenario="distractors", **settings):
    config = base().environment(env, env_config={"scenario": scenario} if scenario else {})
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=8, rollout_fragment_length=50)
    config.rl_module(model_config={"fcnet_hiddens": [8]}).debugging(seed=3)
    return config.training(train_batch_size_per_learner=400, interventional_consistency=settings)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
@pytest.mark.parametrize("base", [PPOConfig, A2CConfig])
def test_a_run_seeks_components_reports_the_term_and_resumes(base, tmp_path):
    config = config_of(base, samples=800, alpha=0.01).reporting(min_sample_timesteps_per_iteration=400)
    algorithm = config.build_algo()
    try:
        first = algorithm.train()["learners"]["shared"]
        assert "inconsistency" not in first
        algorithm.save_to_path(tmp_path / "here")
        second = algorithm.train()["learners"]["shared"]
        assert second["inconsistency"] > 0
    finally:
        algorithm.stop()
    again = Algorithm.from_checkpoint(str(tmp_path / "here"))
    try:
        resumed = again.train()["learners"]["shared"]
        assert resumed["inconsistency"] == second["inconsistency"]
        assert resumed["total_loss"] == second["total_loss"]
    finally:
        again.stop()


class Pictures(gymnasium.Env):
    """Observations with two axes."""

    observation_space = gymnasium.spaces.Box(0, 1, (4, 4), np.float32)
    action_space = gymnasium.spaces.Discrete(2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: config_of(coefficient=-1), "coefficient: expected a finite number of at least 0, got -1"),
        (lambda: config_of(components=[]), "components: expected discovered, graph or different indices"),
        (lambda: config_of(components=[1, 1]), "components: expected discovered, graph or different"),
        (lambda: config_of(components="all"), "components: expected discovered, graph or different indices"),
        (lambda: config_of(alpha=2), r"alpha: expected a number in \(0, 1\), got 2"),
        (lambda: config_of(coeficient=1), "unknown key 'coeficient'"),
        (lambda: config_of(components=[12]).validate(), "components: observations have 12 numbers, got 12"),
        (
            lambda: config_of(env="CartPole-v1", scenario=None, components="graph").validate(),
            "components: graph needs an environment that describes its causal graph, got CartPole-v1",
        ),
        (
            lambda: config_of(env="qubit_control_v0", scenario=None, components="graph").validate(),
            "components: graph needs an environment that describes its causal graph",
        ),
        (
            lambda: config_of(scenario="hidden", components="graph").validate(),
            "components: graph, but drift_control_v0 hides s1, s2",
        ),
        (
            lambda: config_of().rl_module(model_config={"use_gru": True, "max_seq_len": 5}).validate(),
            "what an intervention does to a memory is not defined; set use_gru to false",
        ),
        (
            lambda: config_of().training(imagination={"horizon": 2}).validate(),
            "does not go with imagination",
        ),
        (
            lambda: config_of().env_runners(env_runner_cls=None).validate(),
            "env_runner_cls: interventional_consistency needs BatchedEnvRunner",
        ),
        (
            lambda: config_of().learners(num_learners=2).validate(),
            "num_learners: interventional_consistency seeks components in one Learner, got 2; name them",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ConfigError, match=message) as caught:
        make()
    assert "interventional_consistency" in str(caught.value)


def test_pictures_are_refused():
    register_env("consistency_pictures", lambda env_config: Pictures())
    with pytest.raises(ConfigError, match=r"takes flat observations, got the shape \(4, 4\)"):
        config_of(env="consistency_pictures", scenario=None).validate()
