"""What an algorithm supports; refusals, the table in the docs and tests are derived from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True)
class Capabilities:
    """Declared by every configuration class.

    Attributes:
        discrete: Discrete actions.
        continuous: Box actions.
        action_masks: Observations with an action mask.
        recurrent: Policies with memory.
        several_learners: More than one Learner.
        rllib_runner: RLlib's own env runner.
        central_value: A value network over global states.
        normalize_values: PopArt.
        amplification: The Q operator, where actions are discrete.
        entropy_annealing: An annealed entropy coefficient.
        circuit: Quantum circuits as networks.
        coordination: Teams that share a state.
        communication: Learned messages.
        replays: It learns from a replay.
        joint_critics: Its critics may see global states as they are.
        instead: What to do in place of a setting that is not supported, by its name.
    """

    discrete: bool = True
    continuous: bool = True
    action_masks: bool = True
    recurrent: bool = True
    several_learners: bool = False
    rllib_runner: bool = False
    central_value: bool = False
    normalize_values: bool = False
    amplification: bool = False
    entropy_annealing: bool = False
    circuit: bool = False
    coordination: bool = False
    communication: bool = False
    replays: bool = False
    joint_critics: bool = False
    instead: tuple[tuple[str, str], ...] = ()

    def refusal(self, name: str) -> str:
        """Return why a setting is not supported, and what to do."""
        return dict(self.instead).get(name, "not supported; set it to null")


ON_POLICY = Capabilities(
    several_learners=True,
    central_value=True,
    normalize_values=True,
    amplification=True,
    entropy_annealing=True,
    circuit=True,
    coordination=True,
    instead=(("communication", "has no messages; MADDPG has"),),
)
"""Of actor-critics over rollouts."""

_CENTRAL = "has critics that are central as they are; see critic_state"
_VALUES = "learns values as they are; scale the rewards instead"

JOINT_CRITICS = Capabilities(
    amplification=True,
    replays=True,
    joint_critics=True,
    instead=(
        ("central_value", _CENTRAL),
        ("normalize_values", _VALUES),
        ("entropy_annealing", "has no entropy coefficient in its loss"),
        ("circuit", "takes none; PPO, A2C and DQN do"),
        ("coordination", "takes none; PPO and A2C do"),
        ("communication", "has no messages; MADDPG has"),
    ),
)
"""Of algorithms with critics of actions."""

Q_LEARNING = Capabilities(
    continuous=False,
    circuit=True,
    replays=True,
    instead=tuple(
        (key, "learns values and has no policy of its own; set it to null")
        for key in (
            "amplification",
            "entropy_annealing",
            "central_value",
            "normalize_values",
            "coordination",
            "communication",
        )
    ),
)
"""Of independent Q-learning."""

LABELS = {
    "discrete": "discrete actions",
    "continuous": "continuous actions",
    "action_masks": "action masks",
    "recurrent": "memory (LSTM, GRU)",
    "several_learners": "several Learners",
    "rllib_runner": "RLlib's own runner",
    "central_value": "central value",
    "normalize_values": "PopArt",
    "amplification": "Q operator",
    "entropy_annealing": "entropy annealing",
    "circuit": "circuits",
    "coordination": "entangled coordination",
    "communication": "learned messages",
}
"""What the docs call each of them."""


def table(capabilities: Iterable[tuple[str, Capabilities]]) -> list[list[str]]:
    """Return the rows of a table with a column for each algorithm, its head first."""
    named = list(capabilities)
    head = ["", *(name for name, _ in named)]
    return [
        head,
        *(
            [label, *("yes" if getattr(found, key) else "" for _, found in named)]
            for key, label in LABELS.items()
        ),
    ]
