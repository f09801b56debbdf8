"""The documentation's site builds without a warning, and nothing in it leads nowhere or to another host."""

import html.parser
import importlib
import posixpath
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from mkdocs.config import load_config
from mkdocs.structure.files import File, get_files, set_exclusions
from mkdocs.structure.nav import get_navigation

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

sys.path.insert(0, str(DOCS))
site_hooks = importlib.import_module("site_hooks")
site_pages = importlib.import_module("site_pages")


class Page(html.parser.HTMLParser):
    """What a page leads to, what it loads, its anchors, and its text outside of code."""

    def __init__(self, path: Path):
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.text: list[str] = []
        self._in_code = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if found.get("id"):
            self.anchors.add(found["id"])
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag != "a":
            self.loads += [found[key] for key in ("src", "href") if found.get(key)]
        self._in_code += tag in ("pre", "code", "script", "style")

    def handle_endtag(self, tag):
        self._in_code -= tag in ("pre", "code", "script", "style")

    def handle_data(self, data):
        if not self._in_code:
            self.text.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Return the built site; built once."""
    path = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr[-3000:]
    return path


@pytest.fixture(scope="module")
def pages(site) -> dict[str, Page]:
    found = {path.relative_to(site).as_posix(): Page(path) for path in sorted(site.rglob("*.html"))}
    del found["404.html"]  # its links begin at the root of the host
    return found


def test_no_link_is_dead(site, pages):
    dead = []
    for name, page in pages.items():
        for link in {*page.links, *page.loads}:
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = unquote(link).partition("#")
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
            there = (site / target).is_file()
            if there and anchor and target.endswith(".html"):
                there = anchor in pages[target].anchors
            if not there:
                dead.append(f"{name}: {link}")
    assert dead == []


def test_no_page_loads_anything_of_another_host(site, pages):
    outside = {load for page in pages.values() for load in page.loads if re.match(r"(https?:)?//", load)}
    assert outside == set()
    for path in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import )[\"']?(https?:)?//", path.read_text(encoding="utf-8")), path


def test_no_markdown_is_left_in_a_text(pages):
    for name, page in pages.items():
        found = re.search(r"\| ?-{3,}|\]\([^ ]|```|:::", "".join(page.text))
        assert found is None, f"{name}: {found and found[0]}"


def test_what_pages_link_to_is_in_the_site(site, pages):
    assert 'class="highlight"' in (site / "repository/benchmarks/campaign.py.html").read_text()
    assert (site / "repository/results/forest_uav_ppo/seed_0/learning_curve.png").is_file()
    folder = (site / "repository/results/forest_uav_ppo/index.html").read_text()
    assert "396.2" in folder  # of summary.csv
    assert 'src="learning_curve.png"' in folder
    assert "repository/CHANGELOG.html" in pages
    assert (
        "../results.html" in pages["repository/index.html"].links
    )  # of the README, where it says docs/results.md


def test_every_module_of_the_reference_has_entries(pages):
    for path in sorted((DOCS / "api").glob("*.md")):
        page = pages[f"api/{path.stem}.html"]
        names = re.findall(r"^::: ([\w.]+)$", path.read_text(), re.MULTILINE)
        assert names, path
        for name in names:
            inside = [anchor for anchor in page.anchors if anchor.startswith(f"{name}.")]
            assert name in page.anchors, name
            assert inside, f"{path.name}: {name} shows nothing"
    assert "qio_envs.api.BatchedEnv.counterfactual" in pages["api/batched_env.html"].anchors


def test_a_page_that_the_navigation_forgets_is_named(caplog, tmp_path):
    config = site_hooks.on_config(load_config(str(ROOT / "mkdocs.yml")))
    files = get_files(config)
    files.append(File("forgotten.md", str(tmp_path), str(tmp_path), config.use_directory_urls))
    set_exclusions(files, config)
    get_navigation(files, config)
    (record,) = [found for found in caplog.records if "not included" in found.getMessage()]
    assert record.levelname == "WARNING"  # with --strict the end of the build
    assert re.findall(r"[\w/]+\.md", record.getMessage()) == ["forgotten.md"]


def test_anchors_are_those_of_repository_browsers():
    slug = load_config(str(ROOT / "mkdocs.yml")).mdx_configs["toc"]["slugify"]
    assert slug("Q & A - of `team_reward`, Größe", "-") == "q--a---of-team_reward-größe"


def test_a_folder_without_pages_is_no_entry_of_the_navigation():
    with pytest.raises(SystemExit, match=r"nav: nothing/\* has no page"):
        site_hooks._expanded([{"Nothing": ["nothing/*"]}], DOCS)


def test_code_is_shown_whatever_fences_are_in_it(tmp_path, monkeypatch):
    monkeypatch.setattr(site_pages, "ROOT", tmp_path)
    (tmp_path / "odd.py").write_text('"""Odd.\n\n````\n```\n"""\n')
    (tmp_path / "odd.csv").write_text("name,value\n<b>,0.123456789\n")
    assert "`````python\n" in site_pages.page_of("odd.py")
    table = site_pages.page_of("odd.csv")
    assert "<td>&lt;b&gt;</td><td>0.123457</td>" in table
    monkeypatch.setattr(site_pages, "_MOST_ROWS", 0)
    assert "1 more rows" in site_pages.page_of("odd.csv")


def test_links_in_code_are_left_alone_and_pipes_in_tables_are_written_out():
    text = "[a](../setup.cfg)\n```\n[a](../setup.cfg)\n```\n| `x \\| y` | z |"
    assert site_hooks._targets(text, "docs/index.md") == ["setup.cfg"]
    assert site_hooks._outside_of_code(text, site_hooks._with_plain_pipes).endswith("| `x | y` | z |")
