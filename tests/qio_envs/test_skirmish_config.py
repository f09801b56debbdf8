import dataclasses
import itertools

import numpy as np
import pytest

from qio_envs import skirmish_v0
from qio_envs.api import ConfigError
from qio_envs.skirmish import SkirmishConfig
from qio_envs.skirmish.config import UNITS

SMAX_MAPS = {  # numbers of units by type: marine, marauder, stalker, zealot, zergling, hydralisk
    "3m": ([3, 0, 0, 0, 0, 0], [3, 0, 0, 0, 0, 0]),
    "8m": ([8, 0, 0, 0, 0, 0], [8, 0, 0, 0, 0, 0]),
    "25m": ([25, 0, 0, 0, 0, 0], [25, 0, 0, 0, 0, 0]),
    "5m_vs_6m": ([5, 0, 0, 0, 0, 0], [6, 0, 0, 0, 0, 0]),
    "10m_vs_11m": ([10, 0, 0, 0, 0, 0], [11, 0, 0, 0, 0, 0]),
    "27m_vs_30m": ([27, 0, 0, 0, 0, 0], [30, 0, 0, 0, 0, 0]),
    "2s3z": ([0, 0, 2, 3, 0, 0], [0, 0, 2, 3, 0, 0]),
    "3s5z": ([0, 0, 3, 5, 0, 0], [0, 0, 3, 5, 0, 0]),
    "3s5z_vs_3s6z": ([0, 0, 3, 5, 0, 0], [0, 0, 3, 6, 0, 0]),
    "3s_vs_5z": ([0, 0, 3, 0, 0, 0], [0, 0, 0, 5, 0, 0]),
    "6h_vs_8z": ([0, 0, 0, 0, 0, 6], [0, 0, 0, 8, 0, 0]),
}


@pytest.mark.parametrize("name", SMAX_MAPS)
def test_the_maps_have_smax_s_units(name):
    config = SkirmishConfig.from_scenario(name)
    for types, counts in zip((config.ally_types, config.enemy_types), SMAX_MAPS[name], strict=True):
        assert np.bincount(types, minlength=len(UNITS)).tolist() == counts
        assert list(types) == sorted(types)
    assert dataclasses.replace(config, allies="3 marine", enemies="3 marine") == SkirmishConfig.from_scenario(
        "3m"
    )


@pytest.mark.parametrize("size", [5, 10, 20])
def test_procedural_maps_have_random_units_and_starts(size):
    env = skirmish_v0.batched_env(300, f"smacv2_{size}_units")
    env.reset(0)
    kinds, position = env.arrays.kind, env.arrays.position
    np.testing.assert_array_equal(kinds[:, :size], kinds[:, size:])
    counts = np.bincount(kinds.ravel(), minlength=6)
    assert np.abs(counts / counts.sum() - 1 / 6).max() < 0.04
    mirrored = np.abs(position[:, 0, :size] + position[:, 0, size:] - 32).max(axis=1) < 0.5
    assert 0.4 < mirrored.mean() < 0.6
    inside = np.abs(position[~mirrored].reshape(-1, 2, 2, size) - 16).max(axis=(1, 3)) < 6
    assert 0.3 < inside[:, 0].mean() < 0.7


def test_all_else_of_the_scenarios_is_as_smax_has_it():
    config = SkirmishConfig.from_scenario("2s3z")
    assert config == SkirmishConfig.from_scenario() == SkirmishConfig()
    assert (config.map_width, config.map_height, config.walls_kill) == (32, 32, True)
    assert (config.reward, config.win_bonus, config.shields) == ("shaped", 1.0, False)
    assert config.max_steps == 101


def test_layouts_are_those_of_the_arrays():
    for settings in (
        {},
        {"scenario": "5m_vs_6m"},
        {"scenario": "3s_vs_5z", "shields": True},
        {"allies": "1 marine"},
    ):
        env = skirmish_v0.batched_env(2, **settings)
        env.reset(0)
        for layout, array in (
            (env.config.observation_layout, env.observe()[:, 0]),
            (env.config.state_layout, env.state()),
        ):
            parts = list(layout.values())
            assert parts[0].start == 0
            assert all(one.stop == two.start for one, two in itertools.pairwise(parts))
            assert parts[-1].stop == array.shape[1]
        layout, allies = env.config.state_layout, env.num_agents
        units = env.state()[:, layout["units"]].reshape(2, -1, env.config.own_size)
        np.testing.assert_array_equal(units[..., 1], env.arrays.position[:, 0])
        np.testing.assert_array_equal(units[..., 4:10].argmax(axis=2), env.arrays.kind)
        assert env.state()[:, layout["teams"]].sum(axis=1).tolist() == [env.num_enemies] * 2
        np.testing.assert_array_equal(env.state()[:, layout["types"]], env.arrays.kind)
        own = env.observe()[..., env.config.observation_layout["own"]]
        np.testing.assert_allclose(own[..., 1], env.arrays.position[:, 0, :allies] / 32)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"allies": "2 stalkers"}, "allies: unknown type of unit 'stalkers' (did you mean 'stalker'?); allowed:"),
        ({"enemies": "3 medivac"}, "enemies: unknown type of unit 'medivac'; allowed: marine, marauder,"),
        ({"allies": "0 marine"}, "allies: expected 1 to 100 units of a type, got 0 marine"),
        ({"allies": "101 marine"}, "allies: expected 1 to 100 units of a type, got 101 marine"),
        ({"enemies": "60 marine, 60 zergling"}, "enemies: expected 1 to 100 units in a team, got 120"),
        ({"allies": ""}, "allies: expected numbers and types of units, as in '2 stalker, 3 zealot', got ''"),
        ({"allies": "marine"}, "allies: expected numbers and types of units, as in '2 stalker, 3 zealot', got"),
        ({"allies": "-1 marine"}, "allies: expected numbers and types of units"),
        ({"allies": "3 marine,"}, "allies: expected numbers and types of units"),
        ({"allies": ["marine"]}, "allies: expected a text, got ['marine']"),
        ({"map_width": 7}, "map_width: expected an integer from 8 to 1024, got 7"),
        ({"map_height": 32.0}, "map_height: expected an integer from 8 to 1024, got 32.0"),
        (
            {"allies": "20 hydralisk", "enemies": "20 zealot", "map_width": 8, "map_height": 8},
            "map_width: the 40 units cover 40.25 of the 64 square units of length of a 8 x 8 map; allowed: up to 50%",
        ),
        ({"allies": "30 random", "map_width": 8, "map_height": 8}, "map_width: the 35 units cover"),
        ({"max_steps": 0}, "max_steps: expected an integer from 1 to 1000000, got 0"),
        ({"start": "smac"}, "start: expected one of sides, smacv2, got 'smac'"),
        ({"reward": "dense"}, "reward: expected one of shaped, sparse, got 'dense'"),
        ({"reward": "sparse", "win_bonus": 0.0}, "win_bonus: 0 with reward sparse leaves nothing to earn; allowed:"),
        ({"win_bonus": -1.0}, "win_bonus: expected a number from 0.0 to 1000000.0, got -1.0"),
        ({"shields": 1}, "shields: expected true or false, got 1"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ConfigError) as caught:
        skirmish_v0.config(**settings)
    assert str(caught.value).startswith(message)


def test_unknown_scenarios_and_settings_are_refused():
    with pytest.raises(ConfigError, match="unknown scenario '2s3x' .did you mean '2s3z'"):
        skirmish_v0.config("2s3x")
    with pytest.raises(ConfigError, match="unknown environment setting 'shield' .did you mean 'shields'"):
        skirmish_v0.config(shield=True)
