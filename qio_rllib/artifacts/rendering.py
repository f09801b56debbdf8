"""Episodes that somebody sees: in a window, or frame by frame for a GIF."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qio_envs.api import Array, BatchedEnv, ConfigError

if TYPE_CHECKING:
    from qio_rllib.acting.policy import Policy
    from qio_rllib.acting.team import Team
    from qio_rllib.sampling.vector_env import VectorEnv

_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
_INSTEAD = "'rllib video' records a GIF"


def check_display() -> None:
    """Refuse to open a window where there is no display.

    Raises:
        ConfigError: There is none.
    """
    if sys.platform.startswith("linux") and not any(os.environ.get(name) for name in _DISPLAYS):
        raise ConfigError(f"--render: there is no display here (DISPLAY is not set); {_INSTEAD}")


def show_episodes(
    policy: Policy | str,
    env_id: str,
    env_config: Mapping[str, Any],
    seeds: Sequence[int],
    explore: bool = False,
    max_steps: int | None = None,
) -> list[dict[str, Any]]:
    """Play one episode per seed in a window, one after the other.

    Args:
        policy: What acts; a name is that of a scripted policy of the environment, which is one of ``qio_envs``.
        env_id: The environment; it must have the render mode ``human``.
        env_config: Its arguments.
        seeds: They seed the environment and the sampling.
        explore: Sample from the policy (True) or take its most probable actions (False).
        max_steps: As for `qio_rllib.sampling.evaluation.play_episodes`.

    Returns:
        One row per episode, as of `qio_rllib.sampling.evaluation.evaluate`.

    Raises:
        ConfigError: There is no display, the window cannot be opened, or the policy cannot act in the environment.
    """
    from qio_rllib.sampling.evaluation import play_episodes

    check_display()
    rows = []
    with rendered_env(policy, env_id, env_config, "human") as (shown, env, team):
        if "human" not in (getattr(shown, "metadata", None) or {}).get("render_modes", ("human",)):
            raise ConfigError(f"--render: {env_id} has no render mode 'human'; {_INSTEAD}")
        try:
            for seed in seeds:
                rows += play_episodes(
                    team, env, [seed], explore, _check_window, max_steps, message_viewer(shown)
                )
        except Exception as error:
            if not _is_of_window(error):
                raise
            reason = " ".join(str(error).split())
            raise ConfigError(f"--render: {env_id} cannot open a window ({reason}); {_INSTEAD}") from error
    return rows


@contextlib.contextmanager
def rendered_env(
    policy: Policy | str, env_id: str, env_config: Mapping[str, Any], render_mode: str
) -> Iterator[tuple[Any, VectorEnv, Team]]:
    """Yield an environment with a render mode, the same as a `VectorEnv` of one, and the team of a policy in it.

    Raises:
        ConfigError: The environment lacks the mode, or the policy cannot act in it.
    """
    from qio_rllib.acting.scripted import scripted_team
    from qio_rllib.sampling.environments import make_env
    from qio_rllib.sampling.evaluation import team_in
    from qio_rllib.sampling.object_vector_env import ObjectVectorEnv

    try:
        shown: Any = make_env(env_id, env_config, render_mode=render_mode)
    except ConfigError:
        raise
    except Exception as error:  # whatever an environment of anybody's raises for a mode that it lacks
        raise ConfigError(f"env: {env_id} cannot be rendered as {render_mode} ({error})") from error
    env = ObjectVectorEnv(lambda: shown, 1)
    try:
        if isinstance(policy, str):
            yield shown, env, scripted_team(shown.batch, policy)
        else:
            yield shown, env, team_in(policy, env_id, env)
    finally:
        env.close()


def message_viewer(shown: Any) -> Callable[[Array], None] | None:
    """Return what gives an environment the messages that its pictures show; None where it is none of ``qio_envs``."""
    batch = getattr(shown, "batch", None)
    if not isinstance(batch, BatchedEnv):
        return None

    def show(messages: Array) -> None:
        batch.shown_messages = messages

    return show


def _check_window() -> None:
    """Refuse to go on where pygame, for want of a display that answers, draws in memory alone.

    Raises:
        ConfigError: It does, and nobody has asked for that.
    """
    pygame = sys.modules.get("pygame")
    if pygame is None or os.environ.get("SDL_VIDEODRIVER") or not pygame.display.get_init():
        return
    if pygame.display.get_driver() in ("offscreen", "dummy"):
        raise ConfigError(
            f"--render: no display answers at DISPLAY={os.environ.get('DISPLAY', '')}; {_INSTEAD}"
        )


def _is_of_window(error: Exception) -> bool:
    """Return whether an error is about a window or what draws it, rather than of an environment's own rules."""
    from gymnasium.error import DependencyNotInstalled

    is_pygames = type(error).__module__.partition(".")[0] == "pygame"
    return is_pygames or isinstance(error, ImportError | DependencyNotInstalled)
