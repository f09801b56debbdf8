"""What a check comes to, and results as text."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """Outcome of one check.

    Attributes:
        name: Name of the check.
        passed: False if something was found.
        severity: ``error``; ``warning`` for what is allowed but seldom meant; ``skip`` where the check does not
            apply (``passed`` is then true).
        message: What was found, or why the check was skipped.
    """

    name: str
    passed: bool
    severity: str = "error"
    message: str = ""

    @property
    def conforms(self) -> bool:
        """Whether the environment may be used as it is: passed, or a warning only."""
        return self.passed or self.severity == "warning"

    @property
    def label(self) -> str:
        """``ok``, ``skip``, ``warning`` or ``FAIL``."""
        if self.passed:
            return "skip" if self.severity == "skip" else "ok"
        return "warning" if self.severity == "warning" else "FAIL"


class Skipped(Exception):
    """The check does not apply."""


class Doubtful(Exception):
    """What was found is allowed but seldom meant."""


def table(results: Sequence[CheckResult]) -> str:
    """Return results as lines of text."""
    width = max(len(result.name) for result in results)
    lines = [f"{result.name:<{width}}  {result.label:<7}  {result.message}".rstrip() for result in results]
    failed = sum(not result.conforms for result in results)
    warned = sum(result.label == "warning" for result in results)
    summary = f"{len(results)} checks: {failed} failed, {warned} with a warning"
    return "\n".join([*lines, summary])
