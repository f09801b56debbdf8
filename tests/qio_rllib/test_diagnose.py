"""``rllib diagnose``: episodes of a policy beside what its world model predicts; from a file, without training."""

import numpy as np
import pytest
import torch
from PIL import Image
from toy_endless import register_endless
from toy_lives import Lives

from qio_envs import drift_control_v0
from qio_rllib.acting.actions import ActionSpec
from qio_rllib.acting.actor import NetworkActor
from qio_rllib.acting.policy import GroupSpaces, Policy
from qio_rllib.acting.team import AgentGroup, Team
from qio_rllib.acting.world_model_actor import WorldModelActor
from qio_rllib.artifacts.files import read_csv
from qio_rllib.artifacts.imagined_video import Imaginations, SceneRecorder, rendered_frames
from qio_rllib.artifacts.policy_file import save_policy
from qio_rllib.cli import main
from qio_rllib.experiments.diagnosis import diagnose, summary
from qio_rllib.models.policy_network import PolicyNetwork, PolicySpec
from qio_rllib.models.world_model_policy import WorldModelPolicy, WorldModelSpec
from qio_rllib.sampling import evaluation
from qio_rllib.sampling.environments import make_vector_env
from qio_rllib.sampling.evaluation import evaluate, evaluation_seeds
from qio_rllib.sampling.object_vector_env import ObjectVectorEnv
from qio_rllib.sampling.recorded_episodes import record_episodes

DRIFT = {"max_steps": 12}
PLANNER = {"horizon": 2, "candidates": 4, "elites": 2, "iterations": 1}
ENSEMBLE = {"members": 2, "hiddens": [4]}
RSSM = {
    "type": "rssm", "deterministic": 4, "stochastic": 2, "embedding": 4, "hiddens": [4],
    "latent_hiddens": [4], "reward_hiddens": [4], "continuation_hiddens": [4],
}  # fmt: skip
KALMAN = {"type": "kalman", "unobserved": 2, "dynamics_size": 4}
FILES = {"open_loop.csv", "calibration.csv"}
PICTURES = ("open_loop.png", "calibration.png", "trajectories.png", "episode.png", "imagined.gif")


def actor_of(size, action, model=ENSEMBLE):
    torch.manual_seed(0)
    count = action.count or len(action.low)
    return WorldModelActor(
        WorldModelPolicy(WorldModelSpec(size, count, action.count is not None, model, planner=PLANNER)),
        action,
    )


def drift_policy(model=ENSEMBLE, env="drift_control_v0", **settings):
    settings = {**DRIFT, **settings}
    batch = drift_control_v0.batched_env(1, **settings)
    size, action = batch.observation_space.shape[0], ActionSpec.of(batch.action_space, True)
    gym = env.startswith("qio_envs/")
    name, agents = ("default_policy", (None,)) if gym else ("shared", batch.possible_agents)
    group = AgentGroup(name, agents, np.arange(1), actor_of(size, action, model))
    return Policy(Team([group]), {name: GroupSpaces((size,))}, env, settings)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(policy, *options):
    save_policy(policy, "policy.pt")
    return main(["diagnose", "policy.pt", *options])


# -- the command


@pytest.mark.parametrize("model", [ENSEMBLE, RSSM], ids=["ensemble", "rssm"])
def test_it_writes_tables_figures_and_a_gif_and_prints_a_table(here, capsys, model):
    assert run(drift_policy(model), "--episodes", "3", "--horizon", "4") == 0
    out = here / "diagnosis"
    assert {path.name for path in out.iterdir()} == {*FILES, *PICTURES}
    rows = read_csv(out / "open_loop.csv")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert {row["module"] for row in rows} == {"shared"}
    assert rows[0]["rows"] == 3  # starts after step 5; 9 does not leave 4 of 12 steps
    assert rows[0]["obs_error_low"] <= rows[0]["obs_error_mean"] <= rows[0]["obs_error_high"]
    quantities = dict.fromkeys(row["quantity"] for row in read_csv(out / "calibration.csv"))
    assert list(quantities) == ["obs", "obs[0]", "obs[1]", "obs[2]", "obs[3]", "reward", "continuation"]
    for name in PICTURES:
        with Image.open(out / name) as image:
            assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 10
            if name == "imagined.gif":
                assert image.n_frames == 10  # up to the end of the horizon, step 9
    said = capsys.readouterr().out
    assert "seeds 1000000,1000001,1000002" in said
    assert (
        f"{rows[0]['obs_error_mean']:.3g} (persistence {rows[0]['obs_persistence_error_mean']:.3g})" in said
    )
    assert "written to diagnosis" in said


def test_the_same_command_writes_the_same_tables(here):
    for name in ("a", "b"):
        assert run(drift_policy(KALMAN), "--episodes", "2", "--horizon", "3", "--out", name) == 0
    for name in FILES:
        assert (here / "a" / name).read_bytes() == (here / "b" / name).read_bytes()


def test_random_actions_are_other_data(here):
    assert run(drift_policy(), "--episodes", "2", "--horizon", "3", "--out", "a") == 0
    assert run(drift_policy(), "--episodes", "2", "--horizon", "3", "--random-actions", "--out", "b") == 0
    assert (here / "a" / "open_loop.csv").read_bytes() != (here / "b" / "open_loop.csv").read_bytes()


def test_a_policy_without_a_world_model_is_refused_in_one_line(here, capsys):
    network = PolicyNetwork(PolicySpec((4,), "categorical", 9, network={"fcnet_hiddens": [4]}))
    group = AgentGroup("shared", ("agent_0",), np.arange(1), NetworkActor(network, ActionSpec(9)))
    settings = {**DRIFT, "actions": "discrete"}
    assert run(Policy(Team([group]), {"shared": GroupSpaces((4,))}, "drift_control_v0", settings)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "rllib: diagnose: policy.pt has no world model; only policies of the algorithm WorldModel have one\n"
    )
    assert {path.name for path in here.iterdir()} == {"policy.pt"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["policy.pt", "--horizon", "12"],
            "--horizon: the longest episode has 12 steps, expected at most 11, got 12",
        ),
        (["policy.pt", "--horizon", "0"], "--horizon"),
        (["policy.pt", "--episodes", "0"], "--episodes"),
        (["policy.pt", "--out", "policy.pt"], "--out: policy.pt exists already"),
        (["policy.pt", "--out", "x/y"], "--out: x/y is in no directory that exists"),
        (["nowhere"], "there is no nowhere"),
        ([], "Missing argument"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_trace(here, capsys, options, message):
    save_policy(drift_policy(), "policy.pt")
    assert main(["diagnose", *options]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert out == ""
    assert {path.name for path in here.iterdir()} == {"policy.pt"}


def test_the_longest_horizon_that_fits_starts_after_one_step(here):
    (found,) = diagnose(drift_policy(), evaluation_seeds(2), 11, here / "d")
    assert found.open_loop.starts.tolist() == [1, 1]


def test_modules_have_files_of_their_own(here):
    settings = {"max_steps": 6}
    env = make_vector_env("swarm_mixed_v0", settings, 1)
    groups, spaces = [], {}
    for place, agents in enumerate(np.array_split(np.arange(len(env.agents)), 2)):
        names = tuple(env.agents[index] for index in agents)
        size = env.observation_spaces[names[0]].shape[0]
        action = ActionSpec.of(env.action_spaces[names[0]], True)
        groups.append(AgentGroup(f"m{place}", names, agents, actor_of(size, action)))
        spaces[f"m{place}"] = GroupSpaces((size,))
    policy = Policy(Team(groups), spaces, "swarm_mixed_v0", settings)
    found = diagnose(policy, evaluation_seeds(2), 3, here / "d")
    assert [one.module_id for one in found] == ["m0", "m1"]
    expected = {
        f"{name}_m{place}.{end}" for name, end in (x.split(".") for x in PICTURES) for place in (0, 1)
    }
    assert {path.name for path in (here / "d").iterdir()} == expected | FILES
    assert [row["module"] for row in read_csv(here / "d" / "open_loop.csv")] == ["m0"] * 3 + ["m1"] * 3
    assert (
        summary(found[0])["episodes, steps"] == f"{2 * len(groups[0].agents)}, {12 * len(groups[0].agents)}"
    )


def test_episodes_that_never_end_are_left_and_a_note_says_so(here, capsys, monkeypatch):
    register_endless()
    group = AgentGroup("default_policy", (None,), np.arange(1), actor_of(2, ActionSpec(2)))
    policy = Policy(Team([group]), {"default_policy": GroupSpaces((2,))}, "endless", {})
    monkeypatch.setattr(evaluation, "MAX_EPISODE_STEPS", 23)
    assert run(policy, "--episodes", "2", "--horizon", "3", "--out", "a") == 0
    out, err = capsys.readouterr()
    assert err == "rllib: note: 2 of 2 episodes were cut after 23 steps, before their end (--max-steps)\n"
    assert "2, 46" in out  # episodes, steps
    assert run(policy, "--episodes", "2", "--horizon", "3", "--max-steps", "9", "--out", "b") == 0
    out, err = capsys.readouterr()
    assert "2 of 2 episodes were cut after 9 steps" in err
    assert "2, 18" in out
    # an episode that ends in the step in which it would be left has ended
    assert run(drift_policy(), "--episodes", "2", "--horizon", "3", "--max-steps", "12", "--out", "c") == 0
    assert capsys.readouterr().err == ""
    assert run(drift_policy(), "--episodes", "2", "--horizon", "3", "--max-steps", "11", "--out", "d") == 0
    assert "2 of 2 episodes were cut after 11 steps" in capsys.readouterr().err


# -- what is recorded


def test_recorded_episodes_are_those_that_an_evaluation_plays():
    policy, seeds = drift_policy(), evaluation_seeds(3)
    env = make_vector_env(policy.env, dict(policy.env_config), 3)
    found = record_episodes(policy.team_for(env.agents), env, seeds)[0]["shared"]
    rows = evaluate(policy, policy.env, policy.env_config, seeds, explore=False)
    assert found.lengths.tolist() == [row["episode_length"] for row in rows]
    np.testing.assert_allclose(found.rewards.sum(0), [row["episode_return"] for row in rows], rtol=1e-5)


def test_recorded_rewards_and_actions_belong_to_the_observations_around_them():
    """The reward is -|s'|^2 - 0.01 |a|^2 of what is seen after the step and of the action as executed."""
    policy = drift_policy(out_radius=2, max_steps=60)
    env = make_vector_env(policy.env, dict(policy.env_config), 8)
    found = record_episodes(policy.team_for(env.agents), env, range(8), random_actions=True)[0]["shared"]
    here = found.present
    assert len(set(found.lengths.tolist())) > 1
    rewards = -found.obs[1:].square().sum(-1) - 0.01 * found.actions.square().sum(-1)
    torch.testing.assert_close(found.rewards[here], rewards[here], rtol=1e-5, atol=1e-6)
    outside = found.obs[1:].square().sum(-1).sqrt() > 2
    assert torch.equal(found.terminated[here], outside[here])
    assert found.terminated.any()


def test_each_life_of_an_agent_is_a_sequence():
    """a: 2 steps, ends; b: comes in step 2 for 3 steps, ends; c: 5 steps, a time limit."""
    agents = ("a", "b", "c")
    env = ObjectVectorEnv(Lives, 2)
    team = Team([AgentGroup("shared", agents, np.arange(3), actor_of(3, ActionSpec(3)))])
    found = record_episodes(team, env, [0, 1])[0]["shared"]
    assert found.lengths.tolist() == [2, 3, 5] * 2
    assert found.rewards[:, 1].tolist() == [3, 4, 5, 0, 0]
    assert found.terminated.sum(0).tolist() == [1, 1, 0] * 2
    assert found.terminated[1, 0]
    assert found.terminated[2, 1]
    assert torch.equal(found.actions.sum(-1), found.present.float())  # one-hot
    steps = found.obs[..., 1]
    assert steps[:4, 1].tolist() == [2, 3, 4, 5]
    assert steps[:6, 2].tolist() == [0, 1, 2, 3, 4, 5]


# -- pictures


@pytest.mark.parametrize("env", ["drift_control_v0", "qio_envs/DriftControl-v0"])
def test_the_gif_draws_imagined_states_where_observations_are_states(env, here, monkeypatch):
    import qio_rllib.experiments.diagnosis as module

    drawn = []

    def draw(scenes, parts, shown):
        drawn.append((scenes, parts, shown, rendered_frames(scenes, parts, shown)))
        return drawn[-1][-1]

    monkeypatch.setattr(module, "rendered_frames", draw)
    diagnose(drift_policy(env=env, distractors=2), [3, 4], 4, here / "d")
    ((scenes, parts, shown, frames),) = drawn
    assert parts == {"components": slice(0, 4), "distractors": slice(4, 6)}
    width = frames[0].shape[1] // 2 - 4
    for step, frame in enumerate(frames):
        left, right = frame[:, :width], frame[:, -width:]
        assert np.array_equal(left[30:], right[30:]) == (step <= 5)
    state = {name: array.copy() for name, array in scenes.states[7].items()}
    state["components"][scenes.index] = shown.imagined[0][1, :4]
    state["distractors"][scenes.index] = shown.imagined[0][1, 4:]
    stage = scenes.batch.clone()
    stage.set_state(state)
    np.testing.assert_array_equal(frames[7][30:, -width:], stage.render(scenes.index))


def test_what_an_environment_cannot_be_in_is_drawn_all_the_same():
    env = make_vector_env("drift_control_v0", DRIFT, 1)
    recorder = SceneRecorder(env)
    env.reset(np.array([1], np.uint64))
    seen = []
    for _ in range(3):
        recorder()
        seen.append(env.env.observe()[0, 0])
        env.env.step(np.zeros((1, 1, 2), np.float32))
    mad = np.array([[np.inf, 0, 0, 0], [np.nan, -1e9, 0, 0]], np.float32)
    shown = Imaginations(np.stack(seen), (0,), (mad,))
    scenes = recorder.scenes(0)
    assert len(rendered_frames(scenes, scenes.parts(shown.real), shown)) == 3


def test_hidden_components_are_drawn_as_lines(here, monkeypatch):
    import qio_rllib.experiments.diagnosis as module

    monkeypatch.setattr(module, "rendered_frames", None)
    diagnose(drift_policy(RSSM, hidden=[1, 2]), [3], 4, here / "d")
    with Image.open(here / "d" / "imagined.gif") as image:
        assert image.n_frames == 10


def test_scenes_are_refused_whose_states_are_not_what_was_seen():
    env = make_vector_env("drift_control_v0", DRIFT, 2)
    recorder = SceneRecorder(env)
    env.reset(np.array([1, 2], np.uint64))
    recorder()
    seen = env.env.observe()[1]
    scenes = recorder.scenes(1)
    assert scenes.parts(seen) == {"components": slice(0, 4)}
    assert scenes.parts(seen + 0.1) is None
    assert recorder.scenes(0).parts(seen) is None
    assert SceneRecorder(ObjectVectorEnv(Lives, 1)).scenes(0) is None
