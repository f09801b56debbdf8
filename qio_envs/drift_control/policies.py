"""Scripted policies of drift control: reference points from the true state."""

from __future__ import annotations

import numpy as np

from qio_envs.api import Array, BatchedEnv
from qio_envs.api.kernels import Kernel
from qio_envs.drift_control import planning
from qio_envs.drift_control.config import COMPONENTS, DriftControlConfig
from qio_envs.drift_control.estimation import START_VARIANCE, observe_exactly, predicted
from qio_envs.drift_control.model import lqr_gain, lqr_value
from qio_envs.drift_control.state import DriftControlState

_Env = BatchedEnv[DriftControlConfig, DriftControlState]


class ZeroPolicy:
    """Does nothing.

    Args:
        env: The environment to act in.
    """

    def __init__(self, env: _Env) -> None:
        self.env = env

    def act(self) -> Array:
        """Return float32 actions ``[E, 1, 2]`` of 0, or int64 ``[E, 1]`` where they are discrete."""
        return _actions(np.zeros((self.env.num_envs, 2), np.float32), self.env.config)


class LQRPolicy:
    """The linear-quadratic regulator of the linearisation at the origin (`lqr_gain`), from the true state.

    Its actions are clipped to [-1, 1]; discrete ones are the nearest.

    Args:
        env: The environment to act in.
    """

    def __init__(self, env: _Env) -> None:
        self.env = env
        self._gain = lqr_gain(env.config)

    def act(self) -> Array:
        """Return float32 actions ``[E, 1, 2]``, or int64 ``[E, 1]`` where they are discrete."""
        return _regulated(self.env.arrays.components, self._gain, self.env.config)


class LQGPolicy:
    """The regulator of `LQRPolicy` on an estimate of the state from the observations: what hidden components cost.

    The estimate is that of an extended Kalman filter with the true model. It starts from the distribution of first
    states, is told each action as executed, and takes visible components as they are, exactly; distractors, which tell
    of s0 and s1, are not used. Where all components are visible, actions are those of `LQRPolicy`.

    A function of what was observed and done in the episode. Where an environment is not one step on in the same episode
    (a policy made, or a state set, in the middle of one), the filter starts anew from that step.

    Args:
        env: The environment to act in.

    Attributes:
        mean: The estimate that it acted on last, float64 ``[E, 4]``.
    """

    def __init__(self, env: _Env) -> None:
        self.env = env
        self._gain = lqr_gain(env.config)
        self.mean = np.zeros((env.num_envs, COMPONENTS))
        self._covariance = np.zeros((env.num_envs, COMPONENTS, COMPONENTS))
        self._clock = EpisodeClock(env.num_envs)

    def act(self) -> Array:
        """Return float32 actions ``[E, 1, 2]``, or int64 ``[E, 1]`` where they are discrete."""
        s = self.env.arrays
        goes_on = self._clock.goes_on(s)
        mean, covariance = predicted(self.mean, self._covariance, s.action, self.env.config)
        mean[~goes_on], covariance[~goes_on] = 0, START_VARIANCE * np.eye(COMPONENTS)
        for component in self.env.config.visible:
            observe_exactly(mean, covariance, component, s.components[:, component])
        self.mean, self._covariance = mean, covariance
        return _regulated(mean, self._gain, self.env.config)


class CEMPolicy:
    """Oracle: model-predictive control by the cross-entropy method on the true model without noise.

    In each step the best of many plans of ``horizon`` actions is sought, and its first action is taken. A plan's cost
    is that of its steps, and at the end the regulator's cost-to-go (`lqr_value`). The regulator's own plan competes;
    plans go on in the next step, without their first action. The end of an episode plays no part.

    A function of the policy's seed, of the environment's seed and state, and of the plans of the step before; these are
    forgotten where an environment is not one step on in the same episode.

    Args:
        env: The environment to act in.
        horizon: Steps of a plan, at least 1.
        candidates: Plans compared in an iteration, more than ``elites``.
        iterations: Iterations in each step, at least 1.
        elites: Best plans of an iteration, around which the next are drawn, at least 1.
        first_spread: Standard deviation of the first candidates of a new plan.
        next_spread: Standard deviation of the first candidates of a plan that goes on.
        least_spread: Least standard deviation of candidates.
        seed: Key of the policy's own random numbers, 0 to 2**64 - 1.

    Raises:
        ValueError: Counts or standard deviations that do not fit.
    """

    def __init__(
        self,
        env: _Env,
        horizon: int = 8,
        candidates: int = 256,
        iterations: int = 2,
        elites: int = 16,
        first_spread: float = 0.5,
        next_spread: float = 0.3,
        least_spread: float = 0.02,
        seed: int = 0,
    ) -> None:
        if min(horizon, iterations, elites) < 1:
            raise ValueError(
                f"horizon, iterations, elites: expected at least 1 each, got {horizon}, {iterations}, {elites}"
            )
        if candidates <= elites:
            raise ValueError(f"candidates: expected more than the {elites} elites, got {candidates}")
        if min(first_spread, next_spread, least_spread) < 0:
            raise ValueError(
                "first_spread, next_spread, least_spread: expected at least 0 each, "
                f"got {first_spread}, {next_spread}, {least_spread}"
            )
        self.env = env
        self._search = planning.Search(
            horizon=horizon,
            candidates=candidates,
            iterations=iterations,
            elites=elites,
            first_spread=float(first_spread),
            next_spread=float(next_spread),
            least_spread=float(least_spread),
            discrete=env.config.actions == "discrete",
            action_cost=env.config.action_cost,
            gain=lqr_gain(env.config).astype(np.float32),
            value=lqr_value(env.config).astype(np.float32),
            seed=np.uint64(seed),
        )
        self._elites = np.zeros((env.num_envs, elites, horizon, 2), np.float32)
        self._clock = EpisodeClock(env.num_envs)
        self._plan = Kernel(planning.plan)

    def act(self) -> Array:
        """Return float32 actions ``[E, 1, 2]``, or int64 ``[E, 1]`` where they are discrete."""
        s = self.env.arrays
        goes_on = self._clock.goes_on(s)
        actions = np.empty((self.env.num_envs, 2), np.float32)
        self._plan(s.components, s.seed, s.episode, s.step, goes_on, self._elites, actions, self._search)
        return _actions(actions, self.env.config)


class EpisodeClock:
    """Tells which environments are one step on, in the same episode, since it was asked last.

    Args:
        num_envs: Environments ``E``.
    """

    def __init__(self, num_envs: int) -> None:
        self._seed = np.zeros(num_envs, np.uint64)
        self._episode = np.zeros(num_envs, np.uint32)
        self._step = np.full(num_envs, -2, np.int32)  # no environment is one step on from here

    def goes_on(self, state: DriftControlState) -> Array:
        """Return bool ``[E]``, and keep the present seeds, episodes and steps."""
        found = (self._seed == state.seed) & (self._episode == state.episode) & (self._step == state.step - 1)
        self._seed[:], self._episode[:], self._step[:] = state.seed, state.episode, state.step
        return found


def _regulated(components: Array, gain: Array, config: DriftControlConfig) -> Array:
    """Return the regulator's clipped actions for states ``[E, 4]``, in the environment's form."""
    # a sum, not a matrix product: this is the same for one environment and for many
    wanted = -(components[:, None, :] * gain).sum(axis=2)
    return _actions(np.clip(wanted, -1, 1).astype(np.float32), config)


def _actions(wanted: Array, config: DriftControlConfig) -> Array:
    """Return actions of [-1, 1] (float32 ``[E, 2]``) in the environment's form."""
    if config.actions == "continuous":
        return wanted[:, None]
    first, second = np.rint(wanted).astype(np.int64).T + 1
    return (3 * first + second)[:, None]
