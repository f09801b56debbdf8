"""Whether and how an effect follows from observations: back-door, front-door, instruments."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator

from qio_envs.api import ConfigError
from qio_rllib.causal.graph import CausalGraph, GraphError

_MOST_SEARCHED = 3  # variables in a set of mediators, or beside an instrument


class NotIdentified(ConfigError):
    """An effect that does not follow from observations by what is known here; the message shows an open path."""


@dataclasses.dataclass(frozen=True)
class BackDoor:
    """``P(y | do(x)) = sum_z P(y | x, z) P(z)`` (Pearl 2009, theorem 3.3.2).

    Attributes:
        treatment: x.
        outcome: y.
        adjustment: z.
    """

    treatment: str
    outcome: str
    adjustment: tuple[str, ...]

    def __str__(self) -> str:
        return f"back-door, adjusting for {', '.join(self.adjustment) or 'nothing'}"


@dataclasses.dataclass(frozen=True)
class FrontDoor:
    """``P(y | do(x)) = sum_m P(m | x) sum_x' P(y | x', m) P(x')`` (Pearl 2009, theorem 3.3.4).

    Attributes:
        treatment: x.
        outcome: y.
        mediators: m.
    """

    treatment: str
    outcome: str
    mediators: tuple[str, ...]

    def __str__(self) -> str:
        return f"front-door, through {', '.join(self.mediators)}"


@dataclasses.dataclass(frozen=True)
class Instrument:
    """A variable that moves the outcome through the treatment alone; identifies the slope of linear effects.

    Brito and Pearl (2002), conditional instruments.

    Attributes:
        treatment: x.
        outcome: y.
        instrument: Moves x.
        given: What makes it independent of everything else that moves y.
    """

    treatment: str
    outcome: str
    instrument: str
    given: tuple[str, ...]

    def __str__(self) -> str:
        given = f", given {', '.join(self.given)}" if self.given else ""
        return f"instrument {self.instrument}{given}"


Identification = BackDoor | FrontDoor | Instrument


def identify(graph: CausalGraph, treatment: str, outcome: str) -> Identification:
    """Return a way to an effect: by the back door if there is one, else the front door, else an instrument.

    The three cover what is usual, not all that is identifiable (Shpitser and Pearl 2006); instruments assume that
    effects are linear.

    Raises:
        NotIdentified: None of the three; the message shows a path that stays open.
        GraphError: An unknown or hidden variable, or a treatment that is the outcome.
    """
    _check_pair(graph, treatment, outcome)
    adjustment = back_door_set(graph, treatment, outcome)
    if adjustment is not None:
        return BackDoor(treatment, outcome, adjustment)
    mediators = next(front_door_sets(graph, treatment, outcome), None)
    if mediators is not None:
        return FrontDoor(treatment, outcome, mediators)
    found = next(instruments(graph, treatment, outcome), None)
    if found is not None:
        return found
    path = graph.without_effects_of(treatment).open_path(
        treatment, outcome, _largest(graph, treatment, outcome)
    )
    assert path is not None
    raise NotIdentified(
        f"the effect of {treatment} on {outcome} is not identified: the path {graph.describe_path(path)} stays open"
        f"{_hidden_on(graph, path)}, no front door and no instrument is observed"
    )


def back_door_set(graph: CausalGraph, treatment: str, outcome: str) -> tuple[str, ...] | None:
    """Return a smallest-by-inclusion set that blocks every back-door path, None if there is none.

    If any set does, then the observed ancestors of both that the treatment does not cause do (van der Zander et al.
    2014); variables that are not needed are then left out one by one.
    """
    _check_pair(graph, treatment, outcome)
    cut = graph.without_effects_of(treatment)
    chosen = _largest(graph, treatment, outcome)
    if not cut.is_d_separated(treatment, outcome, chosen):
        return None
    for name in list(chosen):
        fewer = [other for other in chosen if other != name]
        if cut.is_d_separated(treatment, outcome, fewer):
            chosen = fewer
    return tuple(chosen)


def check_adjustment(graph: CausalGraph, treatment: str, outcome: str, adjustment: Iterable[str]) -> BackDoor:
    """Return the back-door adjustment for a chosen set.

    Raises:
        NotIdentified: The set holds an effect of the treatment, a hidden variable, or leaves a path open.
        GraphError: Sets that overlap, or an unknown variable.
    """
    _check_pair(graph, treatment, outcome)
    chosen = tuple(adjustment)
    graph.parents(chosen)  # refuses unknown names
    for name in chosen:
        if name in (treatment, outcome):
            raise GraphError(f"adjustment: {name} is the {'treatment' if name == treatment else 'outcome'}")
        if name in graph.hidden:
            raise NotIdentified(f"adjustment: {name} is hidden")
        if name in graph.descendants(treatment):
            raise NotIdentified(f"adjustment: {name} is an effect of {treatment}")
    path = graph.without_effects_of(treatment).open_path(treatment, outcome, chosen)
    if path is not None:
        raise NotIdentified(f"adjustment: the path {graph.describe_path(path)} stays open")
    return BackDoor(treatment, outcome, chosen)


def front_door_sets(graph: CausalGraph, treatment: str, outcome: str) -> Iterator[tuple[str, ...]]:
    """Yield sets of observed mediators that meet the front-door criterion, smaller ones first."""
    _check_pair(graph, treatment, outcome)
    between = graph.descendants(treatment) & graph.ancestors(outcome)
    candidates = [name for name in graph.observed if name in between]
    cut = graph.without_effects_of(treatment)
    for size in range(1, _MOST_SEARCHED + 1):
        for chosen in itertools.combinations(candidates, size):
            rest = CausalGraph(
                (edge for edge in graph.edges if not set(edge) & set(chosen)), graph.variables, graph.hidden
            )
            if (
                outcome not in rest.descendants(treatment)
                and cut.is_d_separated(treatment, chosen)
                and graph.without_effects_of(chosen).is_d_separated(chosen, outcome, treatment)
            ):
                yield chosen


def instruments(graph: CausalGraph, treatment: str, outcome: str) -> Iterator[Instrument]:
    """Yield instruments, those that need fewer given variables first.

    An instrument and the outcome are separated, given variables that neither causes, where the treatment has no
    effects; the instrument and the treatment are not.
    """
    _check_pair(graph, treatment, outcome)
    if outcome not in graph.descendants(treatment):
        return
    cut = graph.without_effects_of(treatment)
    candidates = [
        name
        for name in graph.observed
        if name not in (treatment, outcome) and name not in graph.descendants(treatment)
    ]
    for size in range(_MOST_SEARCHED + 1):
        for name in candidates:
            others = [other for other in candidates if other != name and other not in graph.descendants(name)]
            for given in itertools.combinations(others, size):
                if cut.is_d_separated(name, outcome, given) and not graph.is_d_separated(
                    name, treatment, given
                ):
                    yield Instrument(treatment, outcome, name, given)


def _largest(graph: CausalGraph, treatment: str, outcome: str) -> list[str]:
    above = graph.ancestors((treatment, outcome)) - graph.descendants(treatment)
    return [name for name in graph.observed if name in above and name not in (treatment, outcome)]


def _check_pair(graph: CausalGraph, treatment: str, outcome: str) -> None:
    if treatment == outcome:
        raise GraphError(f"treatment and outcome: both are {treatment}")
    graph.parents((treatment, outcome))  # refuses unknown names
    for what, name in (("treatment", treatment), ("outcome", outcome)):
        if name in graph.hidden:
            raise GraphError(f"{what}: {name} is hidden")


def _hidden_on(graph: CausalGraph, path: list[str]) -> str:
    hidden = [name for name in path if name in graph.hidden]
    return f" ({', '.join(hidden)} {'is' if len(hidden) == 1 else 'are'} hidden)" if hidden else ""
