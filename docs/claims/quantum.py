"""Circuits, entanglement and the Q operator, and whether they help."""

from __future__ import annotations

from collections.abc import Callable

from claims import figures as f
from claims.claim import Claim, Section

CHSH = "entanglement/win_rates.csv"
OPERATORS, CIRCUITS = "quantum_controls/operator", "quantum_controls/circuits"

OPERATOR, OPERATOR_STRONG = (
    ("Q operator", "identity", "temperature", "random"),
    (
        "Q operator strong",
        "identity",
        "temperature strong",
        "random strong",
    ),
)


def _against(folder: str, kind: str, first: str, second: str) -> Callable[[], str]:
    return lambda: f.improvement(folder, kind, first, second)


def _control(what: str, place: int) -> Claim:
    return Claim(
        f"The Q operator against {what}, how often its final score is the better one of a pair (a half is "
        f"chance): {{defaults}} at the defaults, {{strong}} with a strong operator (eta 0.5, h_min 0.2)",
        {
            "defaults": _against(OPERATORS, "final", OPERATOR[0], OPERATOR[place]),
            "strong": _against(OPERATORS, "final", OPERATOR_STRONG[0], OPERATOR_STRONG[place]),
        },
        "python benchmarks/quantum_controls.py operator",
        (OPERATORS,),
    )


def _cells(policy: str) -> Claim:
    def of(cell: str, task: str) -> Callable[[], str]:
        def text() -> str:
            (row,) = f.rows_of(f"{CIRCUITS}/cells.csv", task=task, cell=cell)
            return f.summary_columns(row, "final")

        return text

    names = {"circuit": f"circuit ({policy})", "mlp": f"classical ({policy})"}
    tasks = {"control": "qubit_control", "cartpole": "cartpole"}
    readout = "Pauli observables" if policy == "observables" else "the Born rule"
    return Claim(
        f"Circuits of four qubits and three layers, {readout}, normalised final score: {{circuit_control}} on "
        "qubit control (parameter-matched MLP: {mlp_control}), {circuit_cartpole} on CartPole (MLP: "
        "{mlp_cartpole})",
        {f"{a}_{b}": of(names[a], tasks[b]) for a in names for b in tasks},
        "python benchmarks/quantum_controls.py circuits",
        (CIRCUITS,),
    )


CONTROLS = Section(
    "Does anything quantum help?",
    "[quantum.md](quantum.md#does-it-help) says how the controls are made. Ten paired seeds a task and "
    "cell; 95% bootstrap intervals; an exact sign test, corrected for the number of comparisons (Holm), "
    "stands in the raw files.",
    (
        _control("no operator", 1),
        _control("a temperature of equal entropy", 2),
        _control("a random operator of equal strength", 3),
        Claim(
            "No difference found: of {total} intervals (three tasks and all of them together, two "
            "strengths, three controls) {final} leave 0.5 out for final scores, {training} for the mean "
            "return over the training (one in twenty would by chance), and none does after the correction",
            {
                "total": lambda: str(f.num_pairs(OPERATORS)),
                "final": lambda: str(f.outside(OPERATORS, "final")),
                "training": lambda: str(f.outside(OPERATORS, "training")),
            },
            "python benchmarks/quantum_controls.py operator",
            (OPERATORS,),
            holds=lambda: (
                f.outside(OPERATORS, "final") == 0
                and f.outside(OPERATORS, "training") <= 1
                and f.smallest_corrected_p(OPERATORS) > 0.05
            ),
        ),
        _cells("observables"),
        _cells("born"),
        Claim(
            "Circuits with observables end as good as MLPs of exactly as many parameters: better in {final} "
            "of the pairs, a null result; their mean return over the training is higher in {training}, "
            "which does not survive the correction",
            {
                "final": _against(CIRCUITS, "final", "circuit (observables)", "classical (observables)"),
                "training": _against(
                    CIRCUITS, "training", "circuit (observables)", "classical (observables)"
                ),
            },
            "python benchmarks/quantum_controls.py circuits",
            (CIRCUITS,),
            holds=lambda: (
                f.verdict(CIRCUITS, "final", "circuit (observables)", "classical (observables)") == "null"
                and f.number(
                    "quantum_controls/circuits/pairs.csv",
                    "training_p_holm",
                    task="all tasks",
                    first="circuit (observables)",
                    second="classical (observables)",
                )
                > 0.05
            ),
        ),
        Claim(
            "Born-rule circuits end worse: better than their MLPs in {mlp} of the pairs; circuits with "
            "observables are better than Born-rule ones in {born}",
            {
                "mlp": _against(CIRCUITS, "final", "circuit (born)", "classical (born)"),
                "born": _against(CIRCUITS, "final", "circuit (observables)", "circuit (born)"),
            },
            "python benchmarks/quantum_controls.py circuits",
            (CIRCUITS,),
            holds=lambda: f.verdict(CIRCUITS, "final", "circuit (born)", "classical (born)") == "worse",
        ),
        Claim(
            "On average the Q operator expands distances between policies at its defaults (geometric mean "
            "factor {hellinger} in Hellinger distance, {variation} in total variation); with an entropy "
            "floor of 0.8 or more it contracts in both, at every strength that was measured",
            {
                "hellinger": lambda: f"{f.contraction_factor('hellinger'):.3f}",
                "variation": lambda: f"{f.contraction_factor('total_variation'):.3f}",
            },
            "python benchmarks/contraction.py",
            ("contraction",),
            holds=lambda: (
                min(map(f.contraction_factor, ("hellinger", "total_variation"))) > 1
                and f.contracts_from(0.8, ("hellinger", "total_variation"))
            ),
        ),
    ),
    picture=("quantum_controls/circuits/cells.png", "Final scores of circuits and parameter-matched MLPs"),
    after=(
        "Limits: small tasks and few seeds. Ten seeds a task would show an effect that wins nine pairs of "
        "ten, and all 30 one that wins about seven of ten; a smaller one cannot be excluded. Each seed of the "
        "random control has a random operator of its own. Circuits have four qubits, and their softmax "
        "readout is trained classically. Settings are shared by all cells, and may suit one of them better "
        "than another."
    ),
)


def _optimal(config: str, mode: str) -> Callable[[], str]:
    def text() -> str:
        rows = f.rows_of("qubit_circuits/optimal.csv", config=config)
        values = [int(row[f"{mode}_optimal"]) for row in rows]
        low, high = min(values), max(values)
        return f"{low}" if low == high else f"{low} to {high}"

    return text


_LADDER = {"entangled": 0.8536, "separable": 0.75, "shared_randomness": 0.75, "no_signalling": 1.0}


QUANTUM = Section(
    "Circuits and entanglement in use",
    "",
    (
        Claim(
            "Win rates in the CHSH game, learned from reward alone: {entangled} with a shared entangled "
            "state; {separable} with separable states; {shared_randomness} with shared randomness; "
            "{no_signalling} with a box that signals nothing, which no physical system is known to be ({stuck} of "
            "its seeds stay at what shared randomness wins). They are "
            "exact, from each policy's distribution over uniform questions. No classical pair passes 0.75, "
            "no quantum one 0.8536, and without signalling 1 is possible: a ladder of what is shared",
            {
                resource: lambda resource=resource: f.grouped(CHSH, "exact", 4, resource=resource)
                for resource in _LADDER
            }
            | {
                "stuck": lambda: str(
                    sum(float(row["exact"]) < 0.76 for row in f.rows_of(CHSH, resource="no_signalling"))
                )
            },
            "python benchmarks/entanglement.py",
            ("entanglement",),
            holds=lambda: all(
                float(row["exact"]) <= _LADDER[row["resource"]] + 1e-6 for row in f.rows_of(CHSH)
            ),
        ),
        Claim(
            "Quantum Q-learning and quantum actor-critic find the shortest circuits to a Bell pair and to "
            "the uniform superposition: of ten greedy episodes of each of 5 seeds and 2 targets {dqn} end "
            "with the fewest gates possible with DQN, {ppo} with PPO, {a2c} with A2C (Born rule); of ten "
            "sampled ones {dqn_sampled}, {ppo_sampled} and {a2c_sampled}",
            {
                f"{name}{'' if mode == 'greedy' else '_sampled'}": _optimal(f"qubit_circuit_{name}", mode)
                for name in ("dqn", "ppo", "a2c")
                for mode in ("greedy", "sampled")
            },
            "python benchmarks/qubit_circuits.py --seeds 5",
            ("qubit_circuits",),
        ),
    ),
    picture=("entanglement/win_rates.png", "Win rates in the CHSH game by what the agents share"),
    after=(
        "The counted win rates in the picture come from 100,000 rounds a seed, each with questions of its own; "
        "the exact rates do not depend on questions."
    ),
)
