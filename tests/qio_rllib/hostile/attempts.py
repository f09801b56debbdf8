"""Attempts to run code, and how they show: `MARK` is a file that each of them would make."""

from pathlib import Path

from qio_rllib.artifacts.yaml_files import yaml_text
from qio_rllib.cli import main

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


def experiment(run="PPO", env="CartPole-v1", name="x", **config):
    entry = {"run": run, "env": env, "stop": {"training_iteration": 1}, "config": {**SMALL, **config}}
    return yaml_text({name: entry})
