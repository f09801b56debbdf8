import random

import mpe2.simple_adversary_v3
import mpe2.simple_spread_v3
import mpe2.simple_tag_v3
import numpy as np
import pytest
import toy_parallel
from toy_envs import Walk, WalkConfig

from qio_envs import forest_uav_v0
from qio_envs.adapters.pettingzoo import BatchedParallelEnv
from qio_envs.testing import CHECKS, CheckResult, check_parallel_env, table
from qio_envs.testing.command_line import main


def labels(results, label):
    return {result.name for result in results if result.label == label}


@pytest.mark.parametrize("scenario", ["default", "sprint", "wide", "wooded", "solo"])
def test_the_forest_conforms(scenario):
    results = check_parallel_env(lambda **kwargs: forest_uav_v0.parallel_env(scenario, **kwargs), steps=70)
    assert [result.name for result in results] == list(CHECKS)
    assert labels(results, "skip") == (set() if scenario == "wooded" else {"action masks"})
    assert len(labels(results, "ok")) == len(CHECKS) - (scenario != "wooded")


def test_agents_that_end_one_by_one_conform():
    results = check_parallel_env(
        lambda **kwargs: BatchedParallelEnv(Walk(WalkConfig(max_steps=4)), **kwargs), steps=40
    )
    assert not [result for result in results if not result.passed]


@pytest.mark.parametrize(
    "module", [mpe2.simple_spread_v3, mpe2.simple_adversary_v3, mpe2.simple_tag_v3], ids=lambda m: m.__name__
)
def test_environments_of_others_conform(module):
    results = check_parallel_env(module.parallel_env, steps=30)
    assert all(result.conforms for result in results), table(results)
    assert labels(results, "warning") == {"deepcopy", "pickle"}  # what they copy to loses the state
    assert labels(results, "skip") == {"action masks", "saved state"}


def test_the_checks_leave_the_global_generators_as_they_were():
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    check_parallel_env(toy_parallel.UseOfPythonsGlobalGenerator, steps=3)
    middle = random.getstate()
    with pytest.raises(AssertionError):
        CHECKS["global random state"](toy_parallel.UseOfNumpysGlobalGenerator, 3, 0)
    assert random.getstate() == middle
    assert before[0] != middle  # the broken toy used it in other checks
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002


def test_a_sound_toy_passes_every_check():
    results = check_parallel_env(toy_parallel.Sound)
    assert labels(results, "ok") == set(CHECKS), table(results)


def test_what_is_optional_is_skipped():
    results = check_parallel_env(toy_parallel.Bare)
    assert labels(results, "skip") == {"action masks", "saved state", "global state", "render"}, table(
        results
    )
    assert all(result.passed for result in results)


BROKEN = [
    ("NotEvenTheInterface", "pettingzoo api", "not enough values to unpack"),
    ("UseOfNumpysGlobalGenerator", "global random state", "was used or seeded: numpy.random"),
    ("UseOfPythonsGlobalGenerator", "global random state", "was used or seeded: random"),
    ("RewardOfAStranger", "agents", "rewards hold agents that are not alive at step 1: ['c']"),
    ("NoInfoOfAnAgent", "agents", "infos lack living agents at step 1: ['a']"),
    ("RewardThatIsNaN", "agents", "the reward of a is not finite at step 1: nan"),
    ("ObservationOutsideItsSpace", "observations", "the observation of a at step 3 is not in its space"),
    (
        "ObservationOfAnotherType",
        "observations",
        "the observation of a at a reset has dtype float16 instead of float32",
    ),
    ("MaskOfAnotherType", "action masks", "the mask of a at a reset has dtype int64 instead of int8"),
    ("MaskWithoutLegalAction", "action masks", "the mask of a at step 2 leaves no legal action"),
    ("MaskOfOtherNumbers", "action masks", "the mask of a at a reset holds other numbers than 0 and 1"),
    ("ResetWithoutSeed", "trajectories", "another environment differs under the same seed at a reset"),
    (
        "SeedOfTheFirstResetOnly",
        "trajectories",
        "the same environment, seeded again, differs under the same seed at a reset",
    ),
    ("AgentThatGoesOn", "endings", "agents go on after their end, step 3: ['a']"),
    ("AgentThatVanishes", "endings", "agents vanish without having ended, step 3: ['b']"),
    ("CopyThatForgets", "deepcopy", "a deep-copied environment goes on differently from the original"),
    ("PickleThatForgets", "pickle", "a pickled environment goes on differently from the original"),
    ("StateThatForgets", "saved state", "an environment goes on differently after set_state"),
    ("GlobalStateOutsideItsSpace", "global state", "state() at a reset is not in its space"),
    ("PictureInGrey", "render", "render() gives uint8 of shape (4, 6) instead of uint8"),
    ("PictureInFloats", "render", "render() gives float64 of shape (4, 6, 3) instead of uint8"),
]


@pytest.mark.parametrize(("name", "check", "message"), BROKEN)
def test_every_fault_is_found_by_its_check(name, check, message):
    results = {result.name: result for result in check_parallel_env(getattr(toy_parallel, name))}
    assert results[check].label == "FAIL"
    assert message in results[check].message
    assert not results[check].conforms


def test_a_seed_that_does_not_hold_is_found_by_pettingzoos_own_test():
    class Unseeded(toy_parallel.Sound):
        def reset(self, seed=None, options=None):
            return super().reset(None)

    results = check_parallel_env(Unseeded)
    assert {"pettingzoo seed", "trajectories"} <= labels(results, "FAIL")


@pytest.mark.parametrize(
    ("name", "check", "message"),
    [
        (
            "TimeLimitAsTermination",
            "time limit",
            "all episodes end after 7 steps with terminated for everybody",
        ),
        ("CopyThatIsRefused", "deepcopy", "cannot be deep-copied: TypeError: there is one of me"),
    ],
)
def test_what_is_allowed_but_seldom_meant_is_a_warning(name, check, message):
    results = check_parallel_env(getattr(toy_parallel, name))
    found = next(result for result in results if result.name == check)
    assert found.label == "warning"
    assert message in found.message
    assert all(result.conforms for result in results)


def test_every_check_is_shown_to_find_something():
    assert {check for _, check, _ in BROKEN} | {"pettingzoo seed", "time limit"} == set(CHECKS)


def test_the_table_has_a_line_for_each_check_and_a_summary():
    results = [
        CheckResult("one", True),
        CheckResult("another", False, message="no good"),
        CheckResult("third", True, "skip", "nothing there"),
        CheckResult("fourth", False, "warning", "odd"),
    ]
    assert table(results).splitlines() == [
        "one      ok",
        "another  FAIL     no good",
        "third    skip     nothing there",
        "fourth   warning  odd",
        "4 checks: 1 failed, 1 with a warning",
    ]


# -- command line


def run(capsys, *arguments):
    try:
        code = main(list(arguments))
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command_line_on_an_environment_that_conforms(capsys):
    code, out, err = run(
        capsys, "forest_uav_v0", "--kwarg", "scenario=sprint", "--kwarg", "num_uavs=3", "--steps", "10"
    )
    assert (code, err) == (0, "")
    assert out.splitlines()[0].split() == ["pettingzoo", "api", "ok"]
    assert out.splitlines()[-1] == "14 checks: 0 failed, 0 with a warning"


def test_the_command_line_on_an_environment_that_does_not(capsys):
    code, out, _ = run(capsys, "toy_parallel:PictureInGrey")
    assert code == 1
    assert "14 checks: 1 failed, 0 with a warning" in out


def test_the_command_line_on_a_module_and_on_aec_environments(capsys):
    assert run(capsys, "mpe2.simple_spread_v3", "--kwarg", "N=2", "--steps", "5")[0] == 0
    assert run(capsys, "mpe2.simple_spread_v3:env", "--kwarg", "N=2", "--steps", "5")[0] == 0


def test_the_command_line_on_a_gymnasium_environment_of_several_agents(capsys):
    code, out, err = run(capsys, "lbforaging:Foraging-5x5-2p-1f-v3", "--steps", "5")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "14 checks: 0 failed, 0 with a warning"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["forest_uav_v9"], "ENV: 'forest_uav_v9' is neither one of forest_uav_v0, swarm_cooperative_v0, "),
        (["os.path"], "ENV: module 'os.path' has no callable 'env'"),
        (["toy_parallel:Missing"], "ENV: module 'toy_parallel' has no callable 'Missing'"),
        (["toy_parallel:make_nothing"], "ENV: 'toy_parallel:make_nothing' gives object, no PettingZoo"),
        (
            ["forest_uav_v0", "--kwarg", "num_uav=3"],
            "ENV: 'forest_uav_v0' cannot be made: UnknownSettingError: unknown",
        ),
        (["forest_uav_v0", "--kwarg", "num_uavs"], "argument --kwarg: expected key=value, got 'num_uavs'"),
        (["forest_uav_v0", "--steps", "0"], "--steps: expected at least 1, got 0"),
        (["forest_uav_v0", "--steps", "few"], "argument --steps: invalid int value: 'few'"),
        ([], "the following arguments are required: ENV"),
    ],
)
def test_bad_usage_is_one_clear_line(capsys, arguments, message):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(message)
    assert err.count("\n") == 1
