"""The benchmark of secure aggregation."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import secure_aggregation
from tables import read


def test_rounds_are_exact_and_their_traffic_is_counted(tmp_path, monkeypatch):
    small = secure_aggregation.Setting(5, 64, 4, 3, secure_aggregation.lost(1, secure_aggregation.UPLOADS))
    monkeypatch.setattr(secure_aggregation, "SETTINGS", (small, small._replace(clients=2000)))
    secure_aggregation.main(["--out", str(tmp_path)])
    (row,) = read(tmp_path / "secure_aggregation.csv")
    assert (row["exact"], row["contributors"], row["lost"]) == ("True", "4", "1")
    assert int(row["bytes_up"]) > 4 * 4 * 64
    assert float(row["cpu_seconds"]) > 0
