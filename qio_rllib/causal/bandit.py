"""`ThompsonBandit`: arms with unknown payouts, chosen by what is observed, such as one's own intention."""

from __future__ import annotations

import numpy as np

from qio_envs.api import ConfigError


class ThompsonBandit:
    """Thompson sampling with a Beta(1, 1) prior for each arm in each context, for a batch of independent learners.

    With the learner's own intention as context this is the counterfactual decision of Bareinboim, Forney and Pearl
    ("Bandits with unobserved confounders", NeurIPS 2015, section 4): it maximises ``E[y | do(arm), intent]``. With one
    context it maximises ``E[y | do(arm)]``, the best that an experiment tells. Records of somebody who followed the
    intention are evidence for the arm that was intended (consistency), and can be given to `learn` beforehand.

    Args:
        num_learners: ``E``.
        num_contexts: ``C``.
        num_arms: ``A``.
        seed: Of the draws.

    Attributes:
        paid: One more than the rewards so far, float64 ``[E, C, A]``.
        missed: One more than what was missing to a reward of 1 in each of these rounds, float64 ``[E, C, A]``.

    Raises:
        ConfigError: A number below 1.
    """

    def __init__(self, num_learners: int, num_contexts: int, num_arms: int, seed: int = 0) -> None:
        for name, number in (
            ("num_learners", num_learners),
            ("num_contexts", num_contexts),
            ("num_arms", num_arms),
        ):
            if number < 1:
                raise ConfigError(f"{name}: expected at least 1, got {number!r}")
        self.paid = np.ones((num_learners, num_contexts, num_arms))
        self.missed = np.ones_like(self.paid)
        self._rows = np.arange(num_learners)
        self._rng = np.random.default_rng(seed)

    def act(self, contexts: np.ndarray) -> np.ndarray:
        """Return an arm for each learner, int64 ``[E]``: the best of a draw of the posterior.

        Args:
            contexts: int ``[E]``, 0 to C - 1.
        """
        return self._rng.beta(self.paid[self._rows, contexts], self.missed[self._rows, contexts]).argmax(1)

    def learn(self, contexts: np.ndarray, arms: np.ndarray, rewards: np.ndarray) -> None:
        """Take in a round of each learner.

        Args:
            contexts: int ``[E]``.
            arms: int ``[E]``.
            rewards: In [0, 1], ``[E]``.

        Raises:
            ConfigError: A reward outside [0, 1].
        """
        _check(rewards)
        self.paid[self._rows, contexts, arms] += rewards
        self.missed[self._rows, contexts, arms] += 1 - rewards

    def learn_log(self, contexts: np.ndarray, arms: np.ndarray, rewards: np.ndarray) -> None:
        """Let every learner take in the same recorded rounds.

        Args:
            contexts: int ``[n]``.
            arms: int ``[n]``.
            rewards: In [0, 1], ``[n]``.

        Raises:
            ConfigError: A reward outside [0, 1].
        """
        _check(rewards)
        for counts, gains in ((self.paid, rewards), (self.missed, 1 - rewards)):
            sums = np.zeros(counts.shape[1:])
            np.add.at(sums, (contexts, arms), gains)
            counts += sums

    def choices(self) -> np.ndarray:
        """Return the arm with the greatest posterior mean in each context, int64 ``[E, C]``."""
        return (self.paid / (self.paid + self.missed)).argmax(2)


def _check(rewards: np.ndarray) -> None:
    if not ((rewards >= 0) & (rewards <= 1)).all():  # NaN is outside
        raise ConfigError("rewards: expected numbers in [0, 1]")
