"""Files that try to run code or to take all memory: each ends in one line, and none is executed.

The detector is a file that would appear: `evil.py` makes it when it is imported, and so does every other attempt.
"""

import copy
import io
import json
import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from qio_envs.api import ConfigError
from qio_rllib.acting.actions import ActionSpec
from qio_rllib.acting.actor import NetworkActor
from qio_rllib.acting.policy import GroupSpaces, Policy
from qio_rllib.acting.team import AgentGroup, Team
from qio_rllib.artifacts.files import read_csv
from qio_rllib.artifacts.policy_file import load_policy, save_policy
from qio_rllib.artifacts.progress_file import ProgressFile
from qio_rllib.artifacts.yaml_files import yaml_text
from qio_rllib.cli import main
from qio_rllib.experiments.experiment import load_experiment
from qio_rllib.models.policy_network import PolicyNetwork, PolicySpec
from qio_rllib.sampling.environments import make_vector_env
from qio_rllib.sampling.named_in_file import ALLOWED_PACKAGES

MARK = "executed"
EVIL = f"""
import gymnasium, pathlib
pathlib.Path({MARK!r}).touch()
gymnasium.register("Evil-v0", "gymnasium.envs.classic_control:CartPoleEnv")
make = parallel_env = lambda **settings: gymnasium.make("CartPole-v1")
class Callbacks: pass
"""
TOUCH = f"touch {MARK}"
SMALL = {"num_env_runners": 0, "train_batch_size_per_learner": 20, "minibatch_size": 20}


class Touching:
    """Makes the file when it is unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path(MARK),))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with a module that must not be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("evil", "mine", "mine.sub"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "evil.py").write_text(EVIL)
    (tmp_path / "mine").mkdir()  # the same, for what the user allows: Tune keeps names that were used
    (tmp_path / "mine" / "__init__.py").write_text(EVIL)
    (tmp_path / "mine" / "sub.py").write_text("from mine import make\n")
    return tmp_path


def refused(capsys, *arguments):
    """Run a command that has to end with status 2 and one line; return the line."""
    status = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if not line.startswith("rllib: note: ")]
    assert status == 2, err
    assert len(lines) == 1, err
    assert len(lines[0]) < 2_000
    assert "Traceback" not in out
    assert not Path(MARK).exists()
    return lines[0]


# --- experiment files ------------------------------------------------------------------------------------------------


def experiment(run="PPO", env="CartPole-v1", name="x", **config):
    entry = {"run": run, "env": env, "stop": {"training_iteration": 1}, "config": {**SMALL, **config}}
    return yaml_text({name: entry})


def federation(clients):
    return yaml_text(
        {
            "x": {
                "run": "Federated",
                "env": "cart_pole_v0",
                "stop": {"training_iteration": 1},
                "config": {"local": {"run": "PPO"}, "clients": clients},
            }
        }
    )


BOMB = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 10)}]\n" for n in range(12)
)
EXPERIMENTS = {
    "a function of the system": (
        experiment(env="os:system", env_config={"command": TOUCH}),
        "'os:system' stands in a file, .* --allow-import os",
    ),
    "a program": (
        experiment(env="subprocess:run", env_config={"args": ["touch", MARK]}),
        "--allow-import subprocess",
    ),
    "a module": (experiment(env="evil"), "importing evil runs its code; .* --allow-import evil"),
    "a callable": (experiment(env="evil:make"), "--allow-import evil"),
    "a callable in a submodule": (experiment(env="evil.sub:make"), "--allow-import evil"),
    "an id that a module registers": (experiment(env="evil:Evil-v0"), "--allow-import evil"),
    "a module that is no name": (experiment(env=".evil:make"), "unknown environment"),
    "gymnasium.make": (
        experiment(env="gymnasium:make", env_config={"id": "evil:Evil-v0"}),
        "make is no environment; .* --allow-import gymnasium",
    ),
    "a function of Gymnasium that imports": (
        experiment(env="gymnasium.envs.registration:load_env_creator", env_config={"name": "evil:make"}),
        "load_env_creator is no environment",
    ),
    "an id that imports what it is told": (
        experiment(env="GymV26Environment-v0", env_config={"env_id": "evil:Evil-v0"}),
        "imports whatever its env_config names; name it yourself: --env GymV26Environment-v0",
    ),
    "a client of a federation": (federation([{}, {"env": "evil:make"}]), "--allow-import evil"),
    "a client in a grid": (
        federation({"grid_search": [[{}], [{"env": "evil:make"}]]}),
        "--allow-import evil",
    ),
    "the local algorithm of a federation": (
        yaml_text(
            {
                "x": {
                    "run": "Federated",
                    "env": "cart_pole_v0",
                    "stop": {"training_iteration": 1},
                    "config": {"local": {"run": "PPO", "env": "evil:make"}, "clients": [{}]},
                }
            }
        ),
        "env: stands beside config, not in it",
    ),
    "an environment of one module": (
        experiment(algorithm_config_overrides_per_module={"default_policy": {"env": "evil:make"}}),
        "overrides_per_module.default_policy.env: stands beside config, not in it",
    ),
    "an environment of the evaluation": (
        experiment(evaluation_config={"env": "evil:make"}),
        "evaluation_config.env: stands beside config, not in it",
    ),
    "callbacks by name": (experiment(callbacks_class="evil.Callbacks"), "can only be set in Python"),
    "callbacks of one module by name": (
        experiment(
            algorithm_config_overrides_per_module={"default_policy": {"callbacks_class": "evil.Callbacks"}}
        ),
        "can only be set in Python",
    ),
    "a runner by name": (experiment(env_runner_cls="evil.make"), "can only be set in Python"),
    "a Learner by name": (experiment(learner_class="evil.make"), "can only be set in Python"),
    "a module by name": (experiment(rl_module_spec="evil.make"), "can only be set in Python"),
    "a mapping of agents by name": (
        experiment(policy_mapping_fn={"type": "evil.make"}),
        "can only be set in Python",
    ),
    "an estimator by name": (
        experiment(off_policy_estimation_methods={"x": {"type": "evil.make"}}),
        "new API stack no longer takes it",
    ),
    "variables of the environment": (
        experiment(extra_python_environs_for_worker={"PYTHONSTARTUP": "evil.py"}),
        "new API stack no longer takes it",
    ),
    "an initializer by name": (
        experiment(model_config={"fcnet_kernel_initializer": "evil.make"}),
        "torch.nn.init has no",
    ),
    "a Python object": (f"x: !!python/object/apply:os.system ['{TOUCH}']\n", "not valid YAML"),
    "a Python name": ("x: !!python/name:evil.make\n", "not valid YAML"),
    "a Python module": ("x: !!python/module:evil\n", "not valid YAML"),
    "aliases of aliases": (BOMB, "expected at most 100,000 values"),
    "a list that holds itself": ("x: &x [*x]\n", "nested 50 deep"),
    "deep lists": ("x: " + "[" * 1200 + "]" * 1200 + "\n", "nested 50 deep"),
    "a name that leaves the folder": (experiment(name="../x"), "name: expected up to 100 letters"),
    "a scenario that leaves the folder": (
        experiment(env="forest_uav_v0", env_config={"scenario": "../../../etc/passwd"}),
        "unknown scenario",
    ),
}


@pytest.mark.parametrize("kind", EXPERIMENTS)
def test_an_experiment_file_runs_nothing(kind, here, capsys):
    text, message = EXPERIMENTS[kind]
    (here / "x.yaml").write_text(text)
    line = refused(capsys, "train", "--config", "x.yaml", "--dry-run")
    with pytest.raises(ConfigError, match=message):
        raise ConfigError(line)


def test_the_flag_lets_a_file_import(here, capsys):
    """The detector works, and the flag of each command names what to allow."""
    (here / "x.yaml").write_text(experiment(env="mine.sub:make"))
    refused(capsys, "train", "--config", "x.yaml", "--dry-run", "--allow-import", "mine.su")
    refused(capsys, "bench", "--config", "x.yaml")
    assert "expected the name of a module" in refused(
        capsys, "train", "--config", "x.yaml", "--dry-run", "--allow-import", "mine sub"
    )
    assert main(["train", "--config", "x.yaml", "--dry-run", "--allow-import", "mine"]) == 0
    assert Path(MARK).exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config", "x.yaml", "--set", "env=mine:make"],
        ["--run", "PPO", "--env", "mine:make", "--stop", '{"training_iteration": 1}'],
    ],
)
def test_a_name_that_the_user_gives_is_the_users_own(here, arguments):
    (here / "x.yaml").write_text(experiment(env="os:system"))
    assert main(["train", *arguments, "--dry-run"]) == 0
    assert Path(MARK).exists()


@pytest.mark.parametrize(
    "env",
    [
        "CartPole-v1", "cart_pole_v0", "mpe2.simple_spread_v3", "mpe2.simple_spread_v3:parallel_env",
        "lbforaging:Foraging-5x5-2p-1f-v3", "rware:rware-tiny-2ag-v2", "lbforaging.foraging:ForagingEnv",
    ],
)  # fmt: skip
def test_files_name_the_environments_of_known_packages(here, env):
    (here / "x.yaml").write_text(experiment(env=env))
    assert load_experiment("x.yaml").env == env


def test_the_page_names_the_known_packages():
    text = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text()
    listed = text.partition("the packages that these pages name: ")[2].partition(";")[0]
    assert set(listed.replace(" and ", ", ").split(", ")) == set(ALLOWED_PACKAGES) - {"qio_envs"}


def test_a_file_beside_the_experiment_is_no_known_package(here, monkeypatch, capsys):
    (here / "rware.py").write_text(EVIL)
    (here / "x.yaml").write_text(experiment(env="rware:make"))
    for name in [name for name in sys.modules if name.partition(".")[0] == "rware"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(here)  # as `python -m` does
    assert "--allow-import rware" in refused(capsys, "train", "--config", "x.yaml", "--dry-run")


def test_no_file_of_the_working_directory_takes_the_place_of_a_package(here, monkeypatch):
    (here / "statistics.py").write_text(EVIL)
    monkeypatch.delitem(sys.modules, "statistics", raising=False)
    main(["list"])
    import statistics

    assert not Path(MARK).exists()
    assert statistics.mean([1, 3]) == 2


# --- policy files ----------------------------------------------------------------------------------------------------


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


# --- runs and tables -------------------------------------------------------------------------------------------------


def run_directory(here, **info):
    run = here / "runs" / "x" / "1"
    (run / "checkpoints" / "trial").mkdir(parents=True)
    (run / "config.yaml").write_text(experiment())
    (run / "run.json").write_text(json.dumps({"status": "finished", **info}))
    return run


def outside(here):
    """A checkpoint elsewhere that would run code."""
    folder = here / "elsewhere"
    folder.mkdir()
    (folder / "rllib_checkpoint.json").write_text("{}")
    (folder / "class_and_ctor_args.pkl").write_bytes(pickle.dumps(Touching()))
    return folder


@pytest.mark.parametrize(
    "path", ["../../../elsewhere", "{here}/elsewhere", "link", ["checkpoints"], 7, "a\0b", ""]
)
def test_a_run_leads_to_no_checkpoint_outside(path, here, capsys):
    outside(here)
    run = run_directory(here, checkpoint=path.format(here=here) if isinstance(path, str) else path)
    (run / "link").symlink_to(here / "elsewhere")
    line = refused(capsys, "evaluate", run)
    assert "expected a path within the run directory" in line or "rllib_checkpoint.json is missing" in line


def test_a_run_takes_no_checkpoint_that_is_a_link_to_one_outside(here, capsys):
    outside(here)
    run = run_directory(here)
    link = run / "checkpoints" / "trial" / "checkpoint_000001"
    link.symlink_to(here / "elsewhere")
    listed = [{"path": str(link.relative_to(run)), "metrics": {"training_iteration": 1}}]
    (run / "checkpoints.json").write_text(json.dumps(listed))
    assert "leads out of the run" in refused(capsys, "evaluate", run)


def test_a_run_description_that_is_nested_deep_is_named(here, capsys):
    run = run_directory(here)
    (run / "run.json").write_text('{"status": ' + "[" * 100_000 + "]" * 100_000 + "}")
    assert "run.json: damaged" in refused(capsys, "evaluate", run)


def test_a_run_of_somebody_else_imports_nothing(here, capsys):
    run = run_directory(here)
    (run / "config.yaml").write_text(experiment(env="evil:make"))
    run = run.rename(here / "foreign")
    assert "--allow-import evil" in refused(capsys, "train", "--resume", run)


@pytest.mark.parametrize(
    "text",
    [
        "training_iteration\n__import__('evil')\n",
        "a,b\n=cmd|' /C calc'!A0,1\n",
        'training_iteration\n"' + "x" * 200_000 + '"\n',
    ],
)
def test_a_table_is_text(text, here):
    (here / "progress.csv").write_text(text)
    with pytest.raises(ConfigError, match=r"progress.csv: damaged table"):
        ProgressFile(here / "progress.csv")
    assert not Path(MARK).exists()


def test_a_table_of_pretraining_is_text(here):
    (here / "pretraining.csv").write_text("a,b\n__import__('evil'),1\n")
    assert read_csv(here / "pretraining.csv") == [{"a": "__import__('evil')", "b": 1}]
    assert not Path(MARK).exists()


def test_a_graph_that_is_nested_deep_is_named(here, capsys):
    (here / "graph.json").write_text("[" * 100_000)
    (here / "data.csv").write_text("a,b\n1,2\n2,3\n")
    arguments = ["data.csv", "--graph", "graph.json", "--treatment", "a", "--outcome", "b"]
    assert "--graph: cannot read graph.json" in refused(capsys, "causal", "effect", *arguments)


# --- checkpoints are code --------------------------------------------------------------------------------------------


def test_a_checkpoint_of_somebody_else_is_code_and_the_command_says_so(here, capsys):
    """What the documentation names: Ray's checkpoints are pickles."""
    main(["evaluate", str(outside(here))])
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("rllib: note: ")]
    assert notes == [
        "rllib: note: elsewhere is not in runs/: Ray's checkpoints are pickles, and loading one runs what is in it"
    ]
    assert Path(MARK).exists()


def test_of_a_run_of_ones_own_nothing_is_said(here, capsys):
    run = run_directory(here)
    refused(capsys, "evaluate", run)
    (here / "foreign").symlink_to(run)
    main(["evaluate", "foreign"])
    assert "note" not in capsys.readouterr().err  # it lies in runs/ after all
    run = run.rename(here / "away")
    (here / "runs" / "link").symlink_to(run)
    main(["evaluate", "runs/link"])
    assert "is not in runs/" in capsys.readouterr().err
