"""Experiments by file and by name, stop criteria as options, and whose command ``rllib`` is."""

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import qio_envs
import qio_rllib
from qio_envs.api import ConfigError, distribution
from qio_rllib.algorithms import ALGORITHMS
from qio_rllib.cli import main
from qio_rllib.cli.arguments import stop_of
from qio_rllib.experiments.experiment import load_experiment
from qio_rllib.experiments.ready import experiment_file, ready_experiments, subject

ROOT = Path(__file__).parents[2]
CARTPOLE = ["train", "--run", "PPO", "--env", "CartPole-v1"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with two experiment files."""
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "minimal"):
        (tmp_path / f"{name}.yaml").write_text(
            f"# One. Two.\n{name}: {{run: PPO, env: CartPole-v1, stop: {{training_iteration: 1}}}}\n"
        )
    return tmp_path


# --- files and names ---------------------------------------------------------------------------------------------


def test_every_ready_experiment_goes_by_its_name_and_says_what_it_is():
    ready = ready_experiments()
    assert set(ready.values()) == set((ROOT / "tune_configs").glob("*.yaml"))
    for name, path in ready.items():
        assert experiment_file(name) == path
        assert path.stem == name
        about = subject(path)
        assert 15 < len(about) < 130
        assert not about.startswith("#")
        assert path.read_text().replace("\n# ", " ").startswith(f"# {about}")


def test_the_subject_ends_at_its_first_full_stop_or_colon(tmp_path):
    path = tmp_path / "x.yaml"
    for text, expected in {
        "# Solved (0.15. The rest).\n# Next. More\nx: 1\n# Late.": "Solved (0.15",
        "# After Iqbal et al., 2019, an\n# actor: seen. Then\n": "After Iqbal et al., 2019, an actor",
        "# Of 2:1 odds: one. Two\n": "Of 2:1 odds",
        "# No full stop\nx: 1\n": "No full stop",
        "x: 1\n": "",
    }.items():
        path.write_text(text)
        assert subject(path) == expected


def test_a_file_comes_before_a_ready_experiment_of_its_name(here):
    (here / "forest_uav_ppo").write_text((here / "mine.yaml").read_text())
    assert load_experiment("forest_uav_ppo").env == "CartPole-v1"
    assert load_experiment("forest_uav_a2c").env == "forest_uav_v0"


@pytest.mark.parametrize("arguments", [["forest_uav_ppo"], ["--config", "forest_uav_ppo"]])
def test_a_ready_experiment_is_trained_by_its_name_anywhere(here, capsys, arguments):
    assert main(["train", *arguments, "--set", "lr=1e-5", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("forest-uav-ppo:\n  run: PPO\n  env: forest_uav_v0\n")
    assert "lr: 1e-05" in printed


@pytest.mark.parametrize("width", [80, 120])
def test_list_says_everything_whole_in_the_width_of_the_terminal(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in out
    assert "..." not in out

    def row(name):
        """What stands beside a name, in the columns of its table and in the lines below it."""
        (first,) = [number for number, line in enumerate(lines) if line.split()[:1] == [name]]
        indent = re.match(r"\S+\s+", lines[first]).end()
        below = itertools.takewhile(lambda line: line[:1] == " " and line.strip(), lines[first + 1 :])
        return [lines[first][indent:], *(line[indent:] for line in below)]

    for name, path in ready_experiments().items():
        assert " ".join(" ".join(row(name)).split()) == subject(path)
    for name, environment in qio_envs.environments().items():
        said = " ".join(row(name))
        assert all(
            word in said for word in [*environment.scenarios(), *environment.batched_class.scripted_policies]
        )
    assert len(lines) < 16_000 / width


def test_algorithms_are_listed_without_importing_them():
    code = (
        "import sys; from qio_rllib.cli import main; assert main(['list']) == 0; "
        "assert not {'ray', 'torch'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (paragraph,) = [part for part in done.stdout.split("\n\n") if part.startswith("algorithms: ")]
    assert set(" ".join(paragraph.split()[1:]).split(", ")) == set(ALGORITHMS)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("mini.yaml", "mini.yaml: No such file (did you mean 'mine.yaml'"),
        ("minimum.yml", "minimum.yml: No such file (did you mean 'minimal.yaml'?)"),
        ("mine", "mine: No such file or ready experiment (did you mean 'mine.yaml'"),
        ("forest_uav_pp0", "forest_uav_pp0: No such file or ready experiment (did you mean 'forest_uav_ppo'"),
        ("forest-uav-ppo", "did you mean 'forest_uav_ppo'"),
        ("configs/spread_mapo.yaml", "configs/spread_mapo.yaml: No such file (did you mean 'spread_mappo'"),
        ("xyzzy", "xyzzy: No such file or ready experiment; 'rllib list' names the ready experiments"),
        ("ppo", "ppo: an algorithm, no experiment; take --run PPO --env ENVIRONMENT"),
        ("worldmodel", "take --run WorldModel"),
        (".", ".: a directory, expected an experiment file"),
    ],
)
@pytest.mark.parametrize("command", ["train", "bench"])
def test_an_experiment_that_is_not_there_is_answered_by_what_is_like_it(
    here, capsys, command, given, message
):
    assert main([command, given]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("rllib: ")
    assert message in err
    assert err.count("\n") == 1
    assert out == ""


def test_the_experiment_of_a_run_directory_is_named(here):
    (here / "run").mkdir()
    (here / "run" / "config.yaml").write_text("x: 1")
    with pytest.raises(ConfigError, match="the experiment of this run is run/config.yaml"):
        experiment_file("run")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x: {run: PPO, env: E, stop: {}, stpo: {}}", "unknown key 'stpo' (did you mean 'stop'?)"),
        ("x: {run: PPO, env: E, stpo: {}}", "unknown key 'stpo' (did you mean 'stop'?)"),
        ("x: {run: PPO, env: E, stop: {}}\nstpo: {}", "(stpo belongs under the name of the experiment)"),
        (
            "x: {run: PPO, env: CartPole-v1, stop: {time_total_s: 1}, config: {model_config: {fcnet_hidens: [8]}}}",
            "config.model_config: unknown key 'fcnet_hidens' (did you mean 'fcnet_hiddens'?)",
        ),
    ],
)
def test_a_misspelt_key_is_named(here, capsys, text, message):
    (here / "x.yaml").write_text(text)
    assert main(["train", "x.yaml", "--dry-run"]) == 2
    assert message in capsys.readouterr().err


def test_an_experiment_is_given_once(here, capsys):
    assert main(["train", "mine.yaml", "--config", "minimal.yaml"]) == 2
    assert "--config: cannot go with 'mine.yaml'" in capsys.readouterr().err
    assert main(["train", "mine.yaml", "--run", "PPO", "--env", "CartPole-v1"]) == 2
    assert "--run: cannot go with an experiment file" in capsys.readouterr().err
    assert main(["train", "mine.yaml", "--stop", "training_iteration=1"]) == 2
    assert "(of an experiment file: --set stop.training_iteration=100)" in capsys.readouterr().err


# --- stop criteria -----------------------------------------------------------------------------------------------


def test_stop_criteria_are_pairs_or_json():
    pairs = stop_of(["training_iteration=3", "env_runners/episode_return_mean = 4.5e2"])
    assert pairs == {"training_iteration": 3, "env_runners/episode_return_mean": 450.0}
    assert stop_of(['{"training_iteration": 3}', "time_total_s=60"]) == {
        "training_iteration": 3,
        "time_total_s": 60,
    }
    assert stop_of([]) == {}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["x"], "--stop: expected KEY=VALUE such as training_iteration=100, or a JSON object, got 'x'"),
        (["training_iteration="], "--stop: expected KEY=VALUE"),
        (["=3"], "--stop: expected KEY=VALUE"),
        (["[1]"], "--stop: expected a JSON object"),
        (["{x"], "--stop: not valid JSON"),
        (["training_iteration=1", '{"training_iteration": 2}'], "'training_iteration' stands there twice"),
        (["training_iteration=many"], "stop.training_iteration: expected a number, got 'many'"),
        (["training_iterations=1"], "(did you mean 'training_iteration'?)"),
    ],
)
def test_bad_stop_criteria_are_named(here, capsys, texts, message):
    options = [part for text in texts for part in ("--stop", text)]
    assert main([*CARTPOLE, *options, "--dry-run"]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


# --- whose command this is ---------------------------------------------------------------------------------------


def test_versions_are_those_of_the_metadata(monkeypatch):
    name = distribution.distribution_name()
    assert name is not None
    assert qio_envs.__version__ == qio_rllib.__version__ == distribution.version() != "unknown"
    assert distribution.install_command("rllib") == f"pip install '{name}[rllib]'"
    monkeypatch.setattr(distribution.metadata, "packages_distributions", dict)
    distribution.distribution_name.cache_clear()
    try:  # a source tree that was never installed
        assert qio_envs.__version__ == "unknown"
        assert distribution.install_command("rllib") == "pip install '.[rllib]'"
    finally:
        distribution.distribution_name.cache_clear()
    for package in (qio_envs, qio_rllib):
        with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'versions'"):
            _ = package.versions


def test_help_and_version_say_whose_command_this_is(capsys):
    assert main(["--version"]) == 0
    assert f" {qio_envs.__version__}: QIO's rllib command, for Ray 2." in capsys.readouterr().out
    assert main(["--help"]) == 0
    assert "This command is QIO's" in " ".join(capsys.readouterr().out.split())


def distribution_of(folder: Path, name: str, command: str) -> None:
    """Make what pip leaves of a distribution with a console script."""
    info = folder / f"{name}-99.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 99.1\n")
    (info / "entry_points.txt").write_text(f"[console_scripts]\n{command}\n")


@pytest.mark.parametrize(
    ("name", "command", "status"),
    [
        ("ray", "rllib = ray.rllib.scripts:cli", 2),
        ("ray", "tune = ray.tune:cli", 0),
        ("another", "rllib = another:cli", 0),
    ],
)
def test_the_command_steps_aside_for_one_of_rays_own(tmp_path, name, command, status):
    distribution_of(tmp_path, name, command)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", str(ROOT))])
    code = "import sys; from qio_rllib.cli import console_script; sys.exit(console_script())"
    ours = [(["-m", "qio_rllib.cli"], 0)] if status else []
    for start, expected in ((["-c", code], status), *ours):
        done = subprocess.run(
            [sys.executable, *start, "--version"],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert done.returncode == expected, done.stderr
        if expected:
            assert done.stderr.count("\n") == 1
            assert "Ray 99.1 has a command 'rllib' of its own" in done.stderr
            assert "'python -m qio_rllib.cli' for QIO's" in done.stderr
            assert """'python -c "from ray.rllib.scripts import cli; cli()"' for Ray's""" in done.stderr
            assert done.stdout == ""
        else:
            assert "QIO's rllib command" in done.stdout
