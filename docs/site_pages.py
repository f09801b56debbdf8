"""What the documentation's site shows of a file or folder of the repository."""

from __future__ import annotations

import ast
import csv
import html
import os
import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
_PICTURES = (".png", ".gif", ".svg")
_LANGUAGES = {
    ".py": "python",
    ".yaml": "yaml",
    ".cff": "yaml",
    ".json": "json",
    ".toml": "toml",
    ".sh": "bash",
}
_RESULTS = "results/"
_MOST_ROWS = 200
"""Rows of a table that are shown; the file itself is linked."""
_MOST_CODE = 60_000
"""Bytes of a folder of code that is shown whole; of a larger one its files are listed."""


def is_picture(path: str) -> bool:
    """Return whether a file is shown as it is."""
    return path.endswith(_PICTURES)


def static_uri(path: str) -> str:
    """Return the place of a file that the site has as it is."""
    return f"repository/{path}"


def page_uri(path: str) -> str:
    """Return the place of the page of a file or folder."""
    if (ROOT / path).is_dir():
        return f"repository/{path}/index.md"
    return f"repository/{path}" + ("" if path.endswith(".md") else ".md")


def files_under(path: str) -> list[str]:
    """Return the files that the site takes in as they are for a file or folder, relative to the repository."""
    where = ROOT / path
    if where.is_dir():
        found = [posixpath.join(folder, name) for folder, names in _walk(path) for name in names]
    else:
        found = [path]
    return [file for file in found if is_picture(file) or file.startswith(_RESULTS)]


def page_of(path: str) -> str:
    """Return the page of a file or folder, in Markdown: a text of ours as it is, code highlighted, data as a table."""
    where = ROOT / path
    if where.is_dir():
        return _folder(path)
    text = where.read_text(encoding="utf-8")
    if path.endswith(".md"):
        return text
    head = f"{_front_matter(path)}# {posixpath.basename(path)}\n\n`{path}`"
    if path.endswith(".csv"):
        return f"{head}, [the file itself]({posixpath.basename(path)}).\n\n{_table(where)}\n"
    return f"{head}\n\n{_code(text, where.suffix)}\n"


def _folder(path: str) -> str:
    """Return the page of a folder: of results pictures, summary and files, of code its text if that is short."""
    whole = (
        sum((ROOT / folder / name).stat().st_size for folder, names in _walk(path) for name in names)
        < _MOST_CODE
    )
    parts = [f"{_front_matter(path)}# {path}"]
    for folder, names in _walk(path):
        inside = posixpath.relpath(folder, path)
        if inside != ".":
            parts.append(f"## {inside}")
        pictures = [
            f'<img src="{posixpath.normpath(posixpath.join(inside, name))}" alt="{name}" loading="lazy">'
            for name in names
            if is_picture(name)
        ]
        if pictures:
            parts.append('<p class="pictures">\n' + "\n".join(pictures) + "\n</p>")
        if "summary.csv" in names:
            parts.append(_table(ROOT / folder / "summary.csv"))
        if f"{path}/".startswith(_RESULTS):
            links = [
                _link(posixpath.normpath(posixpath.join(inside, name)), ROOT / folder / name)
                for name in names
            ]
            parts.append("\n".join(f"- {link}" for link in links))
        elif whole:
            for name in names:
                parts.append(f"## {name}")
                parts.append(_code((ROOT / folder / name).read_text(encoding="utf-8"), Path(name).suffix))
        else:
            parts.append("\n".join(f"- `{name}`{_summary(ROOT / folder / name)}" for name in names))
    return "\n\n".join(part for part in parts if part) + "\n"


def _walk(path: str) -> list[tuple[str, list[str]]]:
    """Return a folder and those in it with the names of their files, relative to the repository, in order."""
    found = []
    for folder, folders, names in os.walk(ROOT / path):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        kept = sorted(name for name in names if not name.startswith("."))
        found.append((Path(folder).relative_to(ROOT).as_posix(), kept))
    return found


def _link(target: str, where: Path) -> str:
    size = where.stat().st_size
    shown = f"{size / 1024:,.0f} kB" if size >= 1024 else f"{size} bytes"
    return f"[{posixpath.basename(target)}]({target}) ({shown})"


def _summary(where: Path) -> str:
    """Return what the first line of a module's docstring says, behind a colon."""
    if where.suffix != ".py":
        return ""
    found = ast.get_docstring(ast.parse(where.read_text(encoding="utf-8")))
    return f": {found.splitlines()[0]}" if found else ""


def _table(where: Path) -> str:
    """Return a file of comma-separated values as an HTML table."""
    with where.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    lines = [_row(header, "th"), *(_row(row, "td") for row in rows[:_MOST_ROWS])]
    left = len(rows) - _MOST_ROWS
    more = f"\n\n{left:,} more rows are in the file." if left > 0 else ""
    return "<table>\n" + "\n".join(lines) + "\n</table>" + more


def _row(cells: list[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(_shortened(cell))}</{tag}>" for cell in cells) + "</tr>"


def _shortened(cell: str) -> str:
    """Return a number with six digits, anything else as it is."""
    return f"{float(cell):.6g}" if re.fullmatch(r"-?\d+\.\d{5,}(e-?\d+)?", cell) else cell


def _code(text: str, suffix: str) -> str:
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{_LANGUAGES.get(suffix, 'text')}\n{text.rstrip()}\n{fence}"


def _front_matter(path: str) -> str:
    """Return what MkDocs is told of a page: its title, and that a search does not look into it."""
    return f"---\ntitle: {posixpath.basename(path)}\nsearch: {{exclude: true}}\n---\n"
