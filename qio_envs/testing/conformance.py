"""`check_parallel_env`: every check on any PettingZoo environment."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable

from qio_envs.testing.checks import CHECKS
from qio_envs.testing.playing import MakeEnv
from qio_envs.testing.results import CheckResult, Doubtful, Skipped


def check_parallel_env(make_env: MakeEnv, *, steps: int = 60, seed: int = 0) -> list[CheckResult]:
    """Run every check on fresh environments with random legal actions.

    Args:
        make_env: Returns a new PettingZoo ``ParallelEnv``; for the check of pictures it is called with
            ``render_mode="rgb_array"``.
        steps: Steps of each trajectory (shorter episodes go on with ``reset()``).
        seed: Seed of the environments and of the actions.

    Returns:
        One result a check, in a fixed order. An exception inside a check is a failure of that check.
    """
    return [_run(name, check, make_env, steps, seed) for name, check in CHECKS.items()]


def _run(name: str, check: Callable[..., None], make_env: MakeEnv, steps: int, seed: int) -> CheckResult:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            check(make_env, steps, seed)
        except Skipped as reason:
            return CheckResult(name, True, "skip", str(reason))
        except Doubtful as found:
            return CheckResult(name, False, "warning", str(found))
        except AssertionError as found:
            return CheckResult(name, False, message=str(found) or "an assertion failed")
        except Exception as error:  # whatever an environment raises is a finding
            return CheckResult(name, False, message=f"{type(error).__name__}: {error}")
    return CheckResult(name, True)
