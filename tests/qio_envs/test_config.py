import dataclasses
import hashlib
import json
import re

import numpy as np
import pytest

from qio_envs import environment, environments, forest_uav_v0
from qio_envs.api import ConfigError, EnvConfig, did_you_mean, setting
from qio_envs.forest_uav import ForestConfig

REFUSED = [
    ({"height": 4}, "height: expected an integer from 5 to 512, got 4"),
    ({"height": 20.0}, "height: expected an integer from 5 to 512, got 20.0"),
    ({"num_uavs": True}, "num_uavs: expected an integer from 1 to 1000, got True"),
    ({"num_uavs": "10"}, "num_uavs: expected an integer from 1 to 1000, got '10'"),
    ({"comm_budget": 1.1}, "comm_budget: expected a number from 0.0 to 1.0, got 1.1"),
    ({"comm_loss": float("nan")}, "comm_loss: expected a number from 0.0 to 1.0, got nan"),
    ({"cell_reward": float("inf")}, "cell_reward: expected a number from 0.0 to 1000000.0, got inf"),
    ({"comm_range": "far"}, "comm_range: expected a number of at least 0.0 or null, got 'far'"),
    ({"mask_blocked_moves": 1}, "mask_blocked_moves: expected true or false, got 1"),
    (
        {"reward": "tema"},
        "reward: expected one of team, local, difference, got 'tema' (did you mean 'team'?)",
    ),
    ({"reward": None}, "reward: expected one of team, local, difference, got None"),
    (
        {"height": 5, "width": 5, "num_uavs": 26},
        "num_uavs: 26 UAVs do not fit on the 25 free cells of a 5 x 5 grid with obstacle_density 0; "
        "allowed: 1 to 25",
    ),
    (
        {"height": 5, "width": 5, "num_uavs": 16, "obstacle_density": 0.4},
        "num_uavs: 16 UAVs do not fit on the 15 free cells of a 5 x 5 grid with obstacle_density 0.4; "
        "allowed: 1 to 15",
    ),
    (
        {"height": 6, "sensing_radius": 6},
        "sensing_radius: 6 reaches beyond the 6 x 20 grid; allowed: 0 to 5",
    ),
]


@pytest.mark.parametrize(("values", "message"), REFUSED)
def test_what_does_not_fit_is_refused_with_key_and_allowed_values(values, message):
    with pytest.raises(ConfigError) as caught:
        ForestConfig(**values)
    assert str(caught.value) == message


def test_the_limits_themselves_are_allowed():
    config = ForestConfig(height=5, width=6, num_uavs=30, sensing_radius=4, comm_budget=1, comm_range=None)
    assert config.free_cells == 30
    assert isinstance(config.comm_budget, float)


def test_an_unknown_setting_is_refused_with_a_suggestion():
    with pytest.raises(ConfigError) as caught:
        forest_uav_v0.parallel_env(num_uav=3)
    assert str(caught.value).startswith("unknown environment setting 'num_uav' (did you mean 'num_uavs'?)")
    assert str(caught.value).endswith("allowed: scenario, " + ", ".join(ForestConfig.allowed_keys()))


@pytest.mark.parametrize("make", ["config", "batched_env", "parallel_env", "env", "gym_env", "vector_env"])
def test_a_misspelt_scenario_keyword_is_refused(make):
    with pytest.raises(ConfigError, match=r"'senario' \(did you mean 'scenario'\?\)"):
        getattr(forest_uav_v0, make)(senario="sprint")


def test_an_unknown_scenario_is_refused_with_a_suggestion():
    message = (
        "unknown scenario 'sprnt' (did you mean 'sprint'?); "
        "allowed: default, sprint, silent, wide, wooded, solo"
    )
    with pytest.raises(ConfigError, match=re.escape(message)):
        forest_uav_v0.config("sprnt")


def test_an_unknown_environment_is_refused_with_a_suggestion():
    with pytest.raises(ConfigError, match=r"unknown environment 'forest_uav' \(did you mean 'forest_uav_v0'"):
        environment("forest_uav")
    assert environment("forest_uav_v0") is environments()["forest_uav_v0"] is forest_uav_v0
    assert repr(forest_uav_v0) == "<Environment forest_uav_v0>"


@pytest.mark.parametrize("name", ["xyz", ""])
def test_there_is_no_suggestion_where_nothing_is_near(name):
    assert did_you_mean(name, ["default", "sprint"]) == ""


def test_settings_go_on_top_of_the_scenario():
    config = forest_uav_v0.config("sprint", num_uavs=4)
    assert (config.max_steps, config.num_uavs, config.height) == (60, 4, 20)


def test_every_scenario_differs_from_every_other():
    hashes = {forest_uav_v0.content_hash(name) for name in forest_uav_v0.scenarios()}
    assert len(hashes) == len(forest_uav_v0.scenarios()) == 6
    assert all(re.fullmatch("[0-9a-f]{12}", value) for value in hashes)


def test_the_content_hash_is_of_the_resolved_settings():
    assert forest_uav_v0.content_hash("default") == forest_uav_v0.content_hash("sprint", max_steps=200)
    assert forest_uav_v0.content_hash() == forest_uav_v0.content_hash(comm_loss=0)  # 0 is 0.0
    assert forest_uav_v0.content_hash() != ForestConfig().content_hash("forest_uav_v1")
    assert forest_uav_v0.content_hash() == "3b58133182eb"  # results carry it: a change needs a new version


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grown(EnvConfig):
    width: int = setting(3, "width, cells")
    noise: float = setting(0.5, "noise", added=True)


def test_a_setting_that_was_added_counts_in_the_hash_where_it_is_not_the_default():
    before = json.dumps({"id": "x_v0", "width": 3}, sort_keys=True)
    assert Grown().content_hash("x_v0") == hashlib.sha256(before.encode()).hexdigest()[:12]
    assert Grown(noise=0.5).content_hash("x_v0") == Grown().content_hash("x_v0")
    assert Grown(noise=0.4).content_hash("x_v0") != Grown().content_hash("x_v0")
    assert Grown().as_dict() == {"width": 3, "noise": 0.5}


def test_numpy_numbers_are_taken_as_plain_ones():
    config = ForestConfig(num_uavs=np.int64(3), comm_loss=np.float32(0.5))
    assert type(config.num_uavs) is int
    assert type(config.comm_loss) is float
    assert json.loads(json.dumps(config.as_dict())) == config.as_dict()


def test_a_configuration_is_frozen_and_documents_every_setting():
    config = ForestConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.height = 3
    assert all(len(field.metadata["doc"]) > 10 for field in dataclasses.fields(config))


def test_the_share_of_obstacles_is_rounded_to_the_nearest_count():
    assert ForestConfig(height=10, width=10, obstacle_density=0.29).num_obstacles == 29
