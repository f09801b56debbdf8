"""The field's benchmarks as batches: agreement with the originals, speed, scripted policies; measured credit."""

from __future__ import annotations

from collections.abc import Callable

from tables import read

from claims import figures as f
from claims.claim import Claim, Section

MPE, SMAX = "mpe_throughput.csv", "skirmish/throughput.csv"
AGREEMENT, WINS = "skirmish/agreement.csv", "skirmish/win_rates.csv"
TRAINING = "mpe_training.csv"
SPREAD = "mpe_spread_trials.csv"
CREDIT = ("forest_uav_ppo", "forest_uav_mappo", "swarm_maddpg")
COUNTERFACTUAL = "MAPPO, counterfactual baseline"
FAR, NEAR = "n_step 3, gamma 0.99", "n_step 3, gamma 0.9, rewards a twentieth"


def _times_mpe2(contestant: str, agents: int) -> Callable[[], str]:
    return lambda: f.cell(
        MPE, "ratio_to_mpe2", 0, contestant=f"mpe_spread_v0, {contestant}", agents=str(agents)
    )


def _errors(column: str, within: float) -> tuple[list[str], list[str]]:
    """Return the maps whose greatest error lies within a bound, and the others."""
    rows = read(f.RESULTS / AGREEMENT)
    greatest: dict[str, float] = {}
    for row in rows:
        greatest[row["map"]] = max(greatest.get(row["map"], 0.0), float(row[column]))
    near = [name for name, error in greatest.items() if error <= within]
    return near, [name for name in greatest if name not in near]


def _nothing_else_differs() -> bool:
    rows = read(f.RESULTS / AGREEMENT)
    return all(int(row[key]) == 0 for row in rows for key in ("wrong_masks", "wrong_ends", "wrong_decisions"))


def _wins(policy: str) -> Callable[[], str]:
    def found() -> str:
        rows = [row for row in f.rows_of(WINS, policy=policy) if row["scenario"] not in ("default", "sparse")]
        return ", ".join(f"{row['scenario']} {float(row['win_rate']):.2f}" for row in rows)

    return found


def _of_gae(folder: str, column: str, estimator: str = "GAE") -> Callable[[], str]:
    return lambda: f"{f.number(f'credit/{folder}/estimators.csv', column, estimator=estimator):.2g}"


def _spread(algorithm: str, settings: str, env_steps: int) -> Callable[[], str]:
    """Return the greedy return of a trial on spread."""
    where = {"algorithm": algorithm, "settings": settings, "env_steps": str(env_steps)}
    return lambda: f.cell(SPREAD, "greedy_return", **where)


FIELD = Section(
    "The field's benchmarks, and credit",
    "Speeds are ratios of contestants in turn in one run.",
    (
        Claim(
            "`mpe_spread_v0` beside mpe2's `simple_spread_v3`, one core, random actions and all observations: as a "
            "batch of 64 {three} times the steps/s with 3 agents and {ten} times with 10, as a PettingZoo environment "
            "{three_alone} and {ten_alone} times",
            {
                "three": _times_mpe2("batch of 64", 3),
                "ten": _times_mpe2("batch of 64", 10),
                "three_alone": _times_mpe2("PettingZoo", 3),
                "ten_alone": _times_mpe2("PettingZoo", 10),
            },
            "python benchmarks/env_throughput.py --only spread --rounds 15 --out results/mpe_throughput.csv",
            (MPE,),
        ),
        Claim(
            "PPO on spread with 3 agents, 64 environments, 1,600 steps an iteration, 4 epochs, networks of two layers "
            "of 64: on `mpe_spread_v0` {ratio} times the steps/s that it has on mpe2's `simple_spread_v3`",
            {"ratio": lambda: f.cell(TRAINING, "ratio", contestant="mpe_spread_v0")},
            "python benchmarks/training_throughput.py --parts particles --rounds 25 --out results/mpe_training.csv",
            (TRAINING,),
        ),
        Claim(
            "The discount decides on `mpe_spread_v0` (EPyMARL's unit), whose episodes have 25 steps. One run each on a "
            "seed that no study uses, without exploration, 100 episodes: after 1,920,000 steps MAPPO with a "
            "counterfactual baseline has {mappo_far} with a discount of 0.95, and after 2,000,000 {mappo} with 0.9; "
            "QMIX {qmix_far} with 0.99 and {qmix} with 0.9 and a twentieth of the rewards; VDN after 960,000 steps "
            "{vdn_far} and {vdn}, with 0.9 and whole rewards {vdn_whole}",
            {
                "mappo_far": _spread(COUNTERFACTUAL, "gamma 0.95", 1_920_000),
                "mappo": _spread(COUNTERFACTUAL, "gamma 0.9", 2_000_000),
                "qmix_far": _spread("QMIX", FAR, 1_920_000),
                "qmix": _spread("QMIX", NEAR, 1_920_000),
                "vdn_far": _spread("VDN", FAR, 960_000),
                "vdn": _spread("VDN", NEAR, 960_000),
                "vdn_whole": _spread("VDN", "n_step 3, gamma 0.9, lr to 1e-4", 960_000),
            },
            "rllib train --config tune_configs/mpe_spread_mappo.yaml --set seed=100 --set gamma=0.95",
            (SPREAD,),
        ),
        Claim(
            "`skirmish_v0` beside SMAX of JaxMARL 0.2.0, one core, 64 copies, random play with observations, masks, "
            "states and resets: {small} times the steps a CPU second on 2s3z, {large} times on 27m_vs_30m",
            {
                "small": lambda: f.cell(SMAX, "ratio", map="2s3z"),
                "large": lambda: f.cell(SMAX, "ratio", map="27m_vs_30m"),
            },
            "python benchmarks/skirmish_throughput.py --jaxmarl-python PYTHON",
            (SMAX,),
        ),
        Claim(
            "`skirmish_v0` replays 112 episodes of SMAX on 14 maps: every mask, ending and decision of the enemy is "
            "the same, and each step from SMAX's own state agrees within 1e-5. Whole episodes agree within 1e-4 on "
            "{number} maps; on {far} they do not, since pushes in a crowd let rounding errors grow",
            {
                "number": lambda: str(len(_errors("whole_error", 1e-4)[0])),
                "far": lambda: ", ".join(_errors("whole_error", 1e-4)[1]),
            },
            "python benchmarks/smax_agreement.py --episodes FILE",
            (AGREEMENT,),
            holds=lambda: _nothing_else_differs() and not _errors("step_error", 1e-5)[1],
        ),
        Claim(
            "Share of 1,000 battles that the best scripted controller known here, `focus`, wins: {focus}. It is no "
            "upper bound where it wins few",
            {"focus": _wins("focus")},
            "python benchmarks/skirmish_win_rates.py",
            (WINS,),
        ),
        Claim(
            "True advantages of 40 decisions of one training each, measured in 64 exact branches an action. In the "
            "forest a single GAE estimate of PPO is off by {gae} (root mean square) where true advantages are 0.05, by "
            "an offset that all actions share ({offset}) and by noise ({noise}); what biases the policy gradient is "
            "{distortion}, of one-step TD {td}. MAPPO's is off by {central}. The critic of MADDPG in the swarm, whose "
            "true advantages are 0.05 too, is off by {critic}",
            {
                "gae": _of_gae("forest_uav_ppo", "rmse"),
                "offset": _of_gae("forest_uav_ppo", "offset"),
                "noise": _of_gae("forest_uav_ppo", "noise"),
                "distortion": _of_gae("forest_uav_ppo", "distortion"),
                "td": _of_gae("forest_uav_ppo", "distortion", "one-step TD"),
                "central": _of_gae("forest_uav_mappo", "rmse"),
                "critic": _of_gae("swarm_maddpg", "rmse", "critic of actions"),
            },
            "rllib credit RUN --states 40 --branches 64 --out DIR",
            tuple(f"credit/{folder}" for folder in CREDIT),
        ),
    ),
)
