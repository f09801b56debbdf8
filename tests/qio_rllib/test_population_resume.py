"""A population that was interrupted goes on as one: killed, stopped by a signal, and what is refused."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.tune.experiment import Trial

from qio_envs.api import ConfigError
from qio_rllib.artifacts.files import read_csv
from qio_rllib.artifacts.metrics import ITERATION
from qio_rllib.artifacts.policy_file import load_policy
from qio_rllib.artifacts.progress_file import ProgressFile
from qio_rllib.artifacts.run_directory import RunDirectory
from qio_rllib.artifacts.yaml_files import yaml_text
from qio_rllib.cli import main
from qio_rllib.experiments import training
from qio_rllib.experiments.experiment import Experiment, load_experiment
from qio_rllib.experiments.failures import TrainingInterrupted
from qio_rllib.experiments.population import Population, _StateKeeper
from qio_rllib.experiments.population_scheduler import PopulationScheduler, Restored
from qio_rllib.experiments.population_settings import PopulationSettings
from qio_rllib.experiments.population_state import PopulationState, RunStart, state_file
from qio_rllib.experiments.recorder import RunRecorder
from qio_rllib.experiments.sweep import Sweep

EXPERIMENT = {
    "run": "PPO",
    "env": "matrix_game_v0",
    "stop": {"training_iteration": 5},
    "num_samples": 2,
    "checkpoint_config": {"checkpoint_frequency": 1},
    "scheduler": {
        "type": "pbt",
        "perturbation_interval": 2,
        "quantile_fraction": 0.5,
        "resample_probability": 0.5,
        "hyperparam_mutations": {
            "lr": {"loguniform": [1e-4, 1e-2]},
            "clip_param": {"choice": [0.1, 0.2, 0.3]},
        },
    },
    "config": {
        "num_env_runners": 0,
        "num_envs_per_env_runner": 4,
        "train_batch_size_per_learner": 80,
        "minibatch_size": 40,
        "num_epochs": 1,
        "evaluation_duration": 1,
        "env_config": {"game": "prisoners_dilemma", "rounds": 10},
        "self_play": {"snapshot_interval": 1},
        "model_config": {"fcnet_hiddens": [4]},
        "seed": 3,
    },
}
METRIC = "env_runners/episode_return_mean"


def runs_in(folder):
    """Return the runs of the only population in a folder, by number."""
    found = {}
    for info in folder.glob("x/*/run.json"):
        run = RunDirectory.open(info.parent)
        found[run.info()["sweep"]["run"]] = run
    return found


def sweep_of(folder):
    (file,) = folder.glob("x/sweep_*.yaml")
    return file


def results_of(folder):
    """Return all that shall be as if nothing had happened: weights, tables without times, the history, settings."""
    found = {"history": read_csv(sweep_of(folder).with_suffix(".csv"))}
    for number, run in runs_in(folder).items():
        rows = [
            {key: value for key, value in row.items() if "time" not in key and "per_s" not in key}
            for row in ProgressFile(run.progress_file).rows
        ]
        policy = load_policy(run.path / "policy.pt").team.groups[0].actor.network
        weights = {name: array.numpy().tolist() for name, array in policy.state_dict().items()}
        found[number] = rows, weights, run.config(), run.info()["evaluation"]
    return found


@pytest.mark.ray
@pytest.mark.long
def test_stopped_and_killed_it_ends_as_one_that_was_not(tmp_path, monkeypatch, ray_runtime):
    monkeypatch.chdir(tmp_path)
    experiment = {**EXPERIMENT, "stop": {"training_iteration": 3}}
    Path("x.yaml").write_text(yaml_text({"x": experiment}))
    assert main(["train", "x.yaml", "--out", "whole", "-q"]) == 0

    # Stopped by a signal when the first of the two has come to the comparison.
    def stop(number, row):
        if row[ITERATION] == 2 and not stopped:
            stopped.append(number)
            os.kill(os.getpid(), signal.SIGINT)

    stopped = []
    population = Population(Sweep.create(load_experiment("x.yaml"), tmp_path / "ended"))
    with pytest.raises(TrainingInterrupted) as interrupted:
        population.train(stop)
    sweep = sweep_of(tmp_path / "ended")
    assert str(interrupted.value) == f"training was interrupted; resume it with: rllib train --resume {sweep}"
    runs = runs_in(tmp_path / "ended")
    assert {run.info()["status"] for run in runs.values()} == {"interrupted"}
    with pytest.raises(
        ConfigError, match="a run of a population, which goes on as one: rllib train --resume"
    ):
        training.resume(runs[1].path)

    # Killed when a run has gone on from the other one, without notice.
    process = subprocess.Popen(
        [sys.executable, "-m", "qio_rllib.cli", "train", "--resume", str(sweep), "--json"],
        start_new_session=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert any(json.loads(line)["event"] == "exploit" for line in process.stdout)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert {run.info()["status"] for run in runs.values()} == {"running"}

    assert main(["train", "--resume", str(sweep), "-q"]) == 0
    whole, ended = results_of(tmp_path / "whole"), results_of(tmp_path / "ended")
    assert len(whole["history"]) == 3
    assert ended == whole
    assert all(len(run.info()["resumed_at"]) == 2 for run in runs.values())


# -- where runs go on --------------------------------------------------------------------------------------------


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """Return a sweep whose two runs have begun, and whose checkpoints count as whole unless they hold a file."""

    def check(path):
        if any(Path(path).iterdir()):
            raise ConfigError("damaged")

    monkeypatch.setattr(training, "verify", check)
    monkeypatch.setattr(training, "checkpoint_experiment", lambda path: {})
    experiment = Experiment.from_mapping(EXPERIMENT, name="x")
    population = Population(Sweep.create(experiment, tmp_path))
    for variant in population.sweep.variants:
        population._begin(variant)
    write_state(population.sweep)
    return population.sweep.file


def write_state(sweep, runs=None, next_comparison=2, **changes):
    settings = PopulationSettings.of(EXPERIMENT["scheduler"])
    values = {"lr": 1e-3, "clip_param": 0.2}
    runs = runs or {number: RunStart(number, 0, 0, -1, values) for number in (1, 2)}
    given = {
        "experiment": sweep.experiment.as_dict(),
        "next_comparison": next_comparison,
        "history": [{ITERATION: 0, "run": 1}],
    }
    states = PopulationScheduler(settings, 3).random_states
    PopulationState(python_random=states[0], numpy_random=states[1], runs=runs, **{**given, **changes}).write(
        sweep.file
    )


def keep(run, number, iteration, damaged=False, scored=True):
    """Put a checkpoint into the list of a run, with or without the metric that runs are compared by."""
    folder = run.trial / f"checkpoint_{number:06d}"
    folder.mkdir(parents=True)
    if damaged:
        (folder / "damage").touch()
    entries = json.loads(run.checkpoints_file.read_text())
    metrics = {ITERATION: iteration, **({METRIC: float(iteration)} if scored else {})}
    entry = {"path": str(folder.relative_to(run.path)), "metrics": metrics}
    run.checkpoints_file.write_text(json.dumps([*entries, entry]))


def gone_on(file):
    """Return by run the number and owner of its checkpoint, whether it waits, what is listed of it, and notes."""
    population = Population(Sweep.open(file), resume=True)
    found = {}

    def stop(signals, on_exploit, silent, restored, notes):
        for number, recorder in population._recorders.items():
            kept = recorder.restored
            whose = (
                None
                if kept is None
                else next(
                    other for other, run in population._runs.items() if kept.path.is_relative_to(run.path)
                )
            )
            listed = [one.number for one in recorder.checkpoints.all]
            where = None if kept is None else (whose, kept.number)
            found[number] = where, restored[number].waits, listed, notes[number]
        return []

    population._train = stop
    population.train()
    return found


def test_without_checkpoints_runs_begin_anew_with_their_first_values(begun):
    found = gone_on(begun)
    assert found == {number: (None, False, [], []) for number in (1, 2)}
    for run in runs_in(begun.parents[1]).values():
        assert run.config()["x"]["config"]["lr"] == 1e-3
        assert run.info()["status"] == "running"
        assert len(run.info()["resumed_at"]) == 1
    assert read_csv(begun.with_suffix(".csv")) == [{ITERATION: 0, "run": 1}]


def test_runs_go_on_from_their_last_checkpoints_of_the_interval_or_what_a_comparison_gave_them(begun):
    runs = runs_in(begun.parents[1])
    for number, iteration in enumerate([1, 2, 3]):
        keep(runs[1], number, iteration)
    for number, iteration in enumerate([1, 2]):
        keep(runs[2], number, iteration)
    sweep = Sweep.open(begun)
    starts = {1: RunStart(1, 2, 2, 1, {"lr": 2e-3}), 2: RunStart(1, 2, 2, 1, {"lr": 4e-3})}
    write_state(sweep, starts, 4)
    assert gone_on(begun) == {1: ((1, 2), False, [0, 1, 2], []), 2: ((1, 1), False, [0, 1], [])}
    assert runs[2].config()["x"]["config"]["lr"] == 4e-3
    # It has come to the next comparison; what it wrote behind that is of an interval that was not kept.
    keep(runs[2], 2, 3)
    keep(runs[2], 3, 4)
    keep(runs[2], 5, 5)
    assert gone_on(begun)[2] == ((2, 3), True, [0, 1, 2, 3], [])
    # At the end of its training it does not wait.
    write_state(sweep, starts, 5)
    keep(runs[2], 6, 5)
    keep(runs[2], 7, 6)
    assert gone_on(begun)[2] == ((2, 6), False, [0, 1, 2, 3, 6], [])


def test_what_was_listed_before_a_comparison_does_not_count_whatever_its_iteration(begun):
    """A run may go on from an earlier iteration than its own."""
    runs = runs_in(begun.parents[1])
    keep(runs[1], 0, 2)
    keep(runs[2], 0, 3)
    write_state(Sweep.open(begun), {1: RunStart(1, 2, 2, 0, {}), 2: RunStart(1, 2, 2, 0, {})}, 4)
    assert gone_on(begun)[2] == ((1, 0), False, [0], [])


def test_without_its_metric_a_run_does_not_wait(begun):
    runs = runs_in(begun.parents[1])
    keep(runs[1], 0, 2, scored=False)
    keep(runs[2], 0, 2)
    found = gone_on(begun)
    assert (found[1][:2], found[2][:2]) == (((1, 0), False), ((2, 0), True))


def test_a_damaged_checkpoint_is_passed_over_and_a_missing_one_named(begun):
    runs = runs_in(begun.parents[1])
    keep(runs[1], 0, 2)
    keep(runs[1], 1, 3, damaged=True)
    keep(runs[2], 0, 2)
    starts = {number: RunStart(number, 2, 2, 0, {}) for number in (1, 2)}
    write_state(Sweep.open(begun), starts, 4)
    kept, waits, listed, notes = gone_on(begun)[1]
    assert (kept, waits, listed) == ((1, 0), False, [0])
    assert notes == ["checkpoint_000001: damaged; the run went on from an earlier checkpoint"]
    before = runs[1].info()
    write_state(Sweep.open(begun), {1: starts[1], 2: RunStart(2, 1, 1, 0, {})}, 4)
    with pytest.raises(
        ConfigError, match="run 2 goes on from the checkpoint of run 2 after iteration 1, which is missing"
    ):
        gone_on(begun)
    assert runs[1].info() == before


def test_a_comparison_counts_when_all_that_it_names_is_there(begun):
    runs = runs_in(begun.parents[1])
    for number in (1, 2):
        keep(runs[number], 0, 1)
    population = Population(Sweep.open(begun), resume=True)
    population._recorders = {number: RunRecorder(run) for number, run in runs.items()}
    scheduler = SimpleNamespace(
        trials=["1", "2"],
        times_of={"1": (2, 2), "2": (2, 2)}.get,
        next_comparison=4,
        random_states=PopulationScheduler(population.settings, 9).random_states,
    )
    keeper = _StateKeeper(population)
    keeper.donors[1] = 2
    before = state_file(begun).read_text()
    keeper.compared(scheduler, SimpleNamespace(number=int))
    keeper.write_if_whole()
    assert state_file(begun).read_text() == before
    keep(runs[2], 1, 2)
    population._recorders[2] = RunRecorder(runs[2])
    keeper.write_if_whole()  # nobody needs what run 1 has left behind
    state = PopulationState.read(begun, Sweep.open(begun).experiment)
    values = {"lr": 1e-3, "clip_param": 0.2}
    assert state.runs == {1: RunStart(2, 2, 2, 0, values), 2: RunStart(2, 2, 2, 0, values)}
    assert (state.next_comparison, state.python_random) == (4, scheduler.random_states[0])
    assert state.numpy_random == scheduler.random_states[1]
    # One that has reached its end keeps its last checkpoint, and is in nobody's way.
    population._recorders[1].progress.append({ITERATION: 1})
    population._recorders[1].completed = True
    keep(runs[2], 2, 4)
    population._recorders[2] = RunRecorder(runs[2])
    scheduler.times_of = {"1": (0, 0), "2": (4, 4)}.get
    keeper.compared(scheduler, SimpleNamespace(number=int))
    keeper.write_if_whole()
    state = PopulationState.read(begun, Sweep.open(begun).experiment)
    assert state.runs == {1: RunStart(1, 1, 1, 0, values), 2: RunStart(2, 4, 4, 2, values)}


# -- the scheduler -----------------------------------------------------------------------------------------------


class FakeTrial:
    """What Tune's scheduler looks at of a trial."""

    def __init__(self, name, rate):
        self.trial_id = self.experiment_tag = self.name = name
        self.config = {"lr": rate, "clip_param": 0.2}
        self.status, self.checkpoint = Trial.PENDING, f"checkpoint of {name}"
        manager = SimpleNamespace(
            checkpoint_config=SimpleNamespace(num_to_keep=None), _latest_checkpoint_result=None
        )
        self.run_metadata = SimpleNamespace(checkpoint_manager=manager)
        self.latest_checkpoint_result = SimpleNamespace(metrics={})
        self.temporary_state = SimpleNamespace(saving_to=None)

    def set_status(self, status):
        self.status = status

    def set_config(self, config):
        self.config = config

    def set_experiment_tag(self, tag):
        self.experiment_tag = tag

    def is_finished(self):
        return self.status == Trial.TERMINATED


def controller_of(trials):
    live = {trial for trial in trials if not trial.is_finished()}
    return SimpleNamespace(search_alg=None, get_trials=lambda: trials, get_live_trials=lambda: live)


def test_a_restored_scheduler_draws_what_comes_next():
    settings = PopulationSettings.of(EXPERIMENT["scheduler"])

    def draw(scheduler, count):
        config, found = {"lr": 1e-3, "clip_param": 0.2}, []
        for _ in range(count):
            with scheduler._own_numbers():
                config, _ = scheduler._get_new_config(None, SimpleNamespace(config=config))
            found.append(config)
            config = {"lr": 1e-3, "clip_param": 0.2}
        return found

    whole = PopulationScheduler(settings, 3)
    expected = draw(whole, 20)
    first = PopulationScheduler(settings, 3)
    assert draw(first, 10) == expected[:10]
    numbers, generator = json.loads(json.dumps(first.random_states))
    numbers = (numbers[0], tuple(numbers[1]), numbers[2])
    state = PopulationState({}, 7, numbers, generator, [], {})
    second = PopulationScheduler(settings, 3, state=state)
    assert second.next_comparison == 7
    assert draw(second, 10) == expected[10:]


def test_runs_that_wait_are_compared_when_the_last_one_comes_or_has_ended():
    settings = PopulationSettings.of({**EXPERIMENT["scheduler"], "mode": "min"})
    for last_ends in (True, False):
        trials = [FakeTrial(name, rate) for name, rate in (("a", 1e-3), ("b", 2e-3), ("c", 3e-3))]
        rows = {"a": {ITERATION: 4, METRIC: 1.0}, "b": {ITERATION: 4, METRIC: 2.0}, "c": {ITERATION: 3}}
        found = []
        state = PopulationState({}, 4, *PopulationScheduler(settings, 0).random_states, [], {})
        scheduler = PopulationScheduler(
            settings,
            0,
            found.append,
            lambda found=found: found.append("compared"),
            state,
            lambda trial, rows=rows: Restored(rows[trial.name], 2, trial.name != "c"),
        )
        controller = controller_of(trials)
        for trial in trials:
            scheduler.on_trial_add(controller, trial)
        assert [trial.status for trial in trials] == [Trial.PAUSED, Trial.PAUSED, Trial.PENDING]
        assert trials[0].latest_checkpoint_result.metrics == rows["a"]
        assert scheduler.times_of(trials[2]) == (3, 2)
        assert scheduler.choose_trial_to_run(controller) is trials[2]
        assert found == []
        if last_ends:
            trials[2].status = Trial.TERMINATED
            chosen = scheduler.choose_trial_to_run(controller_of(trials))
            assert chosen in trials[:2]
        else:
            trials[2].status = Trial.PAUSED
            result = {ITERATION: 4, METRIC: 0.5}
            scheduler.on_trial_result(controller, trials[2], result)
        exploits = [one for one in found if one != "compared"]
        best = trials[0] if last_ends else trials[2]
        assert [(one.trial, one.donor, one.iteration) for one in exploits] == [(trials[1], best, 4)]
        assert (exploits[0].score, exploits[0].score_from) == (2.0, 1.0 if last_ends else 0.5)
        assert found[-1] == "compared"
        assert scheduler.next_comparison == 6
        kept = trials[1].run_metadata.checkpoint_manager._latest_checkpoint_result
        assert kept.checkpoint == best.checkpoint
        assert kept.metrics[ITERATION] == 4
        assert scheduler.times_of(trials[1]) == (4, 4)


# -- what is refused ---------------------------------------------------------------------------------------------


def refused(file, capsys, *more):
    assert main(["train", "--resume", str(file), *more]) == 2
    out, error = capsys.readouterr()
    assert (out, error.count("\n")) == ("", 1)
    return error


def test_what_cannot_go_on_is_one_line(begun, capsys):
    sweep = Sweep.open(begun)
    assert "--set: cannot go with --resume of a sweep" in refused(begun, capsys, "--set", "lr=1")
    text = begun.read_text()
    begun.write_text(text.replace("perturbation_interval: 2", "perturbation_interval: 3"))
    error = refused(begun, capsys)
    assert f"{begun}: scheduler.perturbation_interval is 3, and the population began with 2" in error
    begun.write_text(text)
    good = json.loads(state_file(begun).read_text())
    for key, value in (
        ("python_random", [3, [1, 2], None]),
        ("python_random", None),
        ("numpy_random", {"bit_generator": "MT19937"}),
        ("runs", {"1": {"source": 1}}),
        ("runs", []),
        ("other", 1),
    ):
        state_file(begun).write_text(json.dumps({**good, key: value}))
        assert f"{state_file(begun)}: damaged (" in refused(begun, capsys)
    state_file(begun).write_text("{")
    assert "damaged (" in refused(begun, capsys)
    write_state(sweep, {1: RunStart(1, 0, 0, -1, {})})
    assert "run 2 of the population is missing" in refused(begun, capsys)
    write_state(sweep)
    for run in runs_in(begun.parents[1]).values():
        assert main(["train", "--resume", str(run.path)]) == 2  # behind a note on checkpoints of others
        said = f"a run of a population, which goes on as one: rllib train --resume {begun}\n"
        assert capsys.readouterr().err.endswith(said)
        run.update_info(status="finished")
    assert f"{begun}: nothing to do, the population is finished" in refused(begun, capsys)
    state_file(begun).unlink()
    error = refused(begun, capsys)
    assert f"there is nothing to go on with ({state_file(begun).name} is missing)" in error
