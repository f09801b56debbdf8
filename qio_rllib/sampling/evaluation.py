"""Evaluation on fixed seeds: the same function scores a policy during training, after it, and from a checkpoint.

An episode is a pure function of (policy, environment, seed, greedy or sampled), and all episodes run at once, so that
the same seeds in the same order give the logged numbers again, bit for bit on the same machine.
"""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.utils.metrics import EVALUATION_RESULTS
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from qio_envs.api import ConfigError
from qio_rllib.acting.actor import Acted, NetworkActor
from qio_rllib.acting.policy import EpisodeStreams, GroupSpaces, Policy
from qio_rllib.acting.team import Team
from qio_rllib.sampling.environments import make_vector_env
from qio_rllib.sampling.episodes import BITS_SENT
from qio_rllib.sampling.groups import groups_of, team_of
from qio_rllib.sampling.manifest import METADATA, verify
from qio_rllib.sampling.stepper import EnvStepper, one_thread
from qio_rllib.sampling.vector_env import Array, VectorEnv

FIRST_EVALUATION_SEED = 1_000_000
"""Evaluation seeds count up from here, away from the seeds that training is likely to use."""
MAX_EPISODE_STEPS = 10_000
"""Steps after which an episode of an environment that is not known to end is left."""

_MODULES = "learner_group/learner/rl_module"
_LEARNER_STATE = "learner_group/learner/state.pkl"
_CONFIG = "class_and_ctor_args.pkl"


def evaluation_seeds(episodes: int) -> list[int]:
    """Return the seeds that an evaluation of so many episodes uses."""
    return list(range(FIRST_EVALUATION_SEED, FIRST_EVALUATION_SEED + episodes))


def evaluate(
    policy: Policy,
    env_id: str,
    env_config: Mapping[str, Any],
    seeds: Sequence[int],
    explore: bool,
    max_steps: int | None = None,
) -> list[dict[str, Any]]:
    """Play one episode per seed.

    Args:
        policy: What acts.
        env_id: As for `make_vector_env`.
        env_config: Likewise.
        seeds: One per episode; they seed the environment and the sampling.
        explore: Sample from the policy (True) or take its most probable actions (False).
        max_steps: As for `play_episodes`.

    Returns:
        One row per episode, see `play_episodes`.

    Raises:
        ConfigError: As `team_in`.
    """
    env = make_vector_env(env_id, dict(env_config), len(seeds))
    try:
        return play_episodes(team_in(policy, env_id, env), env, seeds, explore, max_steps=max_steps)
    finally:
        env.close()


def team_in(policy: Policy, env_id: str, env: VectorEnv) -> Team:
    """Return the team of a policy for the agents of an environment.

    Raises:
        ConfigError: There are agents that the training did not have, and the policy cannot act for them.
    """
    if not policy.module_of.keys() >= set(env.agents):
        policy.check_spaces(env_id, env.observation_spaces, env.action_spaces)
    return policy.team_for(env.agents)


def step_cap(env: VectorEnv, max_steps: int | None, otherwise: int | None = None) -> int | None:
    """Return after how many steps episodes are left; None for environments that are known to end.

    Args:
        env: The environments.
        max_steps: What was asked for; it holds for any environment.
        otherwise: For environments that are not known to end; `MAX_EPISODE_STEPS` when absent.
    """
    if max_steps is not None or env.has_time_limit:
        return max_steps
    return MAX_EPISODE_STEPS if otherwise is None else otherwise


def play_episodes(
    team: Team,
    env: VectorEnv,
    seeds: Sequence[int],
    explore: bool,
    watch: Callable[[], None] | None = None,
    max_steps: int | None = None,
    hear: Callable[[Array], None] | None = None,
    earn: Callable[[Array], None] | None = None,
) -> list[dict[str, Any]]:
    """Play one episode in each environment.

    Args:
        team: Who acts.
        env: As many environments as seeds.
        seeds: They seed the environments and the draws of the team.
        explore: As for `Team.act`.
        watch: Called after the reset and after each step.
        max_steps: Steps after which episodes are left, at least 1; by default `MAX_EPISODE_STEPS` in environments that
            are not known to end, and no such number in others.
        hear: Is given what agents of a team with communication tell each other, float32 ``[E, N, B]``: zeros before the
            reset, then in each step before the environments take it.
        earn: Is given what agents earn in each step, float32 ``[E, N]``; zeros where the episode has ended.

    Returns:
        One row per episode: ``seed``, ``episode_return`` (sum over agents and steps of the rewards), ``episode_length``
        (environment steps), and the numbers of the last info; of those that each agent has, the mean over agents. Where
        agents talk, ``bits_sent``: the bits that they sent, per agent and step in which it acted. Where an episode was
        left before its end, all rows have ``cut``: 1 for such an episode, 0 for one that ended.
    """
    max_steps = step_cap(env, max_steps)
    count = 0
    rng = EpisodeStreams(seeds)
    stepper = EnvStepper(env, team)
    rows: list[dict[str, Any]] = [
        {"seed": seed, "episode_return": 0.0, "episode_length": 0} for seed in seeds
    ]
    running = np.ones(len(seeds), bool)
    spoken, acting = np.zeros(len(seeds)), np.zeros(len(seeds))  # bits, and steps that agents acted in

    def told(acted: list[Acted]) -> list[Acted]:
        messages = team.messages(acted)
        assert messages is not None
        assert hear is not None
        hear(messages)
        return acted

    replace = None
    if hear is not None and team.communication is not None:
        replace = told
        hear(np.zeros((len(seeds), team.num_agents, team.communication.size), np.float32))
    with one_thread():
        stepper.reset(np.array(seeds, np.uint64))
        if watch is not None:
            watch()
        while True:
            step = stepper.step(rng, explore, replace=replace)
            bits = team.bits_sent(step.acted)
            if bits is not None:
                spoken += bits.sum(axis=1) * running
                acting += step.alive.sum(axis=1) * running
            gains = step.rewards.sum(axis=1, dtype=np.float64)
            if earn is not None:
                earn(step.rewards * running[:, None])
            for e in np.flatnonzero(running).tolist():
                rows[e]["episode_return"] += float(gains[e])
                rows[e]["episode_length"] += 1
            for e in np.flatnonzero(running & step.over).tolist():
                rows[e] |= env.info(e)
            running &= ~step.over
            if watch is not None:
                watch()
            count += 1
            if team.communication is not None and (not running.any() or count == max_steps):
                for row, rate in zip(rows, (spoken / acting).tolist(), strict=True):
                    row[BITS_SENT] = rate
            if not running.any():
                return rows
            if count == max_steps:
                for e, is_cut in enumerate(running.tolist()):
                    rows[e] |= env.info(e) if is_cut else {}
                    rows[e]["cut"] = int(is_cut)
                return rows
            if step.over.any():
                env.retire(step.over)
            stepper.advance(step)


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


def cut_text(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Return how many episodes were left before their end, and when, in words; None where all ended."""
    cut = [row for row in rows if row.get("cut")]
    if not cut:
        return None
    return cut_in_words(len(cut), len(rows), cut[0]["episode_length"])


def cut_in_words(cut: int, episodes: int, steps: int) -> str:
    """Return in words that some of the episodes were left after so many steps."""
    return f"{cut} of {episodes} episodes were cut after {steps:,} steps, before their end"


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
    scores, steps, agents = {}, 0, policy.team.num_agents
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
        ConfigError: Modules or spaces that no Actor is made for.
    """
    env = make_vector_env(config.env, dict(config.env_config), 1)
    try:
        groups = groups_of(env, config)
        team = team_of(env, groups, modules, config)
        spaces = {}
        for module_id, members in groups.items():
            agent = env.agents[members[0]]
            spaces[module_id] = GroupSpaces.of(env.observation_spaces[agent], env.action_spaces[agent])
    finally:
        env.close()
    for group in team.groups:
        if isinstance(group.actor, NetworkActor):
            group.actor.value = None  # only learners need the memory of the value network
            group.actor.memory.pop("value", None)
    return Policy(team, spaces, config.env, dict(config.env_config))


def load_policy_from_checkpoint(path: str | Path) -> Policy:
    """Return the policy of an Algorithm's checkpoint; no Ray runtime is started.

    Raises:
        ConfigError: The checkpoint is missing or damaged.
    """
    config = checkpoint_config(path)
    return policy_from_modules(modules_from_checkpoint(path), config)


def modules_from_checkpoint(path: str | Path) -> dict[str, RLModule]:
    """Return the RLModules of an Algorithm's checkpoint by id, with what only training needs.

    Raises:
        ConfigError: The checkpoint is damaged.
    """
    path = Path(path)
    verify(str(path.resolve()), _MODULES)
    try:
        modules = MultiRLModule.from_checkpoint(path.resolve() / _MODULES)
    except Exception as error:  # whatever a damaged file makes torch, pickle or RLlib raise
        raise ConfigError(f"checkpoint: {path} is damaged ({type(error).__name__}: {error})") from error
    return dict(modules.items())


def learner_state_from_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return the state of an Algorithm's Learner in its checkpoint, without the modules.

    Raises:
        ConfigError: The checkpoint is damaged.
    """
    verify(str(Path(path).resolve()), _LEARNER_STATE)
    try:
        with open(Path(path) / _LEARNER_STATE, "rb") as file:
            return pickle.load(file)
    except Exception as error:  # whatever a damaged pickle raises
        raise ConfigError(f"checkpoint: {path} is damaged ({type(error).__name__}: {error})") from error


def checkpoint_experiment(path: str | Path) -> dict[str, Any]:
    """Return what a checkpoint was trained on: ``env``, ``env_config``, and ``evaluation_seeds``.

    Raises:
        ConfigError: The checkpoint is missing or damaged.
    """
    config = checkpoint_config(path)
    return {
        "env": config.env,
        "env_config": dict(config.env_config),
        "evaluation_seeds": evaluation_seeds(config.evaluation_duration),
    }


def checkpoint_config(path: str | Path) -> Any:
    """Return what is needed of the AlgorithmConfig's settings in a checkpoint, as an object with their names.

    Raises:
        ConfigError: The checkpoint is missing or damaged.
    """
    path = Path(path)
    if not path.exists():
        raise ConfigError(f"checkpoint: there is no {path}")
    if not (path / METADATA).is_file():
        raise ConfigError(
            f"checkpoint: {path} is no checkpoint of an RLlib algorithm ({METADATA} is missing)"
        )
    verify(str(path.resolve()), METADATA, _CONFIG)
    try:
        json.loads((path / METADATA).read_text())
        with open(path / _CONFIG, "rb") as file:
            (settings,), _ = pickle.load(file)["ctor_args_and_kwargs"]  # of `AlgorithmConfig.get_state`
        needed = (
            "env",
            "env_config",
            "policy_mapping_fn",
            "policies",
            "normalize_actions",
            "evaluation_duration",
            "gamma",
        )
        model_config = settings["_model_config"]
        return SimpleNamespace(
            **{name: settings[name] for name in needed},
            lambda_=settings.get("lambda_"),
            bootstrap_at_time_limit=settings.get("bootstrap_at_time_limit", True),
            reward_scale=settings.get("reward_scale", 1.0),  # of algorithms that learn Q-values
            is_multi_agent=set(settings["policies"]) != {"default_policy"},
            model_config=model_config if isinstance(model_config, dict) else dataclasses.asdict(model_config),
        )
    except Exception as error:  # whatever a damaged pickle raises
        raise ConfigError(f"checkpoint: {path} is damaged ({type(error).__name__}: {error})") from error
