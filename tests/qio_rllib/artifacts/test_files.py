import json

from hypothesis import given, settings
from hypothesis import strategies as st

from qio_rllib.artifacts.files import read_csv, write_csv
from qio_rllib.artifacts.yaml_files import read_yaml, yaml_text


def test_tables_of_episodes_round_trip(tmp_path):
    rows = [{"mode": "greedy", "seed": 1, "return": 0.1}, {"mode": "sampled", "seed": 2, "coverage": 1e-17}]
    write_csv(tmp_path / "evaluation.csv", rows)
    assert read_csv(tmp_path / "evaluation.csv") == rows


TEXTS = st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), max_size=20)


KEYS = st.text("abc/_", min_size=1, max_size=8)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(KEYS, PLAIN, min_size=1, max_size=4))
def test_yaml_gives_back_what_was_written(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("yaml") / "x.yaml"
    path.write_text(yaml_text(values), encoding="utf-8", newline="")
    again = read_yaml(path)
    assert again == values
    assert list(again) == list(values)
    assert json.dumps(again) == json.dumps(values)


def test_yaml_is_version_1_2(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("{a: 3e-4, b: no, c: 010, d: 0o10}")
    assert read_yaml(path) == {"a": 3e-4, "b": "no", "c": 10, "d": 8}
