"""What several commands read from their options."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qio_envs.api import ConfigError, did_you_mean
from qio_rllib.artifacts.run_directory import POLICY_FILE, RUN_FILE
from qio_rllib.cli.output import note, relative

if TYPE_CHECKING:
    from qio_rllib.acting.policy import Policy
    from qio_rllib.experiments.experiment import Experiment

_EPISODES = 10  # of an evaluation of which nothing says how many; RLlib's default

OWN_RUNS = "runs"
"""Where ``rllib train`` keeps runs unless it is told otherwise, seen from the working directory."""

ExperimentFile = Annotated[
    str | None,
    typer.Argument(
        metavar="FILE|NAME", help="Experiment file (YAML), or the name of a ready one (rllib list)."
    ),
]

OtherEnv = Annotated[str | None, typer.Option(help="Another environment than that of the training.")]
OtherEnvConfig = Annotated[
    str | None,
    typer.Option(help="Its settings as a JSON object; of the training's environment, only what changes."),
]
MaxSteps = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Leave an episode after so many steps (default: 10,000 where the environment names no time limit).",
    ),
]
AllowImport = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-import",
        metavar="MODULE",
        help="Let environments that a file names import this module, whose code then runs. Repeatable.",
    ),
]


def one_experiment(argument: str | None, option: str | None) -> str | None:
    """Return the experiment that is given as an argument or behind ``--config``.

    Raises:
        ConfigError: Both are given.
    """
    if argument is not None and option is not None:
        raise ConfigError(f"--config: cannot go with '{argument}', which names an experiment too")
    return option if argument is None else argument


def experiment_of(
    config: str | None,
    run: str | None,
    env: str | None,
    stop: Sequence[str] | None,
    overrides: Sequence[str],
    seed: int | None,
    allow_import: Sequence[str] = (),
) -> Experiment:
    """Read the experiment from a file, or from the options that RLlib's old command had."""
    if seed is not None and sets_seed(overrides):
        raise ConfigError("--seed: cannot go with --set seed=...")
    is_json = config is not None and config.lstrip().startswith("{")
    if run is None:
        for option, value, instead in (
            ("--env", env, "env=..."),
            ("--stop", stop, "stop.training_iteration=100"),
            ("--config with JSON", config if is_json else None, "lr=1e-4"),
        ):
            if value:
                raise ConfigError(f"{option}: needs --run ALGORITHM (of an experiment file: --set {instead})")
        if config is None:
            raise ConfigError(
                "an experiment is needed: a file or the name of a ready one (rllib list), or --run and --env"
            )
        from qio_rllib.experiments.experiment import load_experiment

        return load_experiment(config, overrides, seed, allow_import)
    if config is not None and not is_json:
        raise ConfigError(
            "--run: cannot go with an experiment file, which names the algorithm (use --set run=...)"
        )
    if env is None:
        raise ConfigError("--env: --run needs an environment")
    entry: dict[str, Any] = {
        "run": run,
        "env": env,
        "stop": stop_of(stop or ()),
        "config": json_object("--config", config),
    }
    from qio_rllib.experiments.experiment import Experiment, apply_overrides

    name = f"{run}_{env}".replace("/", "_").replace(":", "_")
    return Experiment.from_mapping(apply_overrides(entry, overrides), name).with_seed(seed)


def stop_of(texts: Sequence[str]) -> dict[str, Any]:
    """Read stop criteria, each ``KEY=VALUE`` or a JSON object of several.

    Raises:
        ConfigError: Neither, or a key stands there twice.
    """
    from qio_rllib.artifacts.yaml_files import parse_yaml

    criteria: list[tuple[str, Any]] = []
    for text in texts:
        key, sign, value = (part.strip() for part in text.partition("="))
        if text.lstrip().startswith(("{", "[")):
            criteria += json_object("--stop", text).items()
        elif key and sign and value:
            criteria.append((key, parse_yaml(value, f"--stop {key}")))
        else:
            raise ConfigError(
                f"--stop: expected KEY=VALUE such as training_iteration=100, or a JSON object, got '{text}'"
            )
    return _without_repeats("--stop", criteria)


def sets_seed(overrides: Sequence[str]) -> bool:
    """Return whether ``--set`` changes the seed."""
    return any(text.partition("=")[0].strip() in ("seed", "config.seed") for text in overrides)


def json_object(option: str, text: str | None) -> dict[str, Any]:
    """Read an option's JSON object; empty without the option.

    Raises:
        ConfigError: It is none or too large, or a key stands there twice.
    """
    if text is None:
        return {}
    from qio_rllib.artifacts.yaml_files import check_size

    try:
        value = json.loads(text, object_pairs_hook=lambda pairs: _without_repeats(option, pairs))
    except ConfigError:
        raise
    except (ValueError, RecursionError) as error:  # an integer of too many digits is a ValueError too
        raise ConfigError(f"{option}: not valid JSON: {error}") from error
    check_size(value, option)
    if not isinstance(value, dict):
        raise ConfigError(f"{option}: expected a JSON object, got {text}")
    return value


def _without_repeats(option: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ConfigError(f"{option}: the key '{key}' stands there twice")
        values[key] = value
    return values


def modes_of(greedy: bool, sampled: bool) -> list[str]:
    """Return how actions are chosen, of ``greedy`` and ``sampled``; without options, both ways."""
    if greedy and sampled:
        raise ConfigError("--greedy: cannot go with --sampled")
    return ["greedy"] if greedy else ["sampled"] if sampled else ["greedy", "sampled"]


def seeds_of(text: str | None) -> list[int] | None:
    """Read ``--seeds``, such as ``0-4`` or ``1,3,7-9``; None without the option."""
    if text is None:
        return None
    from qio_rllib.experiments.seeds import parse_seeds

    return parse_seeds(text, "--seeds")


def load_policy_of(path: Path, allow_import: Sequence[str] = ()) -> tuple[Policy, list[int]]:
    """Return the policy of a checkpoint, run directory or policy file, and its evaluation seeds.

    Of a run whose checkpoints are gone it is that of the policy file which the run has left.

    Args:
        path: Where it lies, or ``policy:NAME``.
        allow_import: Modules that the environment which a policy file names may import.
    """
    from qio_rllib.artifacts.policy_file import load_policy
    from qio_rllib.artifacts.pretrained import PREFIX, card_of
    from qio_rllib.sampling.evaluation import (
        checkpoint_experiment,
        evaluation_seeds,
        load_policy_from_checkpoint,
    )

    if str(path).startswith(PREFIX):
        return load_policy(path), evaluation_seeds(card_of(str(path)).episodes)
    if path.is_file():
        return load_policy(path, allow_import), evaluation_seeds(_EPISODES)
    if (path / RUN_FILE).is_file() and not _has_checkpoint(path) and (path / POLICY_FILE).is_file():
        note(f"{relative(path)} has no checkpoint any more; its {POLICY_FILE} acts")
        return load_policy(path / POLICY_FILE, allow_import), evaluation_seeds(_evaluation_duration(path))
    path = checkpoint_of(path)
    return load_policy_from_checkpoint(path), checkpoint_experiment(path)["evaluation_seeds"]


def checkpoint_of(path: Path) -> Path:
    """Return a checkpoint as it is, of a run directory the last one; say so of one that is not the user's own."""
    note_foreign_code(path)
    if not (path / RUN_FILE).is_file():
        runs = runs_in(path)
        if runs:
            raise ConfigError(
                f"{relative(path)}: a folder with runs, expected one of them, such as {relative(runs[-1])}"
            )
        return path
    from qio_rllib.artifacts.kept_checkpoints import final_checkpoint

    return final_checkpoint(path)


def _has_checkpoint(run: Path) -> bool:
    """Return whether a run has its last checkpoint."""
    from qio_rllib.artifacts.kept_checkpoints import final_checkpoint
    from qio_rllib.artifacts.run_directory import RunDirectory

    RunDirectory.open(run)  # a damaged one says so
    try:
        return final_checkpoint(run).is_dir()
    except ConfigError:
        return False


def _evaluation_duration(run: Path) -> int:
    """Return how many episodes the evaluations of a run have.

    Raises:
        ConfigError: Its ``config.yaml`` holds something that cannot be used.
    """
    from qio_rllib.algorithms import algorithm_config_class
    from qio_rllib.artifacts.run_directory import RunDirectory
    from qio_rllib.experiments.experiment import load_experiment

    experiment = load_experiment(RunDirectory.open(run).config_file, allow_import=None)
    given = experiment.config.get("evaluation_duration", _EPISODES)
    algorithm_config_class(experiment.algorithm)().settings().checked("evaluation_duration", given)
    return given if isinstance(given, int) else _EPISODES  # a search space is no number


def runs_in(folder: Path) -> list[Path]:
    """Return the run directories in a folder of runs, of one experiment or of several; the newest is the last."""
    found = []
    for file in (*folder.glob(f"*/{RUN_FILE}"), *folder.glob(f"*/*/{RUN_FILE}")):
        try:
            started = json.loads(file.read_text(encoding="utf-8"))["start_time"]
            time = datetime.datetime.fromisoformat(started).timestamp()
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            OverflowError,
            RecursionError,
        ):  # one that is being made, or damaged
            continue
        if not file.parent.name.startswith("."):
            found.append((time, file.stat().st_mtime, file.parent))
    return [path for *_, path in sorted(found)]


def chosen_policies(given: Sequence[Path], latest: bool) -> list[Path]:
    """Return what is given, or the newest run: of ``runs``, or of the folder that is given.

    Raises:
        ConfigError: Nothing is given, or there is no run, or more than one folder.
    """
    if not latest:
        if not given:
            raise ConfigError("Missing argument 'CHECKPOINT' (or --latest, or --scripted NAME with --env)")
        return [*given]
    if len(given) > 1:
        raise ConfigError(f"--latest: takes one folder of runs, got {len(given)} paths")
    folder = given[0] if given else Path(OWN_RUNS)
    runs = runs_in(folder)
    if not runs:
        raise ConfigError(f"--latest: there is no run in {relative(folder)}")
    return [runs[-1]]


def is_own_run(path: Path) -> bool:
    """Return whether a run or a checkpoint lies in the folder ``runs`` of the working directory, and not by a link."""
    return path.resolve().is_relative_to(Path.cwd().resolve() / OWN_RUNS)


def note_foreign_code(path: Path) -> None:
    """Say that checkpoints are code, where one is about to be loaded that is not the user's own."""
    is_any = any((path / name).is_file() for name in (RUN_FILE, "rllib_checkpoint.json"))
    if is_any and not is_own_run(path):
        note(
            f"{relative(path)} is not in {OWN_RUNS}/: Ray's checkpoints are pickles, and loading one runs what is in it"
        )


def evaluation_env(policy: Policy, env: str | None, env_config: str | None) -> tuple[str, Mapping[str, Any]]:
    """Return the environment in which a policy is to act and its settings.

    Args:
        policy: What acts; it may act for more or fewer agents than in the training (`Policy.team_for`).
        env: The environment; None for that of the training.
        env_config: Settings as JSON; in the environment of the training they go on top of those of the training.

    Raises:
        ConfigError: It has an agent for which nobody acts, observations of another shape, or other actions.
    """
    from qio_rllib.sampling.environments import describe_env

    env_id = policy.env if env is None else env
    given = json_object("--env-config", env_config)
    settings = {**policy.env_config, **given} if env_id == policy.env else given
    option = "--env-config" if env is None else "--env"
    present = describe_env(env_id, settings)
    try:
        policy.check_spaces(env_id, present.observation_spaces, present.action_spaces)
        policy.team_for(present.agents)
    except ConfigError as error:
        raise ConfigError(f"{option}: {error}") from error
    return env_id, settings


def scripted_env(
    checkpoints: Sequence[Path], env: str | None, env_config: str | None
) -> tuple[str, dict[str, Any]]:
    """Return the environment in which a scripted policy is to act and its settings.

    Raises:
        ConfigError: A checkpoint is given too, or no environment of ``qio_envs``.
    """
    import qio_envs

    if checkpoints:
        raise ConfigError("--scripted: cannot go with a checkpoint, it takes its place")
    if env is None:
        raise ConfigError("--scripted: needs --env")
    known = qio_envs.environments()
    if env not in known:
        raise ConfigError(
            f"--env: '{env}' has no scripted policies{did_you_mean(env, known)}; allowed: {', '.join(known)}"
        )
    return env, json_object("--env-config", env_config)


def check_output_file(out: Path | None) -> None:
    """Refuse to write where something is already, or where no directory is.

    Raises:
        ConfigError: Either.
    """
    if out is not None and (out.exists() or not out.parent.is_dir()):
        raise ConfigError(
            f"--out: {out} {'exists already' if out.exists() else 'is in no directory that exists'}"
        )
