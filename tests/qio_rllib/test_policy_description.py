"""Descriptions in policy files that no policy has: each is named in one line, by its key."""

import json
import zipfile

import pytest
from toy_policies import toy_policy

from qio_envs.api import ConfigError
from qio_rllib.artifacts.policy_description import check_description
from qio_rllib.artifacts.policy_file import load_policy, save_policy
from qio_rllib.cli import main

MISSING = object()
SPEC = ("group", "policy")


def text(data):
    return lambda values, group: data


def wrong(*keys, value=None, **values):
    """Return a change of a description: a value in its only group under the last key, or the key left out."""

    def change(description, group):
        place = description
        for key in keys[:-1]:
            place = group if key == "group" else place[key]
        if value is MISSING:
            del place[keys[-1]]
        else:
            place[keys[-1]] = value
        return json.dumps(description)

    return change


DESCRIPTIONS = {
    "no JSON": (text("{"), "policy.json: not valid JSON"),
    "no text": (text(b"\xff\xfe\x00"), "policy.json: not valid JSON"),
    "no object": (text("[1]"), "it has format None"),
    "null": (text("null"), "it has format None"),
    "nested too deep": (wrong("env_config", value=json.loads("[" * 50 + "]" * 50)), "nested too deep"),
    "a key twice": (text('{"format": 3, "format": 2}'), "a key stands there twice"),
    "an unknown key": (wrong("group", "colour", value=1), r"groups\[0\]: unknown key 'colour'"),
    "an unknown key of the network": (wrong(*SPEC, "duelling", value=True), "unknown key 'duelling' .*dueling"),
    "no groups": (wrong("groups", value=MISSING), "policy.json.groups: missing"),
    "an empty list of groups": (wrong("groups", value=[]), "groups: expected a list of at least one group, got"),
    "a group that is none": (wrong("groups", value=[{}]), r"groups\[0\].module: missing"),
    "groups that are null": (wrong("groups", value=None), "groups: expected a list .*, got None"),
    "no distribution": (wrong(*SPEC, "distribution", value=MISSING), "policy.distribution: missing"),
    "an unknown distribution": (
        wrong(*SPEC, "distribution", value="poisson"),
        "policy.distribution: expected one of categorical, .*, got 'poisson'",
    ),
    "a list for a distribution": (wrong(*SPEC, "distribution", value=[]), "distribution: expected one of"),
    "a distribution of other actions": (
        wrong(*SPEC, "distribution", value="gaussian"),
        "policy.distribution: gaussian is of continuous actions, action.count is 2",
    ),
    "NaN": (wrong("group", "action", "low", value=[float("nan")]), "policy.json: not valid JSON: NaN is no number"),
    "text for a number": (wrong(*SPEC, "num_actions", value="2"), "num_actions: expected a number of actions, got '2'"),
    "a fraction of an action": (wrong(*SPEC, "num_actions", value=1.5), "num_actions: expected a number of actions"),
    "true for a number": (wrong(*SPEC, "num_actions", value=True), "num_actions: expected a number of actions"),
    "text for a flag": (wrong("group", "agent_id", value="no"), "agent_id: expected true or false, got 'no'"),
    "a number for the environment": (wrong("env", value=7), "env: expected a text, got 7"),
    "a list for its settings": (wrong("env_config", value=[]), "env_config: expected a mapping, got"),
    "a negative size": (wrong(*SPEC, "network", "fcnet_hiddens", value=[-8]), "hiddens.0: expected a number from 0"),
    "a negative shape": (wrong("group", "spaces", "observation_shape", value=[-4]), "observation_shape: expected"),
    "text for sizes": (wrong(*SPEC, "network", "fcnet_hiddens", value="wide"), "its networks cannot be built"),
    "null for sizes": (wrong(*SPEC, "network", "fcnet_hiddens", value=None), "its networks cannot be built"),
    "an unknown activation": (wrong(*SPEC, "network", "fcnet_activation", value="step"), "networks cannot be built"),
    "a size of thousands of digits": (
        text('{"format": 3, "env": ' + "9" * 5000 + "}"),
        "policy.json: not valid JSON",
    ),
    "a size that no memory holds": (
        wrong(*SPEC, "network", "fcnet_hiddens", value=[1 << 23]),
        "its networks are larger than the weights",
    ),
    "another width than the weights": (
        wrong(*SPEC, "network", "fcnet_hiddens", value=[9]),
        "policy.json: its networks do not fit the weights: encoder.layers.0.weight has the shape 8 x 4, expected 9 x 4",
    ),
    "more layers than the weights": (
        wrong(*SPEC, "network", "fcnet_hiddens", value=[8, 8]),
        "its networks do not fit the weights: .* is missing",
    ),
    "fewer layers than the weights": (
        wrong(*SPEC, "network", "fcnet_hiddens", value=[]),
        "its networks do not fit the weights",
    ),
    "another number of actions": (
        wrong(*SPEC, "num_actions", value=3),
        "policy.num_actions: expected 2, as in action, got 3",
    ),
    "another shape of observations": (
        wrong(*SPEC, "observation_shape", value=[5]),
        r"policy.observation_shape: expected 4 numbers, got \[5\]",
    ),
    "a mask of other actions": (wrong("group", "spaces", "num_actions", value=3), "num_actions: expected the count"),
    "neither count nor bounds": (wrong("group", "action", "count", value=None), "action: expected a count, or"),
    "an agent twice": (wrong("group", "agents", value=["a", "a"]), "index: expected one of each of 2 agents, got 1"),
    "an index out of range": (wrong("group", "index", value=[3]), "groups.index: expected each number from 0"),
    "messages to nobody": (
        wrong("communication", value={"bandwidth": "wide"}),
        "communication.bandwidth: expected an integer of at least 1, got 'wide'",
    ),
    "messages that no network speaks": (
        wrong("communication", value={"bandwidth": 2}),
        "policy.bandwidth: expected 2, as in communication, got 0",
    ),
    "no number for the operator": (
        wrong(*SPEC, "network", "amplification", value={"eta": "much"}),
        "its networks cannot be built",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", DESCRIPTIONS)
def test_wrong_descriptions_are_named_in_one_line(kind, tmp_path, capsys):
    change, message = DESCRIPTIONS[kind]
    path = save_policy(toy_policy("CartPole-v1"), tmp_path / "policy.pt")
    with zipfile.ZipFile(path) as archive:
        values = json.loads(archive.read("policy.json"))
        weights = archive.read("shared.pt")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("policy.json", change(values, values["groups"][0]))
        archive.writestr("shared.pt", weights)
    with pytest.raises(ConfigError, match=message) as caught:
        load_policy(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1_000
    assert str(path) in str(caught.value)
    assert main(["evaluate", str(path)]) == 2
    assert capsys.readouterr().err == f"rllib: {caught.value}\n"


WORLD_MODEL = {
    "obs_size": 3, "num_actions": 1, "is_discrete": False, "world_model": {"members": 2}, "behaviour": "planner",
    "planner": {"horizon": 3, "candidates": 6}, "gamma": 0.9, "network": {}, "is_factored": False,
}  # fmt: skip


def of_world_model(**changes):
    return {
        "format": 3,
        "env": "Pendulum-v1",
        "env_config": {},
        "communication": None,
        "groups": [
            {
                "module": "m",
                "agents": [None],
                "index": [0],
                "agent_id": False,
                "action": {"count": None, "low": [-2.0], "high": [2.0], "rescaled": True, "parts": None},
                "spaces": {"observation_shape": [3], "num_actions": None, "parts": None},
                "world_model": WORLD_MODEL | changes,
            }
        ],
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"obs_size": 4}, r"groups\[0\].world_model.obs_size: expected 3 numbers, got 4"),
        ({"num_actions": 2}, "num_actions: expected 1, as in action, got 2"),
        ({"is_discrete": True}, "is_discrete: expected whether action has a count, got True"),
        ({"behaviour": "oracle"}, "behaviour: expected planner or actor, got 'oracle'"),
        ({"gamma": 1.5}, "gamma: expected a number from 0 to 1, got 1.5"),
        ({"gamma": "0.9"}, "gamma: expected a number from 0 to 1, got '0.9'"),
        (
            {"world_model": {"hiddens": [-1]}},
            "world_model.hiddens.0: expected a number from 0 to 16,777,216, got -1",
        ),
        (
            {"planner": {"candidates": 1 << 20, "horizon": 1000}},
            "planner: expected plans of at most 16,777,216 numbers",
        ),
        ({"colour": 1}, "unknown key 'colour'"),
    ],
)
def test_wrong_descriptions_of_world_models_are_named(changes, message):
    check_description(of_world_model())
    with pytest.raises(ConfigError, match=message):
        check_description(of_world_model(**changes))
