"""Write the pretrained policies of the package and their cards, and the table of docs/policies.md, from results/.

python docs/policy_cards.py

A policy is that of the first seed of its study, which says nothing of its score; `POLICIES` names the studies.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from claims import figures

from qio_envs.api.scores import normalized_score
from qio_rllib.artifacts.pretrained import Card
from qio_rllib.artifacts.yaml_files import read_yaml, yaml_text

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "qio_rllib/artifacts/policies"
PAGE = ROOT / "docs/policies.md"
START, END = "<!-- policies -->", "<!-- end of policies -->"

# By name: the folder of the study under results/ and the way of acting that its claims are made for. Where a study has
# another measure than the team's return, a third entry names the column.
POLICIES: dict[str, tuple[str, ...]] = {
    "drift_control_pets": ("drift_control_pets", "greedy"),
    "forest_uav_a2c": ("forest_uav_a2c", "sampled"),
    "forest_uav_mappo": ("forest_uav_mappo", "sampled"),
    "forest_uav_ppo": ("forest_uav_ppo", "sampled"),
    "forest_uav_sprint_ppo": ("forest_uav_sprint_ppo", "sampled"),
    "mpe_speaker_listener_mappo": ("reproduction/speaker_listener/mappo", "greedy"),
    "mpe_spread_mappo": ("reproduction/spread/mappo_counterfactual", "greedy"),
    "skirmish_qmix": ("reproduction/skirmish_3s5z/qmix", "greedy", "won"),
    "swarm_masac": ("swarm_masac", "greedy"),
    "swarm_memory_ppo": ("swarm_memory_ppo", "sampled"),
    "swarm_world_model": ("swarm_world_model", "greedy"),
}
LARGEST = 3_000_000  # bytes of all policy files


def policy_file(name: str) -> Path:
    """Return the policy file of a study's first seed."""
    return figures.RESULTS / POLICIES[name][0] / "seed_0/policy.pt"


def card(name: str) -> Card:
    """Return the card of a policy, every figure from the raw files of its study."""
    folder, mode, *column = POLICIES[name]
    metric = column[0] if column else "team_return"
    run = figures.RESULTS / folder / "seed_0"
    ((_, experiment),) = read_yaml(run / "config.yaml").items()
    info = json.loads((run / "run.json").read_text())
    last = figures.read(run / "progress.csv")[-1]
    scores = [float(row[metric]) for row in figures.read(run / "evaluation.csv") if row["mode"] == mode]
    score, margin = float(np.mean(scores)), 1.96 * float(np.std(scores, ddof=1)) / math.sqrt(len(scores))
    scripted = [
        row for row in figures.rows_of(f"{folder}/summary.csv") if row["policy"].startswith("scripted: ")
    ]
    worst, best = (
        float(scripted[0]["score"]),
        float(scripted[-1]["score"]),
    )  # random play first, the best last
    config = next(part for part in info["command"] if part.endswith(".yaml"))
    return Card(
        name=name,
        env=experiment["env"],
        env_config=experiment["config"].get("env_config") or {},
        algorithm="MAPPO" if experiment["config"].get("central_value") else experiment["run"],
        command=f"rllib train {Path(config).stem} --seed {info['seed']}",
        seed=info["seed"],
        env_steps=int(float(last[figures.STEPS])),
        training_seconds=round(float(last["time_total_s"]), 1),
        mode=mode,
        metric=metric,
        episodes=len(scores),
        score=score,
        interval=(score - margin, score + margin),
        random=worst,
        best_scripted=scripted[-1]["policy"].removeprefix("scripted: "),
        best=best,
        normalized=normalized_score(score, worst, best),
        study=figures.seeds(folder, mode, metric),
        results=f"results/{folder}",
        licence="MIT",
        sha256=hashlib.sha256(policy_file(name).read_bytes()).hexdigest(),
        versions=info["versions"],
    )


def page(text: str) -> str:
    """Return docs/policies.md with the table of what `POLICIES` names."""
    lines = [
        "| policy | task | algorithm | actions | score (95% interval) | random | best scripted | normalised "
        "| trained with |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in map(card, POLICIES):
        low, high = one.interval
        lines.append(
            f"| `{one.name}` | {one.task} | {one.algorithm} | {one.mode} | {one.shown(one.score)}{one.measure} "
            f"({one.shown(low)} to {one.shown(high)}) | {one.shown(one.random)} | "
            f"{one.best_scripted} {one.shown(one.best)} | {one.normalized:.2f} | `{one.command}` |"
        )
    table = "\n".join([START, "", *lines, "", END])
    return re.sub(f"{START}.*{END}", lambda _: table, text, flags=re.DOTALL)


def main() -> None:
    """Write everything anew; policies that are named no more go."""
    values: dict[str, Any] = {name: card(name) for name in POLICIES}
    size = sum(policy_file(name).stat().st_size for name in POLICIES)
    if size > LARGEST:
        raise SystemExit(f"policy files: {size:,} bytes in all, expected at most {LARGEST:,}")
    shutil.rmtree(TARGET, ignore_errors=True)
    for name, one in values.items():
        folder = TARGET / name
        folder.mkdir(parents=True)
        shutil.copy(policy_file(name), folder / "policy.pt")
        (folder / "card.yaml").write_text(yaml_text(one.as_dict()), encoding="utf-8")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
