"""The ``rllib`` command: train, evaluate, list, video and bench.

Ray and torch are imported by the commands that need them, so that ``rllib --help`` answers at once.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

try:
    import typer
    from rich.console import Console
except ModuleNotFoundError as missing:  # a bare install has the environments only
    print(f"rllib: needs {missing.name}; install the plug-ins: pip install 'qio[rllib]'", file=sys.stderr)
    raise SystemExit(2) from missing

from qio_envs.api import ConfigError

if TYPE_CHECKING:
    from qio_rllib.acting.policy import Policy
    from qio_rllib.experiments.benchmark import Benchmark
    from qio_rllib.experiments.experiment import Experiment
    from qio_rllib.experiments.training import RunResult

SUCCESS, FAILURE, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    name="rllib",
    help="Train and evaluate multi-agent policies with Ray RLlib.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; every error is one line on stderr.

    Args:
        argv: Arguments, by default those of the process.

    Returns:
        The exit status: 0, 1 if a training failed, 2 for bad input, 130 if the user interrupted.
    """
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)  # Ray's; what a user has to know is printed
    if os.getcwd() not in sys.path:  # environments of the user's own lie where the command is given
        sys.path.insert(0, os.getcwd())
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        status = app(args=arguments, prog_name="rllib", standalone_mode=False)
    except ConfigError as error:
        return _complain(str(error), BAD_INPUT)
    except KeyboardInterrupt as error:
        return _complain(str(error) or "interrupted", INTERRUPTED)
    except (typer.Abort, EOFError):
        return _complain("interrupted", INTERRUPTED)
    except Exception as error:
        if hasattr(error, "format_message"):  # a usage error; its class depends on the version of typer
            return _complain(error.format_message(), BAD_INPUT) if error.format_message() else BAD_INPUT
        outcomes = {"TrainingFailed": FAILURE, "TrainingInterrupted": INTERRUPTED}
        if type(error).__name__ in outcomes:  # by name: their module imports Ray
            return _complain(str(error), outcomes[type(error).__name__])
        raise
    finally:
        logging.disable(before)
    return status if isinstance(status, int) else SUCCESS


@app.command()
def train(
    config: Annotated[
        str | None, typer.Option(help="Experiment file (YAML), or with --run a JSON object of settings.")
    ] = None,
    run: Annotated[str | None, typer.Option(help="Algorithm, in place of an experiment file.")] = None,
    env: Annotated[str | None, typer.Option(help="Environment, with --run.")] = None,
    stop: Annotated[str | None, typer.Option(help="Stop criteria as a JSON object, with --run.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a setting: lr=1e-4, stop.training_iteration=3. Repeatable.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the run.")] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN_DIR", help="Continue an interrupted run, or extend a finished one."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where runs are kept (default: runs).")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print the experiment, write nothing.")
    ] = False,
) -> None:
    """Train an experiment; checkpoints, tables and plots go to a new directory of their own."""
    overrides = settings or []
    if resume is not None:
        given = {"--config": config, "--run": run, "--env": env, "--stop": stop, "--seed": seed, "--out": out}
        for option, value in given.items():
            if value is not None:
                raise ConfigError(f"{option}: cannot go with --resume, the run keeps what it began with")
        if dry_run:
            raise ConfigError("--dry-run: cannot go with --resume")
        from qio_rllib.artifacts.run_directory import RunDirectory
        from qio_rllib.experiments import training
        from qio_rllib.experiments.experiment import load_experiment

        goal = load_experiment(RunDirectory.open(resume).config_file, overrides).stop
        with _progress(goal) as report:
            result = training.resume(resume, overrides, report)
        _print_result(result)
        return
    experiment = _experiment(config, run, env, stop, overrides, seed)
    if dry_run:
        experiment.validate()
        _print_yaml({experiment.name: experiment.as_dict()})
        return
    from qio_rllib.experiments import training

    with _progress(experiment.stop) as report:
        result = training.train(experiment, out if out is not None else "runs", report)
    _print_result(result)


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint, run directory or policy file.")],
    episodes: Annotated[int | None, typer.Option(min=1, help="Number of episodes.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds of the episodes, such as 1,2,3.")] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Most probable actions only.")] = False,
    sampled: Annotated[bool, typer.Option("--sampled", help="Sampled actions only.")] = False,
    env: Annotated[str | None, typer.Option(help="Another environment than that of the training.")] = None,
    env_config: Annotated[str | None, typer.Option(help="Its settings as a JSON object.")] = None,
    out: Annotated[Path | None, typer.Option(help="CSV file for one row per episode.")] = None,
) -> None:
    """Score a trained policy on fixed seeds; without options, on those of the run's own final evaluation."""
    if episodes is not None and seeds is not None:
        raise ConfigError("--episodes: cannot go with --seeds, which says how many there are")
    if out is not None and (out.exists() or not out.parent.is_dir()):
        raise ConfigError(
            f"--out: {out} {'exists already' if out.exists() else 'is in no directory that exists'}"
        )
    modes = _modes(greedy, sampled)
    chosen = _seed_list(seeds)
    policy, own_seeds = _load_policy(checkpoint)
    if chosen is None:
        chosen = own_seeds
    if episodes is not None:
        chosen = [*chosen, *range(max(chosen) + 1, max(chosen) + 1 + episodes)][:episodes]
    env_id, settings = _evaluation_env(policy, env, env_config)

    from qio_rllib.artifacts.files import write_csv
    from qio_rllib.sampling.evaluation import evaluate as play

    rows = {mode: play(policy, env_id, settings, chosen, explore=mode == "sampled") for mode in modes}
    if out is not None:
        write_csv(out, [{"mode": mode, **row} for mode in modes for row in rows[mode]])
    _print_scores(rows, f"{env_id}, {len(chosen)} episodes, seeds {_seeds_text(chosen)}")


@app.command("list")
def list_() -> None:
    """Show environments with their scenarios, algorithms, and scripted policies."""
    from rich import box
    from rich.table import Table

    import qio_envs
    from qio_rllib.algorithms import ALGORITHMS

    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in ("environment", "scenarios", "scripted policies"):
        table.add_column(column, overflow="fold")
    for name, environment in qio_envs.environments().items():
        table.add_row(
            name, ", ".join(environment.scenarios()), ", ".join(environment.batched_class.scripted_policies)
        )
    _console().print(table)
    _say(f"algorithms    {', '.join(ALGORITHMS)}")
    _say(
        "Gymnasium ids (CartPole-v1), PettingZoo modules (mpe2.simple_spread_v3) and module:callable go too."
    )


@app.command()
def video(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint, run directory or policy file.")],
    out: Annotated[Path, typer.Option(help="GIF file to write.")] = Path("episode.gif"),
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the episode.")] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Most probable actions (default).")] = False,
    sampled: Annotated[bool, typer.Option("--sampled", help="Sampled actions.")] = False,
) -> None:
    """Record an episode of a trained policy as an animated GIF."""
    explore = _modes(greedy, sampled) == ["sampled"]
    if out.suffix.lower() != ".gif":
        raise ConfigError(f"--out: expected a file that ends in .gif, got {out}")
    if out.exists() or not out.parent.is_dir():
        raise ConfigError(
            f"--out: {out} {'exists already' if out.exists() else 'is in no directory that exists'}"
        )
    policy, own_seeds = _load_policy(checkpoint)

    from qio_rllib.artifacts.video import save_video

    episode_seed = own_seeds[0] if seed is None else seed
    total = save_video(policy, out, seed=episode_seed, explore=explore)
    _say(f"{out}: {'sampled' if explore else 'greedy'} episode of seed {episode_seed}, return {total:g}")


@app.command()
def bench(
    config: Annotated[str, typer.Option(help="Experiment file (YAML).")],
    seconds: Annotated[
        float | None, typer.Option(help="Measure for so long (default: 60, without --rounds).")
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="Measure so many iterations of each at most.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting: num_env_runners=0. Repeatable."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="CSV file for one row per path.")] = None,
) -> None:
    """Time an experiment's training beside RLlib's own runner and Learner, in turns; keeps nothing that is trained."""
    if out is not None and (out.exists() or not out.parent.is_dir()):
        raise ConfigError(
            f"--out: {out} {'exists already' if out.exists() else 'is in no directory that exists'}"
        )
    experiment = _experiment(config, None, None, None, settings or [], None)

    from qio_rllib.artifacts.files import write_csv
    from qio_rllib.experiments.benchmark import benchmark

    measured = benchmark(experiment, rounds, seconds)
    _print_benchmark(measured)
    if out is not None:
        write_csv(out, measured.rows)
        _say(f"written to {_relative(out)}")


def _experiment(
    config: str | None,
    run: str | None,
    env: str | None,
    stop: str | None,
    overrides: Sequence[str],
    seed: int | None,
) -> Experiment:
    """Read the experiment from a file, or from the options that RLlib's old command had."""
    if seed is not None and any(
        text.partition("=")[0].strip() in ("seed", "config.seed") for text in overrides
    ):
        raise ConfigError("--seed: cannot go with --set seed=...")
    is_json = config is not None and config.lstrip().startswith("{")
    if run is None:
        for option, value in {
            "--env": env,
            "--stop": stop,
            "--config with JSON": config if is_json else None,
        }.items():
            if value is not None:
                raise ConfigError(f"{option}: needs --run ALGORITHM")
        if config is None:
            raise ConfigError("--config: an experiment file is needed (or --run and --env, or --resume)")
        from qio_rllib.experiments.experiment import load_experiment

        return load_experiment(config, overrides, seed)
    if config is not None and not is_json:
        raise ConfigError(
            "--run: cannot go with an experiment file, which names the algorithm (use --set run=...)"
        )
    if env is None:
        raise ConfigError("--env: --run needs an environment")
    entry: dict[str, Any] = {
        "run": run,
        "env": env,
        "stop": _json_object("--stop", stop),
        "config": _json_object("--config", config),
    }
    from qio_rllib.experiments.experiment import Experiment, apply_overrides

    name = f"{run}_{env}".replace("/", "_").replace(":", "_")
    return Experiment.from_mapping(apply_overrides(entry, overrides), name).with_seed(seed)


def _json_object(option: str, text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        value = json.loads(text, object_pairs_hook=lambda pairs: _without_repeats(option, pairs))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{option}: not valid JSON: {error}") from error
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


def _modes(greedy: bool, sampled: bool) -> list[str]:
    if greedy and sampled:
        raise ConfigError("--greedy: cannot go with --sampled")
    return ["greedy"] if greedy else ["sampled"] if sampled else ["greedy", "sampled"]


def _seed_list(text: str | None) -> list[int] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise ConfigError(f"--seeds: expected numbers of at least 0 such as 1,2,3, got '{text}'")
    return [int(part) for part in parts]


def _load_policy(path: Path) -> tuple[Policy, list[int]]:
    """Return the policy of a checkpoint, run directory or policy file, and its evaluation seeds."""
    from qio_rllib.artifacts.policy_file import load_policy
    from qio_rllib.sampling.evaluation import (
        checkpoint_experiment,
        evaluation_seeds,
        load_policy_from_checkpoint,
    )

    if path.is_file():
        return load_policy(path), evaluation_seeds(10)
    if (path / "run.json").is_file():
        from qio_rllib.experiments.training import final_checkpoint

        path = final_checkpoint(path)
    return load_policy_from_checkpoint(path), checkpoint_experiment(path)["evaluation_seeds"]


def _evaluation_env(policy: Policy, env: str | None, env_config: str | None) -> tuple[str, Mapping[str, Any]]:
    from qio_rllib.sampling.environments import describe_env

    env_id = policy.env if env is None else env
    if env_config is not None:
        settings: Mapping[str, Any] = _json_object("--env-config", env_config)
    else:
        settings = policy.env_config if env_id == policy.env else {}
    trained, present = (describe_env(*pair) for pair in ((policy.env, policy.env_config), (env_id, settings)))
    for agent in present.agents:
        if agent not in policy.module_of:
            raise ConfigError(f"--env: {env_id} has the agent '{agent}', for which there is no policy")
        for kind in ("observation_spaces", "action_spaces"):
            if getattr(trained, kind)[agent] != getattr(present, kind)[agent]:
                space = kind.replace("_spaces", " space")
                raise ConfigError(f"--env: the {space} of {env_id} is not the one of the training")
    return env_id, settings


@contextmanager
def _progress(stop: Mapping[str, float] | None = None) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Show training as one live line on a terminal, as one plain line per iteration elsewhere."""
    console = _console()
    if not console.is_terminal:
        yield lambda row: print(progress_line(row, stop), flush=True)
        return
    from rich.live import Live
    from rich.text import Text

    with Live(Text("starting ..."), console=console, auto_refresh=False) as live:
        yield lambda row: live.update(Text(progress_line(row, stop), overflow="ellipsis"), refresh=True)


def progress_line(row: Mapping[str, float], stop: Mapping[str, float] | None = None) -> str:
    """Return what is shown of an iteration.

    Args:
        row: A row of ``progress.csv``.
        stop: Stop criteria; goals of iterations and steps are shown beside them.
    """
    from qio_rllib.artifacts.metrics import ITERATION, MODES, SPEED, STEPS, score_column

    parts = []
    for label, key in (("iteration", ITERATION), ("steps", STEPS)):
        if key in row:
            goal = f"/{stop[key]:,.0f}" if stop and key in stop else ""
            parts.append(f"{label} {row[key]:,.0f}{goal}")
    score = score_column(row, "env_runners/")
    if score is not None:
        parts.append(f"return {row[score]:.1f}")
    if "env_runners/coverage" in row:
        parts.append(f"coverage {row['env_runners/coverage']:.2f}")
    if row.get("replay/warming_up"):
        parts.append("warming up")
    for label, name, digits in (
        ("entropy", "normalized_entropy", 3),
        ("alpha", "alpha", 4),
        ("exploration", "exploration", 3),
    ):
        values = [
            value for key, value in row.items() if key.startswith("learners/") and key.endswith(f"/{name}")
        ]
        if values:
            parts.append(f"{label} {sum(values) / len(values):.{digits}f}")
    for mode in MODES:
        evaluation = score_column(row, f"evaluation/{mode}/")
        if evaluation is not None:
            parts.append(f"{mode} {row[evaluation]:.1f}")
    if SPEED in row:
        parts.append(f"{row[SPEED]:,.0f} steps/s")
    return "  ".join(parts)


def _print_result(result: RunResult) -> None:
    from qio_rllib.artifacts.metrics import score_name

    _say(f"results       {_relative(result.run_dir)}")
    _say(f"checkpoint    {_relative(result.checkpoint)}")
    for mode, means in result.evaluation.items():
        name = score_name(means)
        coverage = f", coverage {means['coverage']:.3f}" if "coverage" in means else ""
        if name is not None:
            _say(f"{mode:<14}{name.replace('_', ' ')} {means[name]:.4g}{coverage}")
    for note in result.notes:
        _say(f"not made      {note}")
    _say(f"evaluate it   rllib evaluate {_relative(result.checkpoint)}")


def _print_scores(rows: Mapping[str, Sequence[Mapping[str, Any]]], title: str) -> None:
    """Print mean and standard deviation of every metric, one column per mode."""
    import statistics

    from rich import box
    from rich.table import Table

    from qio_rllib.sampling.evaluation import mean_scores

    means = {mode: mean_scores(episodes) for mode, episodes in rows.items()}
    _say(title)
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("mean ± deviation")
    for mode in rows:
        table.add_column(mode, justify="right")
    for name in dict.fromkeys(key for values in means.values() for key in values):
        cells = []
        for mode, episodes in rows.items():
            values = [row[name] for row in episodes if name in row]
            spread = f" ± {statistics.stdev(values):.4g}" if len(values) > 1 else ""
            cells.append(f"{means[mode][name]:.6g}{spread}" if name in means[mode] else "")
        table.add_row(name, *cells)
    _console().print(table)


def _print_benchmark(measured: Benchmark) -> None:
    """Print one column per path, then what the numbers must be read with."""
    from rich import box
    from rich.table import Table

    experiment, rows = measured.experiment, measured.rows
    _say(f"{experiment.name}: {experiment.algorithm} in {experiment.env}, seed {experiment.seed}")
    _say(measured.settings)
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("median of an iteration")
    for row in rows:
        table.add_column(row["path"], justify="right")

    def line(label: str, text: Callable[[Mapping[str, Any]], str]) -> None:
        cells = [text(row) for row in rows]
        if any(cells):
            table.add_row(label, *cells)

    def phase(key: str) -> Callable[[Mapping[str, Any]], str]:
        whole = ("sample_s", "learn_s", "other_s")
        return lambda row: f"{row[key]:.3f} s {row[key] / sum(row[name] for name in whole):4.0%}"

    line("environment steps/s", lambda row: f"{row['env_steps_per_s']:,.0f}")
    line("slowest to fastest", lambda row: f"{row['slowest_round']:,.0f} to {row['fastest_round']:,.0f}")
    line("agent steps/s", lambda row: f"{row['agent_steps_per_s']:,.0f}")
    line("ratio", lambda row: f"{row['ratio']:.2f}" if row["ratio"] != "" else "")
    line("sampling", phase("sample_s"))
    line("learning", phase("learn_s"))
    line("weights and metrics", phase("other_s"))
    line("gradient steps", lambda row: f"{row['gradient_steps']:,}")
    line("torch threads here", lambda row: row["torch_threads"])
    line(
        "memory of a runner", lambda row: f"{row['runner_rss_mib']:,.0f} MiB" if row["runner_rss_mib"] else ""
    )
    _console().print(table)
    first = rows[0]
    turns = f"{first['rounds']} round{'s' * (first['rounds'] != 1)}"
    _say(f"measured      {turns}{', the paths took turns' if len(rows) > 1 else ''}")
    if first["process_rss_mib"] != "":
        held = ", with both paths in it" if len(rows) > 1 else ""
        _say(f"memory        {first['process_rss_mib']:,.0f} MiB in this process{held}")
    _say(f"machine       {first['cpu']}, {first['cpus']} CPUs")
    _say(f"versions      {', '.join(f'{key} {first[key]}' for key in ('ray', 'torch', 'numpy', 'python'))}")
    for note in measured.notes:
        _say(f"note          {note}")


def _print_yaml(values: Mapping[str, Any]) -> None:
    from qio_rllib.artifacts.yaml_files import yaml_text

    print(yaml_text(values), end="")


def _seeds_text(seeds: Sequence[int]) -> str:
    if len(seeds) > 3 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]} to {seeds[-1]}"
    return ",".join(map(str, seeds))


def _relative(path: Path) -> str:
    shorter = os.path.relpath(path)
    return str(path) if shorter.startswith("..") else shorter


def _console() -> Console:
    return Console(highlight=False, soft_wrap=False)


def _say(text: str) -> None:
    print(text, flush=True)


def _complain(text: str, status: int) -> int:
    print(f"rllib: {' '.join(text.split())}", file=sys.stderr, flush=True)
    return status
