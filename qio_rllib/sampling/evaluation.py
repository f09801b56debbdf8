"""Evaluation on fixed seeds: the same function scores a policy during training, after it, and from a checkpoint.

An episode is a pure function of (policy, environment, seed, greedy or sampled), and all episodes run in lockstep, so
that the same seeds in the same order give the logged numbers again, bit for bit on the same machine.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from pettingzoo import ParallelEnv
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.utils.metrics import EVALUATION_RESULTS
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from qio_envs.api import ConfigError
from qio_rllib.acting.communication import Communication
from qio_rllib.acting.policy import ActionSpec, Policy, PolicyModule
from qio_rllib.sampling.environments import describe_env, make_env
from qio_rllib.sampling.vector_env import numbers_of

FIRST_EVALUATION_SEED = 1_000_000
"""Evaluation seeds count up from here, away from the seeds that training is likely to use."""


def evaluation_seeds(episodes: int) -> list[int]:
    """Return the seeds that an evaluation of so many episodes uses."""
    return list(range(FIRST_EVALUATION_SEED, FIRST_EVALUATION_SEED + episodes))


def evaluate(
    policy: Policy, env_id: str, env_config: Mapping[str, Any], seeds: Sequence[int], explore: bool
) -> list[dict[str, Any]]:
    """Play one episode per seed.

    Args:
        policy: What acts.
        env_id: As for `make_env`.
        env_config: Likewise.
        seeds: One per episode; they seed the environment and the sampling.
        explore: Sample from the policy (True) or take its most probable actions (False).

    Returns:
        One row per episode: ``seed``, ``episode_return`` (sum over agents and steps of the rewards),
        ``episode_length`` (environment steps), and the numbers of the last info.
    """
    envs = [_Episode(make_env(env_id, env_config), seed) for seed in seeds]
    try:
        while True:
            running = [env for env in envs if env.observations]
            if not running:
                return [env.row for env in envs]
            actions = policy.act_in([(env.observations, env.rng) for env in running], explore)
            for env, chosen in zip(running, actions, strict=True):
                env.step(chosen)
    finally:
        for env in envs:
            env.env.close()


def mean_scores(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Average every number over episodes, except the seed; ``steps_to_*`` over the episodes that got there."""
    means = {}
    for key in rows[0]:
        values = [
            row[key] for row in rows if key in row and not (key.startswith("steps_to_") and row[key] < 0)
        ]
        if key != "seed" and values:
            means[key] = float(np.mean(values))
    return means


def evaluate_algorithm(algorithm: Any, eval_env_runner_group: Any = None) -> tuple[dict[str, Any], int, int]:
    """Score an Algorithm's policy, greedy and sampled: RLlib's ``custom_evaluation_function``.

    The number of episodes is the config's ``evaluation_duration``; scores lie under ``greedy`` and ``sampled``. They
    are merged into the Algorithm's metrics here, because RLlib drops what such a function returns.
    """
    config = algorithm.config
    modules = algorithm.env_runner.module
    policy = policy_from_modules(
        dict(modules.items()) if isinstance(modules, MultiRLModule) else {"default_policy": modules}, config
    )
    seeds = evaluation_seeds(config.evaluation_duration)
    scores, steps, agents = {}, 0, len(policy.module_of)
    for name, explore in (("greedy", False), ("sampled", True)):
        rows = evaluate(policy, config.env, config.env_config, seeds, explore)
        scores[name] = mean_scores(rows)
        steps += sum(row["episode_length"] for row in rows)
    logger = (
        MetricsLogger()
    )  # the Algorithm reports of an evaluation only what was merged into its own logger
    logger.log_dict(scores, window=1)
    algorithm.metrics.aggregate([logger.reduce(compile=False)], key=EVALUATION_RESULTS)
    return scores, steps, steps * agents


def policy_from_modules(modules: Mapping[str, RLModule], config: Any) -> Policy:
    """Return a `Policy` over RLModules and the AlgorithmConfig that they were trained with.

    Raises:
        ConfigError: A recurrent module, or spaces that `Policy` does not support.
    """
    description = describe_env(config.env, config.env_config)
    if description.multi_agent:
        module_of = {agent: config.policy_mapping_fn(agent, None) for agent in description.agents}
    else:
        module_of = {None: "default_policy"}
    radio = Communication.of(config.model_config.get("communication"))
    parts = {}
    for agent, module_id in module_of.items():
        module = modules[module_id].unwrapped()
        if module.is_stateful():
            raise ConfigError(
                "model_config: recurrent policies (use_lstm) cannot be evaluated on fixed seeds"
            )
        amplification = None
        if getattr(module, "is_amplified", False):
            amplification = dataclasses.replace(
                module.amplification,
                eta=float(module.eta),
                h_min=float(module.h_min),
                tau=float(module.tau),
            )
        action = ActionSpec.of(description.action_spaces[agent], config.normalize_actions)
        parts[module_id] = PolicyModule(
            _Network(module),
            action,
            amplification,
            None if radio is None else _Speaker(module),
            getattr(module, "samples_only", False),
        )
    return Policy(parts, module_of, config.env, dict(config.env_config), radio)


def load_policy_from_checkpoint(path: str | Path) -> Policy:
    """Return the policy of an Algorithm's checkpoint; no Ray runtime is started.

    Raises:
        ConfigError: The checkpoint is missing or damaged.
    """
    path = Path(path)
    config = _checkpoint_config(path)
    try:
        modules = MultiRLModule.from_checkpoint(path.resolve() / "learner_group" / "learner" / "rl_module")
    except Exception as error:  # whatever a damaged file makes torch, pickle or RLlib raise
        raise ConfigError(f"checkpoint: {path} is damaged ({type(error).__name__}: {error})") from error
    return policy_from_modules(dict(modules.items()), config)


def checkpoint_experiment(path: str | Path) -> dict[str, Any]:
    """Return what a checkpoint was trained on: ``env``, ``env_config``, and ``evaluation_seeds``.

    Raises:
        ConfigError: The checkpoint is missing or damaged.
    """
    config = _checkpoint_config(Path(path))
    return {
        "env": config.env,
        "env_config": dict(config.env_config),
        "evaluation_seeds": evaluation_seeds(config.evaluation_duration),
    }


class _Network(torch.nn.Module):
    """The part of an RLModule that maps observations to distribution inputs, before mask and operator."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = _for_acting(module)
        shape = getattr(module, "input_shape", module.observation_space.shape)
        self.example_observations = torch.zeros((2, *shape))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        if hasattr(self.module, "policy_logits"):
            return self.module.policy_logits(observations)
        return self.module._forward({Columns.OBS: observations})[Columns.ACTION_DIST_INPUTS]


def _for_acting(module: Any) -> Any:
    """Return the module without the parts that only training needs, so that policy files do not carry a critic."""
    unused: list[str] = getattr(module, "get_non_inference_attributes", list)()
    bare = copy.copy(module)
    bare._modules = {name: part for name, part in module._modules.items() if name not in unused}
    return bare


class _Speaker(torch.nn.Module):
    """The part of an RLModule that maps observations to messages."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.speaker = module.speaker
        self.example_observations = torch.zeros((2, *module.observation_space.shape))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return self.speaker(observations)


class _Episode:
    """One environment on its way through an episode."""

    def __init__(self, env: Any, seed: int) -> None:
        self.env = env
        self.multi_agent = isinstance(env, ParallelEnv)
        self.rng = np.random.Generator(np.random.Philox(key=seed))
        observations, _ = env.reset(seed=seed)
        self.observations: dict[Any, Any] = observations if self.multi_agent else {None: observations}
        self.row: dict[str, Any] = {"seed": seed, "episode_return": 0.0, "episode_length": 0}

    def step(self, actions: dict[Any, Any]) -> None:
        if self.multi_agent:
            observations, rewards, _, _, infos = self.env.step(actions)
            living = set(self.env.agents)
            info: dict[str, Any] = next(iter(infos.values()), {})
            reward = sum(float(value) for value in rewards.values())
        else:
            observation, reward, terminated, truncated, info = self.env.step(actions[None])
            observations, living = {None: observation}, set() if terminated or truncated else {None}
        self.row["episode_return"] += float(reward)
        self.row["episode_length"] += 1
        self.observations = {agent: value for agent, value in observations.items() if agent in living}
        if not living:
            self.row |= numbers_of(info)


def _checkpoint_config(path: Path) -> Any:
    """Read the AlgorithmConfig's settings out of a checkpoint."""
    if not path.exists():
        raise ConfigError(f"checkpoint: there is no {path}")
    if not (path / "rllib_checkpoint.json").is_file():
        raise ConfigError(
            f"checkpoint: {path} is no checkpoint of an RLlib algorithm (rllib_checkpoint.json is missing)"
        )
    try:
        json.loads((path / "rllib_checkpoint.json").read_text())
        with open(path / "class_and_ctor_args.pkl", "rb") as file:
            args, kwargs = pickle.load(file)["ctor_args_and_kwargs"]
        config = args[0] if args else kwargs["config"]
        settings = config if isinstance(config, dict) else config.to_dict()
        needed = ("env", "env_config", "policy_mapping_fn", "normalize_actions", "evaluation_duration")
        model_config = settings["_model_config"]
        return SimpleNamespace(
            **{name: settings[name] for name in needed},
            model_config=model_config if isinstance(model_config, dict) else {},
        )
    except Exception as error:  # whatever a damaged pickle raises
        raise ConfigError(f"checkpoint: {path} is damaged ({type(error).__name__}: {error})") from error
