"""How a run ends: what is raised, what ``run.json`` says, and what is left. Tune and Ray are put in place of here."""

import contextlib
import json
import os
import signal
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray._private import ray_constants
from toy_experiments import cartpole

from qio_envs.api import ConfigError
from qio_rllib.artifacts.kept_checkpoints import KeptCheckpoints
from qio_rllib.artifacts.run_directory import RunDirectory
from qio_rllib.cli import main
from qio_rllib.experiments import training, tuning
from qio_rllib.experiments.failures import RayLost, TrainingFailed, TrainingInterrupted
from qio_rllib.experiments.recorder import RunRecorder
from qio_rllib.experiments.stop_signals import StopRequested, StopSignals
from qio_rllib.experiments.training import resume, train
from qio_rllib.experiments.tuning import ray_runtime


@pytest.fixture
def tune(monkeypatch):
    """Take the place of Tune and Ray: runs what it is given with the recorder, instead of training."""

    def put(act):
        monkeypatch.setattr(training, "ray_runtime", lambda *given: contextlib.nullcontext())
        monkeypatch.setattr(training, "run_trial", lambda experiment, directory, recorder: act(recorder))

    return put


def row(iteration):
    return {"training_iteration": iteration, "num_env_steps_sampled_lifetime": 100 * iteration}


def iterate(recorder, last):
    for iteration in range(len(recorder.progress.rows) + 1, last + 1):
        recorder.on_trial_result(0, [], None, row(iteration))


def checkpoint(recorder, number):
    """Write what the rest takes for a checkpoint, as far as these tests look at it."""
    path = recorder.directory.trial / f"checkpoint_{number:06d}"
    path.mkdir(parents=True)
    trial = SimpleNamespace(checkpoint=SimpleNamespace(path=str(path)))
    recorder.on_trial_save(0, [], trial)


def the_run(out):
    (path,) = out.glob("*/*")
    return RunDirectory.open(path)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), r"OSError: \[Errno 28\] No space left on device"),
        (RayLost("Ray's process gcs_server has ended"), "Ray's process gcs_server has ended"),
    ],
)
def test_an_error_of_the_training_loop_ends_the_run_in_one_line(tmp_path, tune, error, reason):
    def fail(recorder):
        iterate(recorder, 1)
        raise error

    tune(fail)
    with pytest.raises(
        TrainingFailed, match=rf"^training failed in iteration 2: {reason} \(log: .*error.log\)$"
    ):
        train(cartpole(), tmp_path)
    run = the_run(tmp_path)
    assert run.info()["status"] == "failed"
    assert str(error) in run.error_file.read_text()
    assert not list(run.path.glob(".reserve"))


def test_bad_input_that_only_the_algorithm_sees_is_bad_input_and_leaves_no_directory(tmp_path, tune):
    def refuse(recorder):
        problem = ConfigError("config.x: expected y")
        raise ray.exceptions.RayTaskError(
            "train", "Traceback\n  of many lines", problem
        ).as_instanceof_cause()

    tune(refuse)
    with pytest.raises(ConfigError) as caught:
        train(cartpole(), tmp_path)
    assert str(caught.value) == "config.x: expected y"
    assert list(tmp_path.glob("*/*")) == []


def test_a_log_that_cannot_be_written_is_said_to_be_missing(tmp_path, tune):
    def fail(recorder):
        recorder.directory.error_file.mkdir()
        raise OSError(30, "Read-only file system")

    tune(fail)
    with pytest.raises(TrainingFailed, match=r"Read-only file system \(no log: Is a directory\)$"):
        train(cartpole(), tmp_path)
    assert the_run(tmp_path).info()["status"] == "failed"


def test_a_status_that_cannot_be_written_does_not_hide_the_error(tmp_path, tune, monkeypatch):
    def fail(recorder):
        monkeypatch.setattr(recorder.directory, "update_info", no_room)
        raise OSError(30, "Read-only file system")

    def no_room(**values):
        raise OSError(30, "Read-only file system")

    tune(fail)
    with pytest.raises(TrainingFailed, match="Read-only file system"):
        train(cartpole(), tmp_path)


def test_a_table_that_cannot_be_closed_does_not_keep_the_status_from_being_written(tmp_path, tune):
    def fail(recorder):
        iterate(recorder, 1)
        recorder.close = no_room
        raise OSError(28, "No space left on device")

    def no_room():
        raise OSError(28, "No space left on device")

    tune(fail)
    with pytest.raises(TrainingFailed):
        train(cartpole(), tmp_path)
    assert the_run(tmp_path).info()["status"] == "failed"


def test_a_run_that_cannot_be_written_to_is_not_resumed(tmp_path, tune, monkeypatch):
    def fail(recorder):
        raise RuntimeError("x")

    def no_room(self, data):
        raise OSError(28, "No space left on device")

    tune(fail)
    with pytest.raises(TrainingFailed):
        train(cartpole(), tmp_path)
    run = the_run(tmp_path)
    before = run.info()
    monkeypatch.setattr(Path, "write_bytes", no_room)
    with pytest.raises(ConfigError, match="cannot be written to .No space left on device"):
        resume(run.path)
    assert run.info() == before
    assert run.error_file.exists()


def test_room_is_kept_for_the_end_while_it_trains(tmp_path, tune):
    sizes = []

    def fail(recorder):
        sizes.append((recorder.directory.path / ".reserve").stat().st_size)
        raise RuntimeError("x")

    tune(fail)
    with pytest.raises(TrainingFailed):
        train(cartpole(), tmp_path)
    assert sizes == [2**17]


def test_a_signal_lets_the_iteration_end_with_a_checkpoint(tmp_path, tune):
    asked = []

    def train_on(recorder):
        recorder.setup()
        iterate(recorder, 1)
        os.kill(os.getpid(), signal.SIGTERM)
        recorder.on_step_begin(0, [])
        result = row(2)
        recorder.on_trial_result(0, [], None, result)
        asked.append(result.get("should_checkpoint"))
        checkpoint(recorder, 0)

    tune(train_on)
    with pytest.raises(TrainingInterrupted, match="resume it with: rllib train --resume") as caught:
        train(cartpole(), tmp_path)
    assert caught.value.signal == signal.SIGTERM
    assert asked == [True]
    run = the_run(tmp_path)
    assert run.info()["status"] == "interrupted"
    (kept,) = KeptCheckpoints(run).all
    assert kept.metrics["training_iteration"] == 2


def test_without_a_signal_no_checkpoint_is_asked_for(tmp_path):
    recorder = RunRecorder(tmp_path)
    result = row(1)
    recorder.on_trial_result(0, [], None, result)
    assert "should_checkpoint" not in result
    checkpoint(recorder, 0)
    recorder.close()


def test_before_the_first_iteration_a_signal_stops_at_once(tmp_path):
    signals = StopSignals()
    recorder = RunRecorder(tmp_path, signals=signals)
    recorder.on_step_begin(0, [])
    signals.received = signal.SIGTERM
    with pytest.raises(StopRequested):
        recorder.on_step_begin(0, [])


def test_an_error_that_a_signal_has_caused_is_an_interruption(tmp_path, tune):
    """Slurm signals all processes of a job, Ray's too."""

    def lose(recorder):
        recorder.setup()
        os.kill(os.getpid(), signal.SIGTERM)
        raise RayLost("Ray's process raylet has ended")

    tune(lose)
    with pytest.raises(TrainingInterrupted):
        train(cartpole(), tmp_path)
    assert the_run(tmp_path).info()["status"] == "interrupted"


def test_a_signal_that_ray_takes_while_it_starts_is_an_interruption(tmp_path, tune):
    def exit_as_ray_does(recorder):
        raise SystemExit(15)

    tune(exit_as_ray_does)
    with pytest.raises(TrainingInterrupted) as caught:
        train(cartpole(), tmp_path)
    assert caught.value.signal == signal.SIGTERM
    assert the_run(tmp_path).info()["status"] == "interrupted"


def test_signals_are_taken_back_from_ray_when_it_has_started(tmp_path, tune, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)

    @contextlib.contextmanager
    def starting(*given):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        yield

    tune(lambda recorder: os.kill(os.getpid(), signal.SIGTERM))
    monkeypatch.setattr(training, "ray_runtime", starting)
    with pytest.raises(TrainingInterrupted):
        train(cartpole(), tmp_path)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(("number", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_the_exit_status_tells_the_signal(tmp_path, monkeypatch, capsys, number, status):
    def interrupted(*arguments, **how):
        raise TrainingInterrupted(tmp_path, getattr(signal, number))

    monkeypatch.setattr(training, "train", interrupted)
    stop = json.dumps({"training_iteration": 1})
    assert main(["train", "--run", "PPO", "--env", "CartPole-v1", "--stop", stop]) == status
    assert capsys.readouterr().err.count("\n") == 1


def test_a_run_without_a_list_of_checkpoints_is_not_begun_anew(tmp_path, tune):
    def fail(recorder):
        iterate(recorder, 1)
        raise RuntimeError("x")

    tune(fail)
    with pytest.raises(TrainingFailed):
        train(cartpole(), tmp_path)
    run = the_run(tmp_path)
    run.checkpoints_file.unlink()
    before = run.progress_file.read_text()
    with pytest.raises(ConfigError, match="damaged .checkpoints.json is missing"):
        resume(run.path)
    assert run.progress_file.read_text() == before


def test_a_second_process_is_refused_and_changes_nothing(tmp_path, tune, capsys):
    refused = []

    def resume_beside(recorder):
        before = recorder.directory.info()
        refused.append(main(["train", "--resume", str(recorder.directory.path)]))
        assert recorder.directory.info() == before
        raise RuntimeError("enough")

    tune(resume_beside)
    with pytest.raises(TrainingFailed, match="enough"):
        train(cartpole(), tmp_path)
    assert refused == [2]
    assert "another process is training this run" in capsys.readouterr().err


# -- Ray ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_ray(monkeypatch):
    """Let nobody start Ray; yields what it was started with."""
    started = []

    def init(**options):
        started.append((options, ray_constants.ENABLE_RAY_CLUSTER))
        return SimpleNamespace(address_info={})

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return started


def test_a_ray_of_ones_own_listens_on_the_loopback_interface_alone(no_ray, monkeypatch):
    config = cartpole().algorithm_config()
    with ray_runtime(config):
        assert ray_constants.ENABLE_RAY_CLUSTER
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with ray_runtime(config):
        pass
    assert [cluster for _, cluster in no_ray] == [False, True]


def test_an_address_at_which_nobody_answers_is_bad_input(no_ray, monkeypatch, tmp_path):
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ConfigError, match=f"^RAY_ADDRESS: no Ray answers at {address} "):
            train(cartpole(), tmp_path)
    assert no_ray == []
    assert list(tmp_path.glob("*/*")) == []


def test_a_ray_that_does_not_start_ends_the_run_in_one_line(no_ray, monkeypatch, tmp_path):
    def init(**options):
        raise OSError("AF_UNIX path length cannot exceed 107 bytes:\n/tmp/x")

    monkeypatch.setattr(ray, "init", init)
    match = r"training failed in iteration 1: Ray did not start: AF_UNIX path length .* bytes: /tmp/x \(log: [^\n]*\)$"
    with pytest.raises(TrainingFailed, match=match):
        train(cartpole(), tmp_path)
    assert the_run(tmp_path).info()["status"] == "failed"


@pytest.mark.parametrize(
    ("dead", "ends"), [("gcs_server", True), ("raylet", True), ("dashboard", False), (None, False)]
)
def test_a_process_of_ray_that_has_ended_ends_the_run(monkeypatch, dead, ends):
    node = SimpleNamespace(is_head=lambda: True, dead_processes=lambda: [(dead, None)] if dead else [])
    monkeypatch.setattr(ray._private.worker, "_global_node", node)
    watch = tuning._RayWatch()
    if ends:
        with pytest.raises(tuning._RayEnded, match=f"Ray's process {dead} has ended"):
            watch.on_step_begin(0, [])
    else:
        watch.on_step_begin(0, [])
