"""The checks, each a function; its docstring says what it demands."""

from __future__ import annotations

import copy
import importlib
import math
import os
import pickle
import random
import sys
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from qio_envs.testing.playing import (
    MakeEnv,
    Player,
    advance,
    assert_in_space,
    equal,
    go_on,
    in_mid_episode,
    mask_of,
    play,
    reset,
    short,
    when_of,
)
from qio_envs.testing.results import Doubtful, Skipped

_EPISODES = 3  # episodes whose lengths are compared
_EPISODE_CAP = 2000  # steps after which an episode counts as endless


def _check_api(make_env: MakeEnv, steps: int, seed: int) -> None:
    """Demand that PettingZoo's own ``parallel_api_test`` passes."""
    parallel_api_test = _pettingzoo_test("parallel_api_test")
    parallel_api_test(make_env(), num_cycles=steps)


def _check_seed(make_env: MakeEnv, steps: int, seed: int) -> None:
    """Demand that PettingZoo's own ``parallel_seed_test`` passes."""
    parallel_seed_test = _pettingzoo_test("parallel_seed_test")
    parallel_seed_test(make_env, num_cycles=min(steps, 20))


def _pettingzoo_test(name: str) -> Callable[..., None]:
    try:
        return getattr(importlib.import_module("pettingzoo.test"), name)
    except ImportError as error:
        raise Skipped(f"pettingzoo.test cannot be imported: {error}") from error


def _check_agents(make_env: MakeEnv, steps: int, seed: int) -> None:
    """Demand that dictionaries are keyed by the living agents, and rewards and endings are plain values."""
    env = make_env()
    for index, step in enumerate(play(env, steps, seed)):
        when = when_of(index, step)
        living = set(step.after if step.before is None else step.before)
        assert len(step.after) == len(set(step.after)), f"agents occur twice in env.agents {when}"
        unknown = set(step.after) - set(env.possible_agents)
        assert not unknown, f"agents that are not in possible_agents {when}: {sorted(unknown)}"
        dictionaries = {"observations": step.observations, "infos": step.infos}
        if step.before is not None:
            dictionaries |= {
                "rewards": step.rewards,
                "terminations": step.terminated,
                "truncations": step.truncated,
            }
        for name, dictionary in dictionaries.items():
            missing = living - set(dictionary)
            assert not missing, f"{name} lack living agents {when}: {sorted(missing)}"
            extra = set(dictionary) - living - set(step.after)  # an agent may appear in a step
            assert not extra, f"{name} hold agents that are not alive {when}: {sorted(extra)}"
        for agent, reward in step.rewards.items():
            assert np.ndim(reward) == 0, f"the reward of {agent} is no number {when}: {short(reward)}"
            assert math.isfinite(reward), f"the reward of {agent} is not finite {when}: {reward}"
        for ends in (step.terminated, step.truncated):
            for agent, end in ends.items():
                assert isinstance(end, bool | np.bool_), f"the ending of {agent} is no bool {when}: {end!r}"


def _check_observations(make_env: MakeEnv, steps: int, seed: int) -> None:
    """Demand that every observation lies in its space, with the space's dtype, at resets and at every step."""
    env = make_env()
    for index, step in enumerate(play(env, steps, seed)):
        for agent, observation in step.observations.items():
            what = f"the observation of {agent} {when_of(index, step)}"
            assert_in_space(env.observation_space(agent), observation, what)


def _check_masks(make_env: MakeEnv, steps: int, seed: int) -> None:
    """Demand that action masks are int8, of 0 and 1, of the right length, with a legal action at least."""
    env, found = make_env(), False
    for index, step in enumerate(play(env, steps, seed)):
        for agent in step.after:
            mask = mask_of(step.observations.get(agent), step.infos.get(agent))
            space = env.action_space(agent)
            if mask is None or not isinstance(space, gymnasium.spaces.Discrete):
                continue
            found, what = True, f"the mask of {agent} {when_of(index, step)}"
            dtype, shape = getattr(mask, "dtype", type(mask).__name__), np.shape(mask)
            assert dtype == np.int8, f"{what} has dtype {dtype} instead of int8"
            assert shape == (space.n,), f"{what} has shape {shape} instead of ({space.n},)"
            assert np.isin(mask, (0, 1)).all(), f"{what} holds other numbers than 0 and 1: {short(mask)}"
            assert np.any(mask), f"{what} leaves no legal action"
    if not found:
        raise Skipped("there are no action masks")


def _check_trajectories(make_env: MakeEnv, steps: int, seed: int) -> None:
    """Demand equal resets and steps under equal seeds: in two environments, and in one that is seeded again."""
    env = make_env()
    first = list(play(env, steps, seed))
    for which, other in (("another environment", make_env()), ("the same environment, seeded again,", env)):
        for index, (one, two) in enumerate(zip(first, play(other, steps, seed), strict=True)):
            same = equal(one.outcome, two.outcome) and one.after == two.after
            assert same, f"{which} differs under the same seed {when_of(index, one)}"


def _check_global_random(make_env: MakeEnv, steps: int, seed: int) -> None:
    """Demand that the global generators of random, NumPy (and torch, if loaded) are left alone."""
    # name -> (read the state, write the state, seed)
    generators: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], Callable[[int], Any]]] = {
        "random": (random.getstate, random.setstate, random.seed),
        "numpy.random": (np.random.get_state, np.random.set_state, np.random.seed),
    }
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        generators["torch"] = (torch.get_rng_state, torch.set_rng_state, torch.manual_seed)
    kept = {name: read() for name, (read, _, _) in generators.items()}
    try:
        for _, _, start in generators.values():
            start(seed + 314159)  # a state that seeding with the environment's seed does not lead back to
        before = {name: read() for name, (read, _, _) in generators.items()}
        for _ in play(make_env(), steps, seed):
            pass
        touched = [name for name, (read, _, _) in generators.items() if not equal(read(), before[name])]
    finally:
        for name, (_, write, _) in generators.items():
            write(kept[name])
    assert not touched, f"the global generator was used or seeded: {', '.join(touched)}"


def _check_endings(make_env: MakeEnv, steps: int, seed: int) -> None:
    """Demand that an agent that terminates or is truncated leaves, and that nobody leaves otherwise."""
    env = make_env()
    for index, step in enumerate(play(env, steps, seed)):
        if step.before is None:
            continue
        ended = {agent for agent in step.before if step.terminated.get(agent) or step.truncated.get(agent)}
        staying = sorted(ended & set(step.after))
        assert not staying, f"agents go on after their end, step {index}: {staying}"
        vanished = sorted(set(step.before) - ended - set(step.after))
        assert not vanished, f"agents vanish without having ended, step {index}: {vanished}"


def _check_time_limit(make_env: MakeEnv, steps: int, seed: int) -> None:
    """Warn where episodes of one fixed length always end with ``terminated`` for everybody."""
    env, lengths = make_env(), []
    player = Player(env, seed)
    for episode in range(_EPISODES):
        last, length = reset(env, seed + episode), 0
        while env.agents:
            last, length = advance(env, player, last), length + 1
            if length >= _EPISODE_CAP:
                raise Skipped(f"an episode did not end within {_EPISODE_CAP} steps")
        everybody = set(last.before or ()) == set(env.possible_agents) and all(last.terminated.values())
        if not everybody or any(last.truncated.values()):
            return
        lengths.append(length)
    if len(set(lengths)) == 1 and lengths[0] > 1:
        raise Doubtful(
            f"all episodes end after {lengths[0]} steps with terminated for everybody: if that is a time limit, "
            "it is truncation"
        )


def _check_deepcopy(make_env: MakeEnv, steps: int, seed: int) -> None:
    """Demand that a deep copy goes on as the original; warn where there is none that goes on."""
    _check_copier(make_env, steps, seed, copy.deepcopy, "deep-copied")


def _check_pickle(make_env: MakeEnv, steps: int, seed: int) -> None:
    """Demand that an unpickled copy goes on as the original; warn where there is none that goes on."""
    _check_copier(make_env, steps, seed, lambda env: pickle.loads(pickle.dumps(env)), "pickled")


def _check_copier(
    make_env: MakeEnv, steps: int, seed: int, copier: Callable[[Any], Any], participle: str
) -> None:
    env, player, last = in_mid_episode(make_env, seed)
    try:
        duplicate = copier(env)
    except Exception as error:
        raise Doubtful(
            f"the environment cannot be {participle}: {type(error).__name__}: {short(error)}"
        ) from error
    other = copy.deepcopy(player)
    expected = go_on(env, player, last, steps)
    try:
        given = go_on(duplicate, other, last, steps)
    except Exception as error:  # EzPickle, for one, copies the constructor's arguments and no state
        raise Doubtful(
            f"a {participle} environment cannot go on without reset(): {type(error).__name__}: {short(error)}"
        ) from error
    same = equal(given, expected)
    assert same, f"a {participle} environment goes on differently from the original"


def _check_saved_state(make_env: MakeEnv, steps: int, seed: int) -> None:
    """Demand that ``set_state`` of another environment goes on as the original after ``get_state``."""
    env, player, last = in_mid_episode(make_env, seed)
    if not (hasattr(env, "get_state") and hasattr(env, "set_state")):
        raise Skipped("there is no get_state and set_state")
    saved, other = env.get_state(), copy.deepcopy(player)
    expected = go_on(env, player, last, steps)
    duplicate = make_env()
    duplicate.reset(seed=seed + 1)
    duplicate.set_state(saved)
    assert equal(go_on(duplicate, other, last, steps), expected), (
        "an environment goes on differently after set_state"
    )


def _check_state(make_env: MakeEnv, steps: int, seed: int) -> None:
    """Demand that ``state()`` lies in ``state_space``."""
    env = make_env()
    space = getattr(env, "state_space", None)
    if space is None:
        raise Skipped("there is no state_space")
    for index, step in enumerate(play(env, steps, seed)):
        try:
            value = env.state()
        except NotImplementedError as error:
            raise Skipped("there is no state()") from error
        assert_in_space(space, value, f"state() {when_of(index, step)}")


def _check_render(make_env: MakeEnv, steps: int, seed: int) -> None:
    """Demand that ``rgb_array``, where declared, gives uint8 ``[h, w, 3]`` without a display."""
    if "rgb_array" not in getattr(make_env(), "metadata", {}).get("render_modes", ()):
        raise Skipped("rgb_array is not among metadata['render_modes']")
    kept = {key: os.environ.pop(key) for key in ("DISPLAY", "WAYLAND_DISPLAY") if key in os.environ}
    try:
        env = make_env(render_mode="rgb_array")
        env.reset(seed=seed)
        frame = env.render()
        env.close()
    finally:
        os.environ.update(kept)
    have = f"{getattr(frame, 'dtype', type(frame).__name__)} of shape {np.shape(frame)}"
    good = isinstance(frame, np.ndarray) and frame.dtype == np.uint8
    good = good and frame.ndim == 3 and frame.shape[2] == 3 and frame.size > 0
    assert good, f"render() gives {have} instead of uint8 of shape (height, width, 3)"


CHECKS: dict[str, Callable[[MakeEnv, int, int], None]] = {
    "pettingzoo api": _check_api,
    "pettingzoo seed": _check_seed,
    "agents": _check_agents,
    "observations": _check_observations,
    "action masks": _check_masks,
    "trajectories": _check_trajectories,
    "global random state": _check_global_random,
    "endings": _check_endings,
    "time limit": _check_time_limit,
    "deepcopy": _check_deepcopy,
    "pickle": _check_pickle,
    "saved state": _check_saved_state,
    "global state": _check_state,
    "render": _check_render,
}
"""Every check by name; the docstrings say what each demands."""
