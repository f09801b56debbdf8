"""Hooks of MkDocs: pages link to files of the repository, and the site takes these in.

Markdown sources are read in a repository browser too, so that they link to what lies there, such as
``../results/forest_uav_ppo``. Here whatever is linked becomes a part of the site under ``repository/`` (`site_pages`
says as what), and links lead there.
"""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))
from site_pages import ROOT, files_under, is_picture, page_of, page_uri, static_uri

_DOCS = "docs"
_LINK = re.compile(r'(?P<before>\]\(|src="|href=")(?P<target>[^)"\s]+)(?=[)"])')
_FENCE = re.compile(r"^ *(```+|~~~+)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Write out entries of the navigation that stand for all pages of a folder: ``environments/*``."""
    config.nav = _expanded(config.nav, Path(config.docs_dir))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what pages link to in the repository, and what that links to."""
    waiting = [file for file in files if file.is_documentation_page()]
    while waiting:
        page = waiting.pop()
        source = _source_of(page.src_uri)
        for target in sorted(set(_targets(page.content_string, source))):
            for file in _site_files(target, config):
                if files.get_file_from_path(file.src_uri) is None:
                    files.append(file)
                    if file.is_documentation_page() and target.endswith(".md"):
                        waiting.append(file)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to what the site has, and write tables as Python-Markdown reads them."""
    if page.is_homepage:
        page.meta["hide"] = ["navigation", "toc"]
    source = _source_of(page.file.src_uri)
    if not (ROOT / source).is_file():
        return markdown  # made for the site alone
    folder = posixpath.dirname(page.file.src_uri)

    def led(match: re.Match[str]) -> str:
        target, anchor = _resolved(match["target"], source)
        if target is None:
            return match[0]
        uri = _uri_of(target)
        return match["before"] + posixpath.relpath(uri, folder or ".") + anchor

    return _outside_of_code(markdown, lambda line: _with_plain_pipes(_LINK.sub(led, line)))


def _expanded(nav: Any, docs: Path) -> Any:
    """Return a part of the navigation with every ``folder/*`` written out."""
    if isinstance(nav, dict):
        return {title: _expanded(part, docs) for title, part in nav.items()}
    if not isinstance(nav, list):
        return nav
    result: list[Any] = []
    for part in nav:
        if isinstance(part, str) and part.endswith("/*"):
            found = sorted(path.relative_to(docs).as_posix() for path in docs.glob(f"{part}.md"))
            if not found:
                raise SystemExit(f"mkdocs.yml: nav: {part} has no page")
            result += found
        else:
            result.append(_expanded(part, docs))
    return result


def _source_of(src_uri: str) -> str:
    """Return the file of the repository from which a page is made, relative to the repository."""
    if not src_uri.startswith("repository/"):
        return f"{_DOCS}/{src_uri}"
    return src_uri.removeprefix("repository/")


def _uri_of(target: str) -> str:
    """Return the place in the site of a file or folder of the repository."""
    if target.startswith(f"{_DOCS}/") and (ROOT / target).is_file() and not target.endswith(".py"):
        return target.removeprefix(f"{_DOCS}/")
    return static_uri(target) if is_picture(target) else page_uri(target)


def _site_files(target: str, config: MkDocsConfig) -> Iterator[File]:
    """Yield what the site takes in for one file or folder: its page, and files as they are."""
    if not _uri_of(target).startswith("repository/"):
        return
    for path in files_under(target):
        yield File.generated(config, static_uri(path), abs_src_path=str(ROOT / path))
    if not is_picture(target):
        yield File.generated(config, page_uri(target), content=page_of(target))


def _targets(markdown: str, source: str) -> list[str]:
    """Return the files and folders to which a page links, relative to the repository."""
    found: list[str] = []

    def note(line: str) -> str:
        for match in _LINK.finditer(line):
            target, _ = _resolved(match["target"], source)
            if target is not None:
                found.append(target)
        return line

    _outside_of_code(markdown, note)
    return found


def _resolved(link: str, source: str) -> tuple[str | None, str]:
    """Return where a link leads, relative to the repository, and its anchor; None if it is not a file of it."""
    path, mark, anchor = link.partition("#")
    if not path or re.match(r"[a-z]+:", path):
        return None, ""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if target.startswith("..") or not (ROOT / target).exists():
        return None, ""  # MkDocs reports it
    return target, mark + anchor


def _outside_of_code(markdown: str, change: Callable[[str], str]) -> str:
    """Return a text with all lines changed that are not in a fenced block."""
    fence = ""
    lines = []
    for line in markdown.split("\n"):
        opened = _FENCE.match(line)
        if fence:
            if opened and line.strip() == fence:
                fence = ""
            lines.append(line)
        elif opened:
            fence = opened[1]
            lines.append(line)
        else:
            lines.append(change(line))
    return "\n".join(lines)


def _with_plain_pipes(line: str) -> str:
    r"""Return a row of a table whose code has ``|`` for ``\|``, which repository browsers need and MkDocs shows."""
    if not line.startswith("|"):
        return line
    return re.sub(r"`[^`]*`", lambda match: match[0].replace(r"\|", "|"), line)
