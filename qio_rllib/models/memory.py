"""Recurrent cells: one step for acting, whole sequences for learning."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from qio_envs.api import ConfigError


class Memory(nn.Module):
    """An LSTM (Hochreiter and Schmidhuber, 1997) or a GRU (Cho et al., 2014) with its state in one row.

    Args:
        kind: "lstm" or "gru".
        inputs: Numbers in the features.
        size: Numbers in the output.

    Attributes:
        state_size: Numbers in a state: ``2 size`` for an LSTM (output, cell), ``size`` for a GRU.
    """

    def __init__(self, kind: str, inputs: int, size: int) -> None:
        super().__init__()
        self.kind, self.size = kind, size
        self.cell = nn.LSTM(inputs, size) if kind == "lstm" else nn.GRU(inputs, size)
        self.state_size = 2 * size if kind == "lstm" else size

    @classmethod
    def of(cls, model_config: Mapping[str, Any], inputs: int) -> Memory | None:
        """Return the memory that ``model_config`` asks for, or None.

        Args:
            model_config: ``use_lstm`` and ``lstm_cell_size`` (RLlib's keys), or ``use_gru`` and ``gru_cell_size``.
            inputs: Numbers in the features.

        Raises:
            ConfigError: Both are asked for.
        """
        kind = memory_kind(model_config)
        if kind is None:
            return None
        return cls(kind, inputs, int(model_config.get(f"{kind}_cell_size", 256)))

    def forward(self, features: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Advance one step: features ``[B, F]``, state ``[B, S]``; return outputs ``[B, size]`` and the next state."""
        found, state = self._run(features.unsqueeze(0), state)
        return found.squeeze(0), state

    def unroll(
        self, features: torch.Tensor, state: torch.Tensor, fresh: torch.Tensor
    ) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
        """Advance through sequences.

        Args:
            features: ``[T, B, F]``.
            state: Before the first step, ``[B, S]``.
            fresh: Rows whose state is put back to zeros before a step, bool ``[T, B]``.

        Returns:
            Outputs ``[T, B, size]``, and the state ``[B, S]`` after the last step of each stretch without a fresh row,
            by step; the last step is always among them.
        """
        steps = len(features)
        starts = [0, *(1 + fresh[1:].any(dim=1).nonzero().squeeze(-1)).tolist()] if steps > 1 else [0]
        outputs, states = [], {}
        for begin, end in itertools.pairwise([*starts, steps]):
            state = state.masked_fill(fresh[begin].unsqueeze(-1), 0.0)
            found, state = self._run(features[begin:end], state)
            outputs.append(found)
            states[end - 1] = state
        return torch.cat(outputs), states

    def burnt_in(
        self, features: torch.Tensor, state: torch.Tensor, fresh: torch.Tensor, burn_in: int
    ) -> torch.Tensor:
        """Advance as `unroll` does, with no gradient through the first ``burn_in`` steps; return the outputs."""
        if not burn_in:
            return self.unroll(features, state, fresh)[0]
        with torch.no_grad():
            early, states = self.unroll(features[:burn_in], state, fresh[:burn_in])
        late, _ = self.unroll(features[burn_in:], states[burn_in - 1], fresh[burn_in:])
        return torch.cat([early, late])

    def unroll_states(self, features: torch.Tensor, state: torch.Tensor, fresh: torch.Tensor) -> torch.Tensor:
        """Advance as `unroll` does; return the state after every step, ``[T, B, S]``."""
        states = []
        for row, new in zip(features, fresh, strict=True):
            _, state = self._run(row.unsqueeze(0), state.masked_fill(new.unsqueeze(-1), 0.0))
            states.append(state)
        return torch.stack(states)

    def _run(self, features: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.kind == "gru":
            found, hidden = self.cell(features, state.unsqueeze(0))
            return found, hidden.squeeze(0)
        hidden, cell = (part.contiguous().unsqueeze(0) for part in state.chunk(2, dim=-1))
        found, (hidden, cell) = self.cell(features, (hidden, cell))
        return found, torch.cat([hidden, cell], dim=-1).squeeze(0)


def memory_kind(model_config: Mapping[str, Any]) -> str | None:
    """Return "lstm", "gru" or None.

    Raises:
        ConfigError: Both are asked for.
    """
    wanted = [kind for kind in ("lstm", "gru") if model_config.get(f"use_{kind}")]
    if len(wanted) > 1:
        raise ConfigError("model_config: use_lstm and use_gru exclude each other")
    return wanted[0] if wanted else None
