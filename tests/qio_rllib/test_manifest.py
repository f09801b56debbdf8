"""Damage to a checkpoint is seen before anything is loaded, wherever it is loaded."""

import json
import shutil

import numpy as np
import pyarrow.fs
import pytest
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.ppo import PPOConfig as StockPPOConfig

from qio_envs.api import ConfigError
from qio_rllib.algorithms import DQNConfig
from qio_rllib.cli import main
from qio_rllib.experiments.credit import Subject
from qio_rllib.sampling.evaluation import load_policy_from_checkpoint
from qio_rllib.sampling.manifest import MANIFEST, METADATA, verify

MODULE = "learner_group/learner/rl_module/default_policy"


def algorithm_of(config_class, **training):
    return (
        config_class()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=0)
        .training(**training)
        .rl_module(model_config={"fcnet_hiddens": [8]})
        .debugging(seed=0)
        .build_algo()
    )


@pytest.fixture(scope="module")
def saved(ray_runtime, tmp_path_factory):
    """A checkpoint of an off-policy algorithm, replay included, and its Algorithm."""
    algorithm = algorithm_of(
        DQNConfig,
        train_batch_size_per_learner=8,
        num_steps_sampled_before_learning_starts=20,
        replay_capacity=200,
    )
    algorithm.train()
    path = tmp_path_factory.mktemp("saved") / "checkpoint"
    algorithm.save_to_path(str(path))
    yield path, algorithm
    algorithm.stop()


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved[0], tmp_path / "copy")


def files_of(path):
    return sorted(str(one.relative_to(path)) for one in path.rglob("*") if one.is_file())


def flip(path, place, bit=0):
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 1 << bit
    path.write_bytes(data)


pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_runtime")]


def test_every_file_is_in_the_manifest(saved):
    path, _ = saved
    listed = json.loads((path / MANIFEST).read_text())["files"]
    assert sorted([*listed, MANIFEST]) == files_of(path)
    assert {"replay/state.pkl", f"{MODULE}/module_state.pkl", "class_and_ctor_args.pkl"} <= set(listed)
    verify(str(path))


def test_a_flipped_bit_is_found_in_every_file(saved, copy):
    rng = np.random.default_rng(0)
    for name in files_of(copy):
        whole = (copy / name).read_bytes()
        for place, bit in zip(rng.integers(len(whole), size=3), rng.integers(8, size=3), strict=True):
            flip(copy / name, int(place), int(bit))
            with pytest.raises(
                ConfigError, match=rf"^checkpoint: {copy} is damaged: {name} is not what was written"
            ):
                verify(str(copy))
            (copy / name).write_bytes(whole)
    verify(str(copy))


def test_no_flipped_bit_reaches_a_restored_algorithm(saved, copy):
    """Nothing of the Algorithm changes before the whole checkpoint was compared."""
    _, algorithm = saved
    before = algorithm.get_state()
    for name in ("replay/state.pkl", "learner_group/learner/state.pkl", "env_runner/state.pkl", MANIFEST):
        whole = (copy / name).read_bytes()
        flip(copy / name, len(whole) // 2)
        for load in (algorithm.restore_from_path, type(algorithm).from_checkpoint, Algorithm.from_checkpoint):
            with pytest.raises(ConfigError, match=f"is damaged: {name} is not what was written"):
                load(str(copy))
        (copy / name).write_bytes(whole)
    assert str(algorithm.get_state()) == str(before)
    flip(copy / "replay/state.pkl", 100)
    with pytest.raises(ConfigError, match=r"replay/state.pkl is not what was written"):
        algorithm.restore(str(copy))  # as Tune does
    flip(copy / "replay/state.pkl", 100)
    algorithm.restore_from_path(str(copy))


def test_a_part_that_is_restored_alone_is_compared(saved, copy):
    _, algorithm = saved
    component = "learner_group/learner/rl_module"
    flip(copy / "replay/state.pkl", 100)
    algorithm.restore_from_path(str(copy / component), component=component)
    flip(copy / MODULE / "module_state.pkl", 100)
    with pytest.raises(ConfigError, match="module_state.pkl is not what was written"):
        algorithm.restore_from_path(str(copy / component), component=component)


@pytest.mark.parametrize("name", [METADATA, "class_and_ctor_args.pkl", f"{MODULE}/module_state.pkl"])
def test_damage_is_named_where_a_policy_is_loaded(copy, name, capsys):
    flip(copy / name, 50)
    for load in (load_policy_from_checkpoint, Subject.of_checkpoint):
        with pytest.raises(ConfigError, match=f"is damaged: {name} is not what was written"):
            load(copy)
    assert main(["evaluate", str(copy)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "note: " not in line]
    assert name in line


def test_a_critic_is_compared_where_credit_reads_it(copy):
    flip(copy / "learner_group/learner/state.pkl", 50)
    load_policy_from_checkpoint(copy)  # reads the modules alone
    with pytest.raises(ConfigError, match="learner/state.pkl is not what was written"):
        Subject.of_checkpoint(copy)


def test_what_was_cut_off_is_named(copy):
    name = f"{MODULE}/module_state.pkl"
    whole = (copy / name).read_bytes()
    (copy / name).write_bytes(whole[:-1])
    with pytest.raises(ConfigError, match=rf"{name} has {len(whole) - 1:,} bytes of {len(whole):,}"):
        verify(str(copy))
    (copy / name).unlink()
    with pytest.raises(ConfigError, match=rf"{name} is missing"):
        verify(str(copy))
    (copy / MANIFEST).write_text("{")
    with pytest.raises(ConfigError, match=rf"{MANIFEST} is not what was written"):
        verify(str(copy))
    (copy / MANIFEST).unlink()
    with pytest.raises(ConfigError, match=rf"{MANIFEST} is missing, its writing or copying was cut off"):
        load_policy_from_checkpoint(copy)


def test_the_manifest_comes_last(saved, tmp_path, monkeypatch):
    """A checkpoint whose writing ends early has none, also where an older one lay before."""
    _, algorithm = saved
    path = tmp_path / "checkpoint"
    algorithm.save_to_path(str(path))

    def fails(*arguments, **named):
        raise OSError("disk full")

    monkeypatch.setattr(algorithm.replay, "save_to_path", fails)
    with pytest.raises(OSError, match="disk full"):
        algorithm.save_to_path(str(path))
    assert not (path / MANIFEST).exists()
    with pytest.raises(ConfigError, match=f"{MANIFEST} is missing"):
        verify(str(path))


def test_a_checkpoint_of_rllib_itself_has_none_and_loads(tmp_path):
    config = StockPPOConfig().environment("CartPole-v1").env_runners(num_env_runners=0)
    algorithm = config.build_algo()
    path = algorithm.save_to_path(str(tmp_path / "stock"))
    algorithm.stop()
    verify(path)
    load_policy_from_checkpoint(path)


def test_other_file_systems_work_alike(saved, tmp_path):
    path, algorithm = saved
    folder = pyarrow.fs.SubTreeFileSystem(str(tmp_path), pyarrow.fs.LocalFileSystem())
    algorithm.save_to_path("there", filesystem=folder)
    assert files_of(tmp_path / "there") == files_of(path)
    algorithm.restore_from_path("there", filesystem=folder)
    flip(tmp_path / "there" / "replay" / "state.pkl", 50)
    with pytest.raises(ConfigError, match="there is damaged: replay/state.pkl is not what was written"):
        algorithm.restore_from_path("there", filesystem=folder)
