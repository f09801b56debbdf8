"""A claim with its figures, and a section of claims."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

Figures = Mapping[str, Callable[[], str]]


@dataclasses.dataclass(frozen=True)
class Claim:
    """One row of a table.

    Attributes:
        sentence: Template with a place for each figure.
        figures: How each figure is computed, by its name in the template.
        command: What makes the raw files anew.
        raw: Files or folders under results/.
        holds: Whether the words of the sentence are true of the raw files; the page is not written if not.
    """

    sentence: str
    figures: Figures
    command: str
    raw: tuple[str, ...]
    holds: Callable[[], bool] = lambda: True


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title: Its heading.
        text: What stands before the table.
        claims: Rows of the table.
        picture: A file under results/ and its description, or none.
        after: Template of what stands behind the table.
        figures: Of ``after``.
        table: Its columns and rows, in place of those of the claims.
    """

    title: str
    text: str
    claims: tuple[Claim, ...]
    picture: tuple[str, str] | None = None
    after: str = ""
    figures: Figures = dataclasses.field(default_factory=dict)
    table: Callable[[], list[tuple[str, ...]]] | None = None
