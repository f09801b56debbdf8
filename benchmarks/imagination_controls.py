"""Does it help a policy to see what a learned model imagines? Matched controls, paired seeds, raw results.

Imagination-augmented PPO on drift control, in cells that share environment, settings, seeds and the number of
parameters, and differ in where the imagined rollouts come from:

learned   a model that is fitted to what the agent experiences
none      zeros in their place: the model-free twin
random    the model as it was drawn, never fitted

Compared are the final score (100 fixed evaluation episodes without exploration), the mean training return of the run,
and that of its first 20,480 steps (sample efficiency); returns as they are. What is reported, and when a difference
counts as one, is said in `paired`.

    python benchmarks/imagination_controls.py --seeds 10
    python benchmarks/imagination_controls.py --table      # the table of what is there, without training
"""

from __future__ import annotations

from paired import Study, command_line

SOURCES = ("learned", "none", "random")
STUDY = Study(
    tasks={
        "drift_control": ("tune_configs/drift_control_i2a.yaml", {}),
    },
    cells={source: {"imagination.source": source} for source in SOURCES},
    pairs=(("learned", "none"), ("learned", "random"), ("random", "none")),
    final="greedy",
    early=20_480,
    is_normalized=False,
)


def main() -> None:
    command_line(STUDY, "imagination_controls", "imagination", __doc__)


if __name__ == "__main__":
    main()
