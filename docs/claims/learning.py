"""What the algorithms learn: forest, swarm, mpe2 and Gymnasium."""

from __future__ import annotations

from collections.abc import Callable

from claims import figures as f
from claims.claim import Claim, Section

RETURNS = "python benchmarks/learning_curves.py tune_configs/"


def learning(
    what: str,
    folder: str,
    arguments: str,
    column: str = "team_return",
    more: str = "",
    **figures: Callable[[], str],
) -> Claim:
    """Return the claim of a study of `learning_curves.py`: final scores of both kinds of evaluation."""
    return Claim(
        f"{what}, {{steps}} environment steps: {{sampled}} with sampled actions, {{greedy}} with the most "
        f"probable ones or without noise{more}",
        {
            "steps": lambda: f.steps(folder),
            "sampled": lambda: f.seeds(folder, "sampled", column),
            "greedy": lambda: f.seeds(folder, "greedy", column),
            **figures,
        },
        RETURNS + arguments,
        (folder,),
    )


FOREST = Section(
    "The forest",
    "Team return of ten UAVs on 20 fixed episodes of `forest_uav_v0`; 400 is the most there is. The runs of "
    "PPO and A2C have the Q operator in their policies and no control beside it: that it is what makes them "
    "good is not claimed, and the runs with controls (below) speak against it. UAVs that share a network and "
    "see the same choose the same most probable action and stay together, which is what ruins greedy play; "
    "with `agent_id` and the `difference` reward they do not. Where every UAV is paid the team's reward "
    "(MAPPO and its controls), `agent_id` alone does not mend it in 64,000 steps.",
    (
        learning(
            "PPO",
            "forest_uav_ppo",
            "forest_uav_ppo.yaml",
            more="; on the same episodes {scripted}; {seconds} s of training a seed",
            scripted=lambda: f.scripted("forest_uav_ppo"),
            seconds=lambda: f.training_seconds("forest_uav_ppo"),
        ),
        learning("A2C", "forest_uav_a2c", "forest_uav_a2c.yaml"),
        learning(
            "PPO with hardly time to cover the forest (`sprint`, 60 steps)",
            "forest_uav_sprint_ppo",
            "forest_uav_sprint_ppo.yaml",
            more="; on the same episodes {scripted}",
            scripted=lambda: f.scripted("forest_uav_sprint_ppo"),
        ),
        learning("MAPPO, the team's reward", "forest_uav_mappo", "forest_uav_mappo.yaml --seeds 3"),
        learning(
            "The same with independent values",
            "forest_uav_team_ippo",
            "forest_uav_mappo.yaml --seeds 3 --set central_value=null --out results/forest_uav_team_ippo",
        ),
        learning(
            "MAPPO without `normalize_values`",
            "forest_uav_mappo_unscaled",
            "forest_uav_mappo.yaml --seeds 3 --set normalize_values=false --out "
            "results/forest_uav_mappo_unscaled",
        ),
    ),
    picture=("forest_uav_ppo/learning_curve.png", "Team return against environment steps, PPO in the forest"),
    after=(
        "MAPPO wins by environment steps; its training takes {mappo} s against {ippo} s with independent "
        "values, and a comparison at equal time was not made."
    ),
    figures={
        "mappo": lambda: f.training_seconds("forest_uav_mappo"),
        "ippo": lambda: f.training_seconds("forest_uav_team_ippo"),
    },
)

SWARM = Section(
    "The swarm, and messages",
    "Team return of three agents in the plane on 20 fixed episodes. Of `hidden_target` only one of them "
    "sees where to go.",
    (
        learning(
            "MADDPG on `swarm_cooperative_v0`",
            "swarm_maddpg",
            "swarm_maddpg.yaml",
            more=(
                ": {normalized} between random play and the scripted controller, without noise; on the same "
                "episodes {scripted}; {seconds} s of training a seed"
            ),
            normalized=lambda: f.normalized("swarm_maddpg", "greedy"),
            scripted=lambda: f.scripted("swarm_maddpg"),
            seconds=lambda: f.training_seconds("swarm_maddpg"),
        ),
        learning(
            "MASAC on the same task",
            "swarm_masac",
            "swarm_masac.yaml",
            more=": {normalized} between random play and the scripted controller; {seconds} s of training a seed",
            normalized=lambda: f.normalized("swarm_masac", "greedy"),
            seconds=lambda: f.training_seconds("swarm_masac"),
        ),
        learning(
            "PPO with an LSTM on `remembered_target`, whose target is shown in the first five steps only (40 episodes)",
            "swarm_memory_ppo",
            "swarm_memory_ppo.yaml",
            more=(
                ": {normalized} between random play and the scripted controller, with sampled actions; on the same "
                "episodes {scripted}"
            ),
            normalized=lambda: f.normalized("swarm_memory_ppo", "sampled"),
            scripted=lambda: f.scripted("swarm_memory_ppo"),
        ),
        learning(
            "The same without memory",
            "swarm_memory_ppo_control",
            "swarm_memory_ppo.yaml --set model_config.use_lstm=false --out results/swarm_memory_ppo_control",
            more=": {normalized} between random play and the scripted controller, with sampled actions",
            normalized=lambda: f.normalized("swarm_memory_ppo_control", "sampled"),
        ),
        Claim(
            "Learned messages on `hidden_target`, without noise, numbers in a message: none {none}; one "
            "{one}; two {two}; four {four}. Four with half of the messages lost {half}, with nine of ten "
            "{most}",
            {
                name: lambda folder=folder: f.seeds(f"communication/{folder}", "greedy")
                for name, folder in {
                    "none": "bandwidth_0_drop_0",
                    "one": "bandwidth_1_drop_0",
                    "two": "bandwidth_2_drop_0",
                    "four": "bandwidth_4_drop_0",
                    "half": "bandwidth_4_drop_0.5",
                    "most": "bandwidth_4_drop_0.9",
                }.items()
            },
            "python benchmarks/communication.py --seeds 3",
            ("communication",),
        ),
    ),
    picture=(
        "communication/communication.png",
        "Team return against bandwidth, and against the share of messages lost",
    ),
    after=(
        "The hidden target is a point in the plane: two numbers tell it, one cannot, more do not help. "
        "Receivers have no memory."
    ),
)

BENCHMARL, TRIALS = "beside_benchmarl.csv", "beside_benchmarl_trials.csv"


def beside_benchmarl() -> tuple[Claim, ...]:
    """Return the claims beside BenchMARL, one an algorithm; none before the seeds have run."""
    if not (f.RESULTS / BENCHMARL).exists():
        return ()
    return _beside_benchmarl("QMIX", "discrete"), _beside_benchmarl("MADDPG", "continuous")


def _beside_benchmarl(name: str, actions: str) -> Claim:
    algorithm = name.lower()
    columns = (
        ("return", "return_per_agent", 1),
        ("normalized", "normalized", 2),
        ("seconds", "seconds", 0),
        ("cpu", "cpu_seconds", 0),
    )
    figures = {
        f"{who}_{what}": lambda column=column, decimals=decimals, package=package: f.grouped(
            BENCHMARL, column, decimals, algorithm=algorithm, package=package
        )
        for who, package in (("our", "qio"), ("their", "benchmarl"))
        for what, column, decimals in columns
    }

    def rows(file: str) -> tuple[int, int]:
        ours, theirs = (
            len(f.rows_of(file, algorithm=algorithm, package=who)) for who in ("qio", "benchmarl")
        )
        return ours, theirs

    return Claim(
        f"{name} beside BenchMARL's 1.5.2, `simple_spread_v3` with {actions} actions, {{frames}} environment steps, "
        "settings the best of {trials} trials of each side with another seed. Return of an agent without noise "
        "{our_return} here, {their_return} there; between random play (0) and the oracle (1) {our_normalized} and "
        "{their_normalized}; seconds of training, beside other work, {our_seconds} and {their_seconds}, of the CPU "
        "{our_cpu} and {their_cpu}",
        figures
        | {
            "frames": lambda: f"{f.only(BENCHMARL, 'frames', algorithm=algorithm):,.0f}",
            "trials": lambda: str(rows(TRIALS)[0]),
        },
        "python benchmarks/beside_benchmarl.py --benchmarl PYTHON",
        (BENCHMARL, TRIALS),
        holds=lambda: all(len(set(rows(file))) == 1 for file in (BENCHMARL, TRIALS)),
    )


MPE = Section(
    "mpe2 and Gymnasium",
    "Returns are summed over agents, on 100 fixed episodes of 25 steps (CartPole: 20 episodes).",
    (
        learning(
            "MADDPG on `simple_spread_v3`, discrete actions",
            "spread_maddpg",
            "spread_maddpg.yaml",
            "episode_return",
        ),
        learning(
            "The same with continuous actions",
            "spread_maddpg_continuous",
            "spread_maddpg.yaml --seeds 3 --set env_config.continuous_actions=true --out "
            "results/spread_maddpg_continuous",
            "episode_return",
        ),
        learning(
            "MADDPG on `simple_speaker_listener_v4`",
            "speaker_listener_maddpg",
            "speaker_listener_maddpg.yaml --seeds 3",
            "episode_return",
        ),
        learning(
            "MAPPO on `simple_spread_v3`", "spread_mappo", "spread_mappo.yaml --seeds 3", "episode_return"
        ),
        learning("PPO with independent values", "spread_ppo", "spread_ppo.yaml --seeds 3", "episode_return"),
        learning("A2C on `CartPole-v1`", "cartpole_a2c", "cartpole_a2c.yaml --seeds 3", "episode_return"),
        learning("Q-learning on `CartPole-v1`", "cartpole_dqn", "cartpole_dqn.yaml", "episode_return"),
        Claim(
            "MASAC on `Pendulum-v1` beside Stable-Baselines3's SAC, 20,000 steps, sizes and rates alike, neither "
            "tuned: return without noise {our_return} here, {their_return} there; CPU seconds of training {ours} "
            "and {theirs}",
            {
                f"{who}{what}": lambda package=package, column=column: f.grouped(
                    "beside_stable_baselines3.csv", column, package=package
                )
                for who, package in (("our", "qio"), ("their", "stable-baselines3"))
                for what, column in (("_return", "greedy_return"), ("s", "cpu_seconds"))
            },
            "python benchmarks/beside_stable_baselines3.py --seeds 3",
            ("beside_stable_baselines3.csv",),
        ),
        *beside_benchmarl(),
    ),
    after=(
        "The settings of `spread_maddpg.yaml` were chosen after four trials with seed 0, on the evaluation "
        "episodes that are reported; seed 0 is among the seeds. `speaker_listener_maddpg.yaml` took them "
        "over. On `simple_spread_v3` an agent's observation already holds nearly all of the state, and a "
        "central value adds little."
    ),
)

HEADLINE = Claim(
    "With `tune_configs/forest_uav_ppo.yaml` ({steps} environment steps, {seconds} s on two cores) their team "
    "return with sampled actions is {sampled}; 400 is the most there is. On the same episodes: {scripted}.",
    {
        "steps": lambda: f.steps("reproduction/forest/ppo"),
        "seconds": lambda: f.training_seconds("reproduction/forest/ppo"),
        "sampled": lambda: f.seeds("reproduction/forest/ppo"),
        "scripted": lambda: f.scripted("reproduction/forest/ppo"),
    },
    "make reproduce TASK=forest/ppo",
    ("reproduction/forest/ppo",),
)
"""What the README says in a line."""
