"""The pages under docs/ say what the code and the raw results say."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import qio_envs
from qio_rllib.algorithms import ALGORITHMS
from qio_rllib.artifacts.pretrained import cards

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


def test_the_pages_of_environments_are_up_to_date():
    from generate import pages

    written = pages()
    assert {page for page in PAGES if page.startswith("environments")} == set(written), "run: make docs"
    for name, text in written.items():
        assert text_of(name) == text, f"{name}: run: make docs"


def test_every_environment_has_a_small_picture():
    from environment_gifs import FOLDER, MOST_BYTES

    assert {path.stem for path in FOLDER.iterdir()} == set(qio_envs.environments())
    for path in FOLDER.iterdir():
        with Image.open(path) as picture:
            assert picture.format == "GIF"
            assert picture.n_frames > 1, path
        assert path.stat().st_size < MOST_BYTES, path


def test_the_picture_of_the_readme_is_small_and_that_of_a_policy():
    from environment_gifs import README, README_BYTES

    assert README.stem in cards()
    assert f"docs/images/{README.name}" in (ROOT / "README.md").read_text()
    with Image.open(README) as picture:
        assert picture.n_frames >= 30
    assert README.stat().st_size < README_BYTES


def test_a_picture_that_is_too_large_loses_frames_and_is_then_refused(tmp_path, monkeypatch):
    import environment_gifs

    environment = qio_envs.environment("chsh_v0")
    whole = environment_gifs.write(environment, tmp_path).stat().st_size
    monkeypatch.setattr(environment_gifs, "_ATTEMPTS", ((400, 200), (400, 3)))
    monkeypatch.setattr(environment_gifs, "MOST_BYTES", whole)
    with Image.open(environment_gifs.write(environment, tmp_path)) as picture:
        assert picture.n_frames == 3
    monkeypatch.setattr(environment_gifs, "MOST_BYTES", 100)
    with pytest.raises(ValueError, match=r"chsh_v0.gif: .* more than 100"):
        environment_gifs.write(environment, tmp_path)


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
    common, games = text_of("training.md"), text_of("self_play.md")
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
            elif first == "self_play":
                assert f"`{column}`" in games, f"{path}: {column}"
            elif first not in ("env_runners", "evaluation"):
                assert f"`{column}`" in common, f"{path}: {column}"


def test_every_page_can_be_reached_from_the_index():
    reached, waiting = set(), ["index.md"]
    while waiting:
        name = waiting.pop()
        if name in reached:
            continue
        reached.add(name)
        for link in re.findall(r"\]\(([\w./]+\.md)", text_of(name)):
            target = (DOCS / name).parent.joinpath(link).resolve()
            if target.is_relative_to(DOCS):
                waiting.append(target.relative_to(DOCS).as_posix())
    assert reached == set(PAGES)


@pytest.mark.parametrize("name", ["../README.md", *PAGES])
def test_links_lead_to_files_and_headings_that_are_there(name):
    page = (DOCS / name).resolve()
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"(?:\]\(|src=\")(?!https?:)([^)\"]+)", text):
        path, _, anchor = target.partition("#")
        found = (page.parent / path) if path else page
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found.read_text(encoding="utf-8")), target


@pytest.mark.parametrize(
    "name", ["../README.md", *(page for page in PAGES if not page.startswith("tutorials/"))]
)
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


def test_messages_of_the_troubleshooting_page_are_those_of_the_code():
    """The longest run of words in each message stands in the code, but for messages of Python and Ray."""
    sources = [ROOT / "Makefile", *ROOT.glob("qio_*/**/*.py")]
    code = re.sub(r'"\s*\n\s*f?"', "", "\n".join(path.read_text(encoding="utf-8") for path in sources))
    messages = re.findall(r"^\| `([^`]+)`", text_of("troubleshooting.md"), re.MULTILINE)
    assert len(messages) > 30
    elsewhere = {
        "ModuleNotFoundError: No module named 'ray'",
        "env_config of ...: got an unexpected keyword argument",
        "unhashable type: 'slice'",
    }
    assert elsewhere < set(messages)
    for message in set(messages) - elsewhere:
        quoted = re.sub(r"'[^']*'|[a-z]*_\w+", "|", message)
        words = max(re.findall(r"[a-z][a-z ]+[a-z]", quoted), key=len).split()
        count = max(2, len(words) - 1 - (len(words) > 4))  # the first or last may be what is named
        runs = [" ".join(words[first : first + count]) for first in range(len(words) - count + 1)]
        assert any(run in code for run in runs), f"{message}: none of {runs} in the code"


def test_old_names_of_settings_are_those_that_the_code_refuses():
    from qio_rllib.algorithms.rllib_keys import OLD_STACK, RENAMED
    from qio_rllib.experiments.stop_criteria import _STOP_HINTS

    text = text_of("moving.md")
    table = text.partition("| old | new |")[2].partition("\n\n")[0]
    stops = re.findall(r"^\| stop at `(\w+)` \| `([\w/]+)`", table, re.MULTILINE)
    assert stops
    for old, new in stops:
        assert _STOP_HINTS[old] == new
    rows = re.findall(r"^\| (`.*?) \| (`.*?)(?:[:|]| \|)", table, re.MULTILINE)
    assert len(rows) > 15
    for old, new in rows:
        names, successors = re.findall(r"`(\w+)`", old), re.findall(r"`([\w.]+)`", new)
        assert {RENAMED[name] for name in names} == set(successors), old
    for gone in ("observation_filter", "preprocessor_pref", "sample_collector", "exploration_config"):
        assert gone in OLD_STACK
        assert f"`{gone}`" in text
