"""Families of related environments: members that one policy network fits, for studies of heterogeneous tasks."""

from __future__ import annotations

import dataclasses
import functools
import numbers
from collections.abc import Mapping
from importlib import resources
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from qio_envs.api.config import ConfigError, check_keys, did_you_mean
from qio_envs.registry import environment

MAX_COUNT = 10_000
"""Members of a family at most."""
_DECIMALS = 6  # of a number within a spread
_KEYS = ("summary", "env", "env_config", "members", "spread", "count")


@dataclasses.dataclass(frozen=True)
class FamilyMember:
    """One environment of a family.

    Attributes:
        label: Name, unique in the family.
        env: Id of the environment.
        env_config: What its builders and RLlib's ``env_config`` take: settings, ``scenario``, ``as_team``.
    """

    label: str
    env: str
    env_config: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Family:
    """Related environments, one for each client of a federation, say: one policy network fits all members.

    ``qio_envs.family(name, count)`` returns the members, each with ``label``, ``env`` (an id) and ``env_config``, and
    ``qio_envs.families()`` all families by name. They stand in families.yaml of the package.

    Members are environments of one id. Their observations have the same shape and type, their action spaces are equal,
    and all or none have action masks; all this is checked. Bounds of observations may differ: they say what can occur
    with a member's settings. So may the number of agents, and the global state of a central critic.

    The members are a list by label, or one setting goes from a lowest to a highest number in even steps: a spread. A
    spread is divided into as many members as asked for; one alone has the number in the middle. A list is cut off, or
    begins again where it is too short: of 1,000 clients 167 have the first of six forests, with the labels ``small``,
    ``small_2``, ``small_3`` and so on. At most 10,000 members.

    Attributes:
        name: Name.
        summary: One sentence on what it is.
        env: Id of the environment.
        env_config: Settings that all members have in common.
        listed: What each member has of its own, by label; empty for a spread.
        spread: The setting with its lowest and its highest number; None for a list.
        count: Members if no other number is asked for.
    """

    name: str
    summary: str
    env: str
    env_config: Mapping[str, Any]
    listed: Mapping[str, Mapping[str, Any]]
    spread: tuple[str, float, float] | None
    count: int

    @classmethod
    def from_mapping(cls, name: str, values: Mapping[str, Any]) -> Family:
        """Return the family of an entry as in ``families.yaml``.

        Args:
            name: Name.
            values: ``summary``, ``env``, optionally ``env_config``, and either ``members`` (settings by label) or
                ``spread`` (a setting with two numbers) and ``count``.

        Raises:
            ConfigError: A key is unknown or absent, a value does not fit, or the environment is unknown. Settings are
                looked at by `members`.
        """
        where = f"family {name}"
        check_keys(where, values, _KEYS)
        listed = "members" in values
        if listed == ("spread" in values):
            raise ConfigError(
                f"{where}: expected either members or spread, got {', '.join(values) or 'nothing'}"
            )
        for key in ("summary", "env"):
            if not isinstance(values.get(key), str):
                raise ConfigError(f"{where}.{key}: expected a text, got {values.get(key)!r}")
        if listed and "count" in values:
            raise ConfigError(
                f"{where}.count: a list of members has its own length; allowed with spread only"
            )
        try:
            environment(values["env"])
        except ConfigError as error:
            raise ConfigError(f"{where}.env: {error}") from None
        common = values.get("env_config", {})
        members = _listed(where, values["members"]) if listed else {}
        return cls(
            name=name,
            summary=values["summary"],
            env=values["env"],
            env_config=_mapping(f"{where}.env_config", common),
            listed=members,
            spread=None if listed else _spread(where, values["spread"]),
            count=len(members) if listed else _checked_count(f"{where}.count", values.get("count")),
        )

    def members(self, count: int | None = None) -> tuple[FamilyMember, ...]:
        """Return the members; their settings are the caller's own.

        Args:
            count: How many, 1 to `MAX_COUNT`; None for the family's own number.

        Raises:
            ConfigError: Another ``count``; or, with the member named: a setting that is unknown or does not fit, spaces
                that differ from the first member's, a label that occurs twice.
        """
        wanted = self.count if count is None else _checked_count("count", count)
        distinct = self._spread_out(*self.spread, wanted) if self.spread else self._as_listed()[:wanted]
        self._check(distinct)
        turns = -(-wanted // len(distinct))
        found = [
            dataclasses.replace(
                member,
                label=f"{member.label}_{turn + 1}" if turn else member.label,
                env_config=dict(member.env_config),
            )
            for turn in range(turns)
            for member in distinct
        ][:wanted]
        labels = set()
        for member in found:
            if member.label in labels:
                raise ConfigError(f"family {self.name}: the label '{member.label}' occurs twice")
            labels.add(member.label)
        return tuple(found)

    def described(self) -> str:
        """Return the members' labels, or the ends of the spread, as text."""
        if self.spread is None:
            return ", ".join(self.listed)
        setting, low, high = self.spread
        return f"{setting} from {low:g} to {high:g}"

    def _as_listed(self) -> list[FamilyMember]:
        return [
            FamilyMember(label, self.env, {**self.env_config, **own}) for label, own in self.listed.items()
        ]

    def _spread_out(self, setting: str, low: float, high: float, count: int) -> list[FamilyMember]:
        values = np.linspace(low, high, count) if count > 1 else np.array([(low + high) / 2])
        return [
            FamilyMember(f"{setting}_{value}", self.env, {**self.env_config, setting: value})
            for value in np.round(values, _DECIMALS).tolist()
        ]

    def _check(self, members: list[FamilyMember]) -> None:
        """Refuse settings that cannot be, and spaces that differ."""
        made = environment(self.env)
        known = ("scenario", "as_team", *made.batched_class.config_class.allowed_keys())
        first: dict[str, Any] = {}
        for member in members:
            where = f"family {self.name}, member {member.label}"
            check_keys(where, member.env_config, known)
            try:
                env = made.batched_env(1, **member.env_config)
            except ConfigError as error:
                raise ConfigError(f"{where}: {error}") from None
            space = env.observation_space
            found = {
                "observation_space": f"{space.dtype} of shape {space.shape}",
                "action_space": env.action_space,
                "action mask": env.has_action_mask,
            }
            first = first or found
            for key, value in found.items():
                if value != first[key]:
                    raise ConfigError(
                        f"{where}: {key}: expected that of member {members[0].label}, {first[key]}, got {value}"
                    )


def families() -> dict[str, Family]:
    """Return every family of ``families.yaml`` by name."""
    return dict(_read_families())


def family(name: str, count: int | None = None) -> tuple[FamilyMember, ...]:
    """Return the members of a family; see `Family.members`.

    Args:
        name: Name of the family.
        count: How many members; None for the family's own number.

    Raises:
        ConfigError: There is no family of that name, or no such number of members.
    """
    known = _read_families()
    if name not in known:
        raise ConfigError(f"unknown family '{name}'{did_you_mean(name, known)}; allowed: {', '.join(known)}")
    return known[name].members(count)


@functools.cache
def _read_families() -> dict[str, Family]:
    text = (resources.files("qio_envs") / "families.yaml").read_text(encoding="utf-8")
    entries = YAML(typ="safe", pure=True).load(text)
    return {name: Family.from_mapping(name, values) for name, values in entries.items()}


def _mapping(where: str, values: Any) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: expected a mapping of settings, got {values!r}")
    return dict(values)


def _listed(where: str, members: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(members, Mapping) or not members:
        raise ConfigError(f"{where}.members: expected a mapping of settings by label, got {members!r}")
    return {str(label): _mapping(f"{where}.members.{label}", own) for label, own in members.items()}


def _spread(where: str, spread: Any) -> tuple[str, float, float]:
    if isinstance(spread, Mapping) and len(spread) == 1:
        ((setting, ends),) = spread.items()
        if (
            isinstance(ends, list | tuple)
            and len(ends) == 2
            and all(isinstance(end, numbers.Real) and not isinstance(end, bool) for end in ends)
            and ends[0] < ends[1]
        ):
            return str(setting), float(ends[0]), float(ends[1])
    raise ConfigError(
        f"{where}.spread: expected one setting with its lowest and its highest number, as in pole_length: [0.1, 0.9], "
        f"got {spread!r}"
    )


def _checked_count(where: str, count: Any) -> int:
    if not isinstance(count, int | np.integer) or isinstance(count, bool) or not 1 <= count <= MAX_COUNT:
        raise ConfigError(f"{where}: expected an integer from 1 to {MAX_COUNT}, got {count!r}")
    return int(count)
