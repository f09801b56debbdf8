"""What `communication_frontier.py` trains: two tasks, in each the ways to communicate, and what so many bits allow."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from forest_division import DivisionPolicy
from tables import scores_of

import qio_envs
from qio_envs.api import BatchedEnv, reference_scores
from qio_envs.api.scores import episode_scores
from qio_envs.forest_uav.config import COARSE
from qio_rllib.artifacts.plot_style import DOTS
from qio_rllib.evaluation.hidden_target import HiddenTargetBound
from qio_rllib.experiments.experiment import load_experiment
from qio_rllib.models.communication import Communication
from qio_rllib.sampling.evaluation import FIRST_EVALUATION_SEED

Array = np.ndarray

MEMORY = (
    "model_config.use_gru=true",
    "model_config.gru_cell_size=32",
    "model_config.max_seq_len=16",
    "burn_in=4",
    "train_batch_size_per_learner=32",  # sequences: twice as many joint steps as without memory
)
"""Settings of MADDPG's agents with memory."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One point of a figure.

    Attributes:
        name: Of its folder.
        kind: What the figure calls it together with others.
        settings: ``communication``; None for none.
        radio: Share of the steps in which the environment's own radio may be used.
        memory: Whether agents remember what they have heard.
    """

    name: str
    kind: str
    settings: dict[str, Any] | None = None
    radio: float = 0.0
    memory: bool = False

    @property
    def communication(self) -> Communication | None:
        """What its agents may tell each other."""
        return Communication.of(self.settings)


@dataclasses.dataclass(frozen=True)
class Curve:
    """What bits allow, as a line.

    Attributes:
        name: What the figure calls it.
        bits: Per agent and step, ``[P]``.
        score: Team return, ``[P]``.
        style: Of the line.
    """

    name: str
    bits: Array
    score: Array
    style: Any = "-"


class HiddenTarget:
    """`swarm_cooperative_v0`, scenario ``hidden_target``, for MADDPG.

    Only one of three agents sees where to go and nobody sees anybody, with an arena so wide that nobody can leave it,
    after which an agent pays nothing. The bound (`qio_rllib.evaluation.hidden_target`) is the best expected return of
    any team whose informed agent sends so many bits; it knows little of what control costs under noise, so that the
    scripted controller stays below it.
    """

    name: ClassVar[str] = "hidden_target"
    title: ClassVar[str] = (
        "MADDPG on swarm_cooperative_v0: one of three agents sees the target, nobody sees anybody"
    )
    config: ClassVar[Path] = Path("tune_configs/swarm_communication_maddpg.yaml")
    # Targets of so many episodes are on average at most 1% nearer or farther than those of the bound.
    study: ClassVar[Sequence[str]] = ("env_config.out_radius=40.0", "evaluation_duration=500")
    mode: ClassVar[str] = "greedy"
    linear_below: ClassVar[float] = 1e-3
    cells: ClassVar[Sequence[Cell]] = (
        Cell("silent", "no messages"),
        *(Cell(f"bits_{n}", "bits", {"bits": n}) for n in (1, 2, 3, 4)),
        Cell("bits_1_memory", "bits, agents with memory", {"bits": 1}, memory=True),
        *(
            Cell(f"gate_{cost:g}", "2 bits, gated", {"bits": 2, "gate": {"cost": cost}})
            for cost in (0.003, 0.03, 0.3)
        ),
        Cell("targeted_bits_2", "2 + 2 bits, targeted", {"bits": 2, "routing": "targeted", "signature": 2}),
        Cell(
            "targeted_2", "2 + 2 numbers, targeted", {"bandwidth": 2, "routing": "targeted", "signature": 2}
        ),
        *(Cell(f"broadcast_{n}", "numbers", {"bandwidth": n}) for n in (1, 2)),
        *(
            Cell(f"gated_numbers_{cost:g}", "2 numbers, gated", {"bandwidth": 2, "gate": {"cost": cost}})
            for cost in (0.003, 0.03, 0.05)
        ),
    )

    def __init__(self, env: BatchedEnv) -> None:
        self.bound = HiddenTargetBound(env.config)

    def overrides(self, cell: Cell) -> list[str]:
        """Return what a cell sets on top of the study's settings."""
        return [f"communication={json.dumps(cell.settings)}", *(MEMORY if cell.memory else ())]

    def bits(self, cell: Cell, folder: Path) -> float:
        """Return what each agent sent per step in the evaluations, on average over seeds."""
        return 0.0 if cell.settings is None else _mean_bits(folder, self.mode)

    def allowed(self, cell: Cell, bits: float) -> float:
        """Return the best return of a team that communicates as a cell does.

        Args:
            cell: How it communicates.
            bits: That each agent sent per step, on average; all may have been the informed agent's.
        """
        communication = cell.communication
        if communication is None:
            return self.bound.of_constant(0.0)
        if communication.gate is None:
            return self.bound.of_constant(communication.message_bits)
        spent = min(bits * self.bound.config.num_agents, communication.message_bits)
        return self.bound.of_gated(communication.message_bits, spent)

    def curves(self) -> list[Curve]:
        """Return the bound, with silence that tells nothing and with silence that is one more symbol."""
        agents, steps = self.bound.config.num_agents, self.bound.config.max_steps
        bits = np.concatenate(
            [np.linspace(0.0, self.linear_below, 20), np.geomspace(self.linear_below, 200, 120)]
        )
        few = bits[bits * agents <= 2]
        total = np.array([self.bound.of_total(b * agents * steps) for b in bits])
        gated = np.array([self.bound.of_gated(2, b * agents) for b in few])
        return [
            Curve("bound, silence tells nothing", bits, total),
            Curve("bound, 2 bits or silence in a step", few, gated, DOTS),
        ]


class ForestDivision:
    """`forest_uav_v0`, scenario ``sprint`` cut to 40 steps, for PPO.

    Ten UAVs have 40 steps for 400 cells: they must divide the forest at once, and who flies where depends on where the
    others start, which none sees. The environment's own radio, which sends whole maps, is compared with messages that
    are learned in its place. What is allowed is not a bound but what a scripted team reaches with so many bits
    (`forest_division.DivisionPolicy`): the best return is at least that.
    """

    name: ClassVar[str] = "forest"
    title: ClassVar[str] = "PPO on forest_uav_v0: ten UAVs, 40 steps for 400 cells"
    config: ClassVar[Path] = Path("tune_configs/forest_uav_sprint_ppo.yaml")
    study: ClassVar[Sequence[str]] = (
        "env_config.max_steps=40",
        "evaluation_duration=100",
    )
    mode: ClassVar[str] = "sampled"
    linear_below: ClassVar[float] = 1e-2
    cells: ClassVar[Sequence[Cell]] = (
        Cell("silent", "no messages"),
        *(Cell(f"radio_{share:g}", "the environment's radio", radio=share) for share in (0.025, 0.1, 1.0)),
        Cell("bits_8", "bits", {"bits": 8}),
        Cell("gate_0.01", "8 bits, gated", {"bits": 8, "gate": {"cost": 0.01}}),
        Cell("targeted_bits_4", "4 + 4 bits, targeted", {"bits": 4, "routing": "targeted", "signature": 4}),
    )

    def __init__(self, env: BatchedEnv) -> None:
        config = env.config
        self.map_bits = config.height * config.width + float(np.log2(COARSE**2))  # beliefs, and a block
        blocks = [n for n in range(1, config.height + 1) if config.height % n == 0]
        self._told = np.array([DivisionPolicy(env, n).bits_per_step for n in blocks])
        reached = [
            episode_scores(env, partial(DivisionPolicy, blocks=n), FIRST_EVALUATION_SEED) for n in blocks
        ]
        self._reached = np.array(reached).mean(axis=1)

    def overrides(self, cell: Cell) -> list[str]:
        """Return what a cell sets on top of the study's settings."""
        return [f"communication={json.dumps(cell.settings)}", f"env_config.comm_budget={cell.radio}"]

    def bits(self, cell: Cell, folder: Path) -> float:
        """Return what each UAV sent per step, by what it has learned to say or by the environment's radio."""
        if cell.settings is None:
            return cell.radio * self.map_bits
        return _mean_bits(folder, self.mode)

    def allowed(self, cell: Cell, bits: float) -> float:
        """Return what the scripted team reaches with at most so many bits."""
        return float(self._reached[self._told <= bits].max())

    def curves(self) -> list[Curve]:
        """Return what the scripted team reaches, as a line through its numbers of bits."""
        return [
            Curve(
                "a script that divides the forest",
                np.append(self._told, self.map_bits),
                np.append(self._reached, self._reached[-1]),
            )
        ]


Task = HiddenTarget | ForestDivision
TASKS: dict[str, type[HiddenTarget] | type[ForestDivision]] = {
    task.name: task for task in (HiddenTarget, ForestDivision)
}


def environment_of(task: type[HiddenTarget] | type[ForestDivision], overrides: Sequence[str]) -> BatchedEnv:
    """Return one environment for each evaluation episode of a task."""
    experiment = load_experiment(task.config, [*task.study, *overrides])
    return qio_envs.environment(experiment.env).batched_env(
        experiment.config["evaluation_duration"], **experiment.config["env_config"]
    )


def references_of(env: BatchedEnv) -> dict[str, float]:
    """Return what the environment's scripted policies score on the evaluation episodes."""
    return reference_scores(env, seed=FIRST_EVALUATION_SEED)


def _mean_bits(folder: Path, mode: str) -> float:
    return float(np.mean(scores_of(folder, mode, "bits_sent")))
