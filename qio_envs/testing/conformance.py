"""Conformance checks for any PettingZoo environment, beyond those of PettingZoo itself.

::

    python -m qio_envs.testing.conformance forest_uav_v0 --kwarg scenario=wooded
    python -m qio_envs.testing.conformance mpe2.simple_spread_v3 --kwarg N=5
    python -m qio_envs.testing.conformance my_package.my_env:make_parallel_env

prints a table and exits with 0 (conforms, perhaps with warnings), 1 (does not) or 2 (bad usage). In a test suite,
`check_parallel_env` does the same. The docstring of each check says what it demands.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import dataclasses
import importlib
import io
import math
import os
import pickle
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import gymnasium
import numpy as np

from qio_envs.api.config import did_you_mean
from qio_envs.registry import environments

MakeEnv = Callable[
    ..., Any
]  # of a PettingZoo ParallelEnv; PettingZoo has no type annotations to check against

_EPISODES = 3  # episodes whose lengths are compared
_EPISODE_CAP = 2000  # steps after which an episode counts as endless


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """Outcome of one check.

    Attributes:
        name: Name of the check.
        passed: False if something was found.
        severity: ``error``; ``warning`` for what is allowed but seldom meant; ``skip`` where the check does not
            apply (``passed`` is then true).
        message: What was found, or why the check was skipped.
    """

    name: str
    passed: bool
    severity: str = "error"
    message: str = ""

    @property
    def conforms(self) -> bool:
        """Whether the environment may be used as it is: passed, or a warning only."""
        return self.passed or self.severity == "warning"

    @property
    def label(self) -> str:
        """``ok``, ``skip``, ``warning`` or ``FAIL``."""
        if self.passed:
            return "skip" if self.severity == "skip" else "ok"
        return "warning" if self.severity == "warning" else "FAIL"


def check_parallel_env(make_env: MakeEnv, *, steps: int = 60, seed: int = 0) -> list[CheckResult]:
    """Run every check on fresh environments with random legal actions.

    Args:
        make_env: Returns a new PettingZoo ``ParallelEnv``; for the check of pictures it is called with
            ``render_mode="rgb_array"``.
        steps: Steps of each trajectory (shorter episodes go on with ``reset()``).
        seed: Seed of the environments and of the actions.

    Returns:
        One result a check, in a fixed order. An exception inside a check is a failure of that check.
    """
    return [_run(name, check, make_env, steps, seed) for name, check in CHECKS.items()]


class _Skipped(Exception):
    """The check does not apply."""


class _Warning(Exception):
    """What was found is allowed but seldom meant."""


def _run(name: str, check: Callable[..., None], make_env: MakeEnv, steps: int, seed: int) -> CheckResult:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            check(make_env, steps, seed)
        except _Skipped as reason:
            return CheckResult(name, True, "skip", str(reason))
        except _Warning as found:
            return CheckResult(name, False, "warning", str(found))
        except AssertionError as found:
            return CheckResult(name, False, message=str(found) or "an assertion failed")
        except Exception as error:  # whatever an environment raises is a finding
            return CheckResult(name, False, message=f"{type(error).__name__}: {error}")
    return CheckResult(name, True)


# -- playing ------------------------------------------------------------------------------------------------


class _Player:
    """Draws legal actions from copies of the action spaces, the same ones for the same seed."""

    def __init__(self, env: Any, seed: int) -> None:
        self.spaces = {agent: copy.deepcopy(env.action_space(agent)) for agent in env.possible_agents}
        for index, space in enumerate(self.spaces.values()):
            space.seed(seed + index)

    def act(self, env: Any, observations: dict, infos: dict) -> dict[str, Any]:
        """Return an action for every living agent."""
        return {
            agent: self.spaces[agent].sample(_mask(observations.get(agent), infos.get(agent)))
            for agent in env.agents
        }


def _mask(observation: Any, info: Any) -> Any:
    """Return the action mask of an observation or info, None if there is none."""
    for place in (observation, info):
        if isinstance(place, dict) and "action_mask" in place:
            return place["action_mask"]
    return None


@dataclasses.dataclass
class _Step:
    """One step of a trajectory; after a reset only ``observations``, ``infos`` and ``after`` are set."""

    observations: dict
    infos: dict
    after: list[str]  # living agents
    before: list[str] | None = None
    rewards: dict = dataclasses.field(default_factory=dict)
    terminated: dict = dataclasses.field(default_factory=dict)
    truncated: dict = dataclasses.field(default_factory=dict)

    @property
    def outcome(self) -> tuple:
        return self.observations, self.rewards, self.terminated, self.truncated


def _reset(env: Any, seed: int | None) -> _Step:
    observations, infos = env.reset(seed=seed)
    return _Step(observations, infos, list(env.agents))


def _advance(env: Any, player: _Player, last: _Step) -> _Step:
    before = list(env.agents)
    observations, *rest, infos = env.step(player.act(env, last.observations, last.infos))
    rewards, terminated, truncated = rest
    return _Step(observations, infos, list(env.agents), before, rewards, terminated, truncated)


def _play(env: Any, steps: int, seed: int) -> Iterator[_Step]:
    """Yield a reset, then ``steps`` steps, with resets (no seed) in between where episodes end."""
    player, last = _Player(env, seed), _reset(env, seed)
    yield last
    for _ in range(steps):
        if not env.agents:
            last = _reset(env, None)
            yield last
        last = _advance(env, player, last)
        yield last


def _continue(env: Any, player: _Player, last: _Step, steps: int) -> list[tuple]:
    """Return the outcomes of further steps of the episode."""
    given = []
    for _ in range(steps):
        if not env.agents:
            break
        last = _advance(env, player, last)
        given.append(last.outcome)
    return given


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, dict) or isinstance(second, dict):
        same_kind = isinstance(first, dict) and isinstance(second, dict) and first.keys() == second.keys()
        return same_kind and all(_equal(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(_equal, first, second))
    one, other = np.asarray(first), np.asarray(second)
    if one.shape != other.shape:
        return False
    same = one == other
    if one.dtype.kind in "fc" and other.dtype.kind in "fc":
        same |= np.isnan(one) & np.isnan(other)
    return bool(np.all(same))


def _dtype_fault(space: gymnasium.Space, value: Any) -> str | None:
    """Return what is wrong with the types inside a value, or None."""
    if isinstance(space, gymnasium.spaces.Dict):
        faults = (_dtype_fault(part, value[key]) for key, part in space.spaces.items())
    elif isinstance(space, gymnasium.spaces.Tuple):
        faults = (_dtype_fault(part, item) for part, item in zip(space.spaces, value, strict=True))
    elif space.shape:
        have = getattr(value, "dtype", type(value).__name__)
        return None if have == space.dtype else f"dtype {have} instead of {space.dtype}"
    else:
        return None
    return next((fault for fault in faults if fault), None)


def _assert_in_space(space: gymnasium.Space, value: Any, what: str) -> None:
    assert space.contains(value), f"{what} is not in its space {_short(space)}: {_short(value)}"
    fault = _dtype_fault(space, value)
    assert fault is None, f"{what} has {fault}"


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 120 else text[:117] + "..."


def _when(index: int, step: _Step) -> str:
    return "at a reset" if step.before is None else f"at step {index}"


# -- checks -------------------------------------------------------------------------------------------------


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
        raise _Skipped(f"pettingzoo.test cannot be imported: {error}") from error


def _check_agents(make_env: MakeEnv, steps: int, seed: int) -> None:
    """Demand that dictionaries are keyed by the living agents, and rewards and endings are plain values."""
    env = make_env()
    for index, step in enumerate(_play(env, steps, seed)):
        when = _when(index, step)
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
            assert np.ndim(reward) == 0, f"the reward of {agent} is no number {when}: {_short(reward)}"
            assert math.isfinite(reward), f"the reward of {agent} is not finite {when}: {reward}"
        for ends in (step.terminated, step.truncated):
            for agent, end in ends.items():
                assert isinstance(end, bool | np.bool_), f"the ending of {agent} is no bool {when}: {end!r}"


def _check_observations(make_env: MakeEnv, steps: int, seed: int) -> None:
    """Demand that every observation lies in its space, with the space's dtype, at resets and at every step."""
    env = make_env()
    for index, step in enumerate(_play(env, steps, seed)):
        for agent, observation in step.observations.items():
            what = f"the observation of {agent} {_when(index, step)}"
            _assert_in_space(env.observation_space(agent), observation, what)


def _check_masks(make_env: MakeEnv, steps: int, seed: int) -> None:
    """Demand that action masks are int8, of 0 and 1, of the right length, with a legal action at least."""
    env, found = make_env(), False
    for index, step in enumerate(_play(env, steps, seed)):
        for agent in step.after:
            mask = _mask(step.observations.get(agent), step.infos.get(agent))
            space = env.action_space(agent)
            if mask is None or not isinstance(space, gymnasium.spaces.Discrete):
                continue
            found, what = True, f"the mask of {agent} {_when(index, step)}"
            dtype, shape = getattr(mask, "dtype", type(mask).__name__), np.shape(mask)
            assert dtype == np.int8, f"{what} has dtype {dtype} instead of int8"
            assert shape == (space.n,), f"{what} has shape {shape} instead of ({space.n},)"
            assert np.isin(mask, (0, 1)).all(), f"{what} holds other numbers than 0 and 1: {_short(mask)}"
            assert np.any(mask), f"{what} leaves no legal action"
    if not found:
        raise _Skipped("there are no action masks")


def _check_trajectories(make_env: MakeEnv, steps: int, seed: int) -> None:
    """Demand equal resets and steps under equal seeds: in two environments, and in one that is seeded again."""
    env = make_env()
    first = list(_play(env, steps, seed))
    for which, other in (("another environment", make_env()), ("the same environment, seeded again,", env)):
        for index, (one, two) in enumerate(zip(first, _play(other, steps, seed), strict=True)):
            same = _equal(one.outcome, two.outcome) and one.after == two.after
            assert same, f"{which} differs under the same seed {_when(index, one)}"


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
        for _ in _play(make_env(), steps, seed):
            pass
        touched = [name for name, (read, _, _) in generators.items() if not _equal(read(), before[name])]
    finally:
        for name, (_, write, _) in generators.items():
            write(kept[name])
    assert not touched, f"the global generator was used or seeded: {', '.join(touched)}"


def _check_endings(make_env: MakeEnv, steps: int, seed: int) -> None:
    """Demand that an agent that terminates or is truncated leaves, and that nobody leaves otherwise."""
    env = make_env()
    for index, step in enumerate(_play(env, steps, seed)):
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
    player = _Player(env, seed)
    for episode in range(_EPISODES):
        last, length = _reset(env, seed + episode), 0
        while env.agents:
            last, length = _advance(env, player, last), length + 1
            if length >= _EPISODE_CAP:
                raise _Skipped(f"an episode did not end within {_EPISODE_CAP} steps")
        everybody = set(last.before or ()) == set(env.possible_agents) and all(last.terminated.values())
        if not everybody or any(last.truncated.values()):
            return
        lengths.append(length)
    if len(set(lengths)) == 1 and lengths[0] > 1:
        raise _Warning(
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
    env, player, last = _in_mid_episode(make_env, seed)
    try:
        twin = copier(env)
    except Exception as error:
        raise _Warning(
            f"the environment cannot be {participle}: {type(error).__name__}: {_short(error)}"
        ) from error
    other = copy.deepcopy(player)
    expected = _continue(env, player, last, steps)
    try:
        given = _continue(twin, other, last, steps)
    except Exception as error:  # EzPickle, for one, copies the constructor's arguments and no state
        raise _Warning(
            f"a {participle} environment cannot go on without reset(): {type(error).__name__}: {_short(error)}"
        ) from error
    same = _equal(given, expected)
    assert same, f"a {participle} environment goes on differently from the original"


def _check_saved_state(make_env: MakeEnv, steps: int, seed: int) -> None:
    """Demand that ``set_state`` of another environment goes on as the original after ``get_state``."""
    env, player, last = _in_mid_episode(make_env, seed)
    if not (hasattr(env, "get_state") and hasattr(env, "set_state")):
        raise _Skipped("there is no get_state and set_state")
    saved, other = env.get_state(), copy.deepcopy(player)
    expected = _continue(env, player, last, steps)
    twin = make_env()
    twin.reset(seed=seed + 1)
    twin.set_state(saved)
    assert _equal(_continue(twin, other, last, steps), expected), (
        "an environment goes on differently after set_state"
    )


def _in_mid_episode(make_env: MakeEnv, seed: int) -> tuple[Any, _Player, _Step]:
    """Return an environment after a step or two, its player, and its last step."""
    env = make_env()
    player, last = _Player(env, seed), _reset(env, seed)
    for _ in range(2):
        step = _advance(env, player, last)
        if not env.agents:  # episodes of a step or two: from the reset, then
            return env, player, _reset(env, seed)
        last = step
    return env, player, last


def _check_state(make_env: MakeEnv, steps: int, seed: int) -> None:
    """Demand that ``state()`` lies in ``state_space``."""
    env = make_env()
    space = getattr(env, "state_space", None)
    if space is None:
        raise _Skipped("there is no state_space")
    for index, step in enumerate(_play(env, steps, seed)):
        try:
            value = env.state()
        except NotImplementedError as error:
            raise _Skipped("there is no state()") from error
        _assert_in_space(space, value, f"state() {_when(index, step)}")


def _check_render(make_env: MakeEnv, steps: int, seed: int) -> None:
    """Demand that ``rgb_array``, where declared, gives uint8 ``[h, w, 3]`` without a display."""
    if "rgb_array" not in getattr(make_env(), "metadata", {}).get("render_modes", ()):
        raise _Skipped("rgb_array is not among metadata['render_modes']")
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


# -- command line -------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{message}\n")


def table(results: Sequence[CheckResult]) -> str:
    """Return results as lines of text."""
    width = max(len(result.name) for result in results)
    lines = [f"{result.name:<{width}}  {result.label:<7}  {result.message}".rstrip() for result in results]
    failed = sum(not result.conforms for result in results)
    warned = sum(result.label == "warning" for result in results)
    summary = f"{len(results)} checks: {failed} failed, {warned} with a warning"
    return "\n".join([*lines, summary])


def _resolve(name: str, kwargs: dict[str, Any]) -> MakeEnv:
    """Return a factory of parallel environments for a name; ValueError says in one line what is wrong."""
    module_name, _, attribute = name.partition(":")
    if name in environments():
        factory: MakeEnv = environments()[name].parallel_env
    else:
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            hint = did_you_mean(name, environments())
            raise ValueError(
                f"ENV: '{name}' is neither one of {', '.join(environments())}{hint} nor an importable module: {error}"
            ) from error
        attribute = attribute or ("parallel_env" if hasattr(module, "parallel_env") else "env")
        if not callable(getattr(module, attribute, None)):
            raise ValueError(f"ENV: module '{module_name}' has no callable '{attribute}'")
        factory = getattr(module, attribute)

    def make(**more: Any) -> Any:
        env = factory(**kwargs, **more)
        if hasattr(env, "agent_iter"):
            from pettingzoo.utils.conversions import aec_to_parallel

            return aec_to_parallel(env)
        return env

    try:
        env = make()
    except Exception as error:
        raise ValueError(f"ENV: '{name}' cannot be made: {type(error).__name__}: {_short(error)}") from error
    if not all(hasattr(env, part) for part in ("reset", "step", "possible_agents", "action_space")):
        raise ValueError(f"ENV: '{name}' gives {type(env).__name__}, no PettingZoo environment")
    return make


def _key_value(text: str) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not (sign and key.isidentifier()):
        raise argparse.ArgumentTypeError(f"expected key=value, got '{text}'")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = _Parser(
        prog="python -m qio_envs.testing.conformance",
        description="Check a PettingZoo environment. Exit code: 0 conforms, 1 does not, 2 bad usage.",
    )
    parser.add_argument(
        "env", metavar="ENV", help="id (forest_uav_v0), module (mpe2.simple_spread_v3) or module:callable"
    )
    parser.add_argument(
        "--kwarg", type=_key_value, action="append", default=[], metavar="KEY=VALUE",
        help="argument of the environment, a Python literal or text; may be repeated",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, default=60, help="steps of each trajectory (60)")
    parser.add_argument("--seed", type=int, default=0, help="seed of environments and actions (0)")
    args = parser.parse_args(arguments)
    if args.steps < 1:
        parser.error(f"--steps: expected at least 1, got {args.steps}")
    sys.path.insert(0, os.getcwd())
    try:
        make_env = _resolve(args.env, dict(args.kwarg))
    except ValueError as error:
        parser.error(str(error))
    results = check_parallel_env(make_env, steps=args.steps, seed=args.seed)
    print(table(results))
    return 0 if all(result.conforms for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
