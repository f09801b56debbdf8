"""An exchange by radio: every UAV sends its belief map and position to those in range."""

from __future__ import annotations

import numpy as np
from numba import njit

from qio_envs.api import Array
from qio_envs.api.random import uniform
from qio_envs.forest_uav.config import COARSE
from qio_envs.forest_uav.state import ForestRules, ForestState

RADIO = 3  # stream of random numbers


@njit(cache=True, error_model="numpy")
def exchange(e: int, state: ForestState, rules: ForestRules) -> None:
    """All UAVs of environment ``e`` send at once; what is received changes nothing of what is being sent."""
    position, belief, coarse, messages = state.position, state.belief, state.coarse, state.messages
    heard_block, heard_step = state.heard_block, state.heard_step
    block_of_row, block_of_column = rules.block_of_row, rules.block_of_column
    comm_range, comm_loss, radius, columns = (
        rules.comm_range,
        rules.comm_loss,
        rules.radius,
        state.occupancy.shape[2],
    )
    clock, episode, seed = state.step[e], state.episode[e], state.seed[e]
    agents = position.shape[1]
    sent = belief[e].copy()
    received = belief[e].view(np.uint64).reshape(agents, -1)
    words = sent.view(np.uint64).reshape(agents, -1)
    block = np.empty(agents, np.int8)
    for n in range(agents):
        block[n] = block_of_row[position[e, n, 0]] * COARSE + block_of_column[position[e, n, 1]]
    if comm_range == np.inf and comm_loss == 0:  # everybody hears everybody: one joint map for all
        for n in range(1, agents):
            _join(received[0], words[n])
        _recount(radius, columns, belief[e, 0], sent[0], coarse[e, 0], block_of_row, block_of_column)
        for n in range(agents):
            for k in range(received.shape[1]):
                received[n, k] = received[0, k]
            for k in range(coarse.shape[2]):
                coarse[e, n, k] = coarse[e, 0, k]
            for other in range(agents):
                if other != n:
                    heard_block[e, n, other] = block[other]
                    heard_step[e, n, other] = clock
        messages[e] += agents * (agents - 1)
        return
    for n in range(agents):
        for other in range(agents):
            if other == n:
                continue
            down = position[e, n, 0] - position[e, other, 0]
            right = position[e, n, 1] - position[e, other, 1]
            if down * down + right * right > comm_range * comm_range:
                continue
            messages[e] += 1
            if comm_loss > 0 and uniform(other * agents + n, clock, episode, RADIO, seed) < comm_loss:
                continue
            heard_block[e, n, other] = block[other]
            heard_step[e, n, other] = clock
            _join(received[n], words[other])
        _recount(radius, columns, belief[e, n], sent[n], coarse[e, n], block_of_row, block_of_column)


@njit(cache=True, error_model="numpy")
def _join(mine: Array, theirs: Array) -> None:
    """Believe unmonitored only what both do."""
    for k in range(mine.shape[0]):
        mine[k] &= theirs[k]


@njit(cache=True, error_model="numpy")
def _recount(
    radius: int,
    columns: int,
    belief: Array,
    before: Array,
    coarse: Array,
    block_of_row: Array,
    block_of_column: Array,
) -> None:
    """Take the cells in which a belief has changed off the coarse counts."""
    words, words_before = belief.view(np.uint64), before.view(np.uint64)
    for k in range(words.shape[0]):
        if words[k] != words_before[k]:
            # Beyond the map nothing is ever believed unmonitored, so that only cells of the map differ.
            for byte in range(8 * k, 8 * k + 8):
                changed = belief[byte] ^ before[byte]
                cell = 8 * byte
                while changed:
                    if changed & 1:
                        row, column = cell // columns - radius, cell % columns - radius
                        coarse[block_of_row[row] * COARSE + block_of_column[column]] -= 1
                    changed >>= 1
                    cell += 1
