"""The greedy casino: PPO and Thompson sampling that know their intention, and those that do not.

    python benchmarks/casino.py --seeds 10         # everything, some five minutes
    python benchmarks/casino.py --parts bandits    # one part

``ppo`` trains tune_configs/greedy_casino_ppo.yaml and its control for 100,000 rounds. Each trained policy plays 200,000
rounds that no other seed plays (standard error of a payout rate 0.0011 or less), sampled; its exact expected payout,
from its probabilities, stands beside what was paid. ``bandits`` lets 1,000 gamblers learn by Thompson sampling: payout
rates of the rounds up to each count, and the exact expected payout of what they then think best.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tables import append, read, write

import qio_envs
from qio_envs.greedy_casino import expected_payout, logged
from qio_rllib.acting.actor import NetworkActor
from qio_rllib.acting.team import Team
from qio_rllib.artifacts.run_description import cpu_model
from qio_rllib.causal.bandit import ThompsonBandit
from qio_rllib.evaluation.aggregate import Summary
from qio_rllib.experiments import training
from qio_rllib.experiments.experiment import load_experiment
from qio_rllib.models.policy_network import PolicyNetwork
from qio_rllib.sampling.batched_vector_env import BatchedVectorEnv
from qio_rllib.sampling.evaluation import FIRST_EVALUATION_SEED, load_policy_from_checkpoint
from qio_rllib.sampling.stepper import EnvStepper

CONFIG = Path("tune_configs/greedy_casino_ppo.yaml")
SCENARIOS = {"with intent": "default", "without": "no_intent"}
NUM_ENVS, ROUNDS = 1000, 200
GAMBLERS, LOGGED = 1000, 1000
COUNTS = (10, 100, 1_000, 10_000)
Row = dict[str, Any]


def round_seeds(seed: int) -> range:
    """Return the seeds of the environments that a run is evaluated in, disjoint from those of all other runs."""
    first = FIRST_EVALUATION_SEED + seed * NUM_ENVS
    return range(first, first + NUM_ENVS)


def played(team: Team, scenario: str, seed: int) -> float:
    """Return the share of 200,000 rounds in which a sampled policy is paid."""
    batch = qio_envs.greedy_casino_v0.batched_env(NUM_ENVS, scenario=scenario, rounds=ROUNDS)
    stepper = EnvStepper(BatchedVectorEnv(batch), team)
    stepper.reset(np.array(round_seeds(seed), np.uint64))
    rng = np.random.Generator(np.random.Philox(key=seed))
    while True:
        step = stepper.step(rng, explore=True)
        if step.over.all():
            return float(batch.info()["payout_rate"].mean())
        stepper.advance(step)


def exact(network: PolicyNetwork, knows: bool) -> float:
    """Return the expected payout of a policy from its probabilities."""
    obs = torch.eye(2) if knows else torch.zeros(2, 2)
    with torch.no_grad():
        return expected_payout(torch.softmax(network(obs)[0].double(), dim=-1).numpy())


def ppo(seeds: range, out: Path) -> None:
    """Train PPO with and without the intention; a row a run."""
    path = out / "ppo.csv"
    there = {(row["policy"], int(row["seed"])) for row in read(path)}
    for name, scenario in SCENARIOS.items():
        for seed in seeds:
            if (name, seed) in there:
                continue
            with tempfile.TemporaryDirectory() as runs:
                experiment = load_experiment(CONFIG, [f"env_config.scenario={scenario}"], seed=seed)
                result = training.train(experiment, runs)
                team = load_policy_from_checkpoint(result.checkpoint).team
            (group,) = team.groups
            assert isinstance(group.actor, NetworkActor)
            row = {
                "policy": name,
                "seed": seed,
                "rounds": experiment.stop["num_env_steps_sampled_lifetime"],
                "payout_rate": played(team, scenario, seed),
                "exact": exact(group.actor.network, scenario == "default"),
                "cpu": cpu_model(),
            }
            append(path, [row])
            print(row, flush=True)


def bandit_rows(name: str, knows: bool, log_rounds: int, seed: int, gamblers: int) -> list[Row]:
    """Let gamblers learn by themselves, each in rounds of its own; a row at each of `COUNTS`."""
    env = qio_envs.greedy_casino_v0.batched_env(gamblers, rounds=COUNTS[-1])
    env.reset(seed * gamblers)
    bandit = ThompsonBandit(gamblers, 2 if knows else 1, 2, seed)
    if log_rounds:
        log = {column: values.astype(int) for column, values in logged(log_rounds, seed=seed).items()}
        contexts = log["intent"] if knows else np.zeros(log_rounds, int)
        bandit.learn_log(contexts, log["machine"], log["reward"])
    rows = []
    for count in range(1, COUNTS[-1] + 1):
        intent = env.arrays.intent.astype(int)
        contexts = intent if knows else np.zeros(gamblers, int)
        arms = bandit.act(contexts)
        bandit.learn(contexts, arms, env.step(arms[:, None]).rewards[:, 0])
        if count in COUNTS:
            choices = np.broadcast_to(
                bandit.choices(), (gamblers, 2)
            )  # with one context for either intention
            rows.append(
                {
                    "policy": name,
                    "logged_rounds": log_rounds,
                    "seed": seed,
                    "gamblers": gamblers,
                    "rounds": count,
                    "payout_rate": float(env.info()["payout_rate"].mean()),
                    "exact": float(np.mean([expected_payout(np.eye(2)[one]) for one in choices])),
                    "cpu": cpu_model(),
                }
            )
    return rows


def bandits(seed: int, out: Path, gamblers: int = GAMBLERS) -> None:
    """Thompson sampling with the intention, without it, and with it after a log of gamblers who followed it."""
    rows: list[Row] = []
    for name, knows, log_rounds in (
        ("with intent", True, 0),
        ("without", False, 0),
        ("with intent", True, LOGGED),
    ):
        rows += bandit_rows(name, knows, log_rounds, seed, gamblers)
    write(out / "bandits.csv", rows)
    for row in rows:
        print({key: value for key, value in row.items() if key != "cpu"})


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10, help="runs of PPO, from seed 0 (10)")
    parser.add_argument("--parts", nargs="+", choices=("ppo", "bandits"), default=("ppo", "bandits"))
    parser.add_argument("--out", type=Path, default=Path("results/casino"), help="where to write")
    args = parser.parse_args(arguments)
    if "bandits" in args.parts:
        bandits(0, args.out)
    if "ppo" in args.parts:
        ppo(range(args.seeds), args.out)
        rows = read(args.out / "ppo.csv")
        for name in SCENARIOS:
            for column in ("payout_rate", "exact"):
                values = [float(row[column]) for row in rows if row["policy"] == name]
                print(f"PPO {name:12} {column:12} {Summary.of(values).text(4)}")


if __name__ == "__main__":
    main()
