"""Does pay for influence help a team? Matched controls, paired seeds, raw results.

PPO on a small forest of four UAVs that see each other, in cells that share environment, settings and seeds, and differ
in what is added to the rewards that are learned from:

none        nothing; the influence is measured all the same
influence   the influence of a UAV's move on what the others do next, in nats, times a coefficient
permuted    the same numbers, shuffled among steps, environments and UAVs: as much reward without information

Compared are the final score (100 fixed evaluation episodes, sampled) and the mean training return, the area under the
learning curve; both without the added reward, between random play (0) and the scripted oracle (1). What is reported,
and when a difference counts as one, is said in `paired`.

    python benchmarks/influence.py --seeds 10
    python benchmarks/influence.py --table      # the table of what is there, without training
"""

from __future__ import annotations

from paired import STEPS, Study, command_line

COEFFICIENT = 10.0
FOREST = {
    "env_config.height": 12,
    "env_config.width": 12,
    "env_config.num_uavs": 4,
    "env_config.max_steps": 40,
    f"stop.{STEPS}": 32_000,
    "minibatch_size": 1600,
}
STUDY = Study(
    tasks={"small_forest": ("tune_configs/forest_uav_sprint_ppo.yaml", FOREST)},
    cells={
        "none": {"influence_reward": {"coefficient": 0.0}},
        "influence": {"influence_reward": {"coefficient": COEFFICIENT}},
        "permuted": {"influence_reward": {"coefficient": COEFFICIENT, "permuted": True}},
    },
    pairs=(("influence", "none"), ("influence", "permuted"), ("permuted", "none")),
)


def main() -> None:
    command_line(STUDY, "influence", "influence reward", __doc__)


if __name__ == "__main__":
    main()
