"""``initial_weights``: a training that begins with the weights of an earlier one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE

from qio_envs.api import ConfigError
from qio_rllib.artifacts.kept_checkpoints import final_checkpoint
from qio_rllib.artifacts.run_directory import RUN_FILE
from qio_rllib.sampling.evaluation import modules_from_checkpoint
from qio_rllib.sampling.manifest import METADATA

INITIAL_WEIGHTS = "initial_weights"


def weights_checkpoint(path: str) -> Path:
    """Return the checkpoint that ``initial_weights`` names: itself, or the last one of a run. Nothing of it is loaded.

    Raises:
        ConfigError: There is none.
    """
    try:
        found = final_checkpoint(path) if (Path(path) / RUN_FILE).is_file() else Path(path)
    except ConfigError as error:
        raise ConfigError(f"{INITIAL_WEIGHTS}: {error}") from error
    if not (found / METADATA).is_file():
        raise ConfigError(f"{INITIAL_WEIGHTS}: {path} is neither a run with a checkpoint nor a checkpoint")
    return found


def take_initial_weights(algorithm: Any, path: str) -> None:
    """Give an Algorithm's modules the weights of a checkpoint, critics and targets included.

    Args:
        algorithm: One that has just been built.
        path: As for `weights_checkpoint`. Its modules are pickles: loading them runs what is in them.

    Raises:
        ConfigError: As `weights_checkpoint`; or other modules, or other networks in one.
    """
    group = algorithm.learner_group
    given = modules_from_checkpoint(weights_checkpoint(path))
    present = group.get_state(components=f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}")
    wanted = present[COMPONENT_LEARNER][COMPONENT_RL_MODULE]
    if given.keys() != wanted.keys():
        raise ConfigError(
            f"{INITIAL_WEIGHTS}: {path} has the modules {', '.join(sorted(given))}, expected "
            f"{', '.join(sorted(wanted))}"
        )
    states = {module_id: module.get_state() for module_id, module in given.items()}
    for module_id, expected in wanted.items():
        there, here = _shapes(states[module_id]), _shapes(expected)
        for name in [*here, *there]:
            if there.get(name) != here.get(name):
                raise ConfigError(
                    f"{INITIAL_WEIGHTS}: {path}: another network in {module_id}: {name} is "
                    f"{there.get(name, 'missing')}, expected {here.get(name, 'none')}"
                )
    group.set_state({COMPONENT_LEARNER: {COMPONENT_RL_MODULE: states}})
    for runners in (algorithm.env_runner_group, algorithm.eval_env_runner_group):
        if runners is not None:
            runners.sync_weights(from_worker_or_learner_group=group, inference_only=True)


def _shapes(state: Any) -> dict[str, str]:
    """Return the shapes of a module's arrays by name, as messages show them."""
    return {name: json.dumps(list(np.shape(array))) for name, array in state.items()}
