"""Saved states: whose they are, what they may hold, and that play never leaves that."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from plain_python import short_play
from toy_envs import Walk, WalkConfig

from qio_envs import (
    cart_pole_v0,
    drift_control_v0,
    forest_uav_v0,
    qubit_control_v0,
    skirmish_v0,
    swarm_mixed_v0,
)
from qio_envs.registry import environment, environments

SCENARIOS = [(name, scenario) for name, made in environments().items() for scenario in made.scenarios()]


def assert_untouched(env, before):
    for name, array in env.get_state().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def refusal(env, state):
    """The message with which a state is refused; nothing has changed then."""
    before = env.get_state()
    with pytest.raises(ValueError, match="^state") as caught:
        env.set_state(state)
    assert_untouched(env, before)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- whose state it is


def test_a_state_says_of_which_environment_and_scenario_it_is():
    state = forest_uav_v0.batched_env(2, "sprint").get_state()
    assert state["scenario"].tolist() == [f"forest_uav_v0 sprint {forest_uav_v0.content_hash('sprint')}"] * 2
    own = cart_pole_v0.batched_env(gravity=9.5).get_state()["scenario"].item()
    assert own == f"cart_pole_v0 own {cart_pole_v0.content_hash(gravity=9.5)}"
    assert Walk().get_state()["scenario"].item() == f"walk_v0 own {WalkConfig().content_hash('walk_v0')}"


@pytest.mark.parametrize(
    ("here", "there"),
    [
        (("forest_uav_v0", {"width": 18}), ("forest_uav_v0", {"width": 20})),
        (("swarm_competitive_v0", {}), ("swarm_cooperative_v0", {})),
        (("drift_control_v0", {}), ("drift_control_v0", {"process_noise": 0.03})),
        (("mpe_tag_v0", {}), ("mpe_tag_v0", {"continuous_actions": True})),
    ],
)
def test_a_state_of_another_scenario_is_refused_though_all_its_arrays_fit(here, there):
    env, other = (environment(name).batched_env(2, **settings) for name, settings in (here, there))
    shapes = [[(a.shape, a.dtype) for a in one.arrays] for one in (env, other)]
    assert shapes[0] == shapes[1]
    other.reset(0)
    (own, *_), (its, *_) = env.get_state()["scenario"], other.get_state()["scenario"]
    assert refusal(env, other.get_state()) == f"state: expected one of {own}, got one of {its}"


def test_the_name_of_a_scenario_is_no_part_of_what_is_compared():
    env = forest_uav_v0.batched_env(scenario="sprint")
    state = env.get_state()
    state["scenario"] = np.array([f"forest_uav_v0 renamed {forest_uav_v0.content_hash('sprint')}"])
    env.set_state(state)


def test_adapters_refuse_too():
    two = swarm_mixed_v0.parallel_env(), swarm_mixed_v0.parallel_env(scenario="discrete")
    team = environment("chsh_v0").batched_env(as_team=True)
    for env, other in (two, (team, environment("chsh_v0").batched_env(scenario="single"))):
        with pytest.raises(ValueError, match="state: expected one of .* got one of"):
            env.set_state(other.get_state())
    state = team.get_state()
    state["question"][:] = 2
    assert refusal(team, state).startswith("state['question'][0, 0]: expected an integer from 0 to 1")
    two[0].reset(seed=0)
    state = two[0].get_state()
    state["body"][0, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"state\['body'\]\[0, 0, 0\]: expected a finite number from"):
        two[0].set_state(state)
    assert len(two[0].agents) == 4


@pytest.mark.parametrize("state", [None, {}, [1], {"seed": np.zeros(1, np.uint64)}])
def test_what_is_no_state_is_refused(state):
    assert refusal(Walk(), state).startswith("state: expected the arrays ['alive', 'episode', 'place', ")


# -- what a state may hold

WRONG = [
    ("forest_uav_v0", "position", (0, 0, 0), 30000, "an integer from 0 to 19, got 30000"),
    ("forest_uav_v0", "position", (1, 3, 1), -1, "an integer from 0 to 19, got -1"),
    ("forest_uav_v0", "vegetation", (0, 5, 5), 1.5, "a finite number from 0.0 to 1.0, got 1.5"),
    ("forest_uav_v0", "vegetation", (0, 0, 0), 0.5, "a finite number from 0.0 to 0.0, got 0.5"),
    ("forest_uav_v0", "blocked", (0, 0), 0, "1 in the margin"),
    ("forest_uav_v0", "monitored", (0, 0), 1, "0 in the margin and where cells are blocked"),
    ("forest_uav_v0", "belief", (0, 0, -1), 1, "1 in free cells only, and in all that nobody has monitored"),
    ("forest_uav_v0", "belief", (0, 0, slice(None)), 0, "1 in free cells only, and in all that nobody has"),
    ("forest_uav_v0", "coarse", (0, 0, 0), 17, "an integer from 0 to 16, got 17"),
    ("forest_uav_v0", "coarse", (0, 0, 0), 0, "the numbers of cells that the UAV believes unmonitored"),
    ("forest_uav_v0", "occupancy", (0, 4, 4), 7, "the number of UAVs at each position"),
    ("forest_uav_v0", "free_count", 0, 399, "the number of cells that are not blocked"),
    ("forest_uav_v0", "monitored_count", 0, 399, "the number of monitored cells"),
    ("forest_uav_v0", "heard_block", (0, 1, 0), 25, "an integer from 0 to 24, got 25"),
    ("forest_uav_v0", "heard_step", (0, 1, 0), 150, "no step that is still to come"),
    ("forest_uav_v0", "milestones", (0, 1), 201, "an integer from -1 to 200, got 201"),
    ("forest_uav_v0", "team_return", 0, np.inf, "a finite number from"),
    ("swarm_cooperative_v0", "body", (0, 0, 0), 4.9e9, "a finite number from -5.3"),
    ("swarm_cooperative_v0", "body", (0, 0, 0), 5.1, "positions of living agents within 5 of the origin"),
    ("swarm_competitive_v0", "body", (0, 1, 3), np.inf, "a finite number from"),
    ("swarm_mixed_v0", "returns", (0, 0), np.nan, "a finite number from"),
    ("swarm_mixed_v0", "target", (0, 0), 0.1, "a finite number from"),
    ("swarm_mixed_v0", "alive", (0, slice(None)), False, "an agent that lives while the episode runs"),
    ("swarm_mixed_v0", "dispersion", 0, -1.0, "a finite number from 0.0 to"),
    ("skirmish_v0", "kind", (0, 0), 200, "an integer from 0 to 5, got 200"),
    ("skirmish_v0", "kind", (0, 0), 0, "the types of units of the two teams"),
    ("skirmish_v0", "position", (0, 0, 2), -1e6, "a finite number from"),
    ("skirmish_v0", "health", (0, 2), 159.0, "at most what the unit's type has"),
    ("skirmish_v0", "alive", (0, 2), False, "true for units with health, and for no others"),
    ("skirmish_v0", "action", (0, 0), 10, "an integer from 0 to 9, got 10"),
    ("skirmish_v0", "target", (0, 0), 5, "an integer from -1 to 4, got 5"),
    ("skirmish_v0", "won", 0, True, "false unless all enemies are dead and an ally lives"),
    ("qubit_control_v0", "amplitude", (0, slice(None)), 0, "a norm of 1 within 1e-06"),
    ("qubit_control_v0", "target", (0, slice(None)), 0.5, "the state of target: bell"),
    ("qubit_control_v0", "last_gate", 0, 10, "an integer from -1 to 9, got 10"),
    ("qubit_control_v0", "fidelity", 0, 0.123, "that of amplitude and target"),
    ("qubit_control_v0", "best", 0, 0.0, "at least the fidelity"),
    ("qubit_control_v0", "reached", 0, 9, "no step that is still to come"),
    ("drift_control_v0", "components", (0, 1), 3.1, "-3 to 3 each while the episode runs"),
    ("drift_control_v0", "components", (0, 1), 4.0, "a finite number from -3.3"),
    ("drift_control_v0", "action", (0, 1), 1.1, "a finite number from -1.0 to 1.0, got 1.1"),
    ("drift_control_v0", "out", 0, True, "false while the episode runs"),
    ("cart_pole_v0", "velocity", 0, np.nan, "a finite number, got nan"),
    ("cart_pole_v0", "position", 0, 2.5, "-2.4 to 2.4 while the episode runs"),
    ("cart_pole_v0", "angle", 0, -0.22, "-0.20944 to 0.20944 while the episode runs"),
    ("cart_pole_v0", "action", 0, 2, "an integer from -1 to 1, got 2"),
    ("chsh_v0", "question", (0, 1), 2, "an integer from 0 to 1, got 2"),
    ("chsh_v0", "wins", 0, 4, "at most as many as rounds played"),
    ("causal_chain_v0", "values", (0, 0), 3.0, "a finite number from -2.88"),
    ("causal_chain_v0", "fixed_values", (0, 1), np.nan, "a finite number from"),
    ("greedy_casino_v0", "intent", 0, 100, "an integer from 0 to 1, got 100"),
    ("greedy_casino_v0", "causes", (0, 0), -1, "an integer from 0 to 1, got -1"),
    ("greedy_casino_v0", "payouts", 0, 4, "at most as many as rounds played"),
    ("matrix_game_v0", "history", (0, 0, 1), 3, "an integer from -1 to 2, got 3"),
    ("matrix_game_v0", "history", (0, 0, 1), -1, "a joint action for each round played"),
    ("matrix_game_v0", "stage", 0, 1, "an integer from 0 to 0, got 1"),
    ("matrix_game_v0", "played_stage", 0, -1, "-1 before the first round"),
    ("matrix_game_v0", "returns", (0, 1), 276.0, "a finite number from -750"),
    ("confounded_control_v0", "s", 0, 10.5, "a finite number from -10.0 to 10.0, got 10.5"),
    ("confounded_control_v0", "fixed_mediator", 0, np.inf, "a finite number from"),
    ("mpe_speaker_listener_v0", "goal", (0, 0), 3, "an integer from 0 to 2, got 3"),
    ("mpe_reference_v0", "goal", (0, 1), -1, "an integer from 0 to 2, got -1"),
    ("mpe_crypto_v0", "goal", (0, 1), 2**40, "an integer from 0 to 1, got"),
    ("mpe_speaker_listener_v0", "message", (0, 1, 0), 1.0, "a finite number from 0.0 to 0.0, got 1.0"),
    ("mpe_tag_v0", "velocity", (0, 0, 0), 1.1, "a finite number from"),
    ("mpe_spread_v0", "position", (0, 0, 0), 1e9, "a finite number from"),
    ("mpe_world_comm_v0", "tally", (0, 0), -1.0, "a finite number of at least 0.0, got -1.0"),
    ("mpe_push_v0", "step", 0, 26, "an integer from -1 to 25, got 26"),
    ("mpe_adversary_v0", "step", 0, 25, "0 to 24 where the environment is running"),
    ("chsh_v0", "step", 0, -1, "0 to 9 where the environment is running"),
]


@pytest.mark.parametrize(("name", "array", "place", "value", "expected"), WRONG)
def test_a_number_outside_its_range_is_refused_and_changes_nothing(name, array, place, value, expected):
    env = environment(name).batched_env(2)
    short_play(env, 3)
    state = env.get_state()
    state[array][place] = value
    message = refusal(env, state)
    assert message.startswith(f"state['{array}']"), message
    assert f": expected {expected}" in message


def test_a_byte_that_is_neither_true_nor_false_is_refused():
    env = forest_uav_v0.batched_env(2)
    env.reset(0)
    state = env.get_state()
    state["running"] = np.array([1, 7], np.uint8).view(bool)
    assert refusal(env, state) == "state['running'][1]: expected an integer from 0 to 1, got 7"


@pytest.mark.parametrize("name", environments())
def test_every_array_has_its_limits(name):
    env = environment(name).batched_env(2)
    limits = env.state_limits()
    assert set(limits) == set(env.arrays._asdict())
    for key, array in env.arrays._asdict().items():
        for bound in limits[key]:
            cast = np.asarray(bound).astype(array.real.dtype)
            assert np.broadcast_shapes(cast.shape, array.shape) == array.shape
            if array.dtype.kind in "iub":  # a bound that its type cannot hold would be another one
                np.testing.assert_array_equal(cast.astype(float), np.asarray(bound, float))


# -- what play and users set


@pytest.mark.parametrize(("name", "scenario"), SCENARIOS)
def test_play_never_leaves_the_limits(name, scenario):
    made = environment(name)
    env, other = made.batched_env(2, scenario), made.batched_env(2, scenario)
    other.set_state(env.get_state())  # never reset
    env.reset(11)
    player = env.scripted_policies["random"](env)
    steps = 0
    while env.running.all():
        if steps < 3 or steps % 25 == 0:
            other.set_state(env.get_state())
        env.step(player.act())
        steps += 1
    state = env.get_state()
    other.set_state(state)
    assert_untouched(other, state)
    assert not other.running.all()


def test_a_user_can_set_what_no_reset_draws():
    env = drift_control_v0.batched_env(2)
    env.reset(0)
    state = env.get_state()
    state["components"][:] = [[2.9, 0, 0, 0], [-1.5, 1.5, 1.5, -1.5]]
    env.set_state(state)
    env.step(np.zeros((2, 1, 2)))
    env.set_state(env.get_state())
    env = qubit_control_v0.batched_env(scenario="haar")
    env.reset(0)
    state = env.get_state()
    state["amplitude"][:] = state["target"]
    state["fidelity"][:] = state["best"][:] = 1
    env.set_state(state)
    env = skirmish_v0.batched_env()
    env.reset(0)
    state = env.get_state()
    state["position"][0, 0, :5] = 31.0
    state["health"][0, 7] = 1.0
    env.set_state(state)
    assert env.state().shape == (1, env.config.state_size)


def test_interventions_lead_to_states_that_can_be_set():
    for name, made in environments().items():
        env = made.batched_env(1)
        env.reset(0)
        for bound in ("low", "high"):
            for column, space in enumerate(env.intervention_spaces.values()):
                edges = {"low": 0, "high": int(getattr(space, "n", 1)) - 1}
                value = getattr(space, bound, edges[bound])
                mask = np.arange(len(env.intervention_spaces)) == column
                env.intervene(mask[None], np.where(mask, value, 0)[None].astype(np.float32))
                state = env.get_state()
                env.set_state(state)
                assert_untouched(env, state)
        assert env.running.all(), name


# -- without a compiler


def test_plain_python_gives_what_compiled_code_gives_and_stays_inside_arrays_at_the_edges_of_states(tmp_path):
    script, file = Path(__file__).with_name("plain_python.py"), tmp_path / "played"
    paths = os.pathsep.join([str(script.parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "error", script, file],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    counts = {
        name: (int(taken), int(refused)) for name, taken, refused in map(str.split, done.stdout.splitlines())
    }
    assert set(counts) == set(environments())
    assert min(taken for taken, _ in counts.values()) >= 15
    for name, played in pickle.loads(file.read_bytes()).items():
        for key, value in short_play(environment(name).batched_env(2)).items():
            if value.dtype.kind in "fc":
                np.testing.assert_allclose(played[key], value, 1e-5, 1e-5, err_msg=f"{name} {key}")
            else:
                np.testing.assert_array_equal(played[key], value, err_msg=f"{name} {key}")
