"""What is reproduced can be trained, continues where it was interrupted, and stands in a table of its own."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))

import learning_curves
import reproduce
from claims import figures, reproduction
from ledger import Published, Task, chosen, load_ledger

import qio_envs
from qio_envs.api import ConfigError
from qio_rllib.experiments.experiment import load_experiment

ROOT = Path(__file__).parents[2]
TASKS = load_ledger()
ENTRIES = [(name, entry) for name, task in TASKS.items() for entry in task.entries]


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


# -- the ledger ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "entry"), ENTRIES, ids=["/".join(pair) for pair in ENTRIES])
def test_an_entry_can_be_trained_and_its_task_scores_it(name, entry):
    task = TASKS[name]
    experiment = load_experiment(task.entries[entry].path, task.overrides(entry))
    assert experiment.validate().evaluation_duration == task.episodes
    env = qio_envs.environment(experiment.env).batched_env(1, **experiment.config.get("env_config", {}))
    env.reset(0)
    assert task.metric in env.info()
    assert next(iter(env.scripted_policies)) == "random"
    assert task.best in env.scripted_policies


def ledger_of(tmp_path, **changes):
    values = {
        "title": "A task",
        "metric": "team_return",
        "mode": "greedy",
        "episodes": 2,
        "seeds": 2,
        "best": "oracle",
        "source": "a book",
        "entries": {"one": {"algorithm": "PPO", "config": "mpe_spread_ppo"}},
    }
    path = tmp_path / "ledger.yaml"
    path.write_text(json.dumps({"task": values | changes}))  # JSON is YAML
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "wins"}, r"^ledger.yaml: task\.metric: Input should be 'team_return' or 'won'$"),
        ({"seeds": 0}, r"^ledger.yaml: task\.seeds: "),
        ({"budget": 5}, r"^ledger.yaml: task\.budget: "),
        ({"entries": {}}, r"^ledger.yaml: task\.entries: "),
        ({"entries": {"one": {"algorithm": "PPO"}}}, r"^ledger.yaml: task\.entries\.one\.config: "),
    ],
)
def test_a_ledger_is_checked_to_the_last_key(tmp_path, changes, message):
    assert list(load_ledger(ledger_of(tmp_path))) == ["task"]
    with pytest.raises(ConfigError, match=message):
        load_ledger(ledger_of(tmp_path, **changes))


def test_a_name_stands_for_a_task_or_one_of_its_entries():
    assert chosen(TASKS, "spread") == ("spread", list(TASKS["spread"].entries))
    assert chosen(TASKS, "spread/vdn") == ("spread", ["vdn"])


# -- training -----------------------------------------------------------------------------------------------------


class Trainings:
    """In place of `training.train`: raw files without training; of ``broken`` seeds the last is missing."""

    def __init__(self):
        self.broken, self.done = set(), []

    def __call__(self, experiment, out):
        folder = Path(out) / "run"
        write(folder / "progress.csv", [curve(2000)])
        rows = [{"mode": mode, "team_return": -130 - experiment.seed} for mode in ("greedy", "sampled")]
        write(folder / "evaluation.csv", rows)
        (folder / "run.json").write_text(json.dumps({"cpu": "AMD EPYC 1"}))
        if experiment.seed not in self.broken:
            (folder / "config.yaml").write_text(json.dumps({experiment.name: experiment.as_dict()}))
            self.done.append(experiment.seed)
        return SimpleNamespace(run_dir=folder, evaluation={})


def curve(steps):
    return {"num_env_steps_sampled_lifetime": steps, "time_total_s": 30.0, "env_runners/team_return": -140.0}


@pytest.fixture
def trainings(monkeypatch):
    """Processes are calls, and trainings are made up."""

    def run(command, check):
        monkeypatch.setattr(sys, "argv", command[1:])
        try:
            learning_curves.main()
        except FileNotFoundError:  # the process ended while it kept the files
            return SimpleNamespace(returncode=1)
        return SimpleNamespace(returncode=0)

    made_up = Trainings()
    monkeypatch.setattr(learning_curves.training, "train", made_up)
    monkeypatch.setattr(reproduce.subprocess, "run", run)
    return made_up


def start(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["reproduce.py", *map(str, arguments)])
    reproduce.main()


def test_what_was_interrupted_continues_with_the_seeds_that_are_missing(tmp_path, monkeypatch, trainings):
    monkeypatch.setattr(learning_curves, "draw", lambda *_: None)
    arguments = ("spread/vdn", "--seeds", 3, "--jobs", 1, "--out", tmp_path)
    folder = tmp_path / "spread" / "vdn"
    trainings.broken = {1}
    with pytest.raises(SystemExit, match=r"^failed: vdn/seed_1; run it again for these alone$"):
        start(monkeypatch, *arguments)
    assert trainings.done == [0, 2]
    assert sorted(path.name for path in folder.glob("seed_*")) == ["seed_0", "seed_2"]  # whole or not at all
    trainings.broken, trainings.done = set(), []
    start(monkeypatch, *arguments)
    assert trainings.done == [1]
    assert sorted(path.name for path in folder.glob("*seed*")) == ["seed_0", "seed_1", "seed_2"]
    (row,) = [
        row for row in learning_curves.read(folder / "summary.csv") if row["policy"].endswith("(greedy)")
    ]
    assert (row["seeds"], float(row["low"]), float(row["high"])) == ("3", -132, -130)
    assert {path.name for path in (folder / "seed_1").iterdir()} == set(learning_curves.KEPT)
    kept = load_experiment(folder / "seed_1" / "config.yaml")
    assert (kept.algorithm, kept.seed, kept.config["mixer"]) == ("VDN", 1, {"type": "sum"})


def test_an_entry_may_have_fewer_seeds_than_its_task(tmp_path, monkeypatch, trainings):
    one = {"algorithm": "PPO", "config": "mpe_spread_ppo"}
    ledger = load_ledger(ledger_of(tmp_path, entries={"one": one | {"seeds": 1}, "two": one}))
    monkeypatch.setattr(learning_curves, "draw", lambda *_: None)
    monkeypatch.setattr(reproduce, "load_ledger", lambda: ledger)
    start(monkeypatch, "task", "--out", tmp_path / "few", "--jobs", 1)
    assert trainings.done == [0, 0, 1]
    trainings.done = []
    start(monkeypatch, "task", "--seeds", 3, "--out", tmp_path / "more", "--jobs", 1)
    assert trainings.done == [0, 1, 2, 0, 1, 2]


@pytest.mark.long
def test_seeds_are_trained_in_processes_of_their_own(tmp_path):
    command = [sys.executable, "benchmarks/reproduce.py", "spread/ippo", "--seeds", "2", "--jobs", "2"]
    command += ["--out", str(tmp_path), "--set", "stop.num_env_steps_sampled_lifetime=3200"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr[-2000:]
    folder = tmp_path / "spread" / "ippo"
    assert [json.loads((folder / f"seed_{seed}" / "run.json").read_text())["seed"] for seed in (0, 1)] == [
        0,
        1,
    ]
    scores = [figures.scores_of(folder, mode, "team_return") for mode in ("greedy", "sampled")]
    assert len(set(scores[0] + scores[1])) == 4
    rows = {row["policy"]: row for row in learning_curves.read(folder / "summary.csv")}
    assert float(rows["mpe-spread-ppo (greedy)"]["score"]) == pytest.approx(np.mean(scores[0]))
    assert -140 < float(rows["scripted: oracle"]["score"]) < -100  # in the unit of the published figures
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "spread/ippo: 2 of 2 seeds are there" in again.stdout


def test_seeds_of_other_settings_are_not_mixed(tmp_path, monkeypatch, trainings, capsys):
    experiment = load_experiment(TASKS["spread"].entries["ippo"].path, seed=0)
    target = tmp_path / "spread" / "ippo" / "seed_0"
    write(target / "evaluation.csv", [{"mode": "greedy", "team_return": -1.0}])
    (target / "config.yaml").write_text(json.dumps({experiment.name: experiment.as_dict()}))
    with pytest.raises(SystemExit) as caught:
        start(monkeypatch, "spread/ippo", "--out", tmp_path)
    assert caught.value.code == 2
    assert "seed_0: was trained with other settings (config.central_value)" in capsys.readouterr().err
    assert trainings.done == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["spraed"], "TASK: unknown 'spraed' (did you mean 'spread'?); there are: spread, "),
        ([], "TASK: unknown ''; there are: spread, "),
        (["spread/qmx"], "TASK: spread has no 'qmx' (did you mean 'qmix'?); there are: qmix, "),
        (["spread", "--seeds", "0"], "--seeds and --jobs: expected at least 1"),
    ],
)
def test_bad_arguments_are_said_in_a_line(monkeypatch, capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        start(monkeypatch, *arguments)
    assert caught.value.code == 2
    assert f"error: {message}" in capsys.readouterr().err


# -- the table ----------------------------------------------------------------------------------------------------


def make_runs(folder, scores, metric="team_return", steps=500):
    for seed, score in enumerate(scores):
        target = folder / f"seed_{seed}"
        rows = [{"mode": "greedy", metric: score + end} for end in (-0.25, 0.25)]
        write(target / "evaluation.csv", [*rows, {"mode": "sampled", metric: -9e9}])
        write(target / "progress.csv", [curve(100), curve(steps) | {"time_total_s": 60.0 + seed}])
        (target / "run.json").write_text(json.dumps({"cpu": "AMD EPYC 1"}))
    scripted = [
        {"policy": f"scripted: {name}", "score": score, "seeds": ""} for name, score in BOUNDS[metric]
    ]
    write(folder / "summary.csv", [{"policy": "x (greedy)", "score": 0, "seeds": 1}, *scripted])


BOUNDS = {
    "team_return": [("random", -10.0), ("nearest", 0.0), ("oracle", 10.0)],
    "won": [("random", 0.0), ("nearest", 0.25), ("oracle", 0.75)],
}


def task_of(metric="team_return"):
    entry = {"algorithm": "QMIX", "config": "mpe_spread_qmix"}
    published = Published(score=5.0, interval=1.5, steps=2000)
    return Task(
        title="A task",
        metric=metric,
        mode="greedy",
        episodes=2,
        seeds=10,
        best="oracle",
        source="a book",
        entries={
            "one": entry | {"published": published},
            "two": entry,
            "three": entry | {"algorithm": "VDN"},
        },
    )


def test_a_row_holds_the_figures_of_the_raw_files(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    folder, scores = tmp_path / "reproduction" / "task", np.arange(10.0)
    make_runs(folder / "one", scores)
    make_runs(folder / "two", [-1.0, 1.0, 3.0])
    columns, one, two, three = (
        dict(zip(reproduction.COLUMNS, row, strict=True)) for row in reproduction.table("task", task_of())
    )
    assert list(columns) == list(columns.values())
    low, high = figures.Summary.of(scores).low, figures.Summary.of(scores).high
    assert one["score"] == f"IQM 4.5, 95% interval {low:.1f} to {high:.1f} (10 seeds)"  # the mean of 2 to 7
    assert one["normalised"] == "0.72"  # 14.5 of 20
    assert one["published"] == "5.0 ± 1.5, 2,000 steps"
    assert (one["environment steps"], one["steps, ours / published"]) == ("500", "0.25")
    assert (one["seconds a seed"], one["CPU"]) == ("64", "AMD EPYC")  # 64.5, to even
    assert one["command"] == "`make reproduce TASK=task/one`"
    assert one["raw"] == "[reproduction/task/one](../results/reproduction/task/one)"
    assert two["score"] == "1.0 (mean of 3 seeds, -1.0 to 3.0)"
    assert (two["normalised"], two["published"], two["steps, ours / published"]) == ("0.55", "none", "none")
    assert (three["algorithm"], three["score"], three["raw"]) == ("VDN", "not run", "")
    text = reproduction.section("task", task_of()).text
    assert "team return on 2 fixed episodes" in text
    assert "random -10.0, nearest 0.0, oracle 10.0" in text


def test_a_win_rate_has_two_decimals_and_no_scale_where_nobody_wins(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    folder = tmp_path / "reproduction" / "task"
    make_runs(folder / "one", [0.25, 0.5], "won")
    row = dict(zip(reproduction.COLUMNS, reproduction.table("task", task_of("won"))[1], strict=True))
    assert (row["score"], row["normalised"]) == ("0.38 (mean of 2 seeds, 0.25 to 0.50)", "0.50")
    assert "share of battles won" in reproduction.section("task", task_of("won")).text
    monkeypatch.setitem(BOUNDS, "won", [("random", 0.0), ("oracle", 0.01)])
    make_runs(folder / "one", [0.25, 0.5], "won")
    row = dict(zip(reproduction.COLUMNS, reproduction.table("task", task_of("won"))[1], strict=True))
    assert row["normalised"] == "none"


def test_seeds_of_different_budgets_make_no_row(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    folder = tmp_path / "reproduction" / "task" / "one"
    make_runs(folder, [1.0, 2.0])
    write(folder / "seed_1" / "progress.csv", [curve(700)])
    with pytest.raises(ValueError, match=r"task/one: seeds of 500, 700 environment steps"):
        reproduction.table("task", task_of())


def test_only_tasks_with_runs_are_on_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    assert reproduction.reproductions() == ()
    make_runs(tmp_path / "reproduction" / "spread" / "vdn", [-130.0])
    (section,) = reproduction.reproductions()
    assert section.title == f"Reproduction: {TASKS['spread'].title}"
    assert [row[0] for row in section.table()[1:]] == [e.algorithm for e in TASKS["spread"].entries.values()]
