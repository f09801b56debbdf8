"""``progress.csv``: one row per training iteration."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from qio_envs.api import ConfigError
from qio_rllib.artifacts.files import number, write_atomically
from qio_rllib.artifacts.metrics import ITERATION, column_order


class ProgressFile:
    """A CSV file with one row per training iteration, whose columns may grow.

    The file is whole after every row; a last line that was cut off, by a kill or a full disk, does not count and goes
    with the next row. A new column widens the table (older rows are empty there). A row whose
    iteration is already there replaces it and all after it, so that a run which continues from an earlier
    checkpoint neither repeats nor loses a row.

    Args:
        path: The file; rows that it holds are read.

    Raises:
        ConfigError: The file exists and is not such a table.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.rows: list[dict[str, float]] = []
        self.columns: list[str] = []
        self._cut_off = False
        if self.path.exists():
            self._read()

    def append(self, row: Mapping[str, float]) -> None:
        """Add an iteration's row; values that are not finite are left empty.

        Args:
            row: Numbers by column; ``training_iteration`` is among them.
        """
        kept = {key: value for key, value in row.items() if math.isfinite(value)}
        iteration = kept[ITERATION]
        earlier = [old for old in self.rows if old[ITERATION] < iteration]
        added = kept.keys() - set(self.columns)
        if added:
            self.columns = sorted({*self.columns, *added}, key=column_order)
        rewrite = bool(added) or len(earlier) < len(self.rows) or self._cut_off or not self.path.exists()
        self.rows = [*earlier, kept]
        if rewrite:
            write_atomically(self.path, self._text(self.rows, header=True))
            self._cut_off = False
        else:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(self._text([kept], header=False))

    def _text(self, rows: Iterable[Mapping[str, float]], header: bool) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, restval="", lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def _read(self) -> None:
        try:
            text = self.path.read_text(encoding="utf-8")
            whole, end, _ = text.rpartition("\n")  # a last line without end was cut off while it was written
            self._cut_off = not text.endswith("\n")
            reader = csv.DictReader(io.StringIO(whole + end))
            columns = list(reader.fieldnames or [])
            for values in reader:
                if None in values or None in values.values():
                    raise ValueError("a row of another length")
                self.rows.append({key: number(value) for key, value in values.items() if value != ""})
            if columns and (ITERATION not in columns or any(ITERATION not in row for row in self.rows)):
                raise ValueError(f"no {ITERATION}")
        except (OSError, ValueError, csv.Error) as error:
            raise ConfigError(f"{self.path}: damaged table of results ({error})") from error
        self.columns = columns
