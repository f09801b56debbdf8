"""How fast environments, circuits and training are, and what sets the batched path apart from RLlib's."""

from __future__ import annotations

from collections.abc import Callable

from claims import figures as f
from claims.claim import Claim, Section

SPEED, THROUGHPUT, CIRCUITS = "training_throughput.csv", "env_throughput.csv", "circuits.csv"
XEON = "training_throughput_xeon.csv"
UPDATE = "training_throughput_update.csv"
OFF_POLICY, ACTING = "training_throughput_off_policy.csv", "training_throughput_acting.csv"
SCALE_OUT, OVERLAP = "scale_out.csv", "scale_out_overlap.csv"
TASKS = {
    "skirmish": "`skirmish_v0` 27m_vs_30m",
    "mpe2": "mpe2's `simple_spread_v3` with ten agents",
    "lbforaging": "level-based foraging (15x15, four agents)",
    "rware": "the warehouse (small, four agents)",
}


def _row(
    contestant: str, column: str = "ratio", decimals: int = 1, part: str = "forest"
) -> Callable[[], str]:
    return lambda: f.cell(SPEED, column, decimals, part=part, contestant=contestant)


def _share_of_rllib_with_one() -> str:
    eight = f.number(SPEED, "env_steps_per_s", part="forest", contestant="this package, 8 environments")
    return (
        f"{eight / f.number(SPEED, 'env_steps_per_s', part='forest', contestant='RLlib, 1 environment'):.1f}"
    )


def _before(contestant: str, column: str = "ratio", decimals: int = 1) -> Callable[[], str]:
    return lambda: f.cell(XEON, column, decimals, part="forest", contestant=contestant)


def _step(contestant: str, column: str, width: int, minibatch: int) -> float:
    return f.number(UPDATE, column, contestant=contestant, width=str(width), minibatch=str(minibatch))


def _of_step(
    contestant: str, column: str, decimals: int, width: int = 64, minibatch: int = 1600
) -> Callable[[], str]:
    return lambda: f"{_step(contestant, column, width, minibatch):.{decimals}f}"


def _off_policy(
    experiment: str, column: str, decimals: int, contestant: str = "kernels"
) -> Callable[[], str]:
    return lambda: f.cell(OFF_POLICY, column, decimals, experiment=experiment, contestant=contestant)


def _acting(env: str, num_envs: int) -> Callable[[], str]:
    return lambda: f.cell(ACTING, "ratio_to_torch", 2, env=env, num_envs=str(num_envs), contestant="kernels")


def _extreme(of: Callable[[list[float]], float], column: str) -> Callable[[], str]:
    """Return the least or greatest number of a step by kernels, over widths and minibatches."""
    return lambda: f"{of([float(row[column]) for row in f.rows_of(UPDATE, contestant='kernels')]):.2f}"


def _million(contestant: str, agents: str) -> Callable[[], str]:
    return lambda: format(
        f.number(THROUGHPUT, "agent_steps_per_s", contestant=contestant, agents=agents) / 1e6, ".1f"
    )


def _over_vmas() -> str:
    rates = [
        f.number(THROUGHPUT, "agent_steps_per_s", contestant=contestant)
        for contestant in ("swarm_cooperative_v0, batch of 64", "VMAS simple_spread, batch of 64")
    ]
    return f"{rates[0] / rates[1]:.0f}"


def _scaled(contestant: str, column: str = "ratio", part: str = "one node") -> Callable[[], str]:
    """Return a number of each task, "2.00, 1.50, 1.25 and 1.00"."""

    def text() -> str:
        *first, last = (
            f.cell(SCALE_OUT, column, 2, task=task, part=part, contestant=contestant) for task in TASKS
        )
        return f"{', '.join(first)} and {last}"

    return text


def _overlap(contestant: str, column: str) -> Callable[[], str]:
    return lambda: f.cell(OVERLAP, column, 2, contestant=contestant)


SCALING = Section(
    "Remote runners and learners",
    "PPO, 8 environments in each runner, 800 environment steps an iteration over all learners, one thread in every "
    "process, two CPUs; contestants in turn, medians over rounds. The numbers of a "
    "list are those of "
    f"{', '.join(list(TASKS.values())[:-1])} and {list(TASKS.values())[-1]}.",
    (
        Claim(
            "Environment steps/s with 2 remote runners over those with none: {two}; with 1: {one}. Two processes that "
            "step the environments alone are {machine} times as fast as one in the same rounds, from which {limit} "
            "follow as the most that two runners can give on these CPUs. By the CPU seconds of the driver and the "
            "slowest runner, with an idle CPU for each it would be {path}. The environment takes {sampling} of "
            "sampling and {iteration} of an iteration",
            {
                "two": _scaled("2 runners"),
                "one": _scaled("1 runner"),
                "machine": _scaled("2 copies of the environments"),
                "limit": _scaled("2 runners", "limit"),
                "path": _scaled("2 runners", "cpu_path_ratio"),
                "sampling": _scaled("none", "env_share_of_sampling"),
                "iteration": _scaled("none", "env_share_of_iteration"),
            },
            "python benchmarks/scale_out.py --rounds 3",
            (SCALE_OUT,),
        ),
        Claim(
            "With 2 remote learners and no runners {learners}, with 2 of both {both} of the steps/s with none",
            {"learners": _scaled("2 learners"), "both": _scaled("2 runners, 2 learners")},
            "python benchmarks/scale_out.py --rounds 3",
            (SCALE_OUT,),
        ),
        Claim(
            "Q-learning on mpe2's `simple_spread_v3` with ten agents and one remote runner, over none: {waiting} where "
            "it waits during updates, {meanwhile} where it samples meanwhile (`sampling_lag: 1`); sampling takes "
            "{sample} s of an iteration and learning {learn} s, so that little can be hidden",
            {
                "waiting": _overlap("1 runner", "ratio"),
                "meanwhile": _overlap("1 runner, lag 1", "ratio"),
                "sample": _overlap("1 runner", "sample_s"),
                "learn": _overlap("1 runner", "learn_s"),
            },
            "python benchmarks/scale_out.py --tasks mpe2 --parts overlap --rounds 5 "
            "--out results/scale_out_overlap.csv",
            (OVERLAP,),
        ),
        Claim(
            "One runner on each of two Ray nodes, simulated on this machine, over none: {two}, where two processes are "
            "{machine} times as fast as one",
            {
                "two": _scaled("2 runners, two nodes", part="two nodes"),
                "machine": _scaled("2 copies of the environments", part="two nodes"),
            },
            "python benchmarks/scale_out.py --rounds 3",
            (SCALE_OUT,),
        ),
    ),
)

SPEEDS = Section(
    "Speed",
    "One run each, contestants in turn; steps/s are medians over rounds.",
    (
        Claim(
            "Training, forest with ten UAVs, same network and SGD work: with 8 environments {eight} times "
            "the steps/s of RLlib's own path with 8 ({eight_one} times RLlib's with one) and {bare} times those of a "
            "plain torch PPO loop; with one environment {one} times RLlib's with one and {bare_one} times "
            "plain torch's. mpe2's `simple_spread_v3`, where most of the time is the environment's own: {mpe} "
            "times. Team return 380: after {here} s, against {there} s on RLlib's path. On two cores remote "
            "runners do not pay ({runner} of none with one, {runners} with two); {memory} MiB each",
            {
                "eight": _row("this package, 8 environments"),
                "eight_one": _share_of_rllib_with_one,
                "bare": _row("this package, 8 environments", "ratio_to_bare", 2),
                "one": _row("this package, 1 environment"),
                "bare_one": _row("this package, 1 environment", "ratio_to_bare", 2),
                "mpe": _row("this package", part="mpe2"),
                "here": _row("this package", "seconds", part="target"),
                "there": _row("RLlib", "seconds", 0, part="target"),
                "runner": _row("1 runner", "ratio", 2, "scaling"),
                "runners": _row("2 runners", "ratio", 2, "scaling"),
                "memory": _row("1 runner", "runner_rss_mib", 0, "scaling"),
            },
            "python benchmarks/training_throughput.py --rounds 5",
            (SPEED, "training_throughput_target.csv"),
            holds=lambda: all(
                f.number(SPEED, "ratio", contestant=name) < 1 for name in ("1 runner", "2 runners")
            ),
        ),
        Claim(
            "A gradient step of PPO as Learners take it, by kernels (two networks of two tanh layers of 64, 1,600 "
            "rows, 77 observations; minibatch, forward, backward, clipping and Adam): {share} of the rate of torch's "
            "own products of these sizes ({product} GFLOP/s on one thread), with torch's operations {torch}, in a "
            "plain torch loop {bare}; {ratio} times as fast as that loop. Over widths from 32 to 512 and minibatches "
            "from 256 to 16,384 the share is {least} (32 wide, 256 rows) to {most}, and the ratio {least_ratio} to "
            "{most_ratio}. Above 1 where the kernels' products are faster than torch's on this CPU",
            {
                "share": _of_step("kernels", "share", 2),
                "product": _of_step("kernels", "product_gflop_per_s", 0),
                "torch": _of_step("torch", "share", 2),
                "bare": _of_step("plain torch", "share", 2),
                "ratio": _of_step("kernels", "ratio_to_bare", 1),
                "least": _extreme(min, "share"),
                "most": _extreme(max, "share"),
                "least_ratio": _extreme(min, "ratio_to_bare"),
                "most_ratio": _extreme(max, "ratio_to_bare"),
            },
            "python benchmarks/training_throughput.py --parts update --rounds 5",
            (UPDATE,),
            holds=lambda: (
                _step("kernels", "share", 32, 256)
                == min(float(row["share"]) for row in f.rows_of(UPDATE, contestant="kernels"))
            ),
        ),
        Claim(
            "A gradient step as its Learner takes it, beside the same with torch's operations: QMIX of "
            "`mpe_spread_qmix.yaml` {qmix} times as fast ({qmix_share} of the rate of torch's own products of these "
            "sizes, with torch's operations {qmix_torch}), MADDPG of `spread_maddpg.yaml` {maddpg} times "
            "({maddpg_share} and {maddpg_torch})",
            {
                "qmix": _off_policy("mpe_spread_qmix", "ratio_to_torch", 2),
                "qmix_share": _off_policy("mpe_spread_qmix", "share", 2),
                "qmix_torch": _off_policy("mpe_spread_qmix", "share", 2, "torch"),
                "maddpg": _off_policy("spread_maddpg", "ratio_to_torch", 2),
                "maddpg_share": _off_policy("spread_maddpg", "share", 2),
                "maddpg_torch": _off_policy("spread_maddpg", "share", 2, "torch"),
            },
            "python benchmarks/training_throughput.py --parts off_policy --rounds 9",
            (OFF_POLICY,),
        ),
        Claim(
            "A step of sampling, environments included, beside the same where torch acts: the forest {eight} times as "
            "fast with 8 environments and {many} times with 64, `mpe_spread_v0` {spread} times with 64",
            {
                "eight": _acting("forest_uav_v0", 8),
                "many": _acting("forest_uav_v0", 64),
                "spread": _acting("mpe_spread_v0", 64),
            },
            "python benchmarks/training_throughput.py --parts acting --rounds 9",
            (ACTING,),
        ),
        Claim(
            "The same forest before updates had kernels, on another kind of CPU: with 8 environments {eight} times "
            "the steps/s of RLlib's own path and {bare} of a plain torch loop; with one {one} times and {bare_one}",
            {
                "eight": _before("this package, 8 environments"),
                "bare": _before("this package, 8 environments", "ratio_to_bare", 2),
                "one": _before("this package, 1 environment"),
                "bare_one": _before("this package, 1 environment", "ratio_to_bare", 2),
            },
            "python benchmarks/training_throughput.py --rounds 5",
            (XEON, "training_throughput_xeon_target.csv"),
        ),
        Claim(
            "Environments on one core, CPU time, all observations: the forest with 10 agents does {forest} million "
            "agent steps/s as a batch of 64, as a PettingZoo environment {times} times the steps/s of "
            "mpe2's `simple_spread_v3` with as many agents (`mpe_spread_v0` {spread} times). The swarm with 3 agents "
            "does {swarm} million as a batch of 64, {over} times VMAS's `simple_spread`, which does {vmas} million as "
            "a batch of 64, {many} million as a batch of 4096",
            {
                "forest": _million("forest_uav_v0, batch of 64", "10"),
                "times": lambda: f.cell(
                    THROUGHPUT, "ratio_to_mpe2", 0, contestant="forest_uav_v0, PettingZoo"
                ),
                "spread": lambda: f.cell(
                    THROUGHPUT, "ratio_to_mpe2", 0, contestant="mpe_spread_v0, PettingZoo", agents="10"
                ),
                "swarm": _million("swarm_cooperative_v0, batch of 64", "3"),
                "over": _over_vmas,
                "vmas": lambda: format(
                    f.number(THROUGHPUT, "agent_steps_per_s", contestant="VMAS simple_spread, batch of 64")
                    / 1e6,
                    ".2f",
                ),
                "many": _million("VMAS simple_spread, batch of 4096", "3"),
            },
            "python benchmarks/env_throughput.py",
            (THROUGHPUT,),
        ),
        Claim(
            "Circuits beside PennyLane's `default.qubit` (backprop, torch), one thread, 3 layers, single "
            "precision: forward and backward of a batch of 256 {four} times as fast with 4 qubits, {eight} "
            "times with 8; one state {one_four} and {one_eight} times. In double precision, which is what "
            "default.qubit computes in whatever it is given: {four_64}, {eight_64}, {one_four_64} and "
            "{one_eight_64} times",
            {
                name: lambda task=task, qubits=qubits, dtype=dtype: f.cell(
                    CIRCUITS,
                    "times_as_fast_as_pennylane",
                    task=task,
                    qubits=qubits,
                    dtype=dtype,
                    contestant="this package",
                )
                for name, task, qubits, dtype in (
                    ("four", "forward and backward", "4", "float32"),
                    ("eight", "forward and backward", "8", "float32"),
                    ("one_four", "inference", "4", "float32"),
                    ("one_eight", "inference", "8", "float32"),
                    ("four_64", "forward and backward", "4", "float64"),
                    ("eight_64", "forward and backward", "8", "float64"),
                    ("one_four_64", "inference", "4", "float64"),
                    ("one_eight_64", "inference", "8", "float64"),
                )
            },
            "python benchmarks/circuits.py",
            (CIRCUITS,),
        ),
    ),
)

VARIANTS = ("this package", "first epoch unshuffled", "time limit as an end", "RLlib's own path")


def _variant(variant: str, last: bool = False) -> Callable[[], str]:
    def text() -> str:
        rows = f.rows_of("rllib_differences.csv", variant=variant)
        by_seed: dict[str, list[float]] = {}
        for row in rows:
            by_seed.setdefault(row["seed"], []).append(float(row["team_return"]))
        return f.describe(values[-1] if last else sum(values) / len(values) for values in by_seed.values())

    return text


DIFFERENCES = Section(
    "The batched path beside RLlib's own",
    "Forest, 8 environments, 32,000 environment steps, team return with sampled actions on 20 fixed "
    "episodes. Each difference that [ppo.md](algorithms/ppo.md#differences-from-rllib) names is put back "
    "alone.",
    (
        *(
            Claim(
                f"{variant[0].upper() + variant[1:]}: {{way}} as mean of the five evaluations on the way, "
                f"{{end}} at the end",
                {"way": _variant(variant), "end": _variant(variant, last=True)},
                "python benchmarks/rllib_differences.py",
                ("rllib_differences.csv",),
            )
            for variant in VARIANTS
        ),
        Claim(
            "RLlib's own runner (two remote ones with 8 environments each) and this one, "
            "`forest_uav_ppo.yaml`: {there_32} and {here_32} after 32,000 steps, {there_64} and {here_64} "
            "after 64,000, {there_128} and {here_128} after 128,000",
            {
                f"{where}_{at // 1000}": lambda folder=folder, at=at: f.on_the_way(folder, at)
                for where, folder in (("there", "forest_uav_ppo_rllib"), ("here", "forest_uav_ppo"))
                for at in (32_000, 64_000, 128_000)
            },
            "python benchmarks/learning_curves.py tune_configs/forest_uav_ppo.yaml",
            ("forest_uav_ppo_rllib", "forest_uav_ppo"),
        ),
    ),
    after=(
        "None of them makes learning faster or slower here, as far as so few seeds tell: what the batched "
        "path saves is time, not experience."
    ),
)
