"""``rllib causal``: ``discover``, ``effect``, ``control``, and ``explain`` of its own file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qio_envs.api import ConfigError
from qio_rllib.cli.arguments import AllowImport, load_policy_of
from qio_rllib.cli.explain import explain
from qio_rllib.cli.output import console, relative, say

if TYPE_CHECKING:
    from qio_rllib.experiments import causal_analysis

app = typer.Typer(
    help="Causal graphs and effects of recorded data; why a policy acts.", rich_markup_mode=None
)
app.command("explain")(explain)

Source = Annotated[
    str,
    typer.Argument(
        help="A .csv file with a line of names, a run, a checkpoint, a policy file, or an environment's name."
    ),
]
Samples = Annotated[int, typer.Option(min=1, help="Transitions to gather from an environment or a run.")]
Agent = Annotated[
    str | None, typer.Option(help="Whose steps of a run; else those of all agents, of one module.")
]
Interventions = Annotated[
    bool, typer.Option("--interventions", help="Set an environment's state at random before each transition.")
]
Variables = Annotated[str | None, typer.Option(help="Columns to keep, such as a,b,c.")]
Seed = Annotated[int, typer.Option(min=0, help="Of gathering, networks and the bootstrap.")]


@app.command("discover")
def discover(
    source: Source,
    method: Annotated[str | None, typer.Option(help="pc, score or transitions.")] = None,
    alpha: Annotated[float | None, typer.Option(help="Level of a test.")] = None,
    degree: Annotated[int, typer.Option(help="Of the products in regressions of transitions, 1 to 3.")] = 2,
    test: Annotated[str | None, typer.Option(help="Of transitions: regression or information.")] = None,
    tiers: Annotated[
        str | None, typer.Option(help="Groups of variables, earlier ones first, such as 'a0 a1; x1 x2'.")
    ] = None,
    require: Annotated[str | None, typer.Option(help="Edges that there are, such as 'a -> b'.")] = None,
    forbid: Annotated[str | None, typer.Option(help="Edges that there are not.")] = None,
    samples: Samples = 1000,
    interventions: Interventions = False,
    variables: Variables = None,
    agent: Agent = None,
    seed: Seed = 0,
    allow_import: AllowImport = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory for the graph, its edges and its picture.")
    ] = None,
) -> None:
    """Find the causal graph of recorded data."""
    if out is not None and (out.exists() or not out.parent.is_dir()):
        raise ConfigError(
            f"--out: {out} {'exists already' if out.exists() else 'is in no directory that exists'}"
        )

    from qio_rllib.causal.drawing import draw_text
    from qio_rllib.causal.knowledge import Knowledge
    from qio_rllib.experiments import causal_analysis

    knowledge = None
    if tiers or require or forbid:
        knowledge = Knowledge(
            tiers=[group.split() for group in tiers.split(";")] if tiers else (),
            required=causal_analysis.read_edges("--require", require) if require else (),
            forbidden=causal_analysis.read_edges("--forbid", forbid) if forbid else (),
        )
    data = _read(source, samples, seed, interventions, agent, _names(variables), allow_import or ())
    found = causal_analysis.discover(data, method, alpha, degree, knowledge, test, seed)
    say(f"{data.name}, {data.samples:,} rows, {len(data.columns)} variables")
    console().print(draw_text(found.graph), highlight=False, markup=False)
    for note in found.notes:
        say(f"note: {note}")
    if out is not None:
        causal_analysis.save_found(found, out, f"{data.name}, {data.samples:,} rows")
        say(f"written to {relative(out)}")


Graph = Annotated[str, typer.Option(help="Edges such as 'u -> a, u -> y, a -> y', or a graph.json.")]
Hidden = Annotated[str | None, typer.Option(help="Variables that are not to be used, such as u,v.")]
Level = Annotated[float, typer.Option(help="Of the interval, in (0, 1).")]


@app.command("effect")
def effect(
    source: Source,
    treatment: Annotated[str, typer.Option(help="The variable that is set.")],
    outcome: Annotated[str, typer.Option(help="The variable that changes.")],
    graph: Annotated[
        str | None,
        typer.Option(
            help="Edges such as 'u -> a, u -> y, a -> y', or a graph.json; else that of the environment."
        ),
    ] = None,
    hidden: Hidden = None,
    adjust: Annotated[
        str | None, typer.Option(help="Variables to adjust for; else what the graph asks for.")
    ] = None,
    level: Level = 0.95,
    samples: Samples = 1000,
    interventions: Interventions = False,
    agent: Agent = None,
    seed: Seed = 0,
    allow_import: AllowImport = None,
) -> None:
    """Estimate an effect by the back door, the front door or an instrument, as a graph allows."""
    from qio_rllib.experiments import causal_analysis

    if graph is None and hidden is not None:
        raise ConfigError("--hidden: needs --graph")
    known = None if graph is None else causal_analysis.read_graph(graph, _names(hidden))
    data = _read(source, samples, seed, interventions, agent, [], allow_import or ())
    adjustment = None if adjust is None else _names(adjust)
    say(str(causal_analysis.estimate(data, known, treatment, outcome, adjustment, level, seed)))


@app.command("control")
def control(
    source: Source,
    graph: Graph,
    states: Annotated[str, typer.Option(help="Columns that are to be held near 0, such as s,v.")],
    actions: Annotated[str, typer.Option(help="Columns of actions.")],
    next_states: Annotated[str, typer.Option("--next", help="Columns of the states after the step.")],
    hidden: Hidden = None,
    state_costs: Annotated[str | None, typer.Option(help="Of the states' squares, such as 1,0.1.")] = None,
    action_costs: Annotated[str | None, typer.Option(help="Of the actions' squares.")] = None,
    level: Level = 0.95,
    samples: Samples = 1000,
    interventions: Interventions = False,
    seed: Seed = 0,
    allow_import: AllowImport = None,
    env: Annotated[str | None, typer.Option(help="Environment to score the controller in.")] = None,
    env_config: Annotated[str | None, typer.Option(help="Its settings as a JSON object.")] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes of the score.")] = 1000,
    out: Annotated[
        Path | None, typer.Option(help="Policy file for the controller, with --env, such as c.pt.")
    ] = None,
) -> None:
    """Make a linear controller of a log: effects as a graph identifies them, and the regulator for them."""
    from qio_rllib.cli.arguments import check_output_file, json_object

    check_output_file(out)
    if env is None and (out is not None or env_config is not None):
        raise ConfigError(f"{'--env-config' if out is None else '--out'}: needs --env")

    from qio_rllib.causal.control import ControlTask, offline_controller
    from qio_rllib.experiments import causal_analysis

    task = ControlTask.of(
        _names(states),
        _names(actions),
        _names(next_states),
        _numbers("--state-costs", state_costs),
        _numbers("--action-costs", action_costs),
    )
    known = causal_analysis.read_graph(graph, _names(hidden))
    data = _read(source, samples, seed, interventions, None, [], allow_import or ())
    controller = offline_controller(data.columns, known, task, level=level, seed=seed)
    for effect in (*controller.effects, *controller.state_effects):
        say(str(effect))
    say(f"controller: {controller.describe()}")
    for note in controller.notes():
        say(f"note: {note}")
    if env is None:
        return

    from qio_rllib.experiments.causal_control import evaluate_controller, save_controller

    settings = json_object("--env-config", env_config)
    found = evaluate_controller(controller, env, settings, episodes)
    say(f"{env}, {episodes:,} episodes: {found.mean:.4g} (standard error {found.standard_error:.2g})")
    say("scripted policies: " + ", ".join(f"{name} {score:.4g}" for name, score in found.references.items()))
    if out is not None:
        save_controller(controller, env, settings, out)
        say(f"written to {relative(out)}")


def _numbers(option: str, text: str | None) -> list[float]:
    try:
        return [float(part) for part in _names(text)]
    except ValueError:
        raise ConfigError(f"{option}: expected numbers such as 1,0.1, got '{text}'") from None


def _read(
    source: str,
    samples: int,
    seed: int,
    interventions: bool,
    agent: str | None,
    variables: list[str],
    allow_import: Sequence[str],
) -> causal_analysis.Source:
    """Return the data of a file, an environment or a run."""
    import qio_envs
    from qio_rllib.experiments import causal_analysis

    path = Path(source)
    if source.endswith(".csv") or source in qio_envs.environments() or not path.exists():
        if agent is not None:
            raise ConfigError("--agent: for runs, checkpoints and policy files alone")
        return causal_analysis.read_source(source, samples, seed, interventions, variables)
    if interventions:
        raise ConfigError("--interventions: a policy's experience is what it is; for environments alone")
    policy, _ = load_policy_of(path, allow_import)

    from qio_rllib.experiments.causal_runs import read_policy

    return read_policy(policy, path.name, samples, seed, agent, variables)


def _names(text: str | None) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()] if text else []
