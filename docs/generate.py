"""Write the pages of the environments from the docstrings, settings, spaces and scripted policies of live ones.

They are docs/environments.md, which compares them, and docs/environments/<id>.md.

python docs/generate.py
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from pathlib import Path

import gymnasium

import qio_envs
from qio_envs.adapters.team import TeamEnv
from qio_envs.api import BatchedEnv, reference_scores
from qio_rllib.artifacts.files import read_csv

RESULTS = Path(__file__).resolve().parents[1] / "results"

MADE = "Made by `python docs/generate.py` from the code: edit the docstrings, not this page."
EPISODES, SEED = 20, 1000
MANY_EPISODES = {
    "causal_chain_v0": 10_000,
    "chsh_v0": 10_000,
    "confounded_control_v0": 2_000,
    "greedy_casino_v0": 10_000,
    "matrix_game_v0": 1_000,
    "mpe_adversary_v0": 100,
    "mpe_crypto_v0": 100,
    "mpe_push_v0": 100,
    "mpe_reference_v0": 100,
    "mpe_speaker_listener_v0": 100,
    "mpe_spread_v0": 100,
    "mpe_tag_v0": 100,
    "mpe_world_comm_v0": 100,
}
"""Where a single episode is mostly luck."""


def pages() -> dict[str, str]:
    """Return all pages by their path within docs/."""
    found = {f"environments/{name}.md": _page(it) for name, it in qio_envs.environments().items()}
    return {"environments.md": _overview(), **found}


def _overview() -> str:
    """Return the page that compares the environments."""
    rows = []
    for environment in qio_envs.environments().values():
        env = environment.batched_env()
        scores = _scores(environment.id, "default")
        names = list(scores)
        rows.append(
            [
                f"[{environment.id}](environments/{environment.id}.md)",
                environment.summary.partition(" (")[0],
                _kind(environment.summary, env.num_agents),
                _number_of_actions(env),
                _score(scores[names[0]]),
                f"{_score(scores[names[-1]])} ({names[-1]})",
            ]
        )
    header = ["environment", "task", "agents", "actions", "random", "best scripted policy"]
    rules = _docstring(TeamEnv).partition("\n\nArgs:")[0]
    return _joined(
        [
            "# Environments",
            "Sizes and scores are those of the scenario `default`; a score is the mean team return over the episodes"
            " that the page of the environment names. Actions are those of one agent.",
            _table(header, rows),
            "How to use them: [with other frameworks](frameworks.md), [counterfactuals and"
            " interventions](counterfactuals.md), [an environment of your own](tutorials/environment.md).",
            "## One player for all agents",
            "Every builder of an environment takes `as_team=True`.",
            rules,
            *_families(),
            *_foreign(),
            MADE,
        ]
    )


def _page(environment: qio_envs.Environment) -> str:
    batched = environment.batched_class
    env = environment.batched_env()
    spaces = [
        ["observation", _space(env.observation_space)],
        ["action", _space(env.action_space)],
        ["state", _space(env.state_space)],
        ["agents", _agents(env)],
    ]
    if environment.gym_id:
        spaces.append(
            ["Gymnasium id", f"`{environment.gym_id}`, or without an import `qio_envs:{environment.gym_id}`"]
        )
    settings = [
        [f"`{field.name}`", f"`{_default(field)}`", _allowed(field), field.metadata["doc"]]
        for field in dataclasses.fields(batched.config_class)
    ]
    names = list(env.scripted_policies)
    scenarios = []
    for name, values in batched.config_class.scenarios().items():
        scores = _scores(environment.id, name)
        changed = ", ".join(f"{key} {value}" for key, value in values.items()) or "defaults"
        cells = [_score(scores[policy]) for policy in names]
        scenarios.append([f"`{name}`", changed, f"`{environment.content_hash(name)}`", *cells])
    summary, *rest = _docstring(batched).split("\n\n", 1)
    return _joined(
        [
            f"# {environment.id}",
            summary,
            f"![An episode of the scripted policy {names[-1]}](../images/environments/{environment.id}.gif)",
            f"An episode of the scripted policy `{names[-1]}`, scenario `default`.",
            *rest,
            *_rules_of_the_family(environment),
            "## Spaces of the default scenario",
            _table(["space", "is"], spaces),
            "## Settings",
            _table(["setting", "default", "allowed", "meaning"], settings),
            "## Scenarios",
            f"Scores are mean team returns of the scripted policies over {_episodes(environment.id):,} episodes"
            f" (seeds from {SEED}).",
            _table(["scenario", "settings", "hash", *names], scenarios),
            MADE,
        ]
    )


def _joined(parts: list[str]) -> str:
    return "\n\n".join(parts) + "\n"


def _episodes(name: str) -> int:
    return MANY_EPISODES.get(name, EPISODES)


@functools.cache
def _scores(name: str, scenario: str) -> dict[str, float]:
    """Return the mean team return of every scripted policy; random play comes first, the best policy last."""
    env = qio_envs.environment(name).batched_env(_episodes(name), scenario)
    scores = reference_scores(env, seed=SEED)
    return {policy: scores[policy] for policy in env.scripted_policies}


def _families() -> list[str]:
    """Return the section on families, with a table of all."""
    rows = [
        [
            f"`{name}`",
            f"[{family.env}](environments/{family.env}.md)",
            family.summary,
            family.described(),
            str(family.count),
        ]
        for name, family in qio_envs.families().items()
    ]
    return [
        "## Families",
        _docstring(qio_envs.Family).partition("\n\nAttributes:")[0],
        _table(["family", "environment", "is", "members", "count"], rows),
    ]


def _foreign() -> list[str]:
    """Return the section on environments of others, with a table of those that were tried."""
    rows = read_csv(RESULTS / "foreign_environments.csv")
    count = sum(row["trained"] == "yes" for row in rows)
    table = [
        [
            f"`{row['env']}`",
            f"{row['steps']:.0f}",
            row["trained"],
            f"{row['seconds']:.0f}",
            str(row.get("reason", "")).replace("|", "\\|"),
        ]
        for row in rows
    ]
    return [
        "## Environments of others",
        "`python benchmarks/foreign_environments.py` trains one iteration of PPO in each, by one command in a process "
        f"of its own on a busy machine: {count} of the {len(rows)} that were tried. "
        f"Versions: {rows[-1]['versions']}.",
        _table(["environment", "steps", "trained", "seconds", "why not"], table),
    ]


def _rules_of_the_family(environment: qio_envs.Environment) -> list[str]:
    """Return what environments that share a base class have in common: in full for the first of them only."""
    (family,) = environment.batched_class.__bases__
    if family is BatchedEnv:
        return []
    members = [
        other.id for other in qio_envs.environments().values() if family in other.batched_class.__bases__
    ]
    if environment.id != members[0]:
        return [f"All else is as in [{members[0]}]({members[0]}.md): dynamics, spaces, endings and info."]
    return [f"## Common to {', '.join(members)}", _docstring(family)]


def _kind(summary: str, agents: int) -> str:
    """Return the number of agents, and of several what the summary's parentheses say of them but for their actions."""
    found = re.search(r"\((.*), [^,]* actions\)$", summary)
    if found is None:
        raise ValueError(f"a summary ends with its kind and its actions in parentheses: {summary}")
    return "1" if found[1] == "one agent" else f"{agents}, {found[1]}"


def _number_of_actions(env: BatchedEnv) -> str:
    if isinstance(env.action_space, gymnasium.spaces.Discrete):
        return f"{env.action_space.n} discrete"
    return f"{env.action_space.shape[0]} continuous"


def _agents(env: BatchedEnv) -> str:
    names = [f"`{agent}`" for agent in env.possible_agents]
    return ", ".join(names) if len(names) <= 2 else f"{names[0]} to {names[-1]}"


def _score(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _docstring(of: type) -> str:
    return inspect.cleandoc(of.__doc__ or "").replace("``", "`")


def _space(space: gymnasium.Space) -> str:
    if not isinstance(space, gymnasium.spaces.Box):
        return f"`{space}`"
    low, high = float(space.low.min()), float(space.high.max())
    text = f"`Box({low:.6g}, {high:.6g}, {space.shape}, {space.dtype})`"
    if (space.low != low).any() or (space.high != high).any():
        text += "; these are the widest bounds, each number has its own"
    return text


def _default(field: dataclasses.Field) -> object:
    """Return the default as a YAML file would say it."""
    return list(field.default) if isinstance(field.default, tuple) else field.default


def _allowed(field: dataclasses.Field) -> str:
    low, high, choices = (field.metadata[key] for key in ("low", "high", "choices"))
    if choices:
        return ", ".join(choices)
    if "bool" in str(field.type):
        return "true, false"
    if "str" in str(field.type):
        return "text"
    bounds = f"{low:g} to {high:g}" if high is not None else f"at least {low:g}"
    if "tuple[Any" in str(field.type):
        bounds = f"nested lists of numbers, each {bounds}"
    elif "tuple" in str(field.type):
        bounds = f"list of integers, each {bounds}"
    return bounds + (", null" if "None" in str(field.type) else "")


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    docs = Path(__file__).parent
    written = pages()
    for path in (docs / "environments").glob("*.md"):
        if f"environments/{path.name}" not in written:
            path.unlink()
    for name, text in written.items():
        (docs / name).parent.mkdir(exist_ok=True)
        (docs / name).write_text(text, encoding="utf-8")
    print(f"wrote {len(written)} pages of environments")
