"""Numba kernels of the swarm; each loops over the copies of a batch.

All arithmetic is in float32, the type of the state: an agent so observes exactly what the state holds. The NumPy
error model spares the check before each division; no divisor here can be zero.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from qio_envs.api import Array
from qio_envs.api.random import normals, uniform

START, TARGET, PROCESS, OBSERVATION = 0, 1, 2, 3  # streams of random numbers
TASKS = ("cooperative", "competitive", "mixed")
TIME_STEP = 0.1
DAMPING = 0.9
ACCELERATIONS = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]], np.float32)
"""What the discrete actions stay, +x, -x, +y, -y are as continuous ones, ``[5, 2]``."""
SUCCESS_DISTANCE = 0.5
"""Distance to the target within which the cooperative task counts as solved, units of length."""

_COMPETITIVE, _MIXED = TASKS.index("competitive"), TASKS.index("mixed")
_DT, _DAMPING = np.float32(TIME_STEP), np.float32(DAMPING)
_ONE, _TWO = np.float32(1.0), np.float32(2.0)
_TWO_PI = np.float32(2 * np.pi)
_SPREAD_COST = np.float32(0.05)  # cooperative: per unit of distance to another agent
_LOSS = np.float32(-0.1)  # competitive: of whoever is not the nearest
_MATE_COST = np.float32(0.1)  # mixed: per unit of distance to a team mate
_CONTACT = np.float32(0.05)  # mixed: per unit that an opponent is nearer than two units


@njit(cache=True, error_model="numpy")
def _in_disc(lane: int, episode: int, stream: int, seed: int) -> tuple[np.float32, np.float32]:
    """Return a point uniform in the unit disc, from lanes ``2 lane`` and ``2 lane + 1``."""
    radius = np.sqrt(uniform(2 * lane, 0, episode, stream, seed))
    angle = _TWO_PI * uniform(2 * lane + 1, 0, episode, stream, seed)
    return radius * np.cos(angle), radius * np.sin(angle)


@njit(cache=True, error_model="numpy")
def reset(
    mask: Array,
    seed: Array,
    episode: Array,
    spawn_radius: np.float32,
    target_spread: np.float32,
    body: Array,
    alive: Array,
    target: Array,
    rewards: Array,
    returns: Array,
    clipped: Array,
) -> None:
    """Place agents and target in the copies of ``mask``; every array is written anew."""
    copies, agents = alive.shape
    for e in range(copies):
        if not mask[e]:
            continue
        for n in range(agents):
            x, y = _in_disc(n, episode[e], START, seed[e])
            body[e, n, 0], body[e, n, 1] = spawn_radius * x, spawn_radius * y
            body[e, n, 2], body[e, n, 3] = 0, 0
            alive[e, n] = True
            rewards[e, n] = 0
            returns[e, n] = 0
        x, y = _in_disc(0, episode[e], TARGET, seed[e])
        target[e, 0], target[e, 1] = target_spread * x, target_spread * y
        clipped[e] = 0


@njit(cache=True, error_model="numpy", forceinline=True)
def _clip(value: np.float32) -> np.float32:
    return min(max(value, -_ONE), _ONE)


@njit(cache=True, error_model="numpy", forceinline=True)
def _distance(x: np.float32, y: np.float32) -> np.float32:
    return np.sqrt(x * x + y * y)


@njit(cache=True, error_model="numpy")
def step(
    actions: Array,
    seed: Array,
    episode: Array,
    steps: Array,
    running: Array,
    task: int,
    max_steps: int,
    out_radius: np.float32,
    process_noise: np.float32,
    exit_penalty: np.float32,
    held_steps: int,
    team: Array,
    body: Array,
    alive: Array,
    target: Array,
    rewards: Array,
    returns: Array,
    clipped: Array,
    given: Array,
    terminated: Array,
    truncated: Array,
) -> None:
    """Advance every copy by one step; ``given``, ``terminated`` and ``truncated`` (``[E, N]``) are written."""
    copies, agents = alive.shape
    noisy = process_noise > 0
    for e in range(copies):
        steps[e] += 1
        over = steps[e] >= max_steps
        held = steps[e] <= held_steps
        anybody = False
        for n in range(agents):
            terminated[e, n] = False
            truncated[e, n] = False
            if not alive[e, n]:
                continue
            ax, ay = actions[e, n, 0], actions[e, n, 1]
            clipped[e] += abs(ax) > _ONE or abs(ay) > _ONE
            if held:
                truncated[e, n] = over
                anybody = True
                continue
            vx = _DAMPING * (body[e, n, 2] + _DT * _clip(ax))
            vy = _DAMPING * (body[e, n, 3] + _DT * _clip(ay))
            if noisy:
                n0, n1, n2, n3 = normals(n, steps[e], episode[e], PROCESS, seed[e])
                vx += process_noise * n0
                vy += process_noise * n1
                x = body[e, n, 0] + _DT * vx + process_noise * n2
                y = body[e, n, 1] + _DT * vy + process_noise * n3
            else:
                x = body[e, n, 0] + _DT * vx
                y = body[e, n, 1] + _DT * vy
            body[e, n, 0], body[e, n, 1], body[e, n, 2], body[e, n, 3] = x, y, vx, vy
            out = _distance(x, y) > out_radius
            alive[e, n] = not out
            terminated[e, n] = out
            truncated[e, n] = over and not out
            anybody |= not out
        running[e] = anybody and not over
        for n in range(agents):
            rewards[e, n] = 0
        if task == _COMPETITIVE:
            _compete(body[e], alive[e], terminated[e], rewards[e])
        elif task == _MIXED:
            _mix(body[e], alive[e], terminated[e], team, rewards[e])
        else:
            _cooperate(body[e], alive[e], terminated[e], target[e], rewards[e])
        for n in range(agents):
            if terminated[e, n]:
                rewards[e, n] -= exit_penalty
            given[e, n] = rewards[e, n]
            returns[e, n] += rewards[e, n]


# Rewards of one copy's step go to those who acted in it: who lives, and who has just left (``left``). The others
# that count are those who live after the move.


@njit(cache=True, error_model="numpy", forceinline=True)
def _cooperate(body: Array, alive: Array, left: Array, target: Array, rewards: Array) -> None:
    agents = alive.shape[0]
    for n in range(agents):
        if not (alive[n] or left[n]):
            continue
        reward = -_distance(body[n, 0] - target[0], body[n, 1] - target[1])
        for j in range(agents):
            if j != n and alive[j]:
                reward -= _SPREAD_COST * _distance(body[n, 0] - body[j, 0], body[n, 1] - body[j, 1])
        rewards[n] = reward


@njit(cache=True, error_model="numpy", forceinline=True)
def _compete(body: Array, alive: Array, left: Array, rewards: Array) -> None:
    agents = alive.shape[0]
    nearest, least = -1, np.float32(np.inf)
    for n in range(agents):
        if alive[n]:
            distance = _distance(body[n, 0], body[n, 1])
            if distance < least:
                nearest, least = n, distance
        if alive[n] or left[n]:
            rewards[n] = _LOSS
    if nearest >= 0:
        rewards[nearest] = _ONE


@njit(cache=True, error_model="numpy", forceinline=True)
def _mix(body: Array, alive: Array, left: Array, team: Array, rewards: Array) -> None:
    agents = alive.shape[0]
    for n in range(agents):
        if not (alive[n] or left[n]):
            continue
        reward = np.float32(0)
        for j in range(agents):
            if j == n or not alive[j]:
                continue
            distance = _distance(body[n, 0] - body[j, 0], body[n, 1] - body[j, 1])
            if team[j] == team[n]:
                reward -= _MATE_COST * distance
            elif distance < _TWO:
                reward += _CONTACT * (_TWO - distance)
        rewards[n] = reward


@njit(cache=True, error_model="numpy")
def observe(
    seed: Array,
    episode: Array,
    steps: Array,
    observation_noise: np.float32,
    sensing_range: np.float32,
    informed: int,
    has_target: bool,
    cue_steps: int,
    others: Array,
    body: Array,
    target: Array,
    out: Array,
) -> None:
    """Write every agent's observation to ``out``, ``[E, N, D]``.

    The noise of relative position ``m`` (counted through the agents of a copy) is lanes ``2 m`` and ``2 m + 1``,
    so that two share a block of four normals.
    """
    copies, agents = body.shape[0], body.shape[1]
    noisy = observation_noise > 0
    reach = sensing_range * sensing_range
    n0 = n1 = n2 = n3 = np.float32(0)
    for e in range(copies):
        m = 0
        for n in range(agents):
            x, y = body[e, n, 0], body[e, n, 1]
            out[e, n, 0], out[e, n, 1] = x, y
            out[e, n, 2], out[e, n, 3] = body[e, n, 2], body[e, n, 3]
            for k in range(agents - 1):
                j = others[n, k]
                dx, dy = body[e, j, 0] - x, body[e, j, 1] - y
                if noisy:
                    if m & 1:
                        n0, n1 = n2, n3
                    else:
                        n0, n1, n2, n3 = normals(m >> 1, steps[e], episode[e], OBSERVATION, seed[e])
                    m += 1
                if dx * dx + dy * dy < reach:
                    out[e, n, 4 + 2 * k] = dx + observation_noise * n0
                    out[e, n, 5 + 2 * k] = dy + observation_noise * n1
                else:
                    out[e, n, 4 + 2 * k], out[e, n, 5 + 2 * k] = 0, 0
            if has_target:
                last = 2 + 2 * agents
                if n < informed and steps[e] < cue_steps:
                    out[e, n, last], out[e, n, last + 1] = target[e, 0] - x, target[e, 1] - y
                else:
                    out[e, n, last], out[e, n, last + 1] = 0, 0


@njit(cache=True, error_model="numpy")
def measure(
    task: int,
    first_team: int,
    body: Array,
    alive: Array,
    target: Array,
    rewards: Array,
    returns: Array,
    coordination: Array,
    success: Array,
    distance: Array,
    mean_distance: Array,
    exits: Array,
    team_reward: Array,
    team_return: Array,
    total_return: Array,
) -> None:
    """Write the metrics of the episodes so far; see `Swarm` for what each means."""
    copies, agents = alive.shape
    for e in range(copies):
        living, sum_x, sum_y, sum_distance, farthest = 0, 0.0, 0.0, 0.0, np.float32(0)
        for n in range(agents):
            from_target = _distance(body[e, n, 0] - target[e, 0], body[e, n, 1] - target[e, 1])
            distance[e, n] = from_target
            sum_distance += from_target
            farthest = max(farthest, from_target)
            if alive[e, n]:
                living += 1
                sum_x += body[e, n, 0]
                sum_y += body[e, n, 1]
        mean_distance[e] = sum_distance / agents
        exits[e] = agents - living
        coordination[e] = 0
        if living > 1:
            total, squares = 0.0, 0.0
            for n in range(agents):
                if alive[e, n]:
                    dx, dy = body[e, n, 0] - sum_x / living, body[e, n, 1] - sum_y / living
                    squares += dx * dx + dy * dy
                    total += np.sqrt(dx * dx + dy * dy)
            coordination[e] = max(squares / living - (total / living) ** 2, 0.0)
        ours, reward, theirs, best = 0.0, 0.0, 0.0, -np.inf
        for n in range(agents):
            if n < first_team:
                ours += returns[e, n]
                reward += rewards[e, n]
            else:
                theirs += returns[e, n]
                best = max(best, returns[e, n])
        team_reward[e], team_return[e], total_return[e] = reward, ours, ours + theirs
        if task == _COMPETITIVE:
            success[e] = ours > best
        elif task == _MIXED:
            success[e] = ours / first_team > theirs / (agents - first_team)
        else:
            success[e] = living == agents and farthest <= SUCCESS_DISTANCE
