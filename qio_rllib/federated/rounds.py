"""A round of a federation: who takes part, what its clients send, and what comes of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from qio_rllib.federated.federation_settings import FederationSettings
from qio_rllib.federated.secure.messages import Step
from qio_rllib.federated.uplink import Streams


@dataclasses.dataclass(frozen=True)
class RoundPlan:
    """A round before its clients have trained.

    Attributes:
        number: Of the round, from 0.
        cohort: Indices of the clients that take part, sorted.
        drops: By client that is lost, the step whose message it does not send any more.
        groups: With ``secure.group_size`` the clients of each sum, sorted; none where too few take part for one.
    """

    number: int
    cohort: tuple[int, ...]
    drops: Mapping[int, Step]
    groups: tuple[tuple[int, ...], ...] = ()

    @property
    def trains(self) -> tuple[int, ...]:
        """Clients whose training can matter: they are not lost before the upload."""
        return tuple(one for one in self.cohort if self.drops.get(one, Step.CONFIRM) > Step.UPLOAD)


@dataclasses.dataclass(frozen=True)
class Update:
    """What came of a client's training.

    Attributes:
        vector: Weights after it less those before, float32 ``[d]``.
        env_steps: That the client says it learned from.
        variate: Its next control variate, float32 ``[d]``; None without.
    """

    vector: np.ndarray
    env_steps: int
    variate: np.ndarray | None = None


@dataclasses.dataclass
class RoundReport:
    """What came of a round.

    Attributes:
        contributors: Clients whose update is in the new weights, sorted.
        refused: Why updates were left out, by client.
        lost: Clients that were lost, by the first step whose message did not come.
        lost_groups: With ``secure.group_size``, groups whose sum was not released.
        failure: Why nothing was released; None where the weights moved.
        bytes_up: That clients sent.
        bytes_down: That they were sent.
        update_norm: Euclidean norm of the aggregated update.
    """

    contributors: tuple[int, ...] = ()
    refused: dict[int, str] = dataclasses.field(default_factory=dict)
    lost: dict[Step, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(Step, 0))
    lost_groups: int = 0
    failure: str | None = None
    bytes_up: int = 0
    bytes_down: int = 0
    update_norm: float = 0.0


def planned_round(settings: FederationSettings, streams: Streams, number: int) -> RoundPlan:
    """Return who takes part in a round, and who is lost on the way.

    Args:
        settings: Of the federation.
        streams: Random numbers of the run by purpose.
        number: Of the round, from 0.
    """
    rng = streams("participation", number)
    privacy = settings.privacy
    if privacy is not None and privacy.randomness == "system":
        rng = np.random.Generator(np.random.Philox())
    few, probability = settings.participation.clients, settings.participation.probability
    everybody = np.arange(settings.num_clients)
    if probability is not None:
        everybody = everybody[rng.random(settings.num_clients) < probability]
    elif few is not None:
        everybody = np.sort(rng.choice(settings.num_clients, few, replace=False))
    cohort = tuple(int(one) for one in everybody)
    drops: dict[int, Step] = {}
    if settings.dropouts is not None:
        rng = streams("dropouts", number)
        steps = list(Step) if settings.secure is not None else [Step.UPLOAD]
        for client in cohort:
            lost, step = rng.random() < settings.dropouts.probability, int(rng.integers(len(steps)))
            if lost:
                drops[client] = steps[step]
    return RoundPlan(number, cohort, drops, _groups(settings, streams, number, cohort))


def _groups(
    settings: FederationSettings, streams: Streams, number: int, cohort: tuple[int, ...]
) -> tuple[tuple[int, ...], ...]:
    """Divide the clients of a round at random into as many groups as ``secure.group_size`` allows."""
    size = settings.group_size
    if size is None or len(cohort) < size:
        return ()
    order = streams("groups", number).permutation(np.array(cohort))
    return tuple(tuple(sorted(map(int, group))) for group in np.array_split(order, len(cohort) // size))
