"""``rllib evaluate`` and ``rllib video``: what can be evaluated, in which environments, and episodes without an end."""

import json
import shutil

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image

import qio_envs
from qio_envs.api import ConfigError
from qio_rllib.acting.actions import ActionSpec
from qio_rllib.acting.actor import NetworkActor
from qio_rllib.acting.policy import GroupSpaces, Policy
from qio_rllib.acting.team import AgentGroup, Team
from qio_rllib.artifacts.files import read_csv
from qio_rllib.artifacts.policy_file import save_policy
from qio_rllib.artifacts.rendering import show_episodes
from qio_rllib.artifacts.run_directory import RunDirectory
from qio_rllib.artifacts.video import MAX_STEPS, record_episode
from qio_rllib.cli import main
from qio_rllib.cli.evaluate import _cell
from qio_rllib.models.policy_network import PolicyNetwork, PolicySpec
from qio_rllib.sampling import evaluation
from qio_rllib.sampling.environments import make_vector_env, register_env
from qio_rllib.sampling.evaluation import MAX_EPISODE_STEPS, cut_text, evaluate, mean_scores

FOREST = {"height": 6, "width": 6, "num_uavs": 3, "max_steps": 8}


class Countdown(gymnasium.Env):
    """Ends after as many steps as its seed's last digit says, counted in hundreds; a seed of 0 never ends."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(2)
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        self.left = 100 * (seed % 10)
        return np.zeros(2, np.float32), {"left": self.left}

    def step(self, action):
        self.left -= 1
        return np.zeros(2, np.float32), 1.0, self.left == 0, False, {"left": self.left}

    def render(self):
        return np.zeros((4, 4, 3), np.uint8)


@pytest.fixture(scope="module", autouse=True)
def countdown():
    register_env("countdown", lambda config: Countdown(**config))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def policy_of(groups, env, env_config, size, actions, bias=None, agent_id=False):
    """Return a policy of modules with these agents, whose actions are equally likely but for a bias."""
    parts, start = [], 0
    for module_id, agents in groups.items():
        inputs = size + (len(agents) if agent_id else 0)
        network = PolicyNetwork(PolicySpec((inputs,), "categorical", actions, network={"fcnet_hiddens": [4]}))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()
            if bias is not None:
                network.head.layers[-1].bias.copy_(torch.tensor(bias))
        index = np.arange(start, start + len(agents))
        parts.append(
            AgentGroup(module_id, tuple(agents), index, NetworkActor(network, ActionSpec(actions)), agent_id)
        )
        start += len(agents)
    return Policy(Team(parts), dict.fromkeys(groups, GroupSpaces((size,))), env, env_config)


def forest_policy(modules=1, agent_id=False, bias=None, **settings):
    config = {**FOREST, **settings}
    uavs = [f"uav_{i}" for i in range(config["num_uavs"])]
    groups = {"shared": uavs} if modules == 1 else {f"module_{name}": [name] for name in uavs}
    (size,) = qio_envs.environment("forest_uav_v0").batched_env(1, **config).observation_space.shape
    return policy_of(groups, "forest_uav_v0", config, size, 5, bias, agent_id)


def countdown_policy():
    return policy_of({"default_policy": [None]}, "countdown", {}, 2, 2)


def run_without_checkpoints(folder, policy, started="2026-01-01T00:00:00+00:00", duration=4):
    """Make what is left of a run whose checkpoints were removed."""
    folder.mkdir(parents=True)
    run = RunDirectory(folder)
    run.update_info(status="finished", start_time=started, checkpoint="checkpoints/trial/checkpoint_000000")
    config = {"evaluation_duration": duration}
    run.write_config({"x": {"run": "PPO", "env": policy.env, "stop": {"time_total_s": 1}, "config": config}})
    save_policy(policy, folder / "policy.pt")
    return folder


# --- several policies, runs by age -------------------------------------------------------------------------------


def test_several_policies_are_a_row_each(here, capsys):
    save_policy(forest_policy(bias=[9.0, 0, 0, 0, 0]), here / "stays.pt")
    save_policy(forest_policy(), here / "wanders.pt")
    run_without_checkpoints(here / "runs" / "x" / "1", forest_policy())
    arguments = ["stays.pt", "wanders.pt", "runs/x/1", "--seeds", "1,2,3", "--out", "all.csv"]
    assert main(["evaluate", *arguments]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("mean ± deviation of team return, forest_uav_v0, 3 episodes, seeds 1,2,3\n")
    assert "runs/x/1 has no checkpoint any more" in err
    rows = read_csv(here / "all.csv")
    assert [(row["run"], row["mode"]) for row in rows] == [
        (name, mode)
        for name in ("stays.pt", "wanders.pt", "runs/x/1")
        for mode in ("greedy", "sampled")
        for _ in range(3)
    ]
    for name in ("stays.pt", "wanders.pt", "runs/x/1"):
        (line,) = [line for line in out.splitlines() if line.split()[:1] == [name]]
        for mode in ("greedy", "sampled"):
            own = [row for row in rows if (row["run"], row["mode"]) == (name, mode)]
            assert f"{mean_scores([{'t': row['team_return']} for row in own])['t']:.6g}" in line
    # each alone gives the same
    assert main(["evaluate", "wanders.pt", "--seeds", "1,2,3", "--out", "one.csv"]) == 0
    expected = [{k: v for k, v in row.items() if k != "run"} for row in rows if row["run"] == "wanders.pt"]
    assert read_csv(here / "one.csv") == expected


def test_policies_of_one_folder_are_named_without_it(here, capsys):
    for name in ("a", "b"):
        run_without_checkpoints(here / "runs" / "x" / name, forest_policy())
    assert main(["evaluate", "runs/x/a", "runs/x/b", "--seeds", "1"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:3] for line in lines if "policy" in line] == [["policy", "in", "runs/x"]]
    assert [line[0] for line in lines if line[:1] in (["a"], ["b"])] == ["a", "b"]
    assert main(["evaluate", "runs/x/a", str(here / "runs/x/a/policy.pt"), "--seeds", "1"]) == 0
    assert "policy in runs/x" in capsys.readouterr().out


def test_what_rounding_leaves_of_equal_values_is_no_deviation():
    rows = [{"score": value} for value in (2.0000000043, 2.0000000011)]
    assert _cell(rows, "score") == "2 ± 0"
    assert _cell([{"score": 2.0}, {"score": 2.1}], "score") == "2.05 ± 0.07071"
    assert _cell(rows[:1], "score") == "2"


def test_policies_of_different_environments_say_which(here, capsys):
    save_policy(forest_policy(), here / "a.pt")
    save_policy(countdown_policy(), here / "b.pt")
    assert main(["evaluate", "a.pt", "b.pt", "--seeds", "1,2", "--greedy"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("mean ± deviation of episode return or team return, 2 episodes, seeds 1,2\n")
    assert any("b.pt" in line and "countdown" in line and "150 ± 70.71" in line for line in out.splitlines())


def test_what_cannot_be_evaluated_does_not_stop_the_others(here, capsys):
    save_policy(forest_policy(), here / "a.pt")
    (here / "damaged.pt").write_text("no")
    arguments = ["evaluate", "damaged.pt", "a.pt", "nowhere", "--seeds", "1", "--greedy", "--out", "x.csv"]
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert "a.pt" in out
    assert "2 of 3 cannot be evaluated: policy file: damaged.pt is damaged" in err
    assert err.count("\n") == 1
    assert {row["run"] for row in read_csv(here / "x.csv")} == {"a.pt"}


def test_the_latest_run_is_the_one_that_started_last(here, capsys):
    for name, hour, utc in (("x/1", 9, "+00:00"), ("x/2", 12, "+05:00"), ("y/1", 8, "+00:00")):
        run_without_checkpoints(here / "runs" / name, forest_policy(), f"2026-01-01T{hour:02}:00:00{utc}")
    (here / "runs" / "y" / "broken").mkdir()
    (here / "runs" / "y" / "broken" / "run.json").write_text("{")
    for arguments, expected in (([], "runs/x/1"), (["runs/y"], "runs/y/1"), (["runs/x"], "runs/x/1")):
        assert main(["evaluate", "--latest", *arguments, "--greedy"]) == 0
        out, err = capsys.readouterr()
        assert f"note: {expected} has no checkpoint any more; its policy.pt acts" in err
        assert "forest_uav_v0, 4 episodes, seeds 1000000 to 1000003" in out  # as many as in the training
    assert main(["video", "--latest", "--out", "latest.gif"]) == 0
    with Image.open(here / "latest.gif") as image:
        assert image.n_frames > 3


def test_runs_of_which_nothing_is_left_are_named(here, capsys):
    run = run_without_checkpoints(here / "runs" / "x" / "1", forest_policy())
    for arguments, message in (
        (["runs/x"], "runs/x: a folder with runs, expected one of them, such as runs/x/1"),
        (["--latest", "elsewhere"], "--latest: there is no run in elsewhere"),
        (["--latest", "a", "b"], "--latest: takes one folder of runs, got 2 paths"),
        (
            ["--latest", "--scripted", "greedy", "--env", "forest_uav_v0"],
            "--scripted: cannot go with --latest",
        ),
    ):
        assert main(["evaluate", *arguments]) == 2
        assert message in capsys.readouterr().err
    assert main(["video", "runs/x/1", "runs/x/2"]) == 2
    assert (
        "one video shows one policy, got 2 (side by side: --layout grid; the newest run of a folder: --latest FOLDER)"
        in capsys.readouterr().err
    )
    shutil.copytree(run, here / "hostile")
    run_config = here / "hostile" / "config.yaml"
    run_config.write_text(
        run_config.read_text().replace("evaluation_duration: 4", "evaluation_duration: 2000000000")
    )
    assert main(["evaluate", "hostile"]) == 2
    assert "config.evaluation_duration: expected an integer" in capsys.readouterr().err
    (run / "policy.pt").unlink()
    assert main(["evaluate", "--latest"]) == 2
    assert "checkpoint: there is no " in capsys.readouterr().err
    shutil.rmtree(here / "runs")
    assert main(["video", "--latest"]) == 2
    assert "--latest: there is no run in runs" in capsys.readouterr().err


# --- other environments ------------------------------------------------------------------------------------------


def test_a_shared_policy_acts_for_more_agents(here, capsys):
    policy = forest_policy(bias=[0.0, 0, 0, 0, 9.0])
    save_policy(policy, here / "a.pt")
    assert (
        main(["evaluate", "a.pt", "--env-config", '{"num_uavs": 5}', "--seeds", "1,2", "--out", "5.csv"]) == 0
    )
    assert capsys.readouterr().out.startswith("forest_uav_v0 (num_uavs 5), 2 episodes, seeds 1,2\n")
    # what the five do is what a policy does that was made for five, with the other settings of the training
    other = forest_policy(num_uavs=5, bias=[0.0, 0, 0, 0, 9.0])
    for mode in ("greedy", "sampled"):
        rows = evaluate(other, "forest_uav_v0", {**FOREST, "num_uavs": 5}, [1, 2], mode == "sampled")
        assert [row for row in read_csv(here / "5.csv") if row["mode"] == mode] == [
            {"mode": mode, **row} for row in rows
        ]


@pytest.mark.parametrize(
    ("options", "given", "message"),
    [
        ({"modules": 3}, {"num_uavs": 5}, "has the agent 'uav_3': the policy knows no agent 'uav_3'"),
        (
            {"agent_id": True},
            {"num_uavs": 5},
            "agent_id: the policy was trained for the agents uav_0, uav_1, uav_2",
        ),
        (
            {"agent_id": True},
            {"num_uavs": 2},
            "agent_id: the policy was trained for the agents uav_0, uav_1, uav_2",
        ),
        (
            {},
            {"sensing_radius": 1},
            "--env-config: the observation space of forest_uav_v0 is not that of the training",
        ),
        ({}, {"mask_blocked_moves": True}, "with a mask of 5 actions, expected shape"),
        ({}, {"num_uav": 5}, "num_uav"),
    ],
)
def test_settings_in_which_a_policy_cannot_act_are_named(here, capsys, options, given, message):
    save_policy(forest_policy(**options), here / "a.pt")
    assert main(["evaluate", "a.pt", "--env-config", json.dumps(given)]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert out == ""


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (
            "CartPole-v1",
            "the observation space of CartPole-v1 is not that of the training: shape (4,), expected shape (2,)",
        ),
        (
            "MountainCar-v0",
            "the action space of MountainCar-v0 is not that of the training: 3 discrete actions, expected 2",
        ),
        ("MountainCarContinuous-v0", "1 numbers from [-1.0] to [1.0], expected 2 discrete actions"),
    ],
)
@pytest.mark.parametrize("command", ["evaluate", "video"])
def test_an_environment_with_other_spaces_is_named(here, capsys, command, env, message):
    save_policy(countdown_policy(), here / "a.pt")
    assert main([command, "a.pt", "--env", env]) == 2
    err = capsys.readouterr().err
    assert err.startswith("rllib: --env: the ")
    assert message in err


# --- episodes that do not end ------------------------------------------------------------------------------------


def test_episodes_are_cut_where_nothing_ends_them(here, capsys, monkeypatch):
    policy = countdown_policy()
    rows = evaluate(policy, "countdown", {}, [1, 2, 10], False, max_steps=200)
    assert [(row["episode_length"], row["episode_return"], row["cut"]) for row in rows] == [
        (100, 100.0, 0),
        (200, 200.0, 0),  # it ends in the step in which others are cut
        (200, 200.0, 1),
    ]
    assert rows[2]["left"] == -200  # the last info of an episode that is cut
    assert cut_text(rows) == "1 of 3 episodes were cut after 200 steps, before their end"
    assert mean_scores(rows)["cut"] == pytest.approx(1 / 3)
    ended = evaluate(policy, "countdown", {}, [1, 2], False, max_steps=201)
    assert "cut" not in ended[0]
    assert cut_text(ended) is None
    # without a number
    assert MAX_EPISODE_STEPS == 10_000
    monkeypatch.setattr(evaluation, "MAX_EPISODE_STEPS", 300)
    save_policy(policy, here / "a.pt")
    assert main(["evaluate", "a.pt", "--seeds", "10,3", "--greedy", "--out", "a.csv"]) == 0
    out, err = capsys.readouterr()
    assert (
        err
        == "rllib: note: greedy: 1 of 2 episodes were cut after 300 steps, before their end (--max-steps)\n"
    )
    assert any(line.split()[:1] == ["cut"] for line in out.splitlines())
    assert [row["cut"] for row in read_csv(here / "a.csv")] == [1, 0]


def test_a_time_limit_of_the_environments_own_is_left_alone(monkeypatch):
    monkeypatch.setattr(evaluation, "MAX_EPISODE_STEPS", 3)
    for env_id, settings, is_known in (
        ("forest_uav_v0", FOREST, True),
        ("CartPole-v1", {}, True),
        ("CartPole-v1", {"max_episode_steps": -1}, False),
        ("countdown", {}, False),
        ("mpe2.simple_spread_v3", {}, False),
    ):
        env = make_vector_env(env_id, settings, 1)
        assert env.has_time_limit is is_known, env_id
        env.close()
    (row,) = evaluate(forest_policy(), "forest_uav_v0", FOREST, [1], False)
    assert row["episode_length"] == 8
    (row,) = evaluate(forest_policy(), "forest_uav_v0", FOREST, [1], False, max_steps=5)
    assert (row["episode_length"], row["cut"]) == (5, 1)
    (row,) = evaluate(forest_policy(), "forest_uav_v0", FOREST, [1], False, max_steps=9)
    assert (row["episode_length"], "cut" in row) == (8, False)


def test_scripted_policies_are_cut_too(here, capsys):
    arguments = ["--scripted", "random", "--env", "forest_uav_v0", "--env-config", json.dumps(FOREST)]
    assert main(["evaluate", *arguments, "--seeds", "1,2", "--max-steps", "4", "--out", "s.csv"]) == 0
    assert [(row["episode_length"], row["cut"]) for row in read_csv(here / "s.csv")] == [(4, 1), (4, 1)]
    assert "note: random: 2 of 2 episodes were cut after 4 steps" in capsys.readouterr().err


def test_a_recording_is_cut_and_says_so(here, capsys):
    frames, _, row = record_episode(countdown_policy(), "countdown", {}, 10)
    assert (len(frames), row["episode_length"], row["cut"]) == (MAX_STEPS + 1, MAX_STEPS, 1)
    save_policy(countdown_policy(), here / "a.pt")
    assert main(["video", "a.pt", "--seed", "1", "--max-steps", "7", "--out", "a.gif"]) == 0
    assert capsys.readouterr().out == "a.gif: greedy episode of seed 1, return 7, cut after 7 steps\n"
    assert main(["video", "a.pt", "--seed", "1", "--out", "b.gif"]) == 0
    assert capsys.readouterr().out == "b.gif: greedy episode of seed 1, return 100\n"


# --- windows -----------------------------------------------------------------------------------------------------


def test_rendered_episodes_score_as_others_do(here, monkeypatch):
    pygame = pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setattr(pygame.time, "wait", lambda _: None)
    save_policy(forest_policy(), here / "a.pt")
    shown = []
    monkeypatch.setattr(
        pygame.display, "flip", lambda: shown.append(pygame.surfarray.array3d(pygame.display.get_surface()))
    )
    assert main(["evaluate", "a.pt", "--seeds", "1,2", "--render", "--out", "shown.csv"]) == 0
    assert (
        len(shown) == 4 * 9
    )  # two seeds, both ways of acting, a frame before each of eight steps and the last
    assert main(["evaluate", "a.pt", "--seeds", "1,2", "--out", "plain.csv"]) == 0
    rows, expected = read_csv(here / "shown.csv"), read_csv(here / "plain.csv")
    assert [row.keys() for row in rows] == [row.keys() for row in expected]
    for row, plain in zip(rows, expected, strict=True):
        assert row == pytest.approx(plain)
    scripted = show_episodes("greedy", "forest_uav_v0", FOREST, [3], max_steps=5)
    assert [(row["episode_length"], row["cut"]) for row in scripted] == [(5, 1)]


def test_without_a_display_the_recording_is_named(here, capsys, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    save_policy(forest_policy(), here / "a.pt")
    assert main(["evaluate", "a.pt", "--render"]) == 2
    out, err = capsys.readouterr()
    assert (
        err == "rllib: --render: there is no display here (DISPLAY is not set); 'rllib video' records a GIF\n"
    )
    assert out == ""
    pygame = pytest.importorskip("pygame")
    monkeypatch.setenv("DISPLAY", ":77")  # at which nobody answers: pygame raises, or draws in memory
    assert main(["evaluate", "a.pt", "--render", "--episodes", "1"]) == 2
    err = capsys.readouterr().err
    assert "rllib: --render: " in err
    assert "; 'rllib video' records a GIF\n" in err
    assert not pygame.display.get_init()


def test_an_environment_without_a_window_says_so(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")

    with pytest.raises(ConfigError, match="--render: countdown has no render mode 'human'; 'rllib video'"):
        show_episodes(countdown_policy(), "countdown", {}, [1])

    class NoWindow(Countdown):
        metadata = {"render_modes": ["human"]}  # noqa: RUF012

        def reset(self, **arguments):
            raise gymnasium.error.DependencyNotInstalled("pygame is not installed")

    register_env("no_window", lambda config: NoWindow(**config))
    with pytest.raises(ConfigError, match="no_window cannot open a window .pygame is not installed"):
        show_episodes(countdown_policy(), "no_window", {}, [1])
    for play in (evaluate, show_episodes):  # agents that the policy does not know, in Python
        with pytest.raises(ConfigError, match="the observation space of forest_uav_v0 is not that"):
            play(countdown_policy(), "forest_uav_v0", FOREST, [1], False)
