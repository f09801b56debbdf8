"""One reward for a team: what it is, the team as one agent, and what PPO and A2C learn from it."""

import numpy as np
import pytest
import torch
from ray.rllib.evaluation.postprocessing import Postprocessing
from toy_central import ENDS, FOREST, EndingsWithState, small_config
from toy_lives import Lives, Masked
from toy_off_policy import config_of

from qio_envs.api import ConfigError
from qio_rllib.algorithms import A2CConfig, PPOConfig, QMIXConfig
from qio_rllib.algorithms.base import RolloutAlgorithm
from qio_rllib.algorithms.qmix import QMIX
from qio_rllib.models.values import CentralInputs, ValueNetwork
from qio_rllib.sampling.environments import register_env
from qio_rllib.sampling.runner import BatchedEnvRunner
from qio_rllib.sampling.team_reward import as_one_agent, with_team_reward

GAMMA, LAMBDA = 0.9, 0.8
ARMY = "skirmish_v0"


@pytest.fixture(autouse=True, scope="module")
def toys():
    register_env("team_endings", lambda env_config: EndingsWithState(ENDS))
    register_env("team_lives", lambda env_config: Lives())
    register_env("team_masked", lambda env_config: Masked())


# -- one reward


def two_rewards():
    """Return a rollout of 2 steps, 1 environment and 3 agents, of which the last does not act in the second step."""
    runner = BatchedEnvRunner(config=config_of("lives", fragment=2, num_envs=1, algorithm=QMIXConfig))
    rollout = runner.sample()[0]
    (part,) = rollout.modules.values()
    part.rewards = np.array([[[1.0, 2.0, 3.0]], [[4.0, 6.0, 99.0]]], np.float32)
    part.acted = np.array([[[True, True, True]], [[True, True, False]]])
    return rollout, part


@pytest.mark.parametrize(("combined", "wanted"), [("sum", [6.0, 10.0]), ("mean", [2.0, 10 / 3])])
def test_different_rewards_are_combined_over_all_agents(combined, wanted):
    rollout, part = two_rewards()
    (found,) = with_team_reward(rollout, combined).modules.values()
    np.testing.assert_allclose(
        found.rewards[:, 0], np.repeat(np.array(wanted)[:, None], 3, axis=1), rtol=1e-6
    )
    assert found.rewards.dtype == np.float32
    assert part.rewards[0, 0, 0] == 1.0


def test_what_is_sampled_is_the_teams(monkeypatch):
    """The Algorithm without its runners, which are told whether actions shall be random."""
    rollout, _ = two_rewards()
    rollout.runner, asked = 3, []
    monkeypatch.setattr(RolloutAlgorithm, "sample", lambda self, *given: asked.append(given) or [rollout])
    algorithm = QMIX.__new__(QMIX)
    algorithm.config = config_of("lives", algorithm=QMIXConfig, team_reward="mean")
    (found,) = algorithm.sample(24, True)
    assert asked == [(24, True)]
    assert found.runner == 3  # whose steps follow each other in the replay
    np.testing.assert_allclose(found.modules["shared"].rewards[:, 0, 0], [2.0, 10 / 3], rtol=1e-6)


def test_different_rewards_are_refused_unless_told_how():
    rollout, part = two_rewards()
    with pytest.raises(
        ConfigError, match="team_reward: .* different ones .1 and 3 in one step.; set it to sum"
    ):
        with_team_reward(rollout, "common")
    part.rewards[0] = 5.0
    part.rewards[1, 0, :2] = 7.0
    (found,) = with_team_reward(rollout, "common").modules.values()
    np.testing.assert_array_equal(found.rewards[:, 0, 2], [5.0, 7.0])


def test_rewards_are_compared_over_all_modules():
    rollout = BatchedEnvRunner(config=config_of("tag", algorithm=QMIXConfig)).sample()[0]
    chasers, prey = rollout.modules.values()
    chasers.rewards, prey.rewards = np.ones_like(chasers.rewards), np.full_like(prey.rewards, 1.0)
    with_team_reward(rollout, "common")
    prey.rewards[3, 1] = 2.0
    with pytest.raises(ConfigError, match="team_reward: .*1 and 2 in one step"):
        with_team_reward(rollout, "common")


# -- the team as one agent

CASES = {
    "masks": (FOREST, "state", None, "sum"),
    "deaths": (ARMY, "state", None, "common"),
    "truncated last": ("team_endings", "state", "independent", "common"),
    "come and go": ("team_lives", "observations", "independent", "common"),
    "one module, come and go": ("team_masked", "observations", "shared", "mean"),
}


def config_for(case, config_class=PPOConfig, **training):
    env, source, policies, combined = CASES[case]
    settings = {"central_value": source, "team_reward": combined, "gamma": GAMMA, "lambda_": LAMBDA}
    return small_config(env, config_class, policies, **{**settings, **training})


def test_a_team_ends_with_its_last_agent():
    runner = BatchedEnvRunner(config=config_for("truncated last"))
    rollout = with_team_reward(runner.sample(num_timesteps=40)[0], "common")  # 20 steps of 2 copies
    team = as_one_agent(rollout)
    # a terminates in step 3, the others are cut in step 7: nothing ends before
    assert np.argwhere(team.truncated[:, 0, 0]).ravel().tolist() == [6, 13]
    assert not team.terminated.any()
    assert team.acted.all()
    np.testing.assert_array_equal(team.continues, ~team.truncated)
    np.testing.assert_array_equal(team.final_index, [[6, 0, 0], [6, 1, 0], [13, 0, 0], [13, 1, 0]])
    np.testing.assert_array_equal(team.final_observations, np.full((4, 1), 7.0))
    np.testing.assert_array_equal(team.observations[:8, 0, 0, 0], [0, 1, 2, 3, 4, 5, 6, 0])
    np.testing.assert_array_equal(team.rewards, np.ones((20, 2, 1), np.float32))
    assert team.fresh.all()


def test_a_last_agent_that_is_cut_cuts_the_team():
    runner = BatchedEnvRunner(config=config_for("come and go"))
    team = as_one_agent(with_team_reward(runner.sample(num_timesteps=40)[0], "common"))
    # In step 5 b terminates while c is cut.
    assert np.argwhere(team.truncated[:, 1, 0]).ravel().tolist() == [4, 9, 14, 19]
    assert not team.terminated.any()
    np.testing.assert_array_equal(team.rewards[:6, 0, 0], [1, 2, 3, 4, 5, 1])


def test_nobody_left_is_a_termination():
    runner = BatchedEnvRunner(config=config_for("deaths"))
    rollout = with_team_reward(runner.sample(num_timesteps=400)[0], "common")
    team, (part,) = as_one_agent(rollout), rollout.modules.values()
    dead = part.terminated.any(axis=2)
    assert dead.sum() > team.terminated.sum() > 0  # most deaths end nobody else's battle
    for t, e in np.argwhere(team.terminated[..., 0]):
        assert not part.continues[t, e].any()
        row = np.flatnonzero((part.final_index[:, :2] == (t, e)).all(axis=1))[0]
        at = np.flatnonzero((team.final_index[:, :2] == (t, e)).all(axis=1))
        np.testing.assert_array_equal(team.final_observations[at[0]], part.final_global_states[row])


# -- advantages and values


def textbook(critic, team):
    """Return (advantages, value targets) of a team's steps, by plain loops."""
    final = {
        tuple(index): seen for index, seen in zip(team.final_index, team.final_observations, strict=True)
    }

    def value(state):
        with torch.no_grad():
            return float(critic.head(critic.encoder(torch.from_numpy(np.asarray(state)[None]))))

    found = np.zeros((2, *team.rewards.shape[:2]))
    for e in range(team.rewards.shape[1]):
        carried = 0.0
        for t in reversed(range(team.num_steps)):
            if not team.acted[t, e, 0]:
                continue
            here = value(team.observations[t, e, 0])
            if team.terminated[t, e, 0]:
                ahead = carried = 0.0
            elif team.truncated[t, e, 0]:
                ahead, carried = value(final[t, e, 0]), 0.0
            else:
                ahead = value(team.observations[t + 1, e, 0])
            carried = team.rewards[t, e, 0] + GAMMA * ahead - here + GAMMA * LAMBDA * carried
            found[:, t, e] = carried, carried + here
    return found


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
@pytest.mark.parametrize("case", CASES)
def test_all_agents_learn_from_the_teams_advantage(case):
    algorithm = config_for(case, A2CConfig).build_algo()  # whose advantages are not standardised
    learner = algorithm.learner_group._learner
    (rollout,) = algorithm.env_runner.sample(num_timesteps=40)
    rollout = with_team_reward(rollout, CASES[case][3])
    team = as_one_agent(rollout)
    for module_id, part in rollout.modules.items():
        advantages, targets = textbook(learner.module[module_id].value, team)
        columns = learner.prepare(module_id, [part], [team]).columns
        for name, wanted in (
            (Postprocessing.ADVANTAGES, advantages),
            (Postprocessing.VALUE_TARGETS, targets),
        ):
            each = np.repeat(wanted[..., None], part.rewards.shape[2], axis=2)[part.acted]
            np.testing.assert_allclose(columns[name], each, rtol=1e-4, atol=1e-4)
    algorithm.stop()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
@pytest.mark.parametrize("memory", [{}, {"use_gru": True, "gru_cell_size": 6, "max_seq_len": 5}])
def test_an_update_values_the_state_alone_and_moves_every_network(memory):
    config = config_for("deaths", normalize_values=True)
    config.rl_module(model_config={"fcnet_hiddens": [16, 8], **memory})
    algorithm = config.build_algo()
    learner = algorithm.learner_group._learner
    module = learner.module["shared"]
    assert module.value.memory is None
    assert (module.policy.memory is not None) == bool(memory)
    before = {name: value.clone() for name, value in module.state_dict().items() if name.endswith("weight")}
    (rollout,) = algorithm.env_runner.sample(num_timesteps=40)
    learner.update(episodes=[rollout], num_epochs=1, minibatch_size=30)
    moved = module.state_dict()
    assert all(not torch.equal(value, moved[name]) for name, value in before.items())
    algorithm.stop()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_the_reward_is_the_one_that_was_asked_for_in_whole_updates():
    seen = {}
    for combined in ("sum", "mean"):
        algorithm = config_for("masks", A2CConfig, team_reward=combined).build_algo()
        learner = algorithm.learner_group._learner
        prepare = learner.prepare

        def recorded(module_id, parts, teams, prepare=prepare, combined=combined):
            seen[combined] = teams[0].rewards.copy()
            return prepare(module_id, parts, teams)

        learner.prepare = recorded
        (rollout,) = algorithm.env_runner.sample(num_timesteps=40)
        (part,) = rollout.modules.values()
        learner.update(episodes=[rollout])
        np.testing.assert_allclose(
            seen[combined][..., 0],
            getattr(np, combined)(np.where(part.acted, part.rewards, 0), axis=2),
            rtol=1e-5,
        )
        algorithm.stop()
    np.testing.assert_allclose(seen["sum"], 3 * seen["mean"], rtol=1e-5)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_rows_of_a_step_stay_together():
    algorithm = config_for("deaths").build_algo()
    learner = algorithm.learner_group._learner
    (rollout,) = algorithm.env_runner.sample(num_timesteps=400)
    rollout = with_team_reward(rollout, "common")
    batch = learner.prepare("shared", [*rollout.modules.values()], [as_one_agent(rollout)])
    shuffled = np.random.default_rng(0).permutation(batch.units)
    order = batch.together(shuffled)
    np.testing.assert_array_equal(np.sort(order), np.arange(batch.units))
    states = batch.inputs.central.rows.numpy()[order]
    changes = 1 + np.count_nonzero(np.diff(states))
    assert changes == len(np.unique(states)) < batch.units
    assert not np.array_equal(
        np.unique(states), states[np.flatnonzero(np.diff(states, prepend=-1))]
    )  # shuffled
    taken = []
    learner.module["shared"].value.of_states = lambda states, kept=learner.module["shared"].value.of_states: (
        taken.append(len(states)),
        kept(states),
    )[1]
    learner._epochs("shared", batch, 1, 50)
    assert sum(taken) < 0.6 * batch.units  # of rows one by one it would be nearly all of them
    algorithm.stop()


def test_one_value_for_all_rows_of_a_state():
    network = ValueNetwork((7,), {"fcnet_hiddens": [8]}, (5, 3), team=True)
    states = torch.randn(3, 5)
    rows = torch.tensor([2, 0, 2, 1])
    found, memory = network(torch.randn(4, 7), CentralInputs(states, rows, torch.arange(4)))
    torch.testing.assert_close(found, network.of_states(states)[rows])
    assert memory is None


# -- what does not go


@pytest.mark.parametrize(
    ("case", "settings", "message"),
    [
        ("deaths", {"central_value": None}, "team_reward: .* set central_value to state or observations"),
        ("deaths", {"team_reward": "max"}, "team_reward: expected common or sum or mean or null, got 'max'"),
        ("masks", {"counterfactual_baseline": {}}, "counterfactual_baseline: .* set one of the two to null"),
        ("masks", {"influence_reward": {}}, "influence_reward: .* set one of the two to null"),
    ],
)
def test_settings_that_contradict_are_refused(case, settings, message):
    with pytest.raises(ConfigError, match=message) as caught:
        config_for(case, **settings).validate()
    assert "\n" not in str(caught.value)


def test_a_single_agent_has_no_team():
    config = PPOConfig().environment("qio_envs/QubitControl-v0")
    with pytest.raises(ConfigError, match="team_reward: .* has a single agent; set it to null"):
        config.training(central_value="observations", team_reward="common").validate()
