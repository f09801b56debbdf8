"""What `rllib train` shows while it trains."""

import contextlib
import io
import json
import os
import re
import signal
import sys
import termios
import threading
import tty
from pathlib import Path

import pytest
from rich.console import Console
from toy_experiments import FAST, cartpole

from qio_rllib.algorithms.phases import PhaseSignal, read_phase
from qio_rllib.artifacts.run_directory import RunDirectory
from qio_rllib.cli import main
from qio_rllib.cli.progress import Display, Estimate, ProgressLine, Shown
from qio_rllib.experiments import training
from qio_rllib.experiments.failures import TrainingFailed, TrainingInterrupted
from qio_rllib.experiments.run_output import RunOutput, run_output

ITERATION, STEPS, TIME = "training_iteration", "num_env_steps_sampled_lifetime", "time_total_s"


class Clock:
    """Seconds that only pass when they are told to."""

    now = 1000.0

    def __call__(self):
        return self.now


def row(iteration, steps=1000, seconds=10.0, **more):
    """An iteration of so many steps and seconds, as all before it."""
    values = {ITERATION: iteration, STEPS: steps * iteration, TIME: seconds * iteration}
    return {**values, "time_this_iter_s": seconds, "env_steps_per_s": steps / seconds, **more}


# --- how far a run is --------------------------------------------------------------------------------------------


def test_the_criterion_that_is_reached_first_leads():
    clock = Clock()
    estimate = Estimate({ITERATION: 100, STEPS: 20_000, TIME: 500}, clock)
    assert estimate.leading() == (ITERATION, 0.0, None)
    estimate.add(row(1))
    # 99 iterations of 10 s, 19,000 steps of 10 ms, 490 s: the steps
    assert estimate.leading() == (STEPS, 1 / 20, pytest.approx(190))
    clock.now += 4
    assert estimate.leading()[2] == pytest.approx(186)
    clock.now += 500
    assert estimate.leading()[2] == 0


def test_a_resumed_run_is_timed_from_where_it_goes_on():
    estimate = Estimate({STEPS: 20_000}, Clock())
    estimate.add(row(10))
    assert estimate.leading() == (STEPS, 0.5, pytest.approx(100))


def test_the_speed_is_that_of_the_last_iterations():
    clock = Clock()
    estimate = Estimate({STEPS: 100_000}, clock)
    for iteration in range(1, 61):  # the first 30 are ten times as fast
        clock.now += 1 if iteration <= 30 else 10
        estimate.add(row(iteration))
    assert estimate.leading()[2] == pytest.approx(400)


def test_a_criterion_that_is_no_counter_has_no_estimate():
    estimate = Estimate({"env_runners/episode_return_mean": 450}, Clock())
    estimate.add(row(3))
    assert estimate.leading() == (None, 0.0, None)


# --- the line ----------------------------------------------------------------------------------------------------


def rendered(line, width):
    console = Console(file=io.StringIO(), record=True, force_terminal=True, width=width)
    console.print(line)
    return console.export_text()


@pytest.mark.parametrize("name", ["x", "forest-uav-ppo", "a-name-of-an-experiment-that-is-very-long 12/100"])
@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_line_fits_the_terminal_whatever_it_has_to_say(name, width):
    line = ProgressLine(name, {STEPS: 2_000_000, ITERATION: 10_000}, lambda: width, Clock())
    line.phase = "evaluating"
    for shown in (line, None):
        if shown is None:
            line.add(row(1234, steps=1234, seconds=321.0, **{"env_runners/team_return": -12345.6}))
        text = rendered(line, width)
        assert text.count("\n") == 1
        assert len(text.rstrip()) <= width
        assert text.startswith(name[:6])
        assert "evaluating" in text
    if width >= 80:
        for part in ("it 1234", "1.52M/2M steps", "━━━", "34:29:05", "return -12345.6"):
            assert part in text


def test_the_line_in_eighty_columns():
    line = ProgressLine("forest-uav-ppo", {STEPS: 201_600}, lambda: 80, Clock())
    line.phase = "learning"
    line.add(row(12, steps=4800, seconds=4.0, **{"env_runners/team_return": 361.24}))
    bar = "━━━╸━━━━━━━━━"  # 57,600 of 201,600 steps
    assert rendered(line, 80).rstrip() == (
        f"forest-uav-ppo learning   it 12 57.6k/202k steps {bar} 2:00 return 361.2"
    )


def test_a_goal_for_the_return_stands_beside_it():
    line = ProgressLine("x", {"env_runners/episode_return_mean": 450}, lambda: 80, Clock())
    line.add(row(3, **{"env_runners/episode_return_mean": 120.3}))
    assert rendered(line, 80).rstrip() == "x starting   it 3 3000 steps return 120.3/450"


def test_a_replay_that_is_being_filled_is_said():
    line = ProgressLine("x", {ITERATION: 9}, lambda: 80, Clock())
    line.add(row(3, **{"replay/warming_up": 1}))
    assert "it 3/9 3000 steps" in rendered(line, 80)
    assert rendered(line, 80).rstrip().endswith("1:00 warming up")


# --- without a terminal ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "lines"), [(Shown.LINES, 2), (Shown.VERBOSE, 2), (Shown.QUIET, 0)])
def test_each_iteration_is_a_line_or_none(kind, lines):
    stream = io.StringIO()
    display = Display(kind, stream)
    with display.begin("x", {ITERATION: 2}):
        display.phase("sampling")
        display.row(row(1))
        display.row(row(2))
    assert stream.getvalue().count("\n") == lines
    assert stream.getvalue().count("iteration 2/2  steps 2,000") == (lines > 0)


def test_json_is_an_object_an_iteration_and_one_for_the_result():
    stream = io.StringIO()
    display = Display(Shown.JSON, stream)
    with display.begin("x", {ITERATION: 2}, 3):
        display.row(row(1))
    display.failed(TrainingFailed("no", Path("r")), "r", values={"seed": 3})
    first, last = map(json.loads, stream.getvalue().splitlines())
    assert first == {"event": "iteration", "run": 3, **row(1)}
    assert last == {
        "event": "result",
        "run": 3,
        "status": "failed",
        "run_dir": "r",
        "error": "no",
        "values": {"seed": 3},
    }


@pytest.mark.ray
def test_json_alone_is_on_standard_output(tmp_path, monkeypatch, ray_runtime, capsys):
    monkeypatch.chdir(tmp_path)
    stop = json.dumps({ITERATION: 2})
    config = json.dumps({**FAST, "evaluation_interval": 1, "evaluation_duration": 2})
    arguments = [
        "train",
        "--run",
        "PPO",
        "--env",
        "CartPole-v1",
        "--config",
        config,
        "--stop",
        stop,
        "--json",
    ]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    rows = [json.loads(line) for line in out.splitlines()]
    assert [each["event"] for each in rows] == ["iteration", "iteration", "result"]
    assert [each.get(STEPS) for each in rows] == [200, 400, None]
    run = RunDirectory.open(rows[-1]["run_dir"])
    assert rows[-1]["evaluation"] == run.info()["evaluation"]
    assert run.log_file.exists()


# --- on a terminal -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def terminal(monkeypatch):
    """Put a pseudo-terminal of 80 columns in place of standard output; yields what it got, whole in the end."""
    master, slave = os.openpty()
    tty.setraw(slave)
    termios.tcsetwinsize(slave, (24, 80))
    got, end = bytearray(), b"\0the end"  # the display holds the terminal open, so that there is no other end

    def collect():
        while not got.endswith(end):
            got.extend(os.read(master, 65536))

    reader = threading.Thread(target=collect)
    reader.start()
    with monkeypatch.context() as patch, os.fdopen(slave, "w") as stream:
        patch.setattr(sys, "stdout", stream)
        patch.setenv("TERM", "xterm")
        patch.setenv("NO_COLOR", "1")
        yield got
        stream.write(end.decode())
    reader.join(timeout=60)


def frames(text):
    """Return what the line showed, one text for each time it was drawn."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", text)  # colours
    drawn = re.split(r"\x1b\[[\d;?]*[A-Za-z]|[\r\n]", plain)
    return [frame for frame in drawn if frame.startswith("PPO_")]


@pytest.mark.ray
def test_a_training_is_one_line_that_changes(tmp_path, monkeypatch, ray_runtime):
    monkeypatch.chdir(tmp_path)
    config = json.dumps({**FAST, "evaluation_interval": 2, "evaluation_duration": 2})
    stop = json.dumps({ITERATION: 3, STEPS: 1_000_000})
    arguments = ["--env", "CartPole-v1", "--config", config, "--stop", stop]
    with terminal(monkeypatch) as got:
        assert main(["train", "--run", "PPO", *arguments]) == 0
    text = got.decode()
    shown = frames(text)
    assert all(len(frame) <= 80 for frame in shown)
    phases = [frame.split()[1] for frame in shown]
    assert phases[0] == "starting"
    assert phases[-1] == "done"
    assert {"sampling", "learning", "evaluating"} & set(phases)
    assert "finishing" in phases
    assert "it 0/3" in shown[0]
    assert "it 3/3" in shown[-1]
    assert "return" in shown[-1]
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") >= 1
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert "results       runs" in text


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (TrainingInterrupted(Path("r"), signal.SIGINT), 130),
        (TrainingFailed("training failed in iteration 2: no", Path("r")), 1),
    ],
)
def test_whatever_ends_a_run_the_cursor_is_there_again(tmp_path, monkeypatch, capsys, error, status):
    def end(*arguments, **how):
        raise error

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "train", end)
    stop = json.dumps({ITERATION: 1})
    with terminal(monkeypatch) as got:
        assert main(["train", "--run", "PPO", "--env", "CartPole-v1", "--stop", stop]) == status
    text = got.decode()
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert "stopped" in text
    assert capsys.readouterr().err == f"rllib: {error}\n"


# --- phases ------------------------------------------------------------------------------------------------------


def test_a_phase_is_written_where_somebody_watches(tmp_path):
    PhaseSignal(tmp_path).enter("sampling")
    PhaseSignal(None).enter("sampling")
    assert list(tmp_path.iterdir()) == []
    assert read_phase(tmp_path) == ""
    (tmp_path / "phase").write_bytes(b"")
    signal_ = PhaseSignal(tmp_path)
    assert read_phase(tmp_path) == ""
    for phase in ("evaluating", "learning", "learning", "sampling"):
        signal_.enter(phase)
        assert read_phase(tmp_path) == phase


@pytest.mark.ray
@pytest.mark.parametrize("settings", [{}, {"env_runner_cls": None}])
def test_an_iteration_samples_learns_and_evaluates(monkeypatch, ray_runtime, settings):
    seen = []
    monkeypatch.setattr(PhaseSignal, "enter", lambda self, phase: seen.append(phase))
    config = cartpole(evaluation_interval=2, evaluation_duration=1).algorithm_config()
    if settings:
        config.env_runners(**settings)
    algorithm = config.build_algo()
    try:
        algorithm.train()
        assert seen == ["sampling", "learning"]
        algorithm.train()
        assert seen == ["sampling", "learning", "sampling", "learning", "evaluating"]
    finally:
        algorithm.stop()


# --- what libraries print ----------------------------------------------------------------------------------------


def test_what_is_printed_meanwhile_goes_to_the_log(tmp_path, capfd):
    log = tmp_path / "run.log"
    with run_output(RunOutput.LOGGED, log):
        print("of Python")
        os.write(1, b"of a C library\n")
        os.write(2, b"its error\n")
    print("behind it")
    assert capfd.readouterr() == ("behind it\n", "")
    assert log.read_text().splitlines() == ["of Python", "of a C library", "its error"]
    with pytest.raises(KeyboardInterrupt), run_output(RunOutput.LOGGED, log):
        raise KeyboardInterrupt
    os.write(1, b"once more\n")
    assert capfd.readouterr().out == "once more\n"
    with run_output(RunOutput.SHOWN, log):
        print("shown")
    assert capfd.readouterr().out == "shown\n"


def test_a_log_that_cannot_be_written_ends_nothing(tmp_path, capfd):
    with run_output(RunOutput.LOGGED, tmp_path / "nowhere" / "run.log"):
        print("lost")
    if os.path.exists("/dev/full"):
        with run_output(RunOutput.LOGGED, Path("/dev/full")), contextlib.suppress(OSError):
            print("lost too")
    os.write(1, b"seen\n")
    assert capfd.readouterr() == ("seen\n", "")
