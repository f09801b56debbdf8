"""Episodes as GIFs: the frames are those of the episode that an evaluation plays."""

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from qio_envs import forest_uav_v0
from qio_envs.api import ConfigError
from qio_rllib.acting.actions import ActionSpec
from qio_rllib.acting.actor import NetworkActor
from qio_rllib.acting.policy import GroupSpaces, Policy
from qio_rllib.acting.team import AgentGroup, Team
from qio_rllib.artifacts.video import MAX_FRAMES, record_episode, save_gif, save_video
from qio_rllib.models.policy_network import PolicyNetwork, PolicySpec
from qio_rllib.sampling.evaluation import evaluate


def uniform_policy(agents, size, actions, env, env_config):
    """Return a policy whose actions are equally likely."""
    network = PolicyNetwork(PolicySpec((size,), "categorical", actions, network={"fcnet_hiddens": [4]}))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    group = AgentGroup(
        "shared", tuple(agents), np.arange(len(agents)), NetworkActor(network, ActionSpec(actions))
    )
    return Policy(Team([group]), {"shared": GroupSpaces((size,))}, env, env_config)


@pytest.fixture
def forest_policy():
    settings = {"max_steps": 12, "num_uavs": 3, "reward": "local"}
    (size,) = forest_uav_v0.batched_env(1, **settings).observation_space.shape
    return uniform_policy([f"uav_{i}" for i in range(3)], size, 5, "forest_uav_v0", settings)


class Dark(gymnasium.Env):
    """Cannot be rendered."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(2)
    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 1.0, True, False, {}


@pytest.mark.parametrize("explore", [False, True])
def test_the_recorded_episode_is_the_one_that_is_evaluated(forest_policy, explore):
    frames, fps, recorded = record_episode(
        forest_policy, "forest_uav_v0", forest_policy.env_config, 5, explore
    )
    (row,) = evaluate(forest_policy, "forest_uav_v0", forest_policy.env_config, [5], explore)
    assert recorded["episode_return"] == pytest.approx(row["episode_return"])
    assert len(frames) == row["episode_length"] + 1
    assert frames[0].dtype == np.uint8
    assert frames[0].shape[2] == 3
    assert fps > 0
    assert any((frame != frames[0]).any() for frame in frames[1:])


def test_a_gif_repeats_for_ever_and_shows_the_frames(tmp_path):
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    frames = [np.full((40, 60, 3), color, np.uint8) for color in colors]
    path = save_gif(frames, tmp_path / "a.gif", fps=10)
    with Image.open(path) as image:
        assert image.info["loop"] == 0
        shown = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]
    assert len(shown) == 3
    for frame, color in zip(shown, colors, strict=True):
        assert frame.shape == (40, 60, 3)
        assert np.abs(frame.astype(int) - color).max() <= 8


def test_long_episodes_are_thinned_and_large_frames_shrunk(tmp_path):
    frames = [np.full((400, 1600, 3), 0, np.uint8) for _ in range(MAX_FRAMES + 57)]
    for index, frame in enumerate(frames):
        frame[:, : 6 * index] = 120
    frames[-1][:100, :100] = (200, 0, 0)
    path = save_gif(frames, tmp_path / "a.gif")
    with Image.open(path) as image:
        assert image.size == (800, 200)
        assert image.n_frames == MAX_FRAMES
        image.seek(MAX_FRAMES - 1)
        last = np.asarray(image.convert("RGB"))[10, 10]
    assert np.abs(last.astype(int) - (200, 0, 0)).max() <= 8


def test_an_environment_without_renderer_is_refused(tmp_path):
    policy = uniform_policy([None], 2, 2, "test_video:Dark", {})
    with pytest.raises(ConfigError, match="test_video:Dark cannot be rendered"):
        save_video(policy, tmp_path / "a.gif")
    assert list(tmp_path.iterdir()) == []


def test_a_video_of_the_policys_own_environment(tmp_path, forest_policy):
    recorded = save_video(forest_policy, tmp_path / "a.gif", seed=5)
    (row,) = evaluate(forest_policy, "forest_uav_v0", forest_policy.env_config, [5], explore=False)
    assert recorded["episode_return"] == pytest.approx(row["episode_return"])
    with Image.open(tmp_path / "a.gif") as image:
        assert image.size[0] > 100


def test_a_gif_may_be_larger_and_of_more_colours(tmp_path):
    shades = np.add.outer(np.arange(500) // 4, np.arange(1000) // 8).astype(np.uint8)
    frame = np.stack([shades, shades, 255 - shades], axis=-1)
    for options, width, most in (({}, 800, 64), ({"longest_side": 900, "num_colors": 128}, 900, 128)):
        with Image.open(save_gif([frame], tmp_path / "a.gif", **options)) as image:
            assert image.size[0] == width
            colors = len(image.convert("RGB").getcolors())
            assert 0.4 * most < colors <= most  # Pillow maps neighbouring shades to one colour


def test_common_colours_are_kept_as_they_are(tmp_path):
    generator = np.random.default_rng(0)
    frame = generator.integers(0, 256, (100, 100, 3)).astype(np.uint8)  # very many colours
    frame[:60] = (25, 53, 36)
    frame[60:80] = (222, 206, 148)
    with Image.open(save_gif([frame], tmp_path / "a.gif")) as image:
        shown = np.asarray(image.convert("RGB"))
    assert (shown[:80] == frame[:80]).all()
