"""Families of related environments: their members, what is refused, and that they are told apart by their behaviour."""

import pickle

import numpy as np
import pytest

import qio_envs
from qio_envs import Family, FamilyMember, environment, families, family
from qio_envs.api import ConfigError, episode_scores
from qio_envs.api.policies import RandomPolicy

NAMES = list(families())


def made(member, num_envs=1):
    return environment(member.env).batched_env(num_envs, **member.env_config)


def refused(call):
    with pytest.raises(ConfigError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


# -- members


def test_the_families_that_there_are():
    assert NAMES == ["six_forests", "swarms", "cart_pole_lengths", "cart_pole_gravities"]
    assert [len(family(name)) for name in NAMES] == [6, 6, 8, 8]
    assert families()["six_forests"].described() == "small, corridor, dense, crowded, short_radio, silent"
    assert families()["cart_pole_lengths"].described() == "pole_length from 0.1 to 0.9"
    assert all(isinstance(of, Family) and of.name == name and of.summary for name, of in families().items())


@pytest.mark.parametrize("name", NAMES)
def test_members_can_be_built_and_have_labels_and_spaces_in_common(name):
    members = family(name)
    assert len({member.label for member in members}) == len(members)
    envs = [made(member, 2) for member in members]
    first = envs[0]
    for member, env in zip(members, envs, strict=True):
        assert member.env == env.id == families()[name].env
        assert env.action_space == first.action_space
        assert env.observation_space.shape == first.observation_space.shape
        assert env.observation_space.dtype == first.observation_space.dtype
        assert env.has_action_mask == first.has_action_mask
        env.reset(0)
        seen = env.step(RandomPolicy(env).act()), env.observe()
        assert seen[1].shape == (2, env.num_agents, *first.observation_space.shape)


@pytest.mark.parametrize("name", NAMES)
def test_members_differ_in_what_happens(name):
    """No two members give the same rewards and observations when they are played alike from the same seed."""
    seen = {}
    for member in family(name):
        env = made(member)
        env.reset(5)
        player, story = RandomPolicy(env), []
        while env.running.all():
            transition = env.step(player.act())
            story += [transition.rewards.ravel(), env.observe().ravel()]
        seen[member.label] = np.concatenate(story).tobytes()
    assert len(set(seen.values())) == len(seen)


@pytest.mark.parametrize("name", NAMES)
def test_an_oracle_beats_random_play_in_every_member(name):
    for member in family(name):
        env = made(member, 20)
        random, *_, oracle = (episode_scores(env, policy, 300) for policy in env.scripted_policies.values())
        assert oracle.mean() > random.mean() + 4 * (random.std() + oracle.std()) / np.sqrt(20), member


@pytest.mark.parametrize("name", ["cart_pole_lengths", "cart_pole_gravities"])
def test_the_regulator_reaches_the_time_limit_in_every_member(name):
    for member in family(name, 25):
        env = made(member, 20)
        assert (episode_scores(env, env.scripted_policies["lqr"], 300) == 500).all(), member


def test_a_member_is_plain_data():
    member = family("six_forests")[4]
    assert member == FamilyMember(
        "short_radio",
        "forest_uav_v0",
        {"height": 14, "width": 14, "num_uavs": 6, "max_steps": 60, "comm_range": 4.0, "comm_loss": 0.2},
    )
    assert pickle.loads(pickle.dumps(member)) == member
    with pytest.raises(AttributeError):
        member.label = "other"
    member.env_config["height"] = 7
    assert family("six_forests")[4].env_config["height"] == 14
    assert family("swarms")[0].env_config == {"max_steps": 100}  # settings in common
    assert family("swarms")[1].env_config == {"max_steps": 100, "time_step": 0.05}


# -- other numbers of members


def test_a_spread_goes_from_end_to_end_in_even_steps():
    lengths = [member.env_config["pole_length"] for member in family("cart_pole_lengths", 5)]
    assert lengths == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])
    assert [member.label for member in family("cart_pole_lengths", 3)] == [
        "pole_length_0.1",
        "pole_length_0.5",
        "pole_length_0.9",
    ]
    (middle,) = family("cart_pole_gravities", 1)
    assert middle.env_config == {"gravity": pytest.approx((4.9 + 19.6) / 2)}


def test_a_thousand_carts_are_all_different():
    members = family("cart_pole_lengths", 1000)
    lengths = np.array([member.env_config["pole_length"] for member in members])
    assert len({member.label for member in members}) == 1000
    np.testing.assert_allclose(lengths, 0.1 + 0.8 * np.arange(1000) / 999, atol=1e-6)
    assert members[1].label == f"pole_length_{members[1].env_config['pole_length']}"


def test_a_list_is_cut_off_or_begins_again():
    whole = family("six_forests")
    assert family("six_forests", 2) == whole[:2]
    members = family("six_forests", 1000)
    assert len({member.label for member in members}) == 1000
    assert members[:6] == whole
    assert [member.label for member in members[5:8]] == ["silent", "small_2", "corridor_2"]
    assert members[-1].label == "crowded_167"
    for index, member in enumerate(members):
        assert member.env_config == whole[index % 6].env_config
    members[6].env_config["height"] = 7  # is its own
    assert members[0].env_config["height"] == members[12].env_config["height"] == 10


@pytest.mark.parametrize("name", ["six_forests", "cart_pole_lengths"])
@pytest.mark.parametrize("count", [0, -3, 10_001, 2.0, True, "6"])
def test_counts_that_cannot_be_are_refused(name, count):
    message = refused(lambda: family(name, count))
    assert message == f"count: expected an integer from 1 to 10000, got {count!r}"


# -- what is refused


def test_an_unknown_family_is_refused_with_a_suggestion():
    assert refused(lambda: family("six_forest")) == (
        "unknown family 'six_forest' (did you mean 'six_forests'?); "
        "allowed: six_forests, swarms, cart_pole_lengths, cart_pole_gravities"
    )


CARTS = {"summary": "carts", "env": "cart_pole_v0"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            CARTS | {"member": {}},
            "family x: unknown key 'member' (did you mean 'members'?); "
            "allowed: summary, env, env_config, members, spread, count",
        ),
        (None, "family x: expected a mapping of summary, env, env_config, members, spread, count, got None"),
        (CARTS, "family x: expected either members or spread, got summary, env"),
        (
            CARTS | {"members": {"a": {}}, "spread": {"gravity": [1, 2]}},
            "family x: expected either members or spread, got summary, env, members, spread",
        ),
        ({"env": "cart_pole_v0", "members": {"a": {}}}, "family x.summary: expected a text, got None"),
        ({"summary": "carts", "members": {"a": {}}}, "family x.env: expected a text, got None"),
        (
            CARTS | {"members": {"a": {}}, "count": 3},
            "family x.count: a list of members has its own length; allowed with spread only",
        ),
        (CARTS | {"members": {}}, "family x.members: expected a mapping of settings by label, got {}"),
        (CARTS | {"members": ["a"]}, "family x.members: expected a mapping of settings by label, got ['a']"),
        (CARTS | {"members": {"a": 3}}, "family x.members.a: expected a mapping of settings, got 3"),
        (
            CARTS | {"members": {"a": {}}, "env_config": "default"},
            "family x.env_config: expected a mapping of settings, got 'default'",
        ),
        (
            CARTS | {"spread": {"gravity": [1, 2]}},
            "family x.count: expected an integer from 1 to 10000, got None",
        ),
    ],
)
def test_entries_that_cannot_be_are_refused(values, message):
    assert refused(lambda: Family.from_mapping("x", values)) == message


@pytest.mark.parametrize(
    "spread",
    [
        None,
        {},
        {"gravity": [1]},
        {"gravity": [2, 1]},
        {"gravity": [1, 1]},
        {"gravity": ["1", "2"]},
        {"gravity": [1, True]},
        {"gravity": 3},
        {"gravity": [1, 2], "force": [1, 2]},
    ],
)
def test_a_spread_is_one_setting_with_two_numbers(spread):
    message = refused(lambda: Family.from_mapping("x", CARTS | {"spread": spread, "count": 3}))
    assert message == (
        "family x.spread: expected one setting with its lowest and its highest number, as in pole_length: [0.1, 0.9], "
        f"got {spread!r}"
    )


def test_an_unknown_environment_is_refused_with_a_suggestion():
    message = refused(
        lambda: Family.from_mapping("x", {"summary": "s", "env": "cart_pole_v1", "members": {"a": {}}})
    )
    assert message.startswith(
        "family x.env: unknown environment 'cart_pole_v1' (did you mean 'cart_pole_v0'?);"
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"members": {"a": {}, "b": {"pole_lenth": 1.0}}},
            "family x, member b: unknown key 'pole_lenth' (did you mean 'pole_length'?); allowed: scenario, as_team, ",
        ),
        (
            {"members": {"a": {}}, "env_config": {"num_envs": 3}},
            "family x, member a: unknown key 'num_envs'; allowed: scenario, as_team, max_steps, ",
        ),
        ({"members": {"a": {1: 2}}}, "family x, member a: unknown key '1'; allowed: scenario, as_team, "),
        (
            {"members": {"a": {}, "b": {"gravity": -1.0}}},
            "family x, member b: gravity: expected a number from 0.1 to 100.0, got -1.0",
        ),
        (
            {"members": {"a": {"scenario": "short"}}},
            "family x, member a: unknown scenario 'short' (did you mean 'short_pole'?); allowed: default, ",
        ),
        (
            {"spread": {"pole_length": [0.0, 0.9]}, "count": 3},
            "family x, member pole_length_0.0: pole_length: expected a number from 0.05 to 10.0, got 0.0",
        ),
        (
            {"spread": {"max_steps": [1, 4]}, "count": 3},
            "family x, member max_steps_1.0: max_steps: expected an integer from 1 to 1000000, got 1.0",
        ),
        (
            {"spread": {"gravity": [1.0, 1.0000001]}, "count": 3},
            "family x: the label 'gravity_1.0' occurs twice",
        ),
    ],
)
def test_members_that_cannot_be_are_refused(values, message):
    found = Family.from_mapping("x", CARTS | values)
    assert refused(found.members).startswith(message)


@pytest.mark.parametrize(
    ("env", "own", "message"),
    [
        (
            "forest_uav_v0",
            {"sensing_radius": 1},
            "observation_space: expected that of member a, float32 of shape (153,), got float32 of shape (89,)",
        ),
        (
            "swarm_cooperative_v0",
            {"actions": "discrete"},
            "action_space: expected that of member a, Box(-1.0, 1.0, (2,), float32), got Discrete(5)",
        ),
        (
            "forest_uav_v0",
            {"mask_blocked_moves": True},
            "action mask: expected that of member a, False, got True",
        ),
    ],
)
def test_members_whose_spaces_differ_are_refused(env, own, message):
    found = Family.from_mapping("x", {"summary": "s", "env": env, "members": {"a": {}, "b": own}})
    assert found.members(1)[0].label == "a"
    assert refused(found.members) == f"family x, member b: {message}"


def test_labels_of_a_second_turn_must_not_meet_those_of_the_first():
    found = Family.from_mapping("x", CARTS | {"members": {"a": {}, "a_2": {"gravity": 5.0}}})
    assert [member.label for member in found.members()] == ["a", "a_2"]
    assert refused(lambda: found.members(3)) == "family x: the label 'a_2' occurs twice"


def test_a_family_of_teams():
    values = {"env_config": {"as_team": True, "scenario": "sprint", "num_uavs": 2}, "members": {"a": {}}}
    found = Family.from_mapping("x", {"summary": "s", "env": "forest_uav_v0"} | values)
    (member,) = found.members()
    assert made(member).action_space.n == 25


def test_families_are_read_once_and_the_caller_s_own():
    families().clear()
    assert list(qio_envs.families()) == NAMES
