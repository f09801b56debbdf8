"""`Client`: who takes part in a federation, and in which environment each one lives."""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from qio_envs import FamilyMember, family
from qio_envs.api import ConfigError, check_keys

_ENTRY = ("env", "env_config", "count", "label")


@dataclasses.dataclass(frozen=True)
class Client:
    """A client.

    Attributes:
        index: Its place among all clients, from 0.
        label: Name in metrics; no two clients have the same.
        env: Id of its environment.
        env_config: Settings of it.
    """

    index: int
    label: str
    env: str
    env_config: Mapping[str, Any]

    @property
    def environment_key(self) -> str:
        """The same for clients whose environments are the same."""
        return f"{self.env} {sorted(self.env_config.items())}"


def clients_of(given: Any, env: str, env_config: Mapping[str, Any]) -> tuple[Client, ...]:
    """Return the clients that a setting describes.

    Args:
        given: Name of a family of environments (`qio_envs.family`); ``{"family": name, "count": clients}``; or a list
            of ``{"env": id, "env_config": {...}, "count": clients, "label": name}``, in which everything can be left
            out: ``env_config`` goes on top of the experiment's where the environment is the same.
        env: The experiment's environment.
        env_config: Settings of it.

    Raises:
        ConfigError: An unknown family, key, or a value that is not allowed; the message names it.
    """
    if isinstance(given, str):
        given = {"family": given}
    if isinstance(given, Mapping):
        check_keys("clients", given, ("family", "count"))
        if "family" not in given:
            raise ConfigError("clients.family: missing; expected the name of a family, or a list of clients")
        count = given.get("count")
        if count is not None:
            _check_count("clients.count", count)
        members = _members(given["family"], count)
        found = [(one.label, one.env, one.env_config) for one in members]
    elif isinstance(given, Sequence) and given:
        found = [one for place, entry in enumerate(given) for one in _entry(place, entry, env, env_config)]
    else:
        raise ConfigError(f"clients: expected the name of a family or a list of clients, got {given!r}")
    for label, times in collections.Counter(label for label, _, _ in found).items():
        if times > 1:
            raise ConfigError(
                f"clients.label: '{label}' stands for {times} clients; expected different labels"
            )
    return tuple(Client(index, *one) for index, one in enumerate(found))


@functools.lru_cache(maxsize=8)
def _members(name: Any, count: int | None) -> tuple[FamilyMember, ...]:
    """Return the members of a family, whose check takes a second for thousands."""
    try:
        return family(name, count)
    except ConfigError as error:
        raise ConfigError(f"clients.family: {error}") from error


def _entry(place: int, entry: Any, env: str, env_config: Mapping[str, Any]) -> list[tuple[str, str, dict]]:
    where = f"clients[{place}]"
    check_keys(where, entry, _ENTRY)
    count = entry.get("count", 1)
    _check_count(f"{where}.count", count)
    own_env, own_config = entry.get("env", env), entry.get("env_config") or {}
    if not isinstance(own_env, str) or not isinstance(own_config, Mapping):
        raise ConfigError(f"{where}: expected the name of an environment, and a mapping of its settings")
    settings = {**(env_config if own_env == env else {}), **own_config}
    label = str(entry.get("label", f"client_{place}"))
    names = [label] if count == 1 else [f"{label}_{number}" for number in range(count)]
    return [(name, own_env, settings) for name in names]


def _check_count(where: str, count: Any) -> None:
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ConfigError(f"{where}: expected an integer of at least 1, got {count!r}")
