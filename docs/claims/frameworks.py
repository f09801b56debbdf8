"""PPO on spread in this package and in other frameworks: how fast, and when a score is reached."""

from __future__ import annotations

from claims import figures as f
from claims.claim import Section

TABLE = "beside_frameworks.csv"
OTHER_REWARDS = "BenchMARL, VMAS"
COLUMNS = (
    "framework, environments",
    "environment steps/s",
    "of a CPU second",
    "this package over it",
    "by CPU seconds",
    "until the score: steps",
    "seconds",
    "CPU seconds",
)


def rows() -> list[tuple[str, ...]]:
    """Return the columns and a row for each framework."""

    def number(text: str, decimals: int = 0) -> str:
        return f"{float(text):,.{decimals}f}" if text else ""

    return [
        COLUMNS,
        *(
            (
                row["contestant"],
                number(row["env_steps_per_s"]),
                number(row["env_steps_per_cpu_s"]),
                number(row["counterpart_ratio"], 2),
                number(row["counterpart_cpu_ratio"], 2),
                number(row["env_steps_to_target"])
                or ("other rewards" if row["contestant"] == OTHER_REWARDS else "not reached"),
                number(row["seconds_to_target"], 1),
                number(row["cpu_seconds_to_target"], 1),
            )
            for row in f.rows_of(TABLE)
        ),
    ]


FRAMEWORKS = Section(
    "PPO beside other frameworks",
    "Spread: three agents, 25 steps an episode, discrete actions, one policy for all. Everybody has 64 environments, "
    "1,600 environment steps an iteration, 4 epochs of minibatches of 1,200 agents' rows, two tanh layers of 64 for "
    "actor and critic, the same rates and coefficients, and one thread; nobody's settings were tuned. Environments "
    "are `mpe_spread_v0`, mpe2's or PettingZoo's own of the same task, JaxMARL's version of it (with a PPO loop "
    "compiled as a whole, since its package has no trainer) and VMAS's, whose rewards are others. This package stands "
    "beside each on environments of its kind: many in one array, or each a Python object. Score: return of an agent, "
    "sampled actions, -21 or more over five iterations (random play: about -26). Seconds are those of iterations; "
    "compiling and starting are not in them.",
    (),
    table=rows,
    after="One run, in turns, a seed of each: `python benchmarks/beside_frameworks.py --jaxmarl PYTHON --benchmarl "
    "PYTHON`, on {cpu}; raw files [beside_frameworks.csv](../results/beside_frameworks.csv) and "
    "[beside_frameworks_curves.csv](../results/beside_frameworks_curves.csv).",
    figures={"cpu": lambda: f.rows_of(TABLE)[0]["cpu"]},
)
