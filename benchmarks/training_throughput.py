"""How fast does PPO train? RLlib's own path, this package's path and plain torch, in turns, on the same task.

The task of all parts: 1600 environment steps an iteration, 4 epochs, minibatches of 1600 agent rows, networks of two
tanh layers of 64 for actor and critic, no Q operator. RLlib's path is its own `PPOConfig`, runner, module and Learner
as they come, but for one torch thread in this process (the default is several times slower). Plain torch is
`bare_ppo.py`.

- forest: ten UAVs, with 1 and with 8 environments; no remote runners. A figure shows where an iteration's time goes.
- mpe2: simple_spread_v3 (3 agents, 25 steps), 8 environments, through this package's adapters.
- particles: the same task, 64 environments, this package's path alone: mpe2's own environments, and `mpe_spread_v0`,
  the same physics as one batch.
- scaling: this package's path with 0, 1 and 2 remote runners, and with one runner on each of two nodes (two Ray nodes
  simulated on this machine), 8 environments each.
- update: a gradient step by this package's kernels, by torch's operations and in plain torch, over widths and
  minibatch sizes, beside torch's own matrix products (`update_rate.py`).
- off_policy: a gradient step of QMIX and MADDPG likewise (`off_policy_rate.py`).
- acting: a step of sampling, by kernels and by torch (`acting_rate.py`).
- target: seconds of sampling and learning until the last 100 episodes have a mean team return of 380 (actions sampled,
  8 environments). Starting up is not counted.

    python benchmarks/training_throughput.py                           # about half an hour, most of it RLlib's path
    python benchmarks/training_throughput.py --parts forest --rounds 3
"""

import argparse
import contextlib
import logging
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import acting_rate
import off_policy_rate
import ray
import update_rate
from bare_ppo import BarePPO
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo import PPOConfig as RLlibPPOConfig

from qio_envs import forest_uav_v0
from qio_rllib.algorithms import PPOConfig
from qio_rllib.algorithms.callbacks import EpisodeMetrics
from qio_rllib.artifacts.files import write_csv
from qio_rllib.artifacts.time_plot import plot_time
from qio_rllib.experiments.resources import quiet_ray
from qio_rllib.experiments.time_spent import parts_of
from qio_rllib.experiments.timed_turns import (
    Contestant,
    TimedAlgorithm,
    Turn,
    machine,
    ray_for,
    summary,
    take_turns,
)
from qio_rllib.sampling.environments import register_with_tune
from qio_rllib.sampling.stepper import one_thread

Task = tuple[str, dict]
Row = dict[str, object]

STOCK, OURS, BARE = "RLlib", "this package", "plain torch"
STEPS, MINIBATCH, EPOCHS = 1600, 1600, 4
ENTROPY_COEFF = 0.01
UPDATE = {
    "lr": 3e-4,
    "clip_param": 0.2,
    "vf_loss_coeff": 0.5,
    "vf_clip_param": 1e4,
    "entropy_coeff": ENTROPY_COEFF,
    "use_kl_loss": False,
    "grad_clip": 0.5,
    "grad_clip_by": "global_norm",
}
FOREST = ("forest_uav_v0", {"reward": "local"})
SPREAD = ("mpe2.simple_spread_v3", {"N": 3, "max_cycles": 25})
PARTICLES: dict[str, Task] = {"mpe2": SPREAD, "mpe_spread_v0": ("mpe_spread_v0", {})}
TARGET = 380.0


def config_of(path: str, task: Task, num_envs: int, runners: int = 0) -> AlgorithmConfig:
    """Return the configuration of RLlib's path or of this package's."""
    env, env_config = task
    if path == STOCK:
        register_with_tune(env)
        config: AlgorithmConfig = RLlibPPOConfig().callbacks(EpisodeMetrics)
        config.multi_agent(policies={"shared"}, policy_mapping_fn=lambda *args, **kwargs: "shared")
    else:
        config = PPOConfig()
    return (
        config.environment(env, env_config=env_config)
        .env_runners(num_env_runners=runners, num_envs_per_env_runner=num_envs)
        .reporting(metrics_num_episodes_for_smoothing=8)  # RLlib's own path reports an iteration's episodes
        .rl_module(model_config={"fcnet_hiddens": [64, 64], "fcnet_activation": "tanh", "vf_share_layers": False})
        .debugging(seed=0)
        .fault_tolerance(restart_failed_env_runners=False)
        .training(
            train_batch_size_per_learner=STEPS, minibatch_size=MINIBATCH, num_epochs=EPOCHS, gamma=0.99, lambda_=0.95,
            **UPDATE,
        )
    )  # fmt: skip


class BareContestant:
    """`BarePPO` on the forest, taking turns."""

    def __init__(self, num_envs: int) -> None:
        self.ppo = BarePPO(
            forest_uav_v0.batched_env(num_envs, **FOREST[1]),
            env_steps=STEPS,
            minibatch_size=MINIBATCH,
            epochs=EPOCHS,
            entropy_coeff=ENTROPY_COEFF,
        )

    def turn(self) -> Turn:
        """Train for one iteration."""
        start = time.perf_counter()
        done = self.ppo.iterate()
        rows = STEPS * self.ppo.env.num_agents
        return Turn(
            seconds=time.perf_counter() - start,
            sample_s=done["sample_s"],
            learn_s=done["learn_s"],
            env_steps=STEPS,
            agent_steps=rows,
            gradient_steps=EPOCHS * -(-rows // MINIBATCH),
            team_return=done["team_return"],
        )


@contextlib.contextmanager
def algorithms(configs: Mapping[str, AlgorithmConfig]) -> Iterator[dict[str, TimedAlgorithm]]:
    """Build algorithms for some time."""
    with contextlib.ExitStack() as running:
        built = {}
        for name, config in configs.items():
            built[name] = TimedAlgorithm(config)
            running.callback(built[name].stop)
        yield built


def forest(rounds: int) -> list[Row]:
    """Compare the three with 1 and with 8 environments."""
    names = {1: "1 environment", 8: "8 environments"}
    configs = {
        f"{path}, {text}": config_of(path, FOREST, num_envs)
        for num_envs, text in names.items()
        for path in (STOCK, OURS)
    }
    with ray_for(*configs.values()), algorithms(configs) as built:
        contestants: dict[str, Contestant] = {}
        for num_envs, text in names.items():
            contestants |= {name: built[name] for name in built if name.endswith(text)}
            contestants[f"{BARE}, {text}"] = BareContestant(num_envs)
        turns = take_turns(contestants, rounds)
    rows = []
    for num_envs, text in names.items():
        base, limit = (summary(turns[f"{path}, {text}"])["env_steps_per_s"] for path in (STOCK, BARE))
        for path in (STOCK, OURS, BARE):
            row = {"contestant": f"{path}, {text}", "num_envs": num_envs, "env_runners": 0}
            rows.append(row | compared(turns[f"{path}, {text}"], float(base), float(limit)))
    return rows


def mpe2(rounds: int) -> list[Row]:
    """Compare RLlib's path and this package's on somebody else's environment."""
    configs = {path: config_of(path, SPREAD, 8) for path in (STOCK, OURS)}
    with ray_for(*configs.values()), algorithms(configs) as built:
        turns = take_turns(built, rounds)
    base = float(summary(turns[STOCK])["env_steps_per_s"])
    return [
        {"contestant": path, "num_envs": 8, "env_runners": 0} | compared(turns[path], base) for path in built
    ]


def particles(rounds: int) -> list[Row]:
    """Compare this package's path on mpe2's environments and on the batch of them."""
    configs = {name: config_of(OURS, task, 64) for name, task in PARTICLES.items()}
    with ray_for(*configs.values()), algorithms(configs) as built:
        turns = take_turns(built, rounds)
    base = float(summary(turns["mpe2"])["env_steps_per_s"])
    return [
        {"contestant": name, "num_envs": 64, "env_runners": 0} | compared(turns[name], base) for name in built
    ]


def scaling(rounds: int) -> list[Row]:
    """Measure this package's path with remote runners, on one node and on two."""
    # One runner fits the share "each" of a node, so that two of them lie on different nodes.
    places = {
        "0 runners": (0, {}),
        "1 runner": (1, {"first": 1}),
        "2 runners": (2, {"first": 1}),
        "2 runners, two nodes": (2, {"each": 1}),
    }
    configs = {
        name: config_of(OURS, FOREST, 8, runners).env_runners(custom_resources_per_env_runner=place)
        for name, (runners, place) in places.items()
    }
    with cluster([4, 1], first=3), algorithms(configs) as built:
        turns = take_turns(built, rounds)
        memory = {name: each.runner_memory() for name, each in built.items()}
        nodes = {
            name: len(set(each.algorithm.env_runner_group.foreach_env_runner(node_of)))
            for name, each in built.items()
        }
    base = float(summary(turns["0 runners"])["env_steps_per_s"])
    return [
        {"contestant": name, "num_envs": 8, "env_runners": places[name][0], "nodes": nodes[name]}
        | compared(turns[name], base)
        | {"runner_rss_mib": round(statistics.fmean(memory[name])) if memory[name] else ""}
        for name in places
    ]


@contextlib.contextmanager
def cluster(cpus: Sequence[int], first: int = 0) -> Iterator[None]:
    """Run Ray nodes of so many CPUs on this machine; each has one of the resource ``each``.

    Args:
        cpus: Of each node.
        first: How much of the resource ``first`` the first node has.
    """
    from ray.cluster_utils import Cluster

    nodes = Cluster()
    try:
        nodes.add_node(num_cpus=cpus[0], resources={"first": first, "each": 1}, include_dashboard=False)
        for count in cpus[1:]:
            nodes.add_node(num_cpus=count, resources={"each": 1})
        ray.init(address=nodes.address, log_to_driver=False, logging_level=logging.CRITICAL)
        yield
    finally:
        ray.shutdown()
        nodes.shutdown()


def node_of(_runner: object) -> str:
    import ray

    return ray.get_runtime_context().get_node_id()


def target(seconds: float, curves: list[Row]) -> list[Row]:
    """Train the three until they reach `TARGET`, for so many seconds each at most; ``curves`` gets their iterations."""
    configs = {path: config_of(path, FOREST, 8) for path in (STOCK, OURS)}
    rows: dict[str, Row] = {}
    with ray_for(*configs.values()), algorithms(configs) as built:
        contestants: dict[str, Contestant] = {**built, BARE: BareContestant(8)}
        spent, steps = dict.fromkeys(contestants, 0.0), dict.fromkeys(contestants, 0)
        while len(rows) < len(contestants):
            for name in contestants.keys() - rows.keys():
                turn = contestants[name].turn()
                spent[name] += turn.seconds
                steps[name] += turn.env_steps
                point = {
                    "seconds": round(spent[name], 2),
                    "env_steps": steps[name],
                    "team_return": round(turn.team_return, 2),
                }
                curves.append({"contestant": name, **point})
                if turn.team_return >= TARGET or spent[name] >= seconds:
                    rows[name] = {"contestant": name, "num_envs": 8, "env_runners": 0, **point}
    for row in rows.values():
        row["reached"] = float(row["team_return"]) >= TARGET
    return [rows[name] for name in contestants]


def compared(turns: list[Turn], base: float, limit: float = math.nan) -> Row:
    """Return a summary of turns with its ratios to two other speeds (environment steps/s)."""
    row = summary(turns)
    speed = float(row["env_steps_per_s"])
    del row["ratio"]
    row["ratio"] = round(speed / base, 2)
    row["ratio_to_bare"] = "" if math.isnan(limit) else round(speed / limit, 2)
    return row


TITLES: dict[str, tuple[str, str]] = {  # part -> title, what the ratio is to
    "forest": ("forest_uav_v0, 10 UAVs", "to RLlib"),
    "mpe2": ("mpe2 simple_spread_v3, 3 agents, 8 environments", "to RLlib"),
    "particles": ("this package on spread, 3 agents, 64 environments", "to mpe2"),
    "scaling": ("this package over remote runners, forest_uav_v0, 8 environments each", "to 0"),
}


STEPS_OF = {
    "update": update_rate,
    "off_policy": off_policy_rate,
    "acting": acting_rate,
}  # parts about one step


def show(part: str, rows: list[Row]) -> None:
    if part in STEPS_OF:
        STEPS_OF[part].show(rows)
        return
    if part == "target":
        print(f"\ntime to a team return of {TARGET:g}, forest_uav_v0, 8 environments")
        print(f"{'':<24}{'seconds':>9}{'env steps':>12}{'team return':>13}")
        for row in rows:
            more = "" if row["reached"] else "   not reached"
            print(
                f"{row['contestant']:<24}{row['seconds']:>9,.1f}{row['env_steps']:>12,}{row['team_return']:>13.1f}{more}"
            )
        return
    title, ratio = TITLES[part]
    limits, memory = part == "forest", part == "scaling"
    last = "of torch" if limits else "MiB/runner" if memory else ""
    print(f"\n{title}")
    print(
        f"{'':<24}{'env steps/s':>12}{'agent steps/s':>15}{ratio:>10}{last:>12}{'sample':>9}{'learn':>9}"
        f"{'rest':>9}   rounds, env steps/s"
    )
    for row in rows:
        extra = f"{row['ratio_to_bare']:.2f}" if limits else str(row.get("runner_rss_mib", ""))
        print(
            f"{row['contestant']:<24}{row['env_steps_per_s']:>12,.0f}{row['agent_steps_per_s']:>15,.0f}"
            f"{row['ratio']:>10.2f}{extra:>12}{row['sample_s']:>7.3f} s{row['learn_s']:>7.3f} s"
            f"{row['other_s']:>7.3f} s   {row['slowest_round']:,.0f} to {row['fastest_round']:,.0f}"
        )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    names = ("forest", "mpe2", "particles", "scaling", "update", "off_policy", "acting", "target")
    parser.add_argument("--parts", nargs="+", choices=names, default=names, help="which (all)")
    parser.add_argument("--rounds", type=int, default=12, help="turns of each contestant (12)")
    parser.add_argument("--seconds", type=float, default=900, help="limit of each in the part target (900)")
    parser.add_argument(
        "--out", type=Path, default=Path("results/training_throughput.csv"), help="CSV to write"
    )
    args = parser.parse_args(argv)

    curves: list[Row] = []
    parts: dict[str, Callable[[], list[Row]]] = {
        "forest": lambda: forest(args.rounds),
        "mpe2": lambda: mpe2(args.rounds),
        "particles": lambda: particles(args.rounds),
        "scaling": lambda: scaling(args.rounds),
        "update": lambda: update_rate.update(args.rounds, UPDATE),
        "acting": lambda: acting_rate.acting(args.rounds),
        "off_policy": lambda: off_policy_rate.off_policy(args.rounds),
        "target": lambda: target(args.seconds, curves),
    }
    warnings.filterwarnings("ignore", category=UserWarning, module="gymnasium")
    here = machine()
    print(", ".join(f"{key} {value}" for key, value in here.items()))
    print(f"{STEPS} environment steps an iteration, median of {args.rounds} round{'s' * (args.rounds != 1)}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    table: list[Row] = []
    with quiet_ray(), one_thread():
        for part in args.parts:
            rows = parts[part]()
            show(part, rows)
            if part in STEPS_OF:
                beside = args.out.with_stem(f"{args.out.stem}_{part}")
                write_csv(beside, [{**row, "rounds": args.rounds, **here} for row in rows])
                print(f"\nwritten to {beside}")
                continue
            table += [{"part": part, **row, **here} for row in rows]
            write_csv(args.out, table)
            if part == "forest":
                plot_time(
                    {str(row["contestant"]): parts_of(row) for row in rows},
                    args.out.with_suffix(".png"),
                    f"Where an iteration of {STEPS:,} environment steps goes, forest_uav_v0, {here['cpu']}",
                )
    if table:
        print(f"\nwritten to {args.out}")
    if curves:
        beside = args.out.with_stem(f"{args.out.stem}_target")
        write_csv(beside, curves)
        print(f"and the learning curves to {beside}")


if __name__ == "__main__":
    main()
