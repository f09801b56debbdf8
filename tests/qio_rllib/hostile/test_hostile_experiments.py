"""Experiment files that try to run code or to take all memory: each ends in one line, and none is executed."""

import sys
from pathlib import Path

import pytest
from attempts import EVIL, MARK, TOUCH, experiment, refused

from qio_envs.api import ConfigError
from qio_rllib.artifacts.yaml_files import yaml_text
from qio_rllib.cli import main
from qio_rllib.experiments.experiment import load_experiment
from qio_rllib.sampling.named_in_file import ALLOWED_PACKAGES


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
    text = (Path(__file__).parents[3] / "docs" / "reliability.md").read_text()
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
