"""Numba kernels of the swarm; each loops over the environments of a batch.

All arithmetic is in float32, the type of the state: an agent so observes exactly what the state holds. The NumPy
error model spares the check before each division; no divisor here can be zero.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from qio_envs.api import Array
from qio_envs.api.random import uniform
from qio_envs.api.random_lanes import fill_normals
from qio_envs.swarm.config import SUCCESS_DISTANCE, TASKS
from qio_envs.swarm.state import TRAIL, SwarmMetrics, SwarmRules, SwarmSight, SwarmState

_ROWS = 64  # environments whose noise is drawn at once

START, TARGET, PROCESS, OBSERVATION, VELOCITY = 0, 1, 2, 3, 4  # streams of random numbers

_COMPETITIVE, _MIXED = TASKS.index("competitive"), TASKS.index("mixed")
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
def _in_square(lane: int, episode: int, stream: int, seed: int) -> tuple[np.float32, np.float32]:
    """Return a point uniform in [-1, 1)^2, from lanes ``2 lane`` and ``2 lane + 1``."""
    x, y = uniform(2 * lane, 0, episode, stream, seed), uniform(2 * lane + 1, 0, episode, stream, seed)
    return _TWO * x - _ONE, _TWO * y - _ONE


@njit(cache=True, error_model="numpy")
def reset(mask: Array, state: SwarmState, rules: SwarmRules) -> None:
    """Place agents and target where ``mask`` (bool ``[E]``) is true; all but seed, episode, step is written anew."""
    body, alive, target = state.body, state.alive, state.target
    radius, speed = np.float32(rules.spawn_radius), np.float32(rules.spawn_speed)
    spread = np.float32(rules.target_spread)
    num_envs, agents = alive.shape
    for e in range(num_envs):
        if not mask[e]:
            continue
        episode, seed = state.episode[e], state.seed[e]
        for n in range(agents):
            if rules.spawn_box:
                x, y = _in_square(n, episode, START, seed)
            else:
                x, y = _in_disc(n, episode, START, seed)
            body[e, n, 0], body[e, n, 1] = radius * x, radius * y
            x, y = _in_square(n, episode, VELOCITY, seed)
            body[e, n, 2], body[e, n, 3] = speed * x, speed * y
            for k in range(TRAIL):
                state.trail[e, n, k, 0], state.trail[e, n, k, 1] = body[e, n, 0], body[e, n, 1]
            alive[e, n] = True
            state.rewards[e, n] = 0
            state.returns[e, n] = 0
        x, y = _in_disc(0, episode, TARGET, seed)
        target[e, 0], target[e, 1] = spread * x, spread * y
        state.dispersion[e] = 0
        state.clipped[e] = 0


@njit(cache=True, error_model="numpy", forceinline=True)
def _clip(value: np.float32) -> np.float32:
    return min(max(value, -_ONE), _ONE)


@njit(cache=True, error_model="numpy", forceinline=True)
def _distance(x: np.float32, y: np.float32) -> np.float32:
    return np.sqrt(x * x + y * y)


@njit(cache=True, error_model="numpy")
def step(
    actions: Array, state: SwarmState, rules: SwarmRules, given: Array, terminated: Array, truncated: Array
) -> None:
    """Advance every environment by one step.

    Args:
        actions: Accelerations, float32 ``[E, N, 2]``.
        state: Is advanced.
        rules: What holds.
        given: Rewards, float32 ``[E, N]``, are written.
        terminated: Bool ``[E, N]``, is written.
        truncated: Bool ``[E, N]``, is written.
    """
    seed, episode, steps, body, alive = state.seed, state.episode, state.step, state.body, state.alive
    target, rewards, returns, team = state.target, state.rewards, state.returns, rules.team
    running, clipped, dispersion, trail = state.running, state.clipped, state.dispersion, state.trail
    process_noise, out_radius = np.float32(rules.process_noise), np.float32(rules.out_radius)
    time_step, damping = np.float32(rules.time_step), np.float32(rules.damping)
    exit_penalty, task = np.float32(rules.exit_penalty), rules.task
    num_envs, agents = alive.shape
    noisy = process_noise > 0
    noise = np.empty((min(num_envs, _ROWS), agents, 4), np.float32)
    for e in range(num_envs):
        steps[e] += 1
    for e in range(num_envs):
        row = e % _ROWS
        if noisy and row == 0:
            some = slice(e, e + _ROWS)
            fill_normals(steps[some], episode[some], PROCESS, seed[some], noise)
        over = steps[e] >= rules.max_steps
        held = steps[e] <= rules.held_steps
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
            vx = damping * (body[e, n, 2] + time_step * _clip(ax))
            vy = damping * (body[e, n, 3] + time_step * _clip(ay))
            if noisy:
                vx += process_noise * noise[row, n, 0]
                vy += process_noise * noise[row, n, 1]
                x = body[e, n, 0] + time_step * vx + process_noise * noise[row, n, 2]
                y = body[e, n, 1] + time_step * vy + process_noise * noise[row, n, 3]
            else:
                x = body[e, n, 0] + time_step * vx
                y = body[e, n, 1] + time_step * vy
            body[e, n, 0], body[e, n, 1], body[e, n, 2], body[e, n, 3] = x, y, vx, vy
            out = _distance(x, y) > out_radius
            alive[e, n] = not out
            terminated[e, n] = out
            truncated[e, n] = over and not out
            anybody |= not out
        running[e] = anybody and not over
        place = steps[e] % TRAIL
        for n in range(agents):
            trail[e, n, place, 0], trail[e, n, place, 1] = body[e, n, 0], body[e, n, 1]
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
        dispersion[e] += _dispersion(body[e], alive[e])


@njit(cache=True, error_model="numpy", forceinline=True)
def _dispersion(body: Array, alive: Array) -> float:
    """Return the variance of the living agents' distances to their centroid, 0 for fewer than two."""
    agents = alive.shape[0]
    living, sum_x, sum_y = 0, 0.0, 0.0
    for n in range(agents):
        if alive[n]:
            living += 1
            sum_x += body[n, 0]
            sum_y += body[n, 1]
    if living < 2:
        return 0.0
    share = 1.0 / living
    centre_x, centre_y = share * sum_x, share * sum_y
    total, squares = 0.0, 0.0
    for n in range(agents):
        if alive[n]:
            dx, dy = body[n, 0] - centre_x, body[n, 1] - centre_y
            square = dx * dx + dy * dy
            squares += square
            total += np.sqrt(square)
    total *= share
    return max(share * squares - total * total, 0.0)


# Rewards of one environment's step go to those who acted in it: who lives, and who has just left (``left``). The others
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
def observe(state: SwarmState, sight: SwarmSight, out: Array) -> None:
    """Write every agent's observation to ``out``, float32 ``[E, N, D]``."""
    if sight.own_only:
        _observe_oneself(state, sight, out)
    else:
        _observe_all(state, sight, out)
    if sight.has_target:
        body, target = state.body, state.target
        last = out.shape[2] - 2
        for e in range(body.shape[0]):
            shown = state.step[e] < sight.shown_steps
            for n in range(body.shape[1]):
                if shown and n < sight.informed:
                    out[e, n, last] = target[e, 0] - body[e, n, 0]
                    out[e, n, last + 1] = target[e, 1] - body[e, n, 1]
                else:
                    out[e, n, last], out[e, n, last + 1] = 0, 0


@njit(cache=True, error_model="numpy")
def _observe_oneself(state: SwarmState, sight: SwarmSight, out: Array) -> None:
    """Write an agent's own position and velocity with noise; agent ``n`` has the block ``n`` of four normals."""
    body, size = state.body, np.float32(sight.noise)
    noise = np.zeros((min(body.shape[0], _ROWS), body.shape[1], 4), np.float32)
    for e in range(body.shape[0]):
        row = e % _ROWS
        if size > 0 and row == 0:
            some = slice(e, e + _ROWS)
            fill_normals(state.step[some], state.episode[some], OBSERVATION, state.seed[some], noise)
        for n in range(body.shape[1]):
            for k in range(4):
                out[e, n, k] = body[e, n, k] + size * noise[row, n, k]


@njit(cache=True, error_model="numpy")
def _observe_all(state: SwarmState, sight: SwarmSight, out: Array) -> None:
    """Write an agent's own position and velocity, and the positions of the others from there with noise.

    The noise of relative position ``m`` (counted through the agents of an environment) is lanes ``2 m`` and
    ``2 m + 1``, so that two share a block of four normals.
    """
    seed, episode, steps, body, others = state.seed, state.episode, state.step, state.body, sight.others
    size, reach = np.float32(sight.noise), np.float32(sight.sensing_range)
    num_envs, agents = body.shape[0], body.shape[1]
    reach *= reach
    noise = np.zeros((min(num_envs, _ROWS), max((agents * (agents - 1) + 1) // 2, 1), 4), np.float32)
    lanes = noise.reshape(noise.shape[0], -1)
    for e in range(num_envs):
        row = e % _ROWS
        if size > 0 and row == 0:
            some = slice(e, e + _ROWS)
            fill_normals(steps[some], episode[some], OBSERVATION, seed[some], noise)
        m = 0
        for n in range(agents):
            x, y = body[e, n, 0], body[e, n, 1]
            out[e, n, 0], out[e, n, 1] = x, y
            out[e, n, 2], out[e, n, 3] = body[e, n, 2], body[e, n, 3]
            for k in range(agents - 1):
                j = others[n, k]
                dx, dy = body[e, j, 0] - x, body[e, j, 1] - y
                if dx * dx + dy * dy < reach:
                    out[e, n, 4 + 2 * k] = dx + size * lanes[row, m]
                    out[e, n, 5 + 2 * k] = dy + size * lanes[row, m + 1]
                else:
                    out[e, n, 4 + 2 * k], out[e, n, 5 + 2 * k] = 0, 0
                m += 2


@njit(cache=True, error_model="numpy")
def measure(state: SwarmState, rules: SwarmRules, metrics: SwarmMetrics) -> None:
    """Write the metrics of the episodes so far."""
    body, alive, target, rewards, returns = (
        state.body,
        state.alive,
        state.target,
        state.rewards,
        state.returns,
    )
    first_team = rules.first_team
    num_envs, agents = alive.shape
    for e in range(num_envs):
        living, sum_distance, farthest = 0, 0.0, np.float32(0)
        for n in range(agents):
            from_target = _distance(body[e, n, 0] - target[e, 0], body[e, n, 1] - target[e, 1])
            metrics.distance[e, n] = from_target
            sum_distance += from_target
            farthest = max(farthest, from_target)
            living += alive[e, n]
        metrics.mean_distance[e] = sum_distance / agents
        metrics.exits[e] = agents - living
        metrics.coordination[e] = state.dispersion[e] / max(state.step[e], 1)
        ours, reward, theirs, best = 0.0, 0.0, 0.0, -np.inf
        for n in range(agents):
            if n < first_team:
                ours += returns[e, n]
                reward += rewards[e, n]
            else:
                theirs += returns[e, n]
                best = max(best, returns[e, n])
        metrics.team_reward[e] = reward
        metrics.team_return[e], metrics.total_return[e] = ours, ours + theirs
        if rules.task == _COMPETITIVE:
            metrics.success[e] = ours > best
        elif rules.task == _MIXED:
            metrics.success[e] = ours / first_team > theirs / (agents - first_team)
        else:
            metrics.success[e] = living == agents and farthest <= SUCCESS_DISTANCE
