"""The examples run, learn, repeat themselves, and refuse what they cannot do."""

import ast
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
TINY = '{"height": 6, "width": 6, "num_uavs": 2, "max_steps": 10, "reward": "local"}'
TRAINING = {  # arguments, and what the policy must then earn more than random actions: about half of what it does
    "cleanrl_style_ppo": (["--steps", "12800"], 15.0),
    "stable_baselines3_ppo": (["--steps", "6400"], 12.0),
    "torchrl_ppo": (["--steps", "1600", "--settings", TINY], 1.5),
}
CONTINUOUS = [  # agents that start near the edge and leave, each at its time
    *("--env", "swarm_cooperative_v0", "--steps", "400", "--seed", "5"),
    *("--settings", '{"max_steps": 8, "out_radius": 2.02}'),
]
REFUSED = {
    "--env forest_uav_v9": "unknown environment 'forest_uav_v9' (did you mean 'forest_uav_v0'?)",
    "--steps -5": "--steps: expected a whole number of at least 0, got '-5'",
    "--steps many": "--steps: expected a whole number of at least 0, got 'many'",
    f"--seed {2**64}": "eed",
    '--settings {"hight":3}': "unknown environment setting 'hight' (did you mean 'height'?)",
    '--settings {"scenario":"wooded"}': "action masks are not used here",
}
# One process runs the script once for each list of arguments: what the frameworks import takes seconds.
DRIVER = """
import contextlib, io, json, runpy, sys

path, calls = sys.argv[1], json.loads(sys.argv[2])
results = []
for arguments in calls:
    sys.argv, code = [path, *arguments], 0
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as end:
            code = end.code
    results.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(results))
"""


class Result(NamedTuple):
    code: int
    out: str
    err: str


class Runs(NamedTuple):
    name: str
    refused: list[Result]
    continuous: list[Result]  # two runs of the same arguments
    trained: Result
    left_behind: list[Path]


@pytest.fixture(scope="module", params=TRAINING)
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    name, directory = request.param, tmp_path_factory.mktemp(request.param)
    training = ["--seed", "2", *TRAINING[name][0]]
    calls = [*(arguments.split() for arguments in REFUSED), CONTINUOUS, CONTINUOUS, training]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(EXAMPLES / f"{name}.py"), json.dumps(calls)],
        cwd=directory,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    results = [Result(*result) for result in json.loads(done.stdout)]
    return Runs(name, results[:-3], results[-3:-1], results[-1], list(directory.iterdir()))


def scores_of(result: Result) -> dict[str, float]:
    """Return the team returns at the end of what was printed."""
    assert result.code == 0, result.err
    assert "Traceback" not in result.err
    rows = re.findall(r"^ *([a-z]+) +(\S+)$", result.out, re.MULTILINE)
    scores = {name: float(score) for name, score in rows}
    assert {"random", "trained"} <= set(scores), result.out
    assert all(math.isfinite(score) for score in scores.values()), result.out
    return scores


@pytest.mark.learning
def test_it_learns(runs: Runs):
    scores = scores_of(runs.trained)
    assert scores["trained"] > scores["random"] + TRAINING[runs.name][1], runs.trained.out
    assert scores["trained"] < scores.get("lawnmower", math.inf)  # what full knowledge earns


def test_agents_with_continuous_actions_may_end_one_by_one(runs: Runs):
    assert scores_of(runs.continuous[0])["trained"] < 0  # the cost of the distance, in all episodes


def test_the_same_seed_prints_the_same_numbers(runs: Runs):
    first, second = runs.continuous
    assert first.out == second.out


def test_it_leaves_nothing_behind(runs: Runs):
    assert runs.left_behind == []


@pytest.mark.parametrize("arguments", REFUSED)
def test_bad_input_is_refused_in_one_line(runs: Runs, arguments: str):
    code, out, err = runs.refused[list(REFUSED).index(arguments)]
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith(f"{runs.name}.py: error: ")
    assert REFUSED[arguments] in line


@pytest.mark.parametrize("name", TRAINING)
def test_its_docstring_says_how_to_run_it(name: str):
    docstring = ast.get_docstring(ast.parse((EXAMPLES / f"{name}.py").read_text()))
    assert docstring is not None
    assert f"\n    python examples/{name}.py\n" in docstring


def test_every_example_is_tested():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(TRAINING)
