"""The best return that messages of so many bits allow in `swarm_cooperative_v0`, where not all see the target."""

from __future__ import annotations

import numpy as np

from qio_envs.api import ConfigError
from qio_envs.swarm.config import CooperativeConfig
from qio_rllib.evaluation.rate_distortion import DistortionRate, disc_distance, distances

Array = np.ndarray

SPREAD_COST = 0.05
"""What an agent pays for each unit of distance to each other living agent."""


class HiddenTargetBound:
    """An upper bound on the expected team return, given what the uninformed have been told by each step.

    The distance of an agent from the target after step ``t`` is at least, on average,

    - ``K(t) = E max(|x - X| - reach(t), 0)``, whatever it knows: from its start ``x`` it cannot move farther than
      ``reach(t)`` towards the target ``X`` by acceleration; process noise has mean 0, and the expression is convex in
      it (Jensen);
    - ``D(R_t)``, if it is uninformed, with ``R_t`` the bits about ``X`` in all that informed agents have sent by then:
      all else that it observes is independent of ``X``, and its position is a function of the two (data processing).

    The distance between an informed agent ``i`` and an uninformed ``j`` is at least ``d_j - d_i``, and each pair pays
    twice `SPREAD_COST` for it. With ``k`` informed agents of ``N``, ``c`` of that and ``f = min(1, 1 / (2 c (N - k)))``
    the team's reward in a step is at most

    ``-(1 - 2 c f (N - k)) sum_i d_i - (1 + 2 c f k) sum_j d_j``,

    of which the expectation is taken. Distances between uninformed agents, what control costs under process noise, and
    that one plan has to serve all steps, are left out: the bound need not be attained.

    Args:
        config: The environment's settings.

    Raises:
        ConfigError: There is no hidden target, agents see each other or a cue, or one could leave the arena, after
            which it pays nothing.
    """

    def __init__(self, config: CooperativeConfig) -> None:
        self.config = config
        if not config.has_target or not 0 < config.num_informed < config.num_agents:
            raise ConfigError("informed_agents: expected some agents that see a target, and some that do not")
        if config.observe != "relative" or config.sensing_range != 0.0 or config.held_steps:
            raise ConfigError(
                "sensing_range: expected 0 without a cue: who sees others move sees where they go"
            )
        reach = self.reach()
        start = config.spawn_radius * (2**0.5 if config.spawn == "box" else 1.0)
        noise = 10 * config.process_noise * (config.max_steps**0.5) / (1 - config.damping) ** 0.5
        if start + reach[-1] + noise > config.out_radius:
            raise ConfigError(
                f"out_radius: agents could leave within {config.max_steps} steps, and who has left pays nothing; "
                f"expected at least {start + reach[-1] + noise:.0f}, got {config.out_radius:g}"
            )
        spread = config.spawn_radius if config.spawn == "disc" else 0.0  # of a square: its middle (Jensen)
        self.least = _mean_excess(config.target_radius, spread, reach)
        self.distortion: DistortionRate = disc_distance(config.target_radius)

    def reach(self) -> Array:
        """Return how far acceleration takes an agent by each step, noise apart, float64 ``[T]``."""
        config = self.config
        speed, way, found = 2**0.5 * config.spawn_speed, 0.0, []
        for _ in range(config.max_steps):
            speed = config.damping * (speed + config.time_step * 2**0.5)
            way += config.time_step * speed
            found.append(way)
        return np.array(found)

    def of(self, told: Array) -> float:
        """Return the bound.

        Args:
            told: Bits that informed agents have sent by each step, ``[T]``.
        """
        agents, informed = self.config.num_agents, self.config.num_informed
        pairs = min(2 * SPREAD_COST * (agents - informed), 1.0)
        see = (1 - pairs) * informed * self.least
        shift = 1 + pairs * informed / (agents - informed)
        told_only = shift * (agents - informed) * np.maximum(self.distortion.at(told), self.least)
        return -float((see + told_only).sum())

    def of_constant(self, bits: float) -> float:
        """Return the bound for messages of so many bits in every step, of all informed agents together."""
        return self.of(bits * np.arange(1, self.config.max_steps + 1))

    def of_total(self, bits: float) -> float:
        """Return the bound for so many bits in an episode, whenever they are sent."""
        return self.of(np.full(self.config.max_steps, float(bits)))

    def of_gated(self, bits: int, spent: float) -> float:
        """Return the bound for an informed agent that in each step sends ``bits`` bits or nothing.

        Silence tells something, too: a step is one of ``2^bits + 1`` symbols. If gates are open in the share ``p`` of
        the steps, a step tells at most ``h(p) + p bits`` bits on average, with ``h`` the entropy of a coin; and gates
        may be open in the first steps.

        Args:
            bits: In a message.
            spent: Bits that it sends a step, on average over steps and episodes, from 0 to ``bits``.
        """
        full = float(np.logaddexp2(bits, 0.0))
        share = min(spent / bits, 1.0)
        mean = full
        if share < 2.0 ** (bits - full):
            mean = _coin(share) + share * bits
        steps = np.arange(1, self.config.max_steps + 1)
        return self.of(np.minimum(full * steps, mean * self.config.max_steps))


def _mean_excess(radius: float, spread: float, reach: Array, cells: int = 60, angles: int = 90) -> Array:
    """Return ``E max(|x - X| - reach, 0)``, ``[T]``, of points uniform in discs of the radii ``spread``, ``radius``."""
    places = (np.arange(cells) + 0.5) / cells
    turn = (np.arange(angles) + 0.5) * np.pi / angles
    gaps = distances(radius * np.sqrt(places), spread * np.sqrt(places), turn)  # equally likely
    return np.array([np.maximum(gaps - way, 0.0).mean() for way in reach])


def _coin(share: float) -> float:
    """Return the entropy of a coin in bits."""
    if not 0.0 < share < 1.0:
        return 0.0
    return float(-share * np.log2(share) - (1 - share) * np.log2(1 - share))
