"""Exported graphs: the actions of the policy's own player, from the files and their JSON alone."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from qio_envs.api import ConfigError
from qio_rllib.acting.actions import ActionSpec
from qio_rllib.acting.actor import DIST_INPUTS, ActorInputs, NetworkActor
from qio_rllib.acting.policy import GroupSpaces, Policy
from qio_rllib.acting.team import AgentGroup, Team
from qio_rllib.artifacts import exported_policy
from qio_rllib.artifacts.exported_policy import _ExportedModule, export_policy
from qio_rllib.artifacts.policy_file import load_policy, save_policy
from qio_rllib.models.policy_network import PolicyNetwork, PolicySpec

ROOT = Path(__file__).parents[3]
BOX = ActionSpec(None, (-3.0, -1.0), (3.0, float("inf")), True)
CLIPPED = ActionSpec(None, (-0.5, -1.0), (0.5, 0.2), False)
OPPONENTS = {
    "opponent_model": {"hiddens": [5]},
    "other_agents": {"count": 3, "num_actions": 5, "is_discrete": True},
}
FLOOR = {"eta": 0.8, "h_min": 0.5, "tau": 0.7}


def group_of(name, agents, first, kind, action, shape=(3,), masked=False, agent_id=False, seed=0, **spec):
    torch.manual_seed(seed)
    size = (int(np.prod(shape)) + len(agents),) if agent_id else shape
    network = {"fcnet_hiddens": [8], **spec.pop("network", {})}
    count = action.count or len(action.low)
    net = PolicyNetwork(PolicySpec(size, kind, count, has_action_mask=masked, network=network, **spec))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(3.0)
        net.exploration.fill_(0.3)
    actor = NetworkActor(net.eval(), action)
    index = np.arange(first, first + len(agents))
    return AgentGroup(name, tuple(agents), index, actor, agent_id), GroupSpaces(
        shape, action.count if masked else None
    )


def policy_of(*groups):
    return Policy(
        Team([group for group, _ in groups]), {group.module_id: spaces for group, spaces in groups}, "e", {}
    )


def masked_lstm_and_gru():
    """Two modules: masked with an LSTM, an operator, an agent index and an opponent model; continuous with a GRU."""
    return policy_of(
        group_of(
            "walkers", ("a", "b"), 0, "categorical", ActionSpec(5), (2, 2), True, True,
            network={"use_lstm": True, "lstm_cell_size": 6, "amplification": FLOOR, **OPPONENTS},
        ),
        group_of("flyers", ("x", "y"), 2, "gaussian", BOX, seed=1, network={"use_gru": True, "gru_cell_size": 5}),
    )  # fmt: skip


def seen_by(module, rng):
    """Return an observation as an environment gives it, from what the JSON says."""
    observation = rng.normal(size=module["observation"]["shape"]).astype(np.float32)
    if "action_mask" not in {entry["name"] for entry in module["inputs"]}:
        return observation
    mask = (rng.random(module["action"]["count"]) < 0.4).astype(np.int8)
    mask[rng.integers(len(mask))] = 1
    return {"observation": observation, "action_mask": mask}


def inputs_of(module, seen, states):
    """Return the arrays that the JSON names, for what all agents of a module see."""
    rows = [seen[agent] for agent in module["agents"]]
    masked = isinstance(rows[0], dict)
    found = {}
    for entry in module["inputs"]:
        found[entry["name"]] = {
            "observation": lambda: np.stack([row["observation"] if masked else row for row in rows]),
            "agent_index": lambda: np.arange(len(rows)),
            "action_mask": lambda: np.stack([row["action_mask"] for row in rows]),
            "state": lambda: states.get(module["module"], np.zeros((len(rows), entry["shape"][1]))),  # noqa: B023
        }[entry["name"]]().astype(entry["dtype"])
        assert list(found[entry["name"]].shape[1:]) == entry["shape"][1:]
    return found


def runner_of(path, file_format):
    if file_format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        names = [output.name for output in session.get_outputs()]
        return lambda inputs: dict(zip(names, session.run(None, inputs), strict=True))
    graph = torch.export.load(path).module()
    return lambda inputs: {
        name: value.detach().numpy()
        for name, value in graph(**{key: torch.from_numpy(array) for key, array in inputs.items()}).items()
    }


def assert_same_play(policy, folder, description, steps):
    player, rng, states, actions = policy.player(), np.random.default_rng(0), {}, set()
    runners = {
        module["module"]: runner_of(folder / module["file"], description["format"])
        for module in description["modules"]
    }
    for _ in range(steps):
        seen = {
            agent: seen_by(module, rng) for module in description["modules"] for agent in module["agents"]
        }
        expected = player.act(seen)
        for module in description["modules"]:
            found = runners[module["module"]](inputs_of(module, seen, states))
            assert [entry["name"] for entry in module["outputs"]] == list(found)
            for entry in module["outputs"]:
                assert str(found[entry["name"]].dtype) == entry["dtype"]
                assert list(found[entry["name"]].shape[1:]) == entry["shape"][1:]
            states[module["module"]] = found.get("next_state")
            for agent, action in zip(module["agents"], found["action"], strict=True):
                if module["action"]["count"] is None:
                    np.testing.assert_allclose(action, expected[agent], atol=1e-4)
                else:
                    assert int(action) == expected[agent]
                    actions.add(int(action))
    return actions


def test_two_modules_with_masks_memory_and_operator_play_as_the_policy_from_onnx(tmp_path):
    policy = load_policy(save_policy(masked_lstm_and_gru(), tmp_path / "policy.pt"))
    files = export_policy(policy, tmp_path / "out")
    assert [path.name for path in files] == ["walkers.onnx", "flyers.onnx", "policy.json"]
    description = json.loads(files[-1].read_text())
    walkers, flyers = description["modules"]
    assert [entry["name"] for entry in walkers["inputs"]] == [
        "observation",
        "agent_index",
        "action_mask",
        "state",
    ]
    assert [entry["shape"] for entry in walkers["inputs"]] == [
        ["batch", 2, 2],
        ["batch"],
        ["batch", 5],
        ["batch", 12],
    ]
    assert walkers["operator"] == pytest.approx(FLOOR)
    assert flyers["agents"] == ["x", "y"]
    assert flyers["action"]["bounds"] == {
        "low": [-3.0, -1.0], "high": [3.0, None], "how": "rescaled from [-1, 1]"
    }  # fmt: skip
    assert len(assert_same_play(policy, tmp_path / "out", description, steps=500)) == 5


def test_one_module_is_one_file_of_torch_too(tmp_path):
    policy = policy_of(
        group_of("shared", ("a", "b", "c", "d"), 0, "squashed_gaussian", CLIPPED),
    )
    files = export_policy(policy, tmp_path / "walk.pt2", "torch")
    assert [path.name for path in files] == ["walk.pt2", "walk.json"]
    assert_same_play(policy, tmp_path, json.loads(files[-1].read_text()), steps=250)


@pytest.mark.parametrize(
    ("kind", "action", "settings"),
    [
        ("categorical", ActionSpec(4), {}),
        ("categorical", ActionSpec(4), {"masked": True}),
        ("categorical", ActionSpec(4), {"network": {"amplification": FLOOR}}),
        ("categorical", ActionSpec(4), {"network": {"amplification": {"eta": 0.0, "h_min": 0.9, "tau": 2.0}}}),
        ("categorical", ActionSpec(1), {"masked": True, "network": {"amplification": FLOOR}}),
        ("categorical", ActionSpec(4), {"shape": (6, 5, 2), "network": {"conv_filters": [[4, 3, 2]]}}),
        ("epsilon_greedy", ActionSpec(4), {"masked": True, "dueling": True}),
        ("deterministic", BOX, {}),
        ("deterministic", CLIPPED, {"shape": ()}),
        ("squashed_gaussian", BOX, {"agent_id": True}),
        ("gaussian", CLIPPED, {"network": {"free_log_std": True}}),
    ],
)  # fmt: skip
def test_the_graph_of_every_kind_gives_the_policys_distribution_and_greedy_actions(kind, action, settings):
    group, spaces = group_of("m", ("a", "b"), 0, kind, action, **settings)
    module = _ExportedModule(group, policy_of((group, spaces)))
    inputs = module.example(1000)
    with torch.no_grad():
        found = {name: value.numpy() for name, value in module(**inputs).items()}
    group.actor.records = (DIST_INPUTS,)
    rows = inputs["observation"].reshape(1000, -1)
    if "agent_index" in inputs:
        rows = torch.cat([rows, torch.eye(2)[inputs["agent_index"]]], dim=-1)
    mask = inputs.get("action_mask")
    acted = group.actor.act(
        ActorInputs(rows.numpy()[None], None if mask is None else mask.numpy()[None]), {}, None, explore=False
    )
    np.testing.assert_allclose(found["dist_inputs"], acted.extras[DIST_INPUTS][0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["action"], action.to_env(acted.actions)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": {"circuit": {"num_qubits": 2}}}, "module 'm' is a quantum circuit"),
        ({"bandwidth": 2}, "module 'm' talks to other agents while it acts"),
        (
            {"network": {"amplification": {**FLOOR, "operator": "random"}}},
            "has the control 'random' in place of the Q",
        ),
    ],
)
def test_what_is_no_graph_is_refused_in_one_line(tmp_path, change, message):
    policy = policy_of(group_of("m", ("a",), 0, "categorical", ActionSpec(2), **change))
    with pytest.raises(ConfigError, match=f"^export: .*{message}") as caught:
        export_policy(policy, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_graph_that_acts_otherwise_is_not_written(tmp_path, monkeypatch):
    policy = policy_of(
        group_of("m", ("a",), 0, "categorical", ActionSpec(2), network={"amplification": FLOOR})
    )
    monkeypatch.setattr(exported_policy, "amplify_traceable", lambda logits, *rest: logits)
    with pytest.raises(ConfigError, match="the graph's dist_inputs are not those of the policy"):
        export_policy(policy, tmp_path / "m.pt2", "torch")
    assert list(tmp_path.iterdir()) == []


def test_several_modules_need_a_directory(tmp_path):
    with pytest.raises(ConfigError, match="the policy has 2 modules, a file each; name a directory"):
        export_policy(masked_lstm_and_gru(), tmp_path / "one.onnx")


def test_a_missing_package_is_named_with_what_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"needs the package onnxruntime; .*pip install 'qio\[export\]'"):
        export_policy(masked_lstm_and_gru(), tmp_path / "out")


def rllib(*arguments, folder):
    return subprocess.run(
        [sys.executable, "-m", "qio_rllib.cli", *arguments],
        cwd=folder, capture_output=True, text=True, env={**__import__("os").environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_the_command_and_the_example_of_the_docs(tmp_path):
    """What ``rllib export`` writes plays an episode by the ten lines of docs/export.md, as `load_policy` does."""
    import re

    trained = ROOT / "results/forest_uav_sprint_ppo/seed_0/policy.pt"
    done = rllib("export", str(trained), "--out", "sprint.onnx", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "written to sprint.onnx\nwritten to sprint.json\n"
    (block,) = re.findall(
        r"^```python\n(.*?)^```$", (ROOT / "docs/export.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert "qio_rllib" not in block
    told = {}
    import os

    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        exec(block, told)
    finally:
        os.chdir(before)
    policy = load_policy(trained)
    player, env = policy.player(), told["env"].unwrapped
    observations, infos = env.reset(seed=1)
    while env.agents:
        observations, _, _, _, infos = env.step(player.act(observations))
    assert told["infos"] == infos


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--format", "onx"], "--format: expected one of onnx, torch, got 'onx' (did you mean 'onnx'?)"),
        (["--out", "x.pt2"], "--out: a file of the format onnx ends in .onnx, got x.pt2"),
        (["--out", "no/where"], "--out: no/where is in no directory that exists"),
    ],
)
def test_bad_options_end_in_one_line(arguments, line, capsys, monkeypatch, tmp_path):
    from qio_rllib.cli import main

    monkeypatch.chdir(tmp_path)
    assert main(["export", "policy.pt", *arguments]) == 2
    assert capsys.readouterr().err == f"rllib: {line}\n"
