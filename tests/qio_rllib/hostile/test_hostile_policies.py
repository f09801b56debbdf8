"""Policy files that try to run code or to take all memory: each ends in one line, and none is executed."""

import copy
import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from attempts import EVIL, MARK, TOUCH, Touching, refused

from qio_envs.api import ConfigError
from qio_rllib.acting.actions import ActionSpec
from qio_rllib.acting.actor import NetworkActor
from qio_rllib.acting.policy import GroupSpaces, Policy
from qio_rllib.acting.team import AgentGroup, Team
from qio_rllib.artifacts.policy_file import load_policy, save_policy
from qio_rllib.cli import main
from qio_rllib.models.policy_network import PolicyNetwork, PolicySpec
from qio_rllib.sampling.environments import make_vector_env


def policy():
    network = PolicyNetwork(PolicySpec((4,), "categorical", 2, network={"fcnet_hiddens": [8]}))
    group = AgentGroup("module", (None,), np.array([0]), NetworkActor(network, ActionSpec(2)))
    return Policy(Team([group]), {"module": GroupSpaces((4,))}, "CartPole-v1", {})


def members_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def torch_bytes(value, **settings):
    buffer = io.BytesIO()
    torch.save(value, buffer, **settings)
    return buffer.getvalue()


def zipped(members, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def described(change):
    """Return a change of a policy file: its description after ``change(description, its only group)``."""

    def changed(members):
        values = json.loads(members["policy.json"])
        change(values, values["groups"][0])
        return zipped((members | {"policy.json": json.dumps(values)}).items())

    return changed


def with_weights(make):
    return lambda members: zipped((members | {"module.pt": make(members["module.pt"])}).items())


def weights_with(name, value):
    return with_weights(lambda data: torch_bytes({**torch.load(io.BytesIO(data)), name: value}))


def scripted(_):
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.Linear(4, 2), torch.zeros(1, 4)), buffer)
    return buffer.getvalue()


def deflated(data):
    """Return the same archive with a storage of 30 million zeros that takes 30 KB."""
    inner = [
        (name, content) for name, content in members_of(io.BytesIO(data)).items() if "/data/0" not in name
    ]
    storage = next(name for name in members_of(io.BytesIO(data)) if name.endswith("/data/0"))
    return zipped([*inner, (storage, bytes(30_000_000))], zipfile.ZIP_DEFLATED)


def objects(_):
    buffer = io.BytesIO()
    np.savez(buffer, weight=np.array([Touching()], object))
    return buffer.getvalue()


def deep(members):
    nested = b'{"format": 3, "env": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    return zipped([("policy.json", nested), ("module.pt", members["module.pt"])])


def set_value(*keys, value):
    def change(values, group):
        for key in keys[:-1]:
            values = values[key]
        values[keys[-1]] = value

    return described(change)


NETWORK = ("groups", 0, "policy", "network")
POLICIES = {
    "a pickle for weights": (with_weights(lambda _: pickle.dumps(Touching())), "damaged"),
    "a pickle in a file of torch": (with_weights(lambda _: torch_bytes({"x": Touching()})), "damaged"),
    "a pickle in an old file of torch": (
        with_weights(lambda _: torch_bytes({"x": Touching()}, _use_new_zipfile_serialization=False)),
        "damaged",
    ),
    "TorchScript for weights": (with_weights(scripted), "is compressed"),
    "an archive of object arrays": (with_weights(objects), "damaged"),
    "object arrays for the file": (lambda members: objects(None), "damaged"),
    "TorchScript for the file": (lambda members: scripted(None), "is compressed"),
    "a pickle for the file": (lambda members: pickle.dumps(Touching()), "damaged"),
    "a member outside": (lambda members: zipped([*members.items(), ("../evil.py", EVIL)]), "expected the members"),
    "a module outside": (set_value("groups", 0, "module", value="../module"), "without slashes"),
    "a member twice": (
        lambda members: zipped([*members.items(), ("policy.json", b"{}")]),
        "a member stands there twice",
    ),
    "a description of 30 MB": (
        lambda members: zipped(
            [("policy.json", bytes(30_000_000)), ("module.pt", members["module.pt"])], zipfile.ZIP_DEFLATED
        ),
        "'policy.json' is compressed",
    ),
    "weights of 30 MB": (with_weights(deflated), "is compressed"),
    "a description of 5 MB": (
        lambda members: zipped([("policy.json", b" " * 5_000_000), ("module.pt", members["module.pt"])]),
        "expected at most 4,194,304",
    ),
    "a tensor without storage": (
        weights_with("eta", torch.zeros(1).expand(1 << 20, 1 << 20)),
        "weights that are larger than the file",
    ),
    "a tensor on no device": (weights_with("eta", torch.empty(1 << 20, 1 << 20, device="meta")), "module.pt|damaged"),
    "something else than a tensor": (weights_with("eta", "0.1"), "something else than weights"),
    "layers that memory does not hold": (
        set_value(*NETWORK, "fcnet_hiddens", value=[1 << 20, 1 << 20]),
        "larger than the weights",
    ),
    "sizes beyond all bounds": (set_value(*NETWORK, "fcnet_hiddens", value=[10**30]), "fcnet_hiddens.0: expected"),
    "thousands of layers": (set_value(*NETWORK, "fcnet_hiddens", value=[1] * 5000), "at most 200 entries"),
    "a memory that no memory holds": (
        described(lambda values, group: group["policy"]["network"].update(use_lstm=True, lstm_cell_size=1 << 22)),
        "larger than the weights",
    ),
    "deep lists": (deep, "nested too deep"),
}  # fmt: skip


def changed_policy(here, change):
    path = save_policy(policy(), here / "policy.pt")
    path.write_bytes(change(members_of(path)))
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", POLICIES)
def test_a_policy_file_runs_nothing(kind, here, capsys):
    change, message = POLICIES[kind]
    changed_policy(here, change)
    line = refused(capsys, "evaluate", "policy.pt", "--episodes", "1")
    assert "policy.pt" in line
    with pytest.raises(ConfigError, match=message):
        raise ConfigError(line)


COMMANDS = {
    "evaluate": ["evaluate", "policy.pt"],
    "video": ["video", "policy.pt"],
    "credit": ["credit", "policy.pt", "--gamma", "0.9"],
    "explain": ["causal", "explain", "policy.pt", "--out", "found"],
    "discover": ["causal", "discover", "policy.pt"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("env", "env_config", "package"),
    [
        ("evil:make", {}, "evil"),
        ("os:system", {"command": TOUCH}, "os"),
        ("gymnasium:make", {"id": "evil:Evil-v0"}, "gymnasium"),
    ],
)
def test_a_policy_file_imports_no_environment(command, env, env_config, package, here, capsys):
    changed_policy(here, described(lambda values, group: values.update(env=env, env_config=env_config)))
    assert f"--allow-import {package}" in refused(capsys, *COMMANDS[command])


def test_a_policy_file_plays_where_the_user_says(here, capsys):
    changed_policy(here, set_value("env", value="mine.sub:make"))
    assert main(["evaluate", "policy.pt", "--env", "CartPole-v1", "--episodes", "1"]) == 0
    assert not Path(MARK).exists()
    loaded = load_policy("policy.pt")  # acts without its environment
    assert loaded.player().act(np.zeros(4)) in (0, 1)
    assert not Path(MARK).exists()
    assert main(["evaluate", "policy.pt", "--allow-import", "mine", "--episodes", "1"]) == 0
    assert Path(MARK).exists()


def test_a_name_keeps_what_it_may_import_where_it_is_copied(here, monkeypatch):
    monkeypatch.syspath_prepend(here)
    changed_policy(here, set_value("env", value="evil:make"))
    loaded = load_policy("policy.pt", ["mine", "other.envs"])
    for env in (loaded.env, pickle.loads(pickle.dumps(loaded.env)), copy.deepcopy(loaded).env):
        assert env == "evil:make"
        assert env.allow_import == ("mine", "other.envs")
        with pytest.raises(ConfigError, match="--allow-import evil"):
            make_vector_env(env, {}, 1)
    assert load_policy(save_policy(loaded, here / "again.pt"), ["evil"]).env == "evil:make"
    assert not Path(MARK).exists()
