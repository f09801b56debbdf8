"""The adapter for PettingZoo environments, and environments by name."""

import importlib
import pickle

import gymnasium
import numpy as np
import pytest
from pettingzoo import ParallelEnv
from ray.rllib.algorithms.ppo import PPOConfig as StockPPOConfig
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from toy_endings import Endings
from toy_runners import config_of, learner_of, runner_of

from qio_envs.adapters.tuple_agents import TupleParallelEnv
from qio_envs.adapters.turns import TurnParallelEnv
from qio_envs.api import ConfigError
from qio_rllib.algorithms import PPOConfig
from qio_rllib.sampling.env_creators import creator_of
from qio_rllib.sampling.environments import (
    describe_env,
    make_env,
    register_env,
    scenario_hash,
)
from qio_rllib.sampling.rllib_adapters import ParallelEnvAdapter
from qio_rllib.sampling.runner import BatchedEnvRunner

PLANS = {
    "both truncate": ({"a": (5, "truncated"), "b": (5, "truncated")}, {"a": False, "b": False}),
    "both terminate": ({"a": (5, "terminated"), "b": (5, "terminated")}, {"a": True, "b": True}),
    "mixed in one step": ({"a": (5, "terminated"), "b": (5, "truncated")}, {"a": True, "b": False}),
    "one dies, one truncates": ({"a": (2, "terminated"), "b": (5, "truncated")}, {"a": True, "b": False}),
    "one truncates, one dies": ({"a": (2, "truncated"), "b": (5, "terminated")}, {"a": False, "b": True}),
}


@pytest.mark.parametrize("case", PLANS)
def test_every_kind_of_ending_reaches_rllib_as_what_it_is(case):
    plan, terminated = PLANS[case]
    register_env("endings", lambda config: Endings(plan))
    config = PPOConfig().environment("endings").env_runners(num_env_runners=0)
    runner = MultiAgentEnvRunner(config=config)
    episodes = runner.sample(num_episodes=3, random_actions=True)
    assert len(episodes) == 3
    for episode in episodes:
        assert episode.is_done
        for agent, (when, _) in plan.items():
            assert len(episode.agent_episodes[agent]) == when
            assert episode.agent_episodes[agent].is_done
            assert episode.agent_episodes[agent].is_terminated == terminated[agent]
        assert episode.get_return() == sum(when for when, _ in plan.values())
    runner.stop()


def test_forest_time_limit_is_truncation_for_rllib():
    config = PPOConfig().environment("forest_uav_v0", env_config={"scenario": "sprint"})
    runner = MultiAgentEnvRunner(config=config.env_runners(num_env_runners=0))
    (episode,) = runner.sample(num_episodes=1, random_actions=True)
    assert episode.is_truncated
    assert not episode.is_terminated
    assert not any(agent.is_terminated for agent in episode.agent_episodes.values())
    runner.stop()


def test_adapter_passes_on_state_render_and_spaces():
    env = ParallelEnvAdapter(make_env("forest_uav_v0", {"scenario": "sprint"}, render_mode="rgb_array"))
    env.reset(seed=3)
    assert env.state().shape == (4 * 400 + 1,)
    assert env.render().ndim == 3
    assert env.observation_spaces["uav_0"] == env.env.observation_space("uav_0")
    assert set(env.action_space.spaces) == set(env.possible_agents)


def test_names_of_every_kind_build():
    assert isinstance(make_env("forest_uav_v0", {"num_uavs": 2}), ParallelEnv)
    assert isinstance(make_env("mpe2.simple_spread_v3", {"N": 2}), ParallelEnv)
    assert isinstance(make_env("mpe2.simple_spread_v3:parallel_env"), ParallelEnv)
    assert isinstance(make_env("CartPole-v1"), gymnasium.Env)
    assert isinstance(make_env("lbforaging:Foraging-5x5-2p-1f-v3"), TupleParallelEnv)
    assert isinstance(make_env("rware:rware-tiny-2ag-v2", {"max_steps": 7}), TupleParallelEnv)
    register_env("mine", lambda config: Endings(PLANS["both truncate"][0]))
    assert isinstance(make_env("mine"), Endings)
    register_env("foraging", lambda config: gymnasium.make("lbforaging:Foraging-5x5-2p-1f-v3", **config))
    assert isinstance(make_env("foraging"), TupleParallelEnv)


def test_description_tells_homogeneous_from_heterogeneous():
    assert describe_env("forest_uav_v0").homogeneous
    assert not describe_env("mpe2.simple_speaker_listener_v4").homogeneous
    assert not describe_env("CartPole-v1").multi_agent


@pytest.mark.parametrize(
    ("env_id", "env_config", "message"),
    [
        ("forest_uav_v1", {}, "did you mean 'forest_uav_v0'"),
        ("no.such.module", {}, "unknown environment 'no.such.module'"),
        ("no_such_module:make", {}, "unknown environment 'no_such_module:make'"),
        ("mpe2.simple_spread_v3:make", {}, "mpe2.simple_spread_v3 has no callable 'make'"),
        ("mpe2", {}, "mpe2 has no callable 'parallel_env' or 'env'"),
        ("broken_module:make", {}, "broken_module cannot be imported .*no_such_dependency"),
        ("", {}, "env: "),
        (
            "lbforaging:Foraging-8x8-2p-33f-v3",
            {},
            "lbforaging has no callable 'Foraging-8x8-2p-33f-v3' and registers no such Gymnasium id "
            r"\(did you mean 'Foraging-8x8-2p-3f-v3'\?\)",
        ),
        ("lbforaging:Foraging-5x5-2p-1f-v3", {"colour": "red"}, "env_config of lbforaging:.*'colour'"),
        ("Foraging-8x8-2p-3f", {}, r"a Gymnasium id \(package:id where a package registers it\)"),
        ("mpe2.simple_sprad_v3", {}, "unknown environment 'mpe2.simple_sprad_v3'"),
        ("forest_uav_v0", {"scenaro": "sprint"}, "did you mean"),
        ("forest_uav_v0", {"num_uavs": 401}, "num_uavs"),
        ("CartPole-v1", {"colour": "red"}, "colour"),
    ],
)
def test_bad_names_and_arguments_are_refused_in_one_line(env_id, env_config, message, tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("import no_such_dependency")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=message) as caught:
        make_env(env_id, env_config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "env_id", ["lbforaging:Foraging-8x8-2p-3f-v3", "rware:rware-tiny-2ag-v2", "mpe2.simple_tag_v3"]
)
def test_a_package_that_is_missing_is_named(env_id, monkeypatch):
    package = env_id.partition(":")[0].partition(".")[0]

    def missing(name):
        raise ModuleNotFoundError(f"No module named '{package}'", name=package)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ConfigError) as caught:
        make_env(env_id)
    assert str(caught.value) == f"env: '{env_id}' needs the package {package}; pip install {package}"


def test_a_gymnasium_environment_is_built_where_nobody_has_registered_it():
    gymnasium.register("Brief-v0", "gymnasium.envs.classic_control.cartpole:CartPoleEnv", max_episode_steps=3)
    sent = pickle.dumps(creator_of("Brief-v0"))
    del gymnasium.registry["Brief-v0"]
    env = pickle.loads(sent)({"render_mode": "rgb_array"})
    assert (env.spec.max_episode_steps, env.render_mode) == (3, "rgb_array")


@pytest.mark.parametrize("runner_class", [MultiAgentEnvRunner, BatchedEnvRunner])
def test_runners_play_gymnasium_environments_of_several_agents(runner_class):
    config = PPOConfig().environment("lbforaging:Foraging-5x5-2p-1f-v3")
    config.env_runners(num_env_runners=0, env_runner_cls=runner_class)
    assert set(config.policies) == {"shared"}
    runner = runner_class(config=config)
    runner.sample(num_episodes=2, random_actions=True)
    metrics = runner.get_metrics()
    assert metrics["num_episodes"].peek() == 2
    assert set(metrics["agent_episode_returns_mean"]) == {"agent_0", "agent_1"}
    runner.stop()


@pytest.mark.parametrize("env_id", ["lbforaging:Foraging-8x8-2p-3f-v3", "rware:rware-tiny-2ag-v2"])
def test_a_time_limit_of_gymnasiums_is_a_truncation_for_all_agents(env_id):
    env = make_env(env_id, {"max_episode_steps": 7})
    env.reset(seed=0)
    for step in range(1, 8):
        _, _, terminated, truncated, _ = env.step(dict.fromkeys(env.agents, 0))
        assert terminated == dict.fromkeys(env.possible_agents, False)
        assert truncated == dict.fromkeys(env.possible_agents, step == 7)
    assert env.agents == []


def test_own_names_cannot_hide_the_suite():
    with pytest.raises(ConfigError, match="forest_uav_v0"):
        register_env("forest_uav_v0", lambda config: None)


def test_scenario_hash_depends_on_every_setting_and_on_nothing_else():
    assert scenario_hash("forest_uav_v0", {"scenario": "sprint"}) == scenario_hash(
        "forest_uav_v0", {"max_steps": 60}
    )
    assert scenario_hash("forest_uav_v0") != scenario_hash("forest_uav_v0", {"reward": "local"})
    assert scenario_hash("CartPole-v1") is None


def test_policies_by_word_and_by_mapping():
    shared = PPOConfig().environment("forest_uav_v0")
    assert set(shared.policies) == {"shared"}
    assert shared.policy_mapping_fn("uav_3", None) == "shared"
    own = PPOConfig().environment("mpe2.simple_speaker_listener_v4")
    assert own.policy_mapping_fn("speaker_0", None) == "speaker_0"
    mapped = PPOConfig().environment("mpe2.simple_spread_v3", env_config={"N": 3})
    mapped.multi_agent(policies={"pair": ["agent_0", "agent_1"], "single": ["agent_2"]})
    assert [mapped.policy_mapping_fn(f"agent_{i}", None) for i in range(3)] == ["pair", "pair", "single"]


def test_modules_stand_in_the_order_of_the_agents():
    # They draw their first weights in it, so that a set would give a seed other weights in another process.
    config = PPOConfig().environment("forest_uav_v0", env_config={"num_uavs": 8})
    config.multi_agent(policies="independent")
    assert [*config.policies] == [f"uav_{i}" for i in range(8)]


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ("shraed", "shared, independent"),
        ({"pair": ["agent_0", "agent_1"]}, "no module for agent_2"),
        ({"all": ["agent_0", "agent_1", "agnt_2"]}, "did you mean 'agent_2'"),
    ],
)
def test_bad_policies_are_refused(policies, message):
    config = PPOConfig().environment("mpe2.simple_spread_v3")
    with pytest.raises(ConfigError, match=message):
        config.multi_agent(policies=policies)


def test_one_policy_cannot_serve_different_spaces():
    config = PPOConfig().environment("mpe2.simple_speaker_listener_v4")
    with pytest.raises(ConfigError, match="differ in their observation space"):
        config.multi_agent(policies="shared")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("amplification", {"etta": 0.1}, "did you mean 'eta'"),
        ("amplification", {"h_min": 1.0}, "h_min"),
        ("amplification", {"tau": 0.0}, "tau"),
        ("amplification", 3, "expected a mapping"),
        ("entropy_annealing", {"law": "quantm"}, "did you mean 'quantum'"),
        ("entropy_annealing", {"law": "quantum", "alpha0": 1.0}, "did you mean 'alpha_0'"),
        ("entropy_annealing", {"law": "quantum", "alpha_0": 0.01, "alpha_min": 0.1}, "alpha_min"),
    ],
)
def test_bad_exploration_settings_are_refused(key, value, message):
    with pytest.raises(ConfigError, match=message) as caught:
        PPOConfig().training(**{key: value})
    assert key in str(caught.value)


def test_without_our_settings_it_is_stock_ppo():
    config, stock = PPOConfig(), StockPPOConfig()
    ours = config.to_dict()
    differing = {key for key, value in stock.to_dict().items() if repr(ours.get(key)) != repr(value)}
    assert differing == {
        "callbacks",
        "custom_eval_function",
        "env_runner_cls",
        "_rl_module_spec",
        "_learner_class",
        "log_sys_usage",
        "num_cpus_per_learner",
    }


def test_what_gymnasium_cannot_make_is_said_in_one_line():
    def needs_more(**settings):
        raise gymnasium.error.DependencyNotInstalled(
            'something is not installed,\nrun `pip install "something"`'
        )

    gymnasium.register("needs_more-v0", entry_point=needs_more)
    try:
        with pytest.raises(ConfigError) as caught:
            make_env("needs_more-v0")
    finally:
        del gymnasium.registry["needs_more-v0"]
    expected = 'env: needs_more-v0 cannot be made: something is not installed, run `pip install "something"`'
    assert str(caught.value) == expected


def test_games_of_turns_build_and_say_what_they_are():
    env = make_env("pettingzoo.classic.tictactoe_v3")
    assert isinstance(env, TurnParallelEnv)
    assert isinstance(make_env("pettingzoo.classic.rps_v2:env"), ParallelEnv)
    described = describe_env("pettingzoo.classic.tictactoe_v3")
    assert described.homogeneous
    assert described.action_spaces["player_1"] == gymnasium.spaces.Discrete(10)


def test_a_policy_learns_from_a_game_of_turns():
    config = config_of("pettingzoo.classic.tictactoe_v3", fragment=24)
    runner = runner_of(config)
    learner = learner_of(config, runner)
    (rollout,) = runner.sample()
    part = rollout.modules["shared"]
    waits = part.actions == 9
    assert (waits.sum(-1) == 1)[part.acted.all(-1)].all()  # one moves, one waits
    taken = np.take_along_axis(part.action_mask[:-1], part.actions[..., None], -1)
    assert taken[part.acted].all()
    assert part.terminated.any()
    assert set(np.unique(part.rewards)) <= {-1.0, 0.0, 1.0}
    learner.update(episodes=[rollout], num_epochs=1, minibatch_size=24)
