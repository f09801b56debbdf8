"""Agents that are trained beside eight distractors, scored where these become noise: drift control, raw results.

In the scenario `distractors` eight numbers follow the state and change nothing; in `sensor_shift` they are noise of the
same size. Arms:

masked        WorldModel that predicts from causes alone, found in transitions after interventions
masked_play   the same, the causes found in its own play
dense         WorldModel that predicts from everything
consistent    the same with the interventional-consistency term, whose causes are found as those of `masked`
ppo           PPO
ppo_consistent  the same with the interventional-consistency term, whose components are found in its first rollouts

    python benchmarks/causal_shift.py masked dense --seeds 0 1 2 3 4
    python benchmarks/causal_shift.py --table      # of what is there, no training

Each run leaves results/causal/shift/<arm>/seed_<n>/ with the returns and lengths of 10 episodes on fixed seeds in both
scenarios, without exploration (`shift.csv`), and the causes that its model uses beside those of the environment's graph
(`edges.csv`: over all targets but the end; a component counts as a cause of itself, since changes are predicted).
`results/causal/shift.csv` sums up, a row a run.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from tables import read, write

import qio_envs
from qio_rllib.acting.policy import Policy
from qio_rllib.artifacts.policy_file import load_policy
from qio_rllib.causal.datasets import true_mask
from qio_rllib.experiments import training
from qio_rllib.experiments.experiment import load_experiment
from qio_rllib.sampling.evaluation import evaluate, evaluation_seeds
from qio_rllib.world_models.ensemble import Ensemble

ENV, SCENARIOS, EPISODES = "drift_control_v0", ("distractors", "sensor_shift"), 10
_MODEL = "tune_configs/drift_control_causal.yaml"
_POLICY = "tune_configs/drift_control_consistency.yaml"
WEIGHT = 10.0  # of the consistency term, of two that were tried on seed 100 (0.1 and 10)
_OWN = ["evaluation_duration=1"]  # the study scores policies itself
ARMS = {
    "masked": (_MODEL, _OWN),
    "masked_play": (_MODEL, [*_OWN, "causal_mask.interventions=0"]),
    "dense": (_MODEL, [*_OWN, "causal_mask=null"]),
    "consistent": (_MODEL, [*_OWN, "causal_mask.use=consistency", f"causal_mask.weight={WEIGHT}"]),
    "ppo": (_POLICY, [*_OWN, "interventional_consistency=null"]),
    "ppo_consistent": (_POLICY, _OWN),
}
KEPT = ("progress.csv", "run.json", "config.yaml")
SECONDS = "time_total_s"


def edges_of(policy: Policy) -> dict[str, int]:
    """Return how many causes a policy's model uses that are none, and how many it lacks; none without a model."""
    model = getattr(policy.team.groups[0].actor.network, "model", None)
    if not isinstance(model, Ensemble):
        return {}
    truth = true_mask(qio_envs.environment(ENV).batched_env(1, scenario=SCENARIOS[0]))
    targets, size = truth.shape[0], model.obs_size
    found = np.ones_like(truth)
    if model.is_factored:
        found = model.input_mask[:targets, 0].numpy() > 0
        found[range(size), range(size)] = True
    false, missed = found & ~truth, truth & ~found
    return {"edges": int(truth.sum()), "false": int(false.sum()), "missed": int(missed.sum())}


def train(arm: str, seed: int, out: Path, overrides: list[str]) -> None:
    target = out / arm / f"seed_{seed}"
    if (target / "shift.csv").exists():
        print(f"{arm}, seed {seed}: kept {target}")
        return
    config, own = ARMS[arm]
    with tempfile.TemporaryDirectory() as runs:
        result = training.train(load_experiment(config, [*own, *overrides], seed=seed), runs)
        policy = load_policy(result.run_dir / "policy.pt")
        rows: list[dict[str, Any]] = []
        for scenario in SCENARIOS:
            episodes = evaluate(
                policy, ENV, {"scenario": scenario}, evaluation_seeds(EPISODES), explore=False
            )
            keys = ("seed", "episode_return", "episode_length")
            rows += [{"scenario": scenario, **{key: row[key] for key in keys}} for row in episodes]
        target.mkdir(parents=True, exist_ok=True)
        for name in KEPT:
            shutil.copy(result.run_dir / name, target / name)
        edges = edges_of(policy)
        if edges:
            write(target / "edges.csv", [edges])
        write(target / "shift.csv", rows)  # last: what has it is complete
    print(f"{arm}, seed {seed}: {summary_of(arm, target)}", flush=True)


def summary_of(arm: str, folder: Path) -> dict[str, Any]:
    """Return the row of a run."""
    rows = read(folder / "shift.csv")
    found: dict[str, Any] = {"arm": arm, "seed": int(folder.name.removeprefix("seed_"))}
    for scenario in SCENARIOS:
        for key in ("return", "length"):
            values = [float(row[f"episode_{key}"]) for row in rows if row["scenario"] == scenario]
            found[f"{key}_{scenario}"] = round(float(np.mean(values)), 4)
    before, after = (found[f"return_{scenario}"] for scenario in SCENARIOS)
    found["change"] = round((after - before) / abs(before), 4)
    edges = read(folder / "edges.csv")[0] if (folder / "edges.csv").exists() else {}
    for key in ("false", "missed"):
        found[f"{key}_edges"] = edges.get(key, "")
    found["training_s"] = round(float(read(folder / "progress.csv")[-1][SECONDS]), 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("arms", nargs="*", metavar="ARM", help=f"of {', '.join(ARMS)}; all when absent")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="0 1 2 3 4")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--out", type=Path, default=Path("results/causal/shift"))
    parser.add_argument("--table", action="store_true", help="only sum up the runs that are there")
    arguments = parser.parse_args()
    for arm in arguments.arms:
        if arm not in ARMS:
            parser.error(f"ARM: expected some of {', '.join(ARMS)}, got {arm!r}")
    if not arguments.table:
        for seed in arguments.seeds:
            for arm in arguments.arms or ARMS:
                train(arm, seed, arguments.out, arguments.overrides)
    rows = [
        summary_of(arm, folder)
        for arm in ARMS
        for folder in sorted(arguments.out.glob(f"{arm}/seed_*"))
        if (folder / "shift.csv").exists()
    ]
    if not rows:
        parser.error(f"there are no runs in {arguments.out}")
    write(arguments.out.with_suffix(".csv"), rows)
    for arm in dict.fromkeys(row["arm"] for row in rows):
        own = [row for row in rows if row["arm"] == arm]
        texts = []
        for key in (*(f"return_{scenario}" for scenario in SCENARIOS), "change"):
            values = [row[key] for row in own]
            texts.append(f"{key} {np.mean(values):.3g} ({min(values):.3g} to {max(values):.3g})")
        print(f"{arm} ({len(own)} seeds): {', '.join(texts)}")


if __name__ == "__main__":
    main()
