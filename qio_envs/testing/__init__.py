"""Conformance checks for any PettingZoo environment, beyond those of PettingZoo itself.

::

    python -m qio_envs.testing forest_uav_v0 --kwarg scenario=wooded
    python -m qio_envs.testing mpe2.simple_spread_v3 --kwarg N=5
    python -m qio_envs.testing my_package.my_env:make_parallel_env

prints a table and exits with 0 (conforms, perhaps with warnings), 1 (does not) or 2 (bad usage). In a test suite,
`check_parallel_env` does the same. The docstring of each of `CHECKS` says what it demands.
"""

from qio_envs.testing.checks import CHECKS
from qio_envs.testing.conformance import check_parallel_env
from qio_envs.testing.results import CheckResult, table

__all__ = ["CHECKS", "CheckResult", "check_parallel_env", "table"]
