"""The pages under docs/ say what the code and the raw results say."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

from qio_rllib.algorithms import ALGORITHMS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))

sys.path.insert(0, str(DOCS))


def text_of(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# -- what is written by scripts -----------------------------------------------------------------------------------


def test_the_environment_page_is_up_to_date():
    from generate import page

    assert text_of("environments.md") == page(), "run: make docs"


def test_the_results_page_is_what_the_raw_files_give():
    from results_page import page

    assert text_of("results.md") == page(), "run: make docs"


def test_the_headline_of_the_readme_is_what_the_raw_files_give():
    from results_page import END, START, readme

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert START in text
    assert END in text
    assert text == readme(text), "run: make docs"


def test_a_claim_that_is_no_longer_true_is_not_written():
    from claims.claim import Claim
    from results_page import sentence

    claim = Claim("{number} of them", {"number": lambda: "3"}, "", ("somewhere",))
    assert sentence(claim) == "3 of them"
    false = Claim(claim.sentence, claim.figures, claim.command, claim.raw, holds=lambda: False)
    with pytest.raises(ValueError, match="no longer true of somewhere: "):
        sentence(false)


def test_figures_are_computed_from_the_raw_files(tmp_path, monkeypatch):
    from claims import figures

    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    for seed, scores in enumerate([(1.0, 3.0), (5.0, 7.0)]):
        folder = tmp_path / "study" / f"seed_{seed}"
        folder.mkdir(parents=True)
        rows = "".join(f"sampled,{score}\ngreedy,{-score}\n" for score in scores)
        (folder / "evaluation.csv").write_text("mode,team_return\n" + rows)
    assert figures.seeds("study") == "4.0 (mean of 2 seeds, 2.0 to 6.0)"
    assert figures.seeds("study", "greedy", decimals=0) == "-4 (mean of 2 seeds, -6 to -2)"
    (tmp_path / "table.csv").write_text("who,value\na,1.25\nb,2\n")
    assert figures.cell("table.csv", "value", 2, who="a") == "1.25"
    with pytest.raises(ValueError, match=r"table.csv: 0 rows with .*'c'"):
        figures.cell("table.csv", "value", who="c")


def test_no_claim_names_a_raw_file_that_is_not_there():
    from results_page import SECTIONS

    for section in SECTIONS:
        for claim in section.claims:
            for path in claim.raw:
                assert (ROOT / "results" / path).exists(), path
            for script in re.findall(r"(?:benchmarks|tune_configs)/[\w./]+", claim.command):
                assert (ROOT / script).is_file(), script


@pytest.mark.parametrize("name", [page for page in PAGES if page.startswith(("algorithms/", "settings"))])
def test_tables_of_settings_are_up_to_date(name):
    from settings_tables import page

    assert text_of(name) == page(text_of(name)), "run: make docs"


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_every_algorithm_has_a_page_with_all_settings_of_ours(name):
    from settings_tables import settings_of

    text = text_of(f"algorithms/{name.lower()}.md")
    assert f"<!-- settings of {name} -->" in text
    for key in settings_of(name):
        assert f"| `{key}` |" in text
    for heading in ("Metrics", "What it supports", "Ready experiments", "Differences"):
        assert re.search(rf"^## {heading}|^## Against", text, re.MULTILINE), heading


def test_entries_of_a_docstring_keep_their_continuation_lines():
    from settings_tables import entries

    docstring = """Do it.

    Args:
        one: First
            and more.
        two: Second.

    Raises:
        ValueError: Never.
    """
    assert entries(docstring, "Args") == {"one": "First and more.", "two": "Second."}


# -- what is written by hand --------------------------------------------------------------------------------------


def test_every_logged_metric_of_the_committed_runs_is_explained():
    common = text_of("training.md")
    for path in sorted((ROOT / "results").rglob("seed_*/progress.csv")):
        run = re.search(r"^ *run: (\w+)", (path.parent / "config.yaml").read_text(), re.MULTILINE)
        assert run is not None
        own = text_of(f"algorithms/{run[1].lower()}.md")
        with path.open(newline="") as file:
            columns = next(csv.reader(file))
        for column in columns:
            first, _, rest = column.partition("/")
            if first == "learners":
                assert f"`{rest.partition('/')[2]}`" in own, f"{path}: {column}"
            elif first == "replay":
                assert f"`{column}`" in own, f"{path}: {column}"
            elif first not in ("env_runners", "evaluation"):
                assert f"`{column}`" in common, f"{path}: {column}"


def test_the_index_lists_every_page():
    linked = re.findall(r"\]\(([\w/]+\.md)\)", text_of("index.md"))
    assert sorted(linked) == [page for page in PAGES if page != "index.md"]


@pytest.mark.parametrize("name", ["../README.md", *PAGES])
def test_links_lead_to_files_and_headings_that_are_there(name):
    page = (DOCS / name).resolve()
    for target in re.findall(r"(?:\]\(|src=\")(?!https?:)([^)\"]+)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        found = (page.parent / path) if path else page
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("name", ["../README.md", *PAGES])
def test_experiments_that_pages_name_are_there(name):
    for config in re.findall(r"(?<!examples)[`/](\w+\.yaml)", (DOCS / name).read_text(encoding="utf-8")):
        assert (ROOT / "tune_configs" / config).is_file(), config


@pytest.mark.ray
def test_the_blocks_of_the_quantum_page_run(tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```$", text_of("quantum.md"), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 3
    found = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)], cwd=tmp_path, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr[-2000:]
    assert "RX(2*w0)" in found.stdout
