"""The studies of circuits, entanglement and the Q operator: their statistics, and what they make of invented runs."""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import entanglement
import paired
import quantum_controls
import qubit_circuits
from paired import Study, holm, probability_of_improvement, sign_test, summarise
from quantum_controls import STUDIES

from qio_envs.chsh import CLASSICAL_BOUND, QUANTUM_BOUND
from qio_rllib.acting.actions import ActionSpec
from qio_rllib.acting.actor import NetworkActor
from qio_rllib.acting.team import AgentGroup, Team
from qio_rllib.experiments.experiment import load_experiment
from qio_rllib.models.coordination import SharedState
from qio_rllib.models.policy_network import PolicyNetwork, PolicySpec

ROOT = Path(__file__).parents[2]


# -- statistics ---------------------------------------------------------------------------------------------------


def test_probability_of_improvement_is_the_share_of_paired_wins():
    first, second = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.0, 2.0, 5.0, 3.0])
    middle, low, high = probability_of_improvement(first, second)
    assert middle == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    assert 0 <= low <= middle <= high <= 1
    back = probability_of_improvement(second, first)
    assert back == pytest.approx((1 - middle, 1 - high, 1 - low))
    # Paired: another order of the second's seeds is another number.
    assert probability_of_improvement(first, second[::-1])[0] != middle


def test_ties_count_half_and_certainty_has_no_width():
    ones = np.ones(6)
    assert probability_of_improvement(ones, ones) == (0.5, 0.5, 0.5)
    assert probability_of_improvement(ones, 0 * ones) == (1.0, 1.0, 1.0)
    assert probability_of_improvement(0 * ones, ones) == (0.0, 0.0, 0.0)


def test_the_interval_holds_the_true_probability_about_as_often_as_it_says():
    rng, held = np.random.default_rng(0), 0
    for _ in range(40):
        first, second = rng.normal(0.5, 1, 20), rng.normal(0, 1, 20)
        _, low, high = probability_of_improvement(first, second)
        held += low <= 0.638 <= high  # Phi(0.5 / sqrt(2))
    assert 34 <= held <= 40


# -- the harness --------------------------------------------------------------------------------------------------


@pytest.fixture
def study(monkeypatch):
    """Two tasks on scales of their own, three cells."""
    scales = {"easy": (0.0, 500.0), "hard": (-30.0, -10.0)}
    monkeypatch.setattr(paired, "references", lambda study, task: scales[task])
    pairs = (("good", "bad"), ("bad", "good"), ("good", "same"))
    return Study({"easy": ("", {}), "hard": ("", {})}, {"good": {}, "bad": {}, "same": {}}, pairs)


def runs_of(folder, seeds=10, absent=()):
    rows = []
    for task, cell, seed in itertools.product(("easy", "hard"), ("good", "bad", "same"), range(seeds)):
        if (task, cell, seed) in absent:
            continue
        level = {"good": 0.8, "same": 0.8, "bad": 0.5}[cell] + 0.01 * seed
        if cell == "same":  # above and below in turn
            level += 0.005 * (-1) ** seed
        score = 500 * level if task == "easy" else -30 + 20 * level
        rows.append(
            {
                "task": task,
                "cell": cell,
                "seed": seed,
                "greedy": -1e9,
                "sampled": score,
                "actor_parameters": 17,
                "seconds": 1.0,
                "train_return_mean": score,
            }
        )
    paired.append(folder / "runs.csv", rows)


def test_made_up_runs_get_the_verdicts_that_they_deserve(study, tmp_path):
    runs_of(tmp_path)
    cells, pairs = summarise(study, tmp_path)
    assert [(row["task"], row["cell"]) for row in cells] == list(
        itertools.product(("easy", "hard"), ("good", "bad", "same"))
    )
    for row in cells:
        assert row["seeds"] == 10
        assert row["actor_parameters"] == 17
        expected = {"good": 0.845, "same": 0.845, "bad": 0.545}[row["cell"]]
        for kind in ("final", "training"):
            assert row[f"{kind}_score"] == pytest.approx(expected, abs=0.006)  # both tasks from 0 to 1
            assert row[f"{kind}_low"] <= row[f"{kind}_score"] <= row[f"{kind}_high"]
    assert [row["task"] for row in pairs] == ["easy"] * 3 + ["hard"] * 3 + ["all tasks"] * 3
    for row, verdict in zip(pairs, ["better", "worse", "null"] * 3, strict=True):
        assert row["pairs"] == (20 if row["task"] == "all tasks" else 10)
        for kind in ("final", "training"):
            assert row[f"{kind}_verdict"] == verdict
            wanted = {"better": (1.0, 0.3), "worse": (0.0, -0.3), "null": (0.5, 0.0)}[verdict]
            assert row[f"{kind}_improvement"] == wanted[0]
            assert row[f"{kind}_difference"] == pytest.approx(wanted[1], abs=0.005)


def test_only_seeds_that_both_cells_have_are_paired(study, tmp_path):
    runs_of(tmp_path, absent={("easy", "good", 0), ("easy", "bad", 7), ("easy", "bad", 3)})
    cells, pairs = summarise(study, tmp_path)
    assert [row["seeds"] for row in cells[:3]] == [9, 8, 10]
    assert [row["pairs"] for row in pairs if row["task"] == "easy"] == [7, 7, 9]
    assert [row["pairs"] for row in pairs if row["task"] == "all tasks"] == [17, 17, 19]


def test_fewer_than_ten_pairs_of_a_task_get_no_interval_and_no_verdict(study, tmp_path):
    runs_of(tmp_path, absent={("easy", "good", 0)})
    cells, pairs = summarise(study, tmp_path)
    assert {row["statistic"] for row in cells if (row["task"], row["cell"]) == ("easy", "good")} == {
        "mean, min to max"
    }
    assert {row["statistic"] for row in cells if row["task"] == "hard"} == {"IQM, 95% interval"}
    for row in pairs:
        if row["task"] == "hard":
            assert row["final_verdict"] in ("better", "worse", "null")
        else:  # all tasks together hold the one with nine
            assert (row["final_verdict"], row["final_low"], row["final_high"]) == ("too few seeds", "", "")
        assert 0 <= row["final_improvement"] <= 1
    paired.show(cells, pairs)


def test_cells_without_runs_are_left_out(study, tmp_path):
    runs_of(tmp_path, absent={(task, "same", seed) for task in ("easy", "hard") for seed in range(10)})
    cells, pairs = summarise(study, tmp_path)
    assert {row["cell"] for row in cells} == {"good", "bad"}
    assert {row["second"] for row in pairs} == {"good", "bad"}
    paired.show(cells, pairs)
    paired.draw(study, cells, tmp_path / "cells.png", "made up")
    assert (tmp_path / "cells.png").stat().st_size > 5_000


def test_a_table_without_runs_is_an_error_in_words(tmp_path, monkeypatch, capsys):
    arguments = ["quantum_controls.py", "operator", "--table", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(paired, "references", lambda study, task: (0.0, 1.0))
    with pytest.raises(SystemExit) as caught:
        quantum_controls.main()
    assert caught.value.code == 2
    assert f"there are no runs in {tmp_path / 'operator'}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", STUDIES)
def test_pairs_and_tasks_name_what_is_there(name):
    study = STUDIES[name]
    assert {cell for pair in study.pairs for cell in pair} <= set(study.cells)
    for config, overrides in study.tasks.values():
        assert (ROOT / config).is_file()
        for settings in study.cells.values():
            texts = [f"{key}={json.dumps(value)}" for key, value in (overrides | settings).items()]
            found = load_experiment(ROOT / config, texts, 0)
            assert found.stop[paired.STEPS] > 0
            for key, value in settings.items():
                assert found.config[key] == value


def test_controls_share_the_strength_of_the_operator():
    cells = STUDIES["operator"].cells
    for name, strength in (("", quantum_controls.STRENGTH), (" strong", quantum_controls.STRONG)):
        assert cells[f"Q operator{name}"]["amplification"] == strength
        for control in ("temperature", "random"):
            assert cells[control + name]["amplification"] == strength | {"operator": control}
    for policy in ("observables", "born"):
        circuit, mlp = (STUDIES["circuits"].cells[f"{kind} ({policy})"] for kind in ("circuit", "classical"))
        assert {**circuit["circuit"], "kind": None} == {**mlp["circuit"], "kind": None}


def test_each_seed_has_a_random_operator_of_its_own():
    cells, seeds = STUDIES["operator"].cells, range(10)
    for name in ("random", "random strong"):
        found = [quantum_controls.cell_settings(cells[name], seed)["amplification"] for seed in seeds]
        assert len({settings["operator_seed"] for settings in found}) == len(seeds)
        for settings in found:
            assert {**settings, "operator_seed": None} == {
                **cells[name]["amplification"],
                "operator_seed": None,
            }
    for name in ("identity", "Q operator", "temperature strong"):
        assert quantum_controls.cell_settings(cells[name], 3) == cells[name]
    for cell in STUDIES["circuits"].cells.values():
        assert quantum_controls.cell_settings(cell, 3) == cell


def test_the_random_operator_of_a_seed_reaches_the_run(monkeypatch, tmp_path):
    study = STUDIES["operator"]
    calls = {}

    class Remote:
        @staticmethod
        def remote(config, settings, seed):
            calls[seed, settings["amplification"] and settings["amplification"].get("operator")] = settings
            return len(calls)

    monkeypatch.setattr(paired, "run", Remote)
    monkeypatch.setattr(paired.ray, "init", lambda *_, **__: None)
    monkeypatch.setattr(paired.ray, "shutdown", lambda: None)
    monkeypatch.setattr(paired.ray, "wait", lambda waiting, num_returns: ([waiting[0]], []))
    result = {"curve": [(1, 0.0)], "greedy": 0.0, "sampled": 0.0, "actor_parameters": 1, "seconds": 1.0}
    monkeypatch.setattr(paired.ray, "get", lambda ready: dict(result))
    paired.train(study, 3, tmp_path, 1, ["python"])
    assert [calls[seed, "random"]["amplification"]["operator_seed"] for seed in range(3)] == [0, 1, 2]


def test_qubit_circuits_names_configs_and_scenarios_that_exist():
    for name, scenario in itertools.product(qubit_circuits.CONFIGS, qubit_circuits.TARGETS.values()):
        experiment = load_experiment(ROOT / f"tune_configs/{name}.yaml", [f"env_config.scenario={scenario}"])
        config = experiment.algorithm_config()  # which builds environment and networks
        assert config.env_config["scenario"] == scenario
        assert config.model_config["circuit"]["num_qubits"] == 4


# -- entanglement -------------------------------------------------------------------------------------------------


def team_of(head):
    """Return a team that plays by a network from both players' rows to joint answers."""
    network = PolicyNetwork(PolicySpec((4,), "categorical", 4, network={"coordination": {}}))
    network.head = head
    return Team([AgentGroup("shared", ("team",), np.array([0]), NetworkActor(network, ActionSpec(4)))])


def best_known():
    """|00> + |11>, Alice at 0 and pi/4, Bob at pi/8 and -pi/8."""
    network = SharedState(2, 2, 2, 1, entangled=True)
    with torch.no_grad():
        network.weights.zero_()
        network.weights[1] = np.pi / 2  # RY on the first qubit, then CNOT
        network.basis.zero_()
        network.offset.zero_()
        for agent, angles in enumerate([(0, np.pi / 4), (np.pi / 8, -np.pi / 8)]):
            network.basis[agent, :, 1] = -2 * torch.tensor(angles)
    return network


def always(answer):
    return lambda observations: torch.tensor([0.0 if k == answer else -100.0 for k in range(4)]).expand(
        len(observations), 4
    )


def test_exact_win_rates_of_policies_that_are_known():
    assert entanglement.exact(best_known()) == pytest.approx(QUANTUM_BOUND, abs=1e-6)
    assert entanglement.exact(always(0)) == pytest.approx(CLASSICAL_BOUND, abs=1e-9)
    assert entanglement.exact(always(3)) == pytest.approx(CLASSICAL_BOUND, abs=1e-9)
    assert entanglement.exact(always(1)) == pytest.approx(0.25, abs=1e-9)
    assert entanglement.exact(lambda seen: torch.zeros(len(seen), 4)) == pytest.approx(0.5)


def test_no_question_is_asked_of_two_seeds():
    """Environment ``i`` of a batch is a function of its seed alone, so disjoint seeds are questions of their own."""
    seeds = [set(entanglement.question_seeds(seed)) for seed in range(20)]
    assert {len(of_one) for of_one in seeds} == {entanglement.NUM_ENVS}
    assert len(set.union(*seeds)) == 20 * entanglement.NUM_ENVS


def test_neighbouring_seeds_are_evaluated_on_their_own_questions(monkeypatch):
    asked = []

    class Recording(torch.nn.Module):
        def forward(self, observations):
            if len(observations) == 50:  # not what a trace is made with
                asked[-1].append(observations.numpy().copy())
            return torch.zeros(len(observations), 4)

    monkeypatch.setattr(entanglement, "NUM_ENVS", 50)
    for seed in (3, 4):
        asked.append([])
        entanglement.played(team_of(Recording()), seed)
    first, second = (np.stack(rounds, axis=1).reshape(50, -1) for rounds in asked)  # a row per environment
    assert not {row.tobytes() for row in first} & {row.tobytes() for row in second}


def test_played_rounds_agree_with_the_exact_rate(monkeypatch):
    monkeypatch.setattr(entanglement, "NUM_ENVS", 400)
    played = entanglement.played(team_of(best_known()), 3)
    assert played == pytest.approx(QUANTUM_BOUND, abs=0.009)  # five standard deviations


def test_the_sign_test_is_the_binomial_one_and_holm_corrects_for_the_number_of_tests():
    wins = np.array([1.0, 1, 1, 1, 1, 0])
    assert sign_test(wins, 0 * wins) == pytest.approx(2 / 2**5)  # five wins, one tie
    assert sign_test(wins, wins) == 1.0
    assert holm([0.04, 0.01, 0.5]) == pytest.approx([0.08, 0.03, 0.5])


def test_pairs_of_several_tasks_are_drawn_within_their_task():
    first, second = np.array([1.0, 1, 1, 0, 0, 0]), np.array([0.0, 0, 0, 1, 1, 1])
    assert probability_of_improvement(first, second, np.array([0, 0, 0, 1, 1, 1])) == (0.5, 0.5, 0.5)
    _, low, high = probability_of_improvement(first, second)
    assert low < 0.5 < high
