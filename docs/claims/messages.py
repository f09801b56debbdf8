"""Return against bits: what agents tell each other, and what a team gets for it."""

from __future__ import annotations

from collections.abc import Callable

from claims import figures as f
from claims.claim import Section

HIDDEN_TARGET, FOREST = (f"communication_frontier/{task}" for task in ("hidden_target", "forest"))
_MADE = (
    "`python benchmarks/communication_frontier.py {task} --seeds 5`, on {cpu}; raw files of each row: "
    "[{raw}](../results/{raw})."
)


def _rows(folder: str) -> list[dict[str, str]]:
    return sorted(f.rows_of(f"{folder}/summary.csv"), key=lambda row: float(row["bits_sent"]))


def _table(folder: str, allowed: str) -> Callable[[], list[tuple[str, ...]]]:
    def rows() -> list[tuple[str, ...]]:
        return [
            ("messages", "`communication`", "bits per agent and step", "team return", allowed),
            *(
                (
                    row["kind"],
                    "none" if row["communication"] == "null" else f"`{row['communication']}`",
                    f"{float(row['bits_sent']):.3g}",
                    row["text"],
                    f"{float(row['allowed']):.1f}",
                )
                for row in _rows(folder)
            ),
        ]

    return rows


def _score(folder: str, cell: str) -> Callable[[], str]:
    return lambda: f.cell(f"{folder}/summary.csv", "score", 0, cell=cell)


def _bits(folder: str, cell: str) -> Callable[[], str]:
    return lambda: f"{f.number(f'{folder}/summary.csv', 'bits_sent', cell=cell):.2g}"


def _needed(cell: str, few: str, many: str) -> Callable[[], str]:
    """Return how many bits in every step give as much as a cell, between two others on a logarithmic scale."""

    def text() -> str:
        wanted, low, high = (
            f.number(f"{HIDDEN_TARGET}/summary.csv", "score", cell=name) for name in (cell, few, many)
        )
        bits = [f.number(f"{HIDDEN_TARGET}/summary.csv", "bits_sent", cell=name) for name in (few, many)]
        if not low <= wanted <= high:
            raise ValueError(f"{cell} is not between {few} and {many}")
        return f"{bits[0] * (bits[1] / bits[0]) ** ((wanted - low) / (high - low)):.2g} bits"

    return text


def _cpu(folder: str) -> Callable[[], str]:
    return lambda: f.cpus([f"{folder}/{row['cell']}" for row in _rows(folder)])


BITS_OF_A_HIDDEN_TARGET = Section(
    "Return against bits: a hidden target",
    "MADDPG on `hidden_target`, where one of three agents sees the target and nobody sees anybody, in an arena that "
    "nobody can leave; 60,000 environment steps, then 500 episodes without noise and with the most probable bits and "
    "gates. A number counts as 32 bits. At most: what no team with so many bits can exceed on average "
    "([communication](communication.md#what-bits-can-buy)).",
    (),
    picture=(f"{HIDDEN_TARGET}/communication_frontier.png", "Return against bits, a hidden target"),
    table=_table(HIDDEN_TARGET, "at most"),
    after="On the same episodes the scripted controller, which knows the target, has {controller}, random {random}. "
    "Gates save bits: 2 bits behind a gate that costs 0.03 are {gated_bits} bits on average and give {gated}, "
    "for which messages in every step take {bits_needed} (between 1 and 2, where the return is {one} and {two}); two "
    "numbers behind a gate are {gated_number_bits} bits and give {gated_numbers}, for which they take {numbers_needed} "
    "(between one and two, {number} and {numbers}). At the same message, return is lost. Targets cost more bits than "
    "they bring where only one agent has something to say. Memory adds up what 1 bit tells in many steps, and more so "
    "where bits are drawn as in training: {drawn}, without memory {drawn_without}. All are far from what so many bits "
    "allow: these agents say in every step what would be enough once. " + _MADE,
    figures={
        **{
            name: lambda name=name: f.cell(f"{HIDDEN_TARGET}/scripted.csv", "team_return", policy=name)
            for name in ("controller", "random")
        },
        "gated": _score(HIDDEN_TARGET, "gate_0.03"),
        "drawn": lambda: f.seeds(f"{HIDDEN_TARGET}/bits_1_memory"),
        "drawn_without": lambda: f.seeds(f"{HIDDEN_TARGET}/bits_1"),
        "gated_bits": _bits(HIDDEN_TARGET, "gate_0.03"),
        "bits_needed": _needed("gate_0.03", "bits_1", "bits_2"),
        "one": _score(HIDDEN_TARGET, "bits_1"),
        "two": _score(HIDDEN_TARGET, "bits_2"),
        "gated_numbers": _score(HIDDEN_TARGET, "gated_numbers_0.03"),
        "gated_number_bits": _bits(HIDDEN_TARGET, "gated_numbers_0.03"),
        "numbers_needed": _needed("gated_numbers_0.03", "broadcast_1", "broadcast_2"),
        "number": _score(HIDDEN_TARGET, "broadcast_1"),
        "numbers": _score(HIDDEN_TARGET, "broadcast_2"),
        "task": lambda: "hidden_target",
        "cpu": _cpu(HIDDEN_TARGET),
        "raw": lambda: HIDDEN_TARGET,
    },
)

BITS_OF_THE_FOREST = Section(
    "Return against bits: radio in the forest",
    "PPO on `forest_uav_v0`, scenario `sprint` cut to 40 steps, so that ten UAVs have hardly time for its 400 cells; "
    "320,000 environment steps, then 100 episodes with sampled actions. Learned messages stand in the place of the "
    "environment's radio, which sends a map and a block, 405 bits. A script reaches: what UAVs get that fly "
    "round strips of two rows, divided by what each has told the others of its start with at most so many bits; the "
    "best return is at least that.",
    (),
    picture=(f"{FOREST}/communication_frontier.png", "Return against bits, radio in the forest"),
    table=_table(FOREST, "a script reaches"),
    after="Without messages PPO reaches {silent}, with the environment's radio in every step {radio} and in a tenth of "
    "the steps {seldom}, with 8 bits of its own {bits}. At a cost of 0.01 UAVs fall silent. All are below what UAVs "
    "reach that say nothing and fly round the strips of their numbers, {script}. " + _MADE,
    figures={
        "silent": _score(FOREST, "silent"),
        "radio": _score(FOREST, "radio_1"),
        "seldom": _score(FOREST, "radio_0.1"),
        "bits": _score(FOREST, "bits_8"),
        "script": lambda: f.cell(f"{FOREST}/summary.csv", "allowed", 0, cell="silent"),
        "task": lambda: "forest",
        "cpu": _cpu(FOREST),
        "raw": lambda: FOREST,
    },
)
