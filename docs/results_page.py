"""Write docs/results.md, and the headline of README.md, from the raw files under results/.

python docs/results_page.py
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from claims import figures
from claims.causal import CAUSAL
from claims.causal_decisions import DECISIONS
from claims.claim import Claim, Section
from claims.federated import FEDERATED
from claims.field import FIELD
from claims.frameworks import FRAMEWORKS
from claims.games import GAMES
from claims.learning import FOREST, HEADLINE, MPE, SWARM
from claims.messages import BITS_OF_A_HIDDEN_TARGET, BITS_OF_THE_FOREST
from claims.quantum import CONTROLS, QUANTUM
from claims.reproduction import reproductions
from claims.speed import DIFFERENCES, SCALING, SPEEDS
from claims.world_models import WORLD_MODELS

SECTIONS = (
    FOREST,
    SWARM,
    MPE,
    WORLD_MODELS,
    CAUSAL,
    DECISIONS,
    GAMES,
    BITS_OF_A_HIDDEN_TARGET,
    BITS_OF_THE_FOREST,
    QUANTUM,
    CONTROLS,
    FEDERATED,
    FIELD,
    SPEEDS,
    FRAMEWORKS,
    SCALING,
    DIFFERENCES,
)

INTRODUCTION = """# Results

Made by `python docs/results_page.py` from the raw files; edit [claims/](claims), not this page.

A return is the undiscounted sum of rewards over the agents and steps of an episode; environment steps are steps in
which all agents act. Evaluations play fixed episodes. Of several seeds the mean stands with the least and the greatest;
from 10 seeds on the interquartile mean with a 95% stratified-bootstrap interval. The `run.json` of each seed holds
versions, seed, command and CPU."""
START, END = "<!-- headline -->", "<!-- end of headline -->"


def page() -> str:
    """Return the whole page.

    Raises:
        ValueError: The words of a claim are no longer true of the raw files.
    """
    sections = (*SECTIONS, *reproductions())
    return "\n\n".join([INTRODUCTION, *(part for section in sections for part in _section(section))]) + "\n"


def sentence(claim: Claim) -> str:
    """Return a claim with its figures.

    Raises:
        ValueError: Its words are no longer true of the raw files.
    """
    if not claim.holds():
        raise ValueError(f"no longer true of {', '.join(claim.raw)}: {claim.sentence}")
    return claim.sentence.format(**{name: compute() for name, compute in claim.figures.items()})


def readme(text: str) -> str:
    """Return the README with the present headline.

    Args:
        text: The README; the headline stands between two comments.
    """
    lines = textwrap.fill(sentence(HEADLINE), 120, break_long_words=False, break_on_hyphens=False)
    headline = f"{START}\n{lines}\n{END}"
    return re.sub(f"{START}\n.*?{END}", lambda _: headline, text, flags=re.DOTALL)


def _section(section: Section) -> list[str]:
    columns, *rows = _claims(section) if section.table is None else section.table()
    lines = [columns, ("---",) * len(columns), *rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    after = section.after.format(**{name: compute() for name, compute in section.figures.items()})
    picture = f"![{section.picture[1]}](../results/{section.picture[0]})" if section.picture else ""
    text, after = (
        textwrap.fill(part, 120, break_long_words=False, break_on_hyphens=False)
        for part in (section.text, after)
    )
    return [part for part in (f"## {section.title}", text, table, picture, after) if part]


def _claims(section: Section) -> list[tuple[str, ...]]:
    """Return the columns and a row for each claim of a section."""
    rows = [
        (sentence(claim), f"`{claim.command}`", ", ".join(map(_link, claim.raw)), figures.cpus(claim.raw))
        for claim in section.claims
    ]
    return [("claim", "command", "raw", "CPU"), *rows]


def _link(path: str) -> str:
    return f"[{path}](../results/{path})"


if __name__ == "__main__":
    target = Path(__file__).with_name("results.md")
    target.write_text(page(), encoding="utf-8")
    front = Path(__file__).parents[1] / "README.md"
    front.write_text(readme(front.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {target.name} and the headline of {front.name}")
