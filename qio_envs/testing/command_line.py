"""The command line of the checks: ``python -m qio_envs.testing ENV``."""

from __future__ import annotations

import argparse
import ast
import functools
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import gymnasium

from qio_envs.adapters.tuple_agents import TupleParallelEnv, has_tuple_agents
from qio_envs.api.config import did_you_mean
from qio_envs.registry import environments
from qio_envs.testing.conformance import check_parallel_env
from qio_envs.testing.playing import MakeEnv, short
from qio_envs.testing.results import table


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{message}\n")


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
        if callable(getattr(module, attribute, None)):
            factory = getattr(module, attribute)
        elif attribute in gymnasium.registry:
            factory = functools.partial(gymnasium.make, attribute)
        else:
            raise ValueError(f"ENV: module '{module_name}' has no callable '{attribute}'")

    def make(**more: Any) -> Any:
        env = factory(**kwargs, **more)
        if hasattr(env, "agent_iter"):
            from pettingzoo.utils.conversions import aec_to_parallel

            return aec_to_parallel(env)
        return TupleParallelEnv(env) if has_tuple_agents(env) else env

    try:
        env = make()
    except Exception as error:
        raise ValueError(f"ENV: '{name}' cannot be made: {type(error).__name__}: {short(error)}") from error
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
        prog="python -m qio_envs.testing",
        description="Check a PettingZoo environment. Exit code: 0 conforms, 1 does not, 2 bad usage.",
    )
    parser.add_argument(
        "env", metavar="ENV",
        help="id (forest_uav_v0), module (mpe2.simple_spread_v3), module:callable, or package:id of a Gymnasium "
        "environment of several agents (lbforaging:Foraging-8x8-2p-3f-v3)",
    )  # fmt: skip
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
