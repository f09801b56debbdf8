"""Settings and scenarios of the swarm, and its standard interfaces."""

import gymnasium
import numpy as np
import pytest
from swarm_settings import IDS, SCENARIOS

from qio_envs import environment, swarm_competitive_v0, swarm_cooperative_v0, swarm_mixed_v0
from qio_envs.api import ConfigError
from qio_envs.swarm import CompetitiveConfig, CooperativeConfig, MixedConfig


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (CooperativeConfig, {"num_agents": 0}, "num_agents: expected an integer from 1 to 100, got 0"),
        (CompetitiveConfig, {"num_agents": 1}, "num_agents: expected an integer from 2 to 100, got 1"),
        (MixedConfig, {"team_b": 0}, "team_b: expected an integer from 1 to 50, got 0"),
        (MixedConfig, {"process_noise": -0.1}, "process_noise: expected a number from 0.0 to 1.0, got -0.1"),
        (CompetitiveConfig, {"time_step": 0}, "time_step: expected a number from 0.001 to 1.0, got 0.0"),
        (MixedConfig, {"damping": 1.0}, "damping: expected a number from 0.0 to 0.99, got 1.0"),
        (
            CooperativeConfig,
            {"actions": "discret"},
            "actions: expected one of continuous, discrete, got 'discret' (did you mean 'discrete'?)",
        ),
        (
            CooperativeConfig,
            {"sensing_range": -1.0},
            "sensing_range: expected a number from 0.0 to 1000.0 or null, got -1.0",
        ),
        (
            CompetitiveConfig,
            {"spawn_radius": 6},
            "spawn_radius: 6 is more than out_radius 5; allowed: 0 to 5",
        ),
        (
            CooperativeConfig,
            {"target_spread": 5.5},
            "target_spread: 5.5 is more than out_radius 5; allowed: 0 to 5",
        ),
        (
            CooperativeConfig,
            {"informed_agents": 4},
            "informed_agents: 4 is more than num_agents 3; allowed: 0 to 3 or null",
        ),
        (
            CooperativeConfig,
            {"spawn": "box", "spawn_radius": 4.0},
            "spawn_radius: the corners of a square of half side 4 lie outside out_radius 5; "
            "allowed with spawn box: 0 to 3.536",
        ),
        (
            MixedConfig,
            {"observe": "own", "sensing_range": 1.0},
            "sensing_range: 1 has no meaning with observe own, which shows no others; allowed: null",
        ),
        (
            CooperativeConfig,
            {"cue_steps": 3},
            "cue_steps: there is no target to show; allowed: null, or target_spread above 0",
        ),
        (
            CooperativeConfig,
            {"cue_steps": 20, "max_steps": 20, "target_spread": 1.0},
            "cue_steps: 20 is not less than max_steps 20; allowed: 1 to 19 or null",
        ),
        (
            CooperativeConfig,
            {"cue_steps": 0, "target_spread": 1.0},
            "cue_steps: expected an integer of at least 1 or null, got 0",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(config, values, message):
    with pytest.raises(ConfigError) as caught:
        config(**values)
    assert str(caught.value) == message


def test_settings_of_another_task_are_unknown():
    with pytest.raises(ConfigError, match="unknown environment setting 'target_spread'"):
        swarm_competitive_v0.batched_env(target_spread=1.0)
    with pytest.raises(ConfigError, match="unknown environment setting 'num_agents'"):
        swarm_mixed_v0.batched_env(num_agents=4)
    with pytest.raises(
        ConfigError, match=r"unknown scenario 'solo'; allowed: default, discrete, duel, crowd, published"
    ):
        swarm_competitive_v0.batched_env(scenario="solo")


def test_each_task_has_its_scenarios_and_hashes():
    assert swarm_cooperative_v0.scenarios() == (
        "default",
        "discrete",
        "crowd",
        "nearsighted",
        "hidden_target",
        "remembered_target",
        "published",
        "solo",
    )
    assert swarm_mixed_v0.scenarios() == (
        "default",
        "discrete",
        "three_a_side",
        "outnumbered",
        "crowd",
        "published",
    )
    hashes = {environment(env_id).content_hash(scenario) for env_id, scenario in SCENARIOS}
    assert len(hashes) == len(SCENARIOS)


def test_the_usual_motion_has_the_hashes_that_results_carry():
    assert swarm_cooperative_v0.content_hash() == "858cfaff1c87"
    assert swarm_cooperative_v0.content_hash("remembered_target") == "496d1bfa759e"
    assert swarm_cooperative_v0.content_hash(time_step=0.1, damping=0.9) == "858cfaff1c87"
    others = [{"time_step": 0.2}, {"damping": 0.8}, {"time_step": 0.2, "damping": 0.8}]
    assert len({swarm_cooperative_v0.content_hash(**values) for values in [{}, *others]}) == 4


def test_the_gymnasium_forms_of_one_agent():
    env = gymnasium.make("qio_envs/Swarm-v0")
    seen, _ = env.reset(seed=3)
    assert env.observation_space.contains(seen)
    _, reward, terminated, truncated, info = env.step(np.array([0.5, -0.5], np.float32))
    assert reward == pytest.approx(-info["distance"])
    assert (terminated, truncated) == (False, False)
    batch = env.unwrapped.batch
    batch.arrays.body[0, 0] = (4.99, 0, 0.9, 0)
    *_, terminated, truncated, info = env.step(np.zeros(2, np.float32))
    assert (terminated, truncated, info["exits"]) == (True, False, 1)
    envs = gymnasium.make_vec("qio_envs/Swarm-v0", num_envs=3, max_steps=5)
    envs.reset(seed=3)
    for _ in range(5):
        seen, *_, truncated, infos = envs.step(np.zeros((3, 2), np.float32))
    assert truncated.all()
    assert infos["final_obs"][0].shape == seen[0].shape == (4,)


def test_the_aec_form_plays_to_the_end():
    env = swarm_competitive_v0.env(out_radius=2.1, max_steps=50)
    env.reset(seed=1)
    env.action_space("agent_0").seed(0)
    left = set()
    for agent in env.agent_iter():
        *_, terminated, truncated, _ = env.last()
        if terminated:
            left.add(agent)
        over = terminated or truncated
        env.step(None if over else np.array([1.0, 0.0], np.float32))
    assert left


def test_the_parallel_interface_gives_each_agent_its_own_metrics():
    env = swarm_cooperative_v0.parallel_env(process_noise=0.0)
    env.reset(seed=0)
    env.batch.arrays.body[0] = [(0.1, 0, 0, 0), (0.2, 0, 0, 0), (0.4, 0, 0, 0)]
    _, rewards, _, _, infos = env.step(dict.fromkeys(env.agents, np.zeros(2, np.float32)))
    assert [infos[agent]["distance"] for agent in env.agents] == pytest.approx([0.1, 0.2, 0.4])
    assert [infos[agent]["agent_return"] for agent in env.agents] == pytest.approx(list(rewards.values()))
    assert len({infos[agent]["agent_return"] for agent in env.agents}) == 3
    assert len({infos[agent]["team_return"] for agent in env.agents}) == 1


@pytest.mark.parametrize("env_id", IDS)
def test_published_starts_in_a_square_in_motion_and_shows_an_agent_its_own_noisy_state_alone(env_id):
    env = environment(env_id).batched_env(2000, "published")
    env.reset(0)
    body = env.arrays.body.reshape(-1, 4).astype(float)
    assert np.abs(body).max() <= 2
    for column in body.T:  # uniform in [-2, 2]: mean 0, variance 4 / 3
        assert abs(column.mean()) < 4 * np.sqrt(4 / 3 / len(column))
        assert abs(column.var() - 4 / 3) < 0.06
    assert np.abs(np.corrcoef(body.T) - np.eye(4)).max() < 5 / np.sqrt(len(body))
    assert env.config.observation_layout == {"position": slice(0, 2), "velocity": slice(2, 4)}
    noise = (env.observe() - env.arrays.body).reshape(-1, 4) / 0.1
    assert abs(noise.std() - 1) < 0.03
    assert np.abs(np.corrcoef(noise.T) - np.eye(4)).max() < 5 / np.sqrt(len(noise))
