"""`CausalGraph`: a directed acyclic graph of named variables, of which some may be hidden."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from qio_envs.api import ConfigError, did_you_mean

if TYPE_CHECKING:
    import networkx

Edge = tuple[str, str]
Names = str | Iterable[str]


class GraphError(ConfigError):
    """A cycle, an unknown variable, or sets of variables that overlap; the message names them."""


class CausalGraph:
    """A directed acyclic graph.

    Graphs do not change; operations return new ones. Sets of variables are given as one name or as several.

    Args:
        edges: Pairs ``(cause, effect)``.
        variables: Names in the order that arrays follow; those of ``edges`` that are missing come after them, in the
            order in which they appear.
        hidden: Variables that no data shows.

    Attributes:
        variables: Names.
        hidden: Those that no data shows.

    Raises:
        GraphError: A cycle, an edge or a variable that is given twice, or an unknown hidden variable.
    """

    def __init__(
        self, edges: Iterable[Edge] = (), variables: Iterable[str] = (), hidden: Iterable[str] = ()
    ) -> None:
        pairs, names = [(str(a), str(b)) for a, b in edges], list(variables)
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise GraphError(f"variables: {twice} is given twice")
        if len(set(pairs)) < len(pairs):
            first, second = next(pair for pair in pairs if pairs.count(pair) > 1)
            raise GraphError(f"edges: {first} -> {second} is given twice")
        self.variables = tuple(dict.fromkeys([*names, *(name for pair in pairs for name in pair)]))
        self._index = {name: index for index, name in enumerate(self.variables)}
        self._parents = [0] * len(self.variables)  # sets of variables are the bits of an integer
        self._children = [0] * len(self.variables)
        for cause, effect in pairs:
            self._parents[self._index[effect]] |= 1 << self._index[cause]
            self._children[self._index[cause]] |= 1 << self._index[effect]
        self._order = self._sorted()
        self._ancestors, self._descendants = self._closures()
        self.hidden = frozenset(self._known("hidden", hidden))

    def _sorted(self) -> tuple[int, ...]:
        """Return the variables with causes before effects.

        Raises:
            GraphError: There is a cycle; the message shows one.
        """
        left, order = set(range(len(self.variables))), []
        while left:
            mask = sum(1 << index for index in left)
            free = sorted(index for index in left if not self._parents[index] & mask)
            if not free:
                raise GraphError(f"edges: there is a cycle, {' -> '.join(self._cycle(mask))}")
            order += free
            left -= set(free)
        return tuple(order)

    def _cycle(self, mask: int) -> list[str]:
        """Return a cycle among variables that all have a parent among themselves, first variable repeated."""
        path = [next(_bits(mask))]
        while True:
            cause = next(_bits(self._parents[path[-1]] & mask))
            if cause in path:
                return [self.variables[index] for index in [cause, *path[path.index(cause) :][::-1]]]
            path.append(cause)

    def _closures(self) -> tuple[list[int], list[int]]:
        ancestors, descendants = [0] * len(self.variables), [0] * len(self.variables)
        for index in self._order:
            for cause in _bits(self._parents[index]):
                ancestors[index] |= ancestors[cause] | 1 << cause
        for index in reversed(self._order):
            for effect in _bits(self._children[index]):
                descendants[index] |= descendants[effect] | 1 << effect
        return ancestors, descendants

    # -- other forms ------------------------------------------------------------------------------------------

    @classmethod
    def from_adjacency(
        cls, adjacency: np.ndarray, variables: Sequence[str] | None = None, hidden: Iterable[str] = ()
    ) -> CausalGraph:
        """Return the graph of a matrix.

        Args:
            adjacency: Square ``[V, V]``; what is not 0 at ``[i, j]`` is an edge from i to j.
            variables: ``V`` names; "x0", "x1", ... when absent.
            hidden: Variables that no data shows.

        Raises:
            GraphError: The matrix is not square, does not fit the names, or has a cycle.
        """
        matrix = np.asarray(adjacency)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise GraphError(f"adjacency: expected a square matrix, got the shape {matrix.shape}")
        names = [f"x{index}" for index in range(len(matrix))] if variables is None else list(variables)
        if len(names) != len(matrix):
            raise GraphError(f"variables: {len(names)} names for a matrix of {len(matrix)} rows")
        return cls([(names[i], names[j]) for i, j in np.argwhere(matrix)], names, hidden)

    @classmethod
    def from_networkx(cls, graph: networkx.DiGraph, hidden: Iterable[str] = ()) -> CausalGraph:
        """Return the graph of a ``networkx.DiGraph`` whose nodes are strings."""
        return cls(graph.edges, graph.nodes, hidden)

    def to_networkx(self) -> networkx.DiGraph:
        """Return a ``networkx.DiGraph``; hidden nodes carry ``hidden=True``."""
        import networkx

        graph = networkx.DiGraph()
        for name in self.variables:
            graph.add_node(name, hidden=name in self.hidden)
        graph.add_edges_from(self.edges)
        return graph

    @property
    def adjacency(self) -> np.ndarray:
        """Bool ``[V, V]``: whether i is a cause of j."""
        found = np.zeros((len(self.variables),) * 2, bool)
        for cause, effect in self.edges:
            found[self._index[cause], self._index[effect]] = True
        return found

    @property
    def edges(self) -> tuple[Edge, ...]:
        """Pairs ``(cause, effect)``, in the order of the causes and then of the effects."""
        return tuple(
            (name, self.variables[effect])
            for name, effects in zip(self.variables, self._children, strict=True)
            for effect in _bits(effects)
        )

    @property
    def observed(self) -> tuple[str, ...]:
        """Variables that data shows."""
        return tuple(name for name in self.variables if name not in self.hidden)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CausalGraph):
            return NotImplemented
        return (set(self.variables), set(self.edges), self.hidden) == (
            set(other.variables),
            set(other.edges),
            other.hidden,
        )

    def __hash__(self) -> int:
        return hash((frozenset(self.variables), frozenset(self.edges), self.hidden))

    def __repr__(self) -> str:
        hidden = f", hidden={sorted(self.hidden)}" if self.hidden else ""
        return f"CausalGraph({', '.join(f'{a} -> {b}' for a, b in self.edges)}{hidden})"

    # -- relatives --------------------------------------------------------------------------------------------

    @property
    def topological_order(self) -> tuple[str, ...]:
        """Variables, causes before effects."""
        return tuple(self.variables[index] for index in self._order)

    def parents(self, names: Names) -> set[str]:
        """Return the direct causes of any of some variables."""
        return self._relatives(names, self._parents)

    def children(self, names: Names) -> set[str]:
        """Return the direct effects of any of some variables."""
        return self._relatives(names, self._children)

    def ancestors(self, names: Names) -> set[str]:
        """Return the causes, direct or not, of any of some variables."""
        return self._relatives(names, self._ancestors)

    def descendants(self, names: Names) -> set[str]:
        """Return the effects, direct or not, of any of some variables."""
        return self._relatives(names, self._descendants)

    def _relatives(self, names: Names, relation: Sequence[int]) -> set[str]:
        found = 0
        for index in _bits(self._mask("variables", names)):
            found |= relation[index]
        return self._named(found)

    # -- surgery ----------------------------------------------------------------------------------------------

    def without_causes_of(self, names: Names) -> CausalGraph:
        """Return the graph after an intervention on some variables: nothing causes them any more (Pearl's ``do``)."""
        chosen = self._known("variables", names)
        return self._with_edges(edge for edge in self.edges if edge[1] not in chosen)

    def without_effects_of(self, names: Names) -> CausalGraph:
        """Return the graph in which some variables cause nothing any more."""
        chosen = self._known("variables", names)
        return self._with_edges(edge for edge in self.edges if edge[0] not in chosen)

    def _with_edges(self, edges: Iterable[Edge]) -> CausalGraph:
        return CausalGraph(edges, self.variables, self.hidden)

    # -- separation -------------------------------------------------------------------------------------------

    def is_d_separated(self, first: Names, second: Names, given: Names = ()) -> bool:
        """Return whether every path between two sets of variables is blocked by a third one.

        A chain or a fork is blocked by its middle, a collider by the absence of itself and of all its descendants
        (Pearl 2009, definition 1.2.3). Reachability is found by the Bayes ball (Shachter 1998).

        Raises:
            GraphError: An unknown variable, or sets that overlap.
        """
        start, goal, known = (
            self._mask("first", first),
            self._mask("second", second),
            self._mask("given", given),
        )
        self._check_disjoint(first=start, second=goal, given=known)
        return not self._reached(start, known, goal) & goal

    def d_connected(self, start: Names, given: Names = ()) -> set[str]:
        """Return the variables that some variables are not separated from, without those that are given."""
        from_mask, known = self._mask("start", start), self._mask("given", given)
        return self._named(self._reached(from_mask, known) & ~known & ~from_mask)

    def _reached(self, start: int, known: int, goal: int = 0) -> int:
        """Return what the ball reaches, up to the first variable of a goal."""
        opened = known
        for index in _bits(known):
            opened |= self._ancestors[index]
        upwards, downwards = start, 0  # to be visited, coming from an effect or from a cause
        done_up = done_down = 0
        parents, children = self._parents, self._children
        while upwards or downwards:
            if upwards:
                bit = upwards & -upwards
                index = bit.bit_length() - 1
                upwards ^= bit
                done_up |= bit
                if not known & bit:
                    upwards |= parents[index] & ~done_up
                    downwards |= children[index] & ~done_down
            else:
                bit = downwards & -downwards
                index = bit.bit_length() - 1
                downwards ^= bit
                done_down |= bit
                if not known & bit:
                    downwards |= children[index] & ~done_down
                if opened & bit:
                    upwards |= parents[index] & ~done_up
            if bit & goal:
                break
        return done_up | done_down

    def open_path(self, first: Names, second: Names, given: Names = ()) -> list[str] | None:
        """Return a shortest path that is not blocked, as the names of its variables; None if there is none.

        `describe_path` writes it with its arrows.
        """
        start, goal, known = (
            self._mask("first", first),
            self._mask("second", second),
            self._mask("given", given),
        )
        self._check_disjoint(first=start, second=goal, given=known)
        opened = known
        for index in _bits(known):
            opened |= self._ancestors[index]
        came: dict[tuple[int, bool], tuple[int, bool] | None] = {(i, True): None for i in _bits(start)}
        queue = list(came)
        for state in queue:  # breadth first; the list grows while it is read
            index, up = state
            bit = 1 << index
            if bit & goal:
                path = []
                at: tuple[int, bool] | None = state
                while at is not None:
                    path.append(self.variables[at[0]])
                    at = came[at]
                return path[::-1]
            following = []
            if not known & bit:
                following += [(child, False) for child in _bits(self._children[index])]
            if (up and not known & bit) or (not up and opened & bit):
                following += [(parent, True) for parent in _bits(self._parents[index])]
            for new in following:
                if new not in came:
                    came[new] = state
                    queue.append(new)
        return None

    def describe_path(self, path: Sequence[str]) -> str:
        """Return a path with its arrows, such as ``a <- u -> b``."""
        text = path[0]
        for before, after in itertools.pairwise(path):
            text += f" {'->' if after in self.children(before) else '<-'} {after}"
        return text

    def _check_disjoint(self, **sets: int) -> None:
        names = list(sets)
        for place, one in enumerate(names):
            for other in names[place + 1 :]:
                common = sets[one] & sets[other]
                if common:
                    raise GraphError(f"{one} and {other}: both hold {', '.join(sorted(self._named(common)))}")

    # -- names ------------------------------------------------------------------------------------------------

    def _known(self, what: str, names: Names) -> set[str]:
        return self._named(self._mask(what, names))

    def _mask(self, what: str, names: Names) -> int:
        mask = 0
        for name in (names,) if isinstance(names, str) else names:
            index = self._index.get(name)
            if index is None:
                raise GraphError(
                    f"{what}: there is no variable {name!r}{did_you_mean(str(name), self.variables)}"
                )
            mask |= 1 << index
        return mask

    def _named(self, mask: int) -> set[str]:
        return {self.variables[index] for index in _bits(mask)}


def _bits(mask: int) -> Iterator[int]:
    """Yield the places of the bits that are set."""
    while mask:
        bit = mask & -mask
        yield bit.bit_length() - 1
        mask ^= bit
