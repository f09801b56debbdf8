"""``policy.json`` of a policy file: what it may hold, checked before anything is built from it.

Its settings of networks are checked where they are read; here stand the outer form, and limits on what building may
take, so that a damaged or hostile description ends in one line.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from qio_envs.api import ConfigError, check_keys
from qio_rllib.models.communication import Communication
from qio_rllib.models.parts import Part, SpaceParts
from qio_rllib.models.policy_network import DISCRETE, DISTRIBUTIONS, PRODUCT, PolicySpec
from qio_rllib.models.world_model_policy import BEHAVIOURS, WorldModelSpec

POLICY, WORLD_MODEL = "policy", "world_model"
"""Under which keys the specification of an actor's network lies."""

MAX_BYTES = 1 << 22  # of the description
_MAX_NUMBER = 1 << 24  # of sizes and counts
_MAX_DEPTH = 20
_MAX_LAYERS = 200
_SLACK = 1 << 24  # numbers in constants that stand in no state dictionary

_KEYS = ("format", "env", "env_config", "communication", "groups")
_GROUP_KEYS = ("module", "agents", "index", "agent_id", "action", "spaces")
_ACTION_KEYS = ("count", "low", "high", "rescaled", "parts")
_SPACES_KEYS = ("observation_shape", "num_actions", "parts")
_Checks = Mapping[str, tuple[str, Callable[[Any], Any]]]
"""By key: what is allowed, in words, and whether a value is that."""


def read_description(data: bytes) -> Any:
    """Return what ``policy.json`` holds: no NaN, no key twice, and nothing that is nested deeper than `_MAX_DEPTH`.

    Raises:
        ConfigError: It is no such JSON.
    """
    if len(data) > MAX_BYTES:
        raise ConfigError(f"policy.json: it has {len(data):,} bytes, expected at most {MAX_BYTES:,}")
    try:
        values = json.loads(data, parse_constant=_constant, object_pairs_hook=_without_repeats)
    except RecursionError:
        raise ConfigError("policy.json: nested too deep") from None
    except ValueError as error:
        raise ConfigError(f"policy.json: not valid JSON: {' '.join(str(error).split())}") from None
    _check_depth(values, _MAX_DEPTH)
    return values


def check_description(values: Mapping[str, Any]) -> None:
    """Refuse a description that no policy has.

    Raises:
        ConfigError: Naming the key.
    """
    _check_keys("policy.json", values, _KEYS)
    _check("env", values["env"], "a text", lambda value: isinstance(value, str))
    _check("env_config", values["env_config"], "a mapping", _is_mapping)
    groups = values["groups"]
    _check("groups", groups, "a list of at least one group", lambda value: isinstance(value, list) and value)
    for place, entry in enumerate(groups):
        _check_group(f"groups[{place}]", entry)
    for key, all_of in (
        ("module", [entry["module"] for entry in groups]),
        ("agents", [agent for entry in groups for agent in entry["agents"]]),
    ):
        if len(set(all_of)) < len(all_of):
            raise ConfigError(f"groups: the same of {key} stands there twice")
    spoken = Communication.of(values["communication"])
    silent = {"bandwidth": 0, "signature": 0, "binary_messages": False, "gated": False}
    for place, entry in enumerate(groups):
        for key, expected in (silent if spoken is None else spoken.speaker()).items():
            given = entry.get(POLICY, {}).get(key, silent[key])
            if given != expected:
                raise ConfigError(
                    f"groups[{place}].{POLICY}.{key}: expected {expected}, as in communication, got {given}"
                )
    index = sorted(one for entry in groups for one in entry["index"])
    if index != list(range(len(index))):
        raise ConfigError("groups.index: expected each number from 0 to the number of agents less 1 once")


class Budget(TorchFunctionMode):
    """Refuses to make larger tensors than a file's weights account for, while networks are built.

    Args:
        weights: Of all modules of a file; what is built has as many numbers, and some constants.
    """

    def __init__(self, weights: Sequence[Mapping[str, torch.Tensor]]) -> None:
        super().__init__()
        self.left = _SLACK + 4 * sum(value.numel() for module in weights for value in module.values())

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch; count first what it will make.

        Raises:
            ConfigError: It is too much.
        """
        if func in _SIZED:
            first = args[0] if args else (kwargs or {}).get("size", 0)
            sizes = first if isinstance(first, list | tuple) else args
            self.left -= math.prod(size for size in sizes if isinstance(size, int))
            if self.left < 0:
                raise ConfigError("policy.json: its networks are larger than the weights of the file")
        return func(*args, **(kwargs or {}))


_SIZED = (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full, torch.eye, torch.arange)
"""Functions of torch whose first arguments are sizes."""


def _check_group(where: str, entry: Any) -> None:
    kinds = [kind for kind in (POLICY, WORLD_MODEL) if isinstance(entry, Mapping) and kind in entry]
    _check_keys(where, entry, (*_GROUP_KEYS, *(kinds[:1] or [POLICY])))
    _check(f"{where}.module", entry["module"], "a text without slashes", _is_name)
    _check(f"{where}.agents", entry["agents"], "a list of agents", _is_list_of(_is_agent))
    _check(f"{where}.index", entry["index"], "a list of integers", _is_list_of(_is_count))
    if len(entry["agents"]) != len(entry["index"]):
        raise ConfigError(
            f"{where}.index: expected one of each of {len(entry['agents'])} agents, got {len(entry['index'])}"
        )
    _check(f"{where}.agent_id", entry["agent_id"], "true or false", _is_flag)
    _check_action(f"{where}.action", entry["action"])
    _check_keys(f"{where}.spaces", entry["spaces"], _SPACES_KEYS)
    shape, count = entry["spaces"]["observation_shape"], entry["spaces"]["num_actions"]
    _check(f"{where}.spaces.observation_shape", shape, "a list of sizes", _is_list_of(_is_count))
    _check(f"{where}.spaces.num_actions", count, "a number of actions or null", _or_null(_is_size))
    if count not in (None, entry["action"]["count"]):
        raise ConfigError(
            f"{where}.spaces.num_actions: expected the count of the actions or null, got {count}"
        )
    if entry["spaces"]["parts"] is not None:
        size = _checked_parts(f"{where}.spaces.parts", entry["spaces"]["parts"]).encoded_size
        if size != math.prod(shape):
            raise ConfigError(f"{where}.spaces.parts: expected {math.prod(shape)} numbers, got {size}")
    seen = math.prod(shape) + (len(entry["agents"]) if entry["agent_id"] else 0)
    key = kinds[0]
    check = _check_policy if key == POLICY else _check_world_model
    check(f"{where}.{key}", entry[key], seen, entry["action"])


def _check_action(where: str, action: Any) -> None:
    _check_keys(where, action, _ACTION_KEYS)
    _check(f"{where}.count", action["count"], "a number of actions or null", _or_null(_is_size))
    for key in ("low", "high"):
        _check(f"{where}.{key}", action[key], "a list of numbers", _is_list_of(_is_number))
    _check(f"{where}.rescaled", action["rescaled"], "true or false", _is_flag)
    bounds = len(action["low"])
    width = bounds
    if action["parts"] is not None:
        parts = _checked_parts(f"{where}.parts", action["parts"])
        width += len(parts.factors)
        if sum(part.size for part in parts.parts) != width:
            raise ConfigError(f"{where}.parts: expected {bounds} real numbers, as in low")
    if len(action["high"]) != bounds or (action["count"] is None) != (width > 0):
        raise ConfigError(f"{where}: expected a count, or as many bounds below as above")


def _checked_parts(where: str, values: Any) -> SpaceParts:
    """Return the parts of a space, which must be some, of sizes that fit their shapes."""
    _check(where, values, "a list of parts", lambda value: isinstance(value, list) and value)
    checks: _Checks = {
        "path": ("a list of keys", _is_list_of(lambda key: isinstance(key, str) or _is_count(key))),
        "shape": ("a list of sizes", _is_list_of(_is_size)),
        "sizes": ("a list of sizes", _is_list_of(_is_size)),
        "starts": ("a list of integers", _is_list_of(lambda start: type(start) is int)),
        "scale": ("a number above 0", lambda value: _is_number(value) and value > 0),
    }
    for place, one in enumerate(values):
        _check_spec(f"{where}[{place}]", one, Part, checks)
        sizes, starts = one.get("sizes", []), one.get("starts", [])
        if len(starts) != len(sizes) or len(sizes) not in (0, math.prod(one["shape"])):
            raise ConfigError(
                f"{where}[{place}].sizes: expected one of each of {math.prod(one['shape'])} numbers"
            )
        if len(values) > 1 and not one["path"]:
            raise ConfigError(f"{where}[{place}].path: expected a key")
    parts = SpaceParts.from_list(values)
    if sum(part.size for part in parts.parts) > _MAX_NUMBER or parts.encoded_size > _MAX_NUMBER:
        raise ConfigError(f"{where}: expected at most {_MAX_NUMBER:,} numbers")
    return parts


def _check_policy(where: str, spec: Any, seen: int, action: Mapping[str, Any]) -> None:
    """Check a `PolicySpec`; the network's settings are checked for their sizes alone."""
    checks: _Checks = {
        "observation_shape": ("a list of sizes", _is_list_of(_is_count)),
        "distribution": (f"one of {', '.join(DISTRIBUTIONS)}", lambda value: value in DISTRIBUTIONS),
        "num_actions": ("a number of actions", _is_count if _is_product(spec) else _is_size),
        "bandwidth": ("an integer of at least 0", _is_count),
        "signature": ("an integer of at least 0", _is_count),
        "binary_messages": ("true or false", _is_flag),
        "gated": ("true or false", _is_flag),
        "dueling": ("true or false", _is_flag),
        "small_outputs": ("true or false", _is_flag),
        "has_action_mask": ("true or false", _is_flag),
        "network": ("a mapping", _is_mapping),
        "factors": ("a list of sizes", _is_list_of(_is_size)),
    }
    _check_spec(where, spec, PolicySpec, checks)
    if math.prod(spec["observation_shape"]) != seen:
        raise ConfigError(
            f"{where}.observation_shape: expected {seen} numbers, got {spec['observation_shape']}"
        )
    if (spec["distribution"] in DISCRETE) != (action["count"] is not None):
        kind = "discrete" if spec["distribution"] in DISCRETE else "continuous"
        raise ConfigError(
            f"{where}.distribution: {spec['distribution']} is of {kind} actions, action.count is {action['count']}"
        )
    parts = action["parts"]
    factors = [] if parts is None else list(SpaceParts.from_list(parts).factors)
    if spec.get("factors", []) != factors or (spec["distribution"] == PRODUCT) != bool(factors):
        raise ConfigError(
            f"{where}.factors: expected {factors}, as in action.parts, with the distribution {PRODUCT} where there are "
            f"some, got {_shown(spec.get('factors', []))} and {spec['distribution']}"
        )
    _check_num_actions(where, spec["num_actions"], action)
    _check_sizes(f"{where}.network", spec.get("network", {}))


def _is_product(spec: Any) -> bool:
    """Whether a specification says that its distribution is a product, whose Gaussian factors may be none."""
    return isinstance(spec, Mapping) and spec.get("distribution") == PRODUCT


def _check_world_model(where: str, spec: Any, seen: int, action: Mapping[str, Any]) -> None:
    """Check a `WorldModelSpec`; settings of the model and of what acts by it are checked for their sizes alone."""
    checks: _Checks = {
        "obs_size": ("a number of numbers", _is_count),
        "num_actions": ("a number of actions", _is_size),
        "is_discrete": ("true or false", _is_flag),
        "world_model": ("a mapping", _is_mapping),
        "behaviour": (" or ".join(BEHAVIOURS), lambda value: value in BEHAVIOURS),
        "planner": ("a mapping", _is_mapping),
        "gamma": ("a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1),
        "network": ("a mapping", _is_mapping),
        "is_factored": ("true or false", _is_flag),
    }
    _check_spec(where, spec, WorldModelSpec, checks)
    if spec["obs_size"] != seen:
        raise ConfigError(f"{where}.obs_size: expected {seen} numbers, got {spec['obs_size']}")
    if spec["is_discrete"] != (action["count"] is not None):
        raise ConfigError(
            f"{where}.is_discrete: expected whether action has a count, got {spec['is_discrete']}"
        )
    _check_num_actions(where, spec["num_actions"], action)
    for key in ("world_model", "planner", "network"):
        _check_sizes(f"{where}.{key}", spec.get(key, {}))
    planner = spec.get("planner", {})
    sizes = [planner[key] for key in ("candidates", "horizon", "iterations") if _is_count(planner.get(key))]
    if math.prod([*sizes, spec["num_actions"]]) > _MAX_NUMBER:
        raise ConfigError(
            f"{where}.planner: expected plans of at most {_MAX_NUMBER:,} numbers, got {_shown(sizes)}"
        )


def _check_num_actions(where: str, given: int, action: Mapping[str, Any]) -> None:
    expected = len(action["low"]) if action["count"] is None else action["count"]
    if given != expected:
        raise ConfigError(f"{where}.num_actions: expected {expected}, as in action, got {given}")


def _check_sizes(where: str, settings: Any) -> None:
    """Refuse integers and lists that no network has; seeds may be of any size."""
    for key, value in settings.items() if isinstance(settings, Mapping) else enumerate(settings):
        place = f"{where}.{key}"
        if isinstance(value, int) and not str(key).endswith("seed") and not 0 <= value <= _MAX_NUMBER:
            raise ConfigError(f"{place}: expected a number from 0 to {_MAX_NUMBER:,}, got {_shown(value)}")
        if isinstance(value, list) and len(value) > _MAX_LAYERS:
            raise ConfigError(f"{place}: expected at most {_MAX_LAYERS} entries, got {len(value)}")
        if isinstance(value, list | Mapping):
            _check_sizes(place, value)


def _check_spec(where: str, values: Any, kind: Any, checks: _Checks) -> None:
    """Refuse what is no mapping of the fields of a specification; those with a default may be left out."""
    fields = dataclasses.fields(kind)
    required = [
        one.name
        for one in fields
        if one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
    ]
    _check_keys(where, values, [one.name for one in fields], required)
    for key, value in values.items():
        _check(f"{where}.{key}", value, *checks[key])


def _check_keys(where: str, values: Any, keys: Sequence[str], required: Sequence[str] | None = None) -> None:
    """Refuse what is no mapping of these keys; all are required unless it is said which."""
    _check(where, values, "a mapping", _is_mapping)
    check_keys(where, values, keys)
    for key in keys if required is None else required:
        if key not in values:
            raise ConfigError(f"{where}.{key}: missing")


def _check(where: str, value: Any, allowed: str, fits: Callable[[Any], Any]) -> None:
    if not fits(value):
        raise ConfigError(f"{where}: expected {allowed}, got {_shown(value)}")


def _check_depth(values: Any, left: int) -> None:
    if not left:
        raise ConfigError("policy.json: nested too deep")
    for value in values.values() if isinstance(values, dict) else values if isinstance(values, list) else ():
        _check_depth(value, left - 1)


def _shown(value: Any) -> str:
    """Return the beginning of a value as text."""
    try:
        return repr(value)[:60]
    except ValueError:  # an integer of thousands of digits
        return "a number of thousands of digits"


def _constant(text: str) -> float:
    if text == "NaN":
        raise ValueError("NaN is no number")
    return float(text)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key stands there twice")
    return values


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_NUMBER


def _is_size(value: Any) -> bool:
    return _is_count(value) and value >= 1


def _is_agent(value: Any) -> bool:
    return value is None or (isinstance(value, str | int) and not isinstance(value, bool))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and not set(value) & set("/\\\0")


def _is_list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(fits, value))


def _or_null(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)
