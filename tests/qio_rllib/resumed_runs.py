"""Runs that go on from a checkpoint, beside those that were not interrupted."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ray.rllib.algorithms.algorithm import Algorithm


class Resumption(NamedTuple):
    """Two algorithms after the same iterations, and the results of the last one."""

    whole: Any
    expected: dict[str, Any]
    resumed: Any
    found: dict[str, Any]


@contextlib.contextmanager
def resumption(config: Any, folder: Path, before: int = 2) -> Iterator[Resumption]:
    """Train some iterations, save, train one more; and that one again from what was saved."""
    with contextlib.ExitStack() as running:
        whole = config.build_algo()
        running.callback(whole.stop)
        for _ in range(before):
            whole.train()
        whole.save_to_path(str(folder / "checkpoint"))
        expected = whole.train()
        resumed = Algorithm.from_checkpoint(str(folder / "checkpoint"))
        running.callback(resumed.stop)
        yield Resumption(whole, expected, resumed, resumed.train())


def assert_goes_on_exactly(config: Any, folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """Return what the Learner of ``shared`` reports of the last iteration; the names in it and all weights agree."""
    with resumption(config, folder) as run:
        expected, found = (result["learners"]["shared"] for result in (run.expected, run.found))
        for name in names:
            assert found[name] == expected[name], name
        old, new = (each.learner_group.get_weights()["shared"] for each in (run.whole, run.resumed))
        assert old.keys() == new.keys()
        for name, array in old.items():
            np.testing.assert_array_equal(array, new[name], name)
    return expected
