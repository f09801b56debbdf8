"""`StepVariables`: the variables of a time step by name or place, and what they may be set to (torch)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import gymnasium
import numpy as np
import torch

from qio_envs.api import AFTER, ConfigError, InterventionError, did_you_mean
from qio_envs.api.causal import InterventionSpaces
from qio_rllib.causal.datasets import REWARD
from qio_rllib.causal.moments import DataError

Rows = torch.Tensor | np.ndarray
"""Numbers ``[n, ...]``; they are used as float32."""

Intervention = Mapping[str | int, float | Rows]
"""From a variable, by name or by its place in `StepVariables.names`, to what it is set to: one number or ``[n]``."""


@dataclasses.dataclass(frozen=True)
class StepVariables:
    """Names and spaces of a state, actions, the next state and the reward.

    Attributes:
        state: ``D`` names.
        actions: ``A`` names.
        spaces: By name what a variable may be set to; one that is missing may be set to any finite number.

    Raises:
        ConfigError: A name that is given twice.
    """

    state: tuple[str, ...]
    actions: tuple[str, ...]
    spaces: InterventionSpaces = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse names that are given twice."""
        for name in self.names:
            if self.names.count(name) > 1:
                raise ConfigError(f"names: {name} is given twice")

    @property
    def inputs(self) -> tuple[str, ...]:
        """What is there before the step: state and actions."""
        return (*self.state, *self.actions)

    @property
    def targets(self) -> tuple[str, ...]:
        """What follows: the next state and the reward."""
        return (*(name + AFTER for name in self.state), REWARD)

    @property
    def names(self) -> tuple[str, ...]:
        """Inputs, then targets."""
        return (*self.inputs, *self.targets)

    def rows(self, what: str, given: Rows, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
        """Return numbers as float32.

        Raises:
            DataError: Another shape, or numbers that are not finite; the message begins with ``what``.
        """
        rows = torch.as_tensor(given, dtype=torch.float32, device=device)
        if rows.shape != shape:
            raise DataError(f"{what}: expected the shape {shape}, got {tuple(rows.shape)}")
        if not bool(rows.isfinite().all()):
            raise DataError(f"{what}: holds numbers that are not finite")
        return rows

    def set(self, inputs: torch.Tensor, do: Intervention) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
        """Return the inputs ``[n, D + A]`` after an intervention, and the targets that it sets.

        Returns:
            The inputs, and from the place of a target among the targets to its values ``[n]``.

        Raises:
            ConfigError: An unknown variable, or one that is set twice.
            InterventionError: A value outside its space or of the wrong shape.
        """
        columns, fixed, seen = list(inputs.unbind(1)), {}, set()
        for variable, value in do.items():
            place = self.place(variable)
            if place in seen:
                raise ConfigError(f"do: {self.names[place]} is set twice, by its name and by its place")
            seen.add(place)
            values = self._values(self.names[place], value, len(inputs), inputs.device)
            if place < len(columns):
                columns[place] = values
            else:
                fixed[place - len(columns)] = values
        return torch.stack(columns, dim=1), fixed

    def place(self, variable: str | int) -> int:
        """Return the place of a variable in `names`.

        Raises:
            ConfigError: There is none of that name or place.
        """
        hint = ""
        if isinstance(variable, str):
            if variable in self.names:
                return self.names.index(variable)
            hint = did_you_mean(variable, self.names)
        elif not isinstance(variable, bool) and 0 <= variable < len(self.names):
            return int(variable)
        raise ConfigError(f"do: there is no variable {variable!r}{hint}; there are {', '.join(self.names)}")

    def _values(self, name: str, value: float | Rows, count: int, device: torch.device) -> torch.Tensor:
        values = torch.as_tensor(value, dtype=torch.float32, device=device)
        if values.shape not in ((), (count,)):
            raise InterventionError(
                f"do: expected one number or {count} for {name}, got the shape {tuple(values.shape)}"
            )
        space = self.spaces.get(name)
        if space is None:
            fits, allowed = values.isfinite(), "finite numbers"
        elif isinstance(space, gymnasium.spaces.Discrete):
            fits = torch.isin(values, torch.arange(int(space.n), dtype=torch.float32, device=device))
            allowed = f"integers from 0 to {int(space.n) - 1}"
        else:
            low, high = space.low.item(), space.high.item()
            fits, allowed = (values >= low) & (values <= high), f"numbers from {low:g} to {high:g}"
        if not bool(fits.all()):
            wrong = values[~fits].flatten()[0].item()
            raise InterventionError(
                f"an intervention outside the space: {name}: expected {allowed}, got {wrong:g}"
            )
        return values.expand(count)
