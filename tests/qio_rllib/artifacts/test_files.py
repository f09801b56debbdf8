import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qio_envs.api import ConfigError
from qio_rllib.artifacts.files import read_csv, write_csv
from qio_rllib.artifacts.yaml_files import parse_yaml, read_yaml, yaml_text
from qio_rllib.cli.arguments import json_object


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


TOO_LARGE = "expected at most 100,000 values, nested 50 deep, aliases written out"


def aliases(depth):
    """A short text that stands for 9**depth values."""
    lists = ", ".join(f"&a{k + 1} [{', '.join([f'*a{k}'] * 9)}]" for k in range(depth))
    return f"[&a0 x, {lists}]"


def chain(length):
    """A flat text whose last value is as deep as it is long."""
    return "[&a0 [x], " + ", ".join(f"&a{k + 1} [*a{k}]" for k in range(length)) + "]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 51 + "]" * 51, TOO_LARGE),
        ("{a: " * 1000 + "1" + "}" * 1000, TOO_LARGE),
        ("&loop [*loop]", TOO_LARGE),
        ("&loop {a: {b: *loop}}", TOO_LARGE),
        (chain(60), TOO_LARGE),
        (aliases(6), TOO_LARGE),
        (aliases(12), TOO_LARGE),
        ("[" + "1, " * 400_000 + "]", "longer than 1,000,000 characters"),
        ("1" * 5000, "not valid YAML: Exceeds the limit"),
        ("2020-02-31", "not valid YAML: day is out of range"),
        (
            "!!python/object/apply:os.system [ls]",
            ", line 1: not valid YAML: could not determine a constructor",
        ),
    ],
)
def test_a_text_that_is_too_large_too_deep_or_no_yaml_is_refused_in_one_line(text, message):
    with pytest.raises(
        ConfigError, match=f"^--set x(, line 1)?: ?{message.removeprefix(', line 1: ')}"
    ) as caught:
        parse_yaml(text, "--set x")
    assert "\n" not in str(caught.value)


def test_what_aliases_repeat_within_bounds_is_taken():
    assert parse_yaml(aliases(4), "x")[4][8] == parse_yaml(aliases(4), "x")[4][0]
    assert parse_yaml("[" * 50 + "]" * 50, "x") is not None
    assert parse_yaml(chain(40), "x")[-1] != []


@pytest.mark.parametrize(
    "text",
    [
        '{"a": ' + "[" * 60 + "]" * 60 + "}",
        '{"a": ' + "[" * 9000 + "]" * 9000 + "}",
        '{"a": ' + "1" * 5000 + "}",
    ],
)
def test_a_json_option_has_the_same_bounds(text):
    with pytest.raises(
        ConfigError, match="^--config: (expected at most 100,000 values|not valid JSON)"
    ) as caught:
        json_object("--config", text)
    assert len(str(caught.value)) < 300
