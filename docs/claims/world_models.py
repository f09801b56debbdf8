"""World models: what planning with a learned model costs, and what it takes."""

from __future__ import annotations

from collections.abc import Callable

from claims import figures as f
from claims.claim import Claim, Section

CURVES = "python benchmarks/learning_curves.py tune_configs/"
QUALITY, RATE = "planning/quality.csv", "planning/rate.csv"


def _drift(what: str, folder: str, arguments: str) -> Claim:
    return Claim(
        f"{what}, {{steps}} environment steps: {{ratio}} times the regulator's cost (without exploration; score "
        "{score}); on the same episodes {scripted}; {seconds} s of training a seed",
        {
            "steps": lambda: f.steps(folder),
            "ratio": lambda: f.relative(folder, "lqr"),
            "score": lambda: f.seeds(folder, "greedy"),
            "scripted": lambda: f.scripted(folder),
            "seconds": lambda: f.training_seconds(folder),
        },
        CURVES + arguments,
        (folder,),
    )


def _over(planner: str) -> Callable[[], str]:
    return lambda: (
        f"{f.number(QUALITY, 'over_2500', planner=planner):.3f} "
        f"({f.cell(QUALITY, 'sequences', 0, planner=planner)} sequences)"
    )


WORLD_MODELS = Section(
    "World models",
    "Scores are returns on 20 fixed episodes; of `drift_control_v0` minus the cost. The linear-quadratic "
    "regulator (lqr) and planning (cem) know the true model; what is learned here starts from random play.",
    (
        _drift(
            "PETS from 10 random episodes",
            "drift_control_pets_10",
            "drift_control_pets.yaml --out results/drift_control_pets_10 --set "
            "stop.num_env_steps_sampled_lifetime=2000 --set num_steps_sampled_before_learning_starts=2000",
        ),
        _drift(
            "PETS from 50 random episodes and 20 of its own", "drift_control_pets", "drift_control_pets.yaml"
        ),
        Claim(
            "PETS on `swarm_cooperative_v0`, three agents who share a model, {steps} environment steps: {score} "
            "without exploration; {scripted}; {seconds} s of training a seed, beside other work on the machine",
            {
                "steps": lambda: f.steps("swarm_world_model"),
                "score": lambda: f.seeds("swarm_world_model", "greedy"),
                "scripted": lambda: f.scripted("swarm_world_model"),
                "seconds": lambda: f.training_seconds("swarm_world_model"),
            },
            CURVES + "swarm_world_model.yaml",
            ("swarm_world_model",),
        ),
        Claim(
            "What planning with few sequences of actions costs, over planning with {all} a decision, both with the "
            "true model: iCEM {icem}, MPPI {mppi}, CEM {cem}",
            {
                "all": lambda: f.cell(QUALITY, "sequences", 0, planner="cem 2,500"),
                "icem": _over("icem"),
                "mppi": _over("mppi 400"),
                "cem": _over("cem 400"),
            },
            "python benchmarks/planning.py quality",
            (QUALITY,),
        ),
        Claim(
            "A decision of 500 candidates, 5 iterations and 8 steps with a recurrent model on one thread: {share} of "
            "the rate of bare matrix products of the same shapes, {milliseconds} ms",
            {
                "share": lambda: f.cell(RATE, "share", 2, what="decision"),
                "milliseconds": lambda: f.cell(RATE, "milliseconds", 0, what="decision"),
            },
            "python benchmarks/planning.py rate",
            (RATE,),
        ),
    ),
)
