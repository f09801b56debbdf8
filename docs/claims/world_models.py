"""World models: what planning with a learned model costs, what it takes, and what imagination adds."""

from __future__ import annotations

from collections.abc import Callable

from claims import figures as f
from claims.claim import Claim, Section
from claims.hidden_state import CLAIMS as OF_HIDDEN_STATE
from claims.hidden_state import CURVES

BESIDE, IMAGINATION = "beside_dreamer.csv", "imagination_controls"
RLLIB = "RLlib DreamerV3 XS, training ratio "
FEW_STEPS = "beside_stable_baselines3_few_steps.csv"
PACKAGES = {
    "ours": "qio PETS",
    "defaults": "stable-baselines3 SAC",
    "tuned": "stable-baselines3 SAC, learning rate 1e-3",
}
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


def _beside(task: str, name: str) -> Claim:
    def of(side: str, column: str, decimals: int, steps: str = "1300") -> Callable[[], str]:
        return lambda: f.last(BESIDE, column, decimals, side=side, task=task, planned_steps=steps)

    sides = {"rllib": f"{RLLIB}1024", "planner": "QIO planner", "actor": "QIO actor"}
    figures = {
        **{who: of(side, "greedy_return", 1) for who, side in sides.items()},
        **{f"{who}_s": of(side, "cpu_seconds", 0) for who, side in sides.items()},
        "updates": of(sides["rllib"], "gradient_steps", 0),
        "longer": of(f"{RLLIB}64", "greedy_return", 1, "4000"),
        "longer_s": of(f"{RLLIB}64", "cpu_seconds", 0, "4000"),
    }
    return Claim(
        f"{name} after 1,300 environment steps, one seed, return without exploration and CPU seconds of training: "
        "planning in an ensemble {planner} ({planner_s} s), an actor in a recurrent model, which is Dreamer, {actor} "
        "({actor_s} s), RLlib's DreamerV3 of size XS {rllib} ({rllib_s} s). RLlib's is untuned, its defaults are meant "
        "for more steps: it has taken {updates} gradient steps by then, the first after 1,024 environment steps. "
        "With a training ratio of 64 and 4,000 steps it is at {longer} ({longer_s} s)",
        figures,
        "python benchmarks/beside_dreamer.py [--sides rllib --ratio 64 --steps 4000]",
        (BESIDE,),
        holds=lambda: all(
            float(figures[who]().replace(",", "")) > float(figures[other]().replace(",", ""))
            for who in ("planner", "actor")
            for other in ("rllib", "longer")
        ),
    )


def _imagined(cell: str) -> Callable[[], str]:
    def text() -> str:
        (row,) = f.rows_of(f"{IMAGINATION}/cells.csv", cell=cell)
        return f.summary_columns(row, "final")

    return text


def _pair(kind: str, first: str, second: str) -> Callable[[], str]:
    return lambda: f.improvement(IMAGINATION, kind, first, second, "drift_control")


def _imagination_holds() -> bool:
    """Whether imagination ends worse than its twin, and nothing else of it can be told from chance."""

    def verdict(kind: str, first: str, second: str) -> str:
        return f.verdict(IMAGINATION, kind, first, second, "drift_control")

    learned = [verdict(kind, "learned", "none") for kind in ("final", "training", "early")]
    return (
        learned == ["worse", "null", "null"]
        and verdict("final", "learned", "random") == verdict("early", "learned", "random") == "null"
        and verdict("final", "random", "none") == "worse"
    )


def _attention_holds() -> bool:
    """Whether every seed with attention is better than every seed without."""
    attending, alone = (f.all_scores(folder, "greedy") for folder in (SEEING, ALONE))
    return min(attending) > max(alone)


SEEING, ALONE = "swarm_attention_world_model", "swarm_attention_world_model_control"
ATTENTION = Claim(
    "Attention in the model, on `swarm_cooperative_v0`, scenario `hidden_target`, in episodes of 60 steps: one agent "
    "of three sees where to go, nobody sees anybody, and all three plan in one ensemble, {steps} environment steps. "
    "With attention over all agents' observations and actions, which they then share while acting, {attending} between "
    "random play (0) and the scripted controller (1), without exploration (score {attending_score}); each by its own "
    "observation alone {alone} (score {alone_score}), since then the one who sees can still go there; on the same "
    "episodes {scripted}. Settings were chosen in three offline fits and one run on seed 100",
    {
        "steps": lambda: f.steps(SEEING),
        "attending": lambda: f.normalized(SEEING, "greedy"),
        "attending_score": lambda: f.seeds(SEEING, "greedy"),
        "alone": lambda: f.normalized(ALONE, "greedy"),
        "alone_score": lambda: f.seeds(ALONE, "greedy"),
        "scripted": lambda: f.scripted(SEEING),
    },
    CURVES
    + "swarm_attention_world_model.yaml --seeds 3 [--out results/swarm_attention_world_model_control --set "
    "world_model.attention_heads=0]",
    (SEEING, ALONE),
    holds=_attention_holds,
)


WORLD_MODELS = Section(
    "World models",
    "Scores are minus the cost, on 20 fixed episodes of `drift_control_v0`, where nothing else is said. The "
    "linear-quadratic regulator (lqr) and planning (cem) know the true model and see the whole state, the regulator on "
    "a filter's estimate (lqg) knows the model alone; what is learned here starts from random play.",
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
        _drift(
            "The experiment that this project began with, at its sizes (a recurrent model, 50 random episodes alone), "
            "on 4 episodes",
            "drift_control_notebook",
            "drift_control_notebook.yaml",
        ),
        _drift(
            "With s1 and s2 hidden, PETS, which has no memory, from 50 random episodes and 50 of its own",
            "drift_control_hidden_memoryless",
            "drift_control_pets.yaml --out results/drift_control_hidden_memoryless --set env_config.scenario=hidden "
            "--set stop.num_env_steps_sampled_lifetime=20000 --set evaluation_interval=null",
        ),
        _drift(
            "PlaNet: a recurrent model, everything observed, from 50 random episodes and 50 of its own",
            "drift_control_planet_default",
            "drift_control_planet.yaml --out results/drift_control_planet_default --set env_config.scenario=default "
            "--set stop.num_env_steps_sampled_lifetime=20000 --set num_steps_sampled_before_learning_starts=10000 "
            "--set pretraining_updates=2000 --set env_steps_per_update=2 --set train_batch_size_per_learner=16 "
            "--set model_sequence_length=32 --set model_lr=1e-3 --set world_model.free_nats=1.0 "
            "--set world_model.reward_bins=41",
        ),
        *OF_HIDDEN_STATE,
        Claim(
            "PETS on `swarm_cooperative_v0`, three agents who share a model, {steps} environment steps: {normalized} "
            "between random play (0) and the scripted controller (1), without exploration (score {score}); on the same "
            "episodes {scripted}; {seconds} s of training a seed, beside other work on the machine",
            {
                "steps": lambda: f.steps("swarm_world_model"),
                "normalized": lambda: f.normalized("swarm_world_model", "greedy"),
                "score": lambda: f.seeds("swarm_world_model", "greedy"),
                "scripted": lambda: f.scripted("swarm_world_model"),
                "seconds": lambda: f.training_seconds("swarm_world_model"),
            },
            CURVES + "swarm_world_model.yaml",
            ("swarm_world_model",),
        ),
        ATTENTION,
        _beside("CartPole-v1", "`CartPole-v1`"),
        _beside("qio_envs/DriftControl-v0", "`drift_control_v0`"),
        Claim(
            "PETS on `Pendulum-v1`, {steps} environment steps, 100 evaluation episodes: {sampled} with exploration, "
            "{greedy} without; {seconds} s of training a seed. Settings were chosen in four trials, on seed 0 and "
            "seeds 100 to 102",
            {
                "steps": lambda: f.steps("pendulum_pets"),
                "sampled": lambda: f.seeds("pendulum_pets", "sampled", "episode_return"),
                "greedy": lambda: f.seeds("pendulum_pets", "greedy", "episode_return"),
                "seconds": lambda: f.training_seconds("pendulum_pets"),
            },
            CURVES + "pendulum_pets.yaml",
            ("pendulum_pets",),
        ),
        Claim(
            "PETS on `Pendulum-v1` beside Stable-Baselines3's SAC, 2,000 steps each, 100 evaluation episodes without "
            "noise: {ours} here; {defaults} there with its defaults, the best of four settings on another "
            "seed, {tuned} with a learning rate of 1e-3 (SAC after 20,000 steps: {later}, 20 episodes); CPU seconds of "
            "training {ours_seconds}, {defaults_seconds} and {tuned_seconds}",
            {
                **{
                    name + what: lambda package=package, column=column: f.grouped(
                        FEW_STEPS, column, package=package
                    )
                    for name, package in PACKAGES.items()
                    for what, column in (("", "greedy_return"), ("_seconds", "cpu_seconds"))
                },
                "later": lambda: f.grouped(
                    "beside_stable_baselines3.csv", "greedy_return", package="stable-baselines3"
                ),
            },
            "python benchmarks/beside_stable_baselines3.py few_steps --seeds 5",
            (FEW_STEPS, "beside_stable_baselines3.csv"),
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
        Claim(
            "PPO that sees what a model imagines (`imagination`), {parameters} parameters whatever the source, 102,400 "
            "steps, return without exploration: learned model {learned}, none {none}, random model {random}. "
            "Imagination does not help here. It ends a little worse than its model-free twin: better in {final} of the "
            "pairs, with a random model in {random_final}; from the random model it cannot be told ({against_random}). "
            "How fast it learns is a null result: higher mean return over the first 20,480 steps in {early} of "
            "the pairs, over the whole training in {training}",
            {
                "parameters": lambda: f.cell(
                    f"{IMAGINATION}/cells.csv", "actor_parameters", 0, cell="learned"
                ),
                **{cell: _imagined(cell) for cell in ("learned", "none", "random")},
                "final": _pair("final", "learned", "none"),
                "random_final": _pair("final", "random", "none"),
                "against_random": _pair("final", "learned", "random"),
                "early": _pair("early", "learned", "none"),
                "training": _pair("training", "learned", "none"),
            },
            "python benchmarks/imagination_controls.py --seeds 10",
            (IMAGINATION,),
            holds=_imagination_holds,
        ),
    ),
)
