"""Packages: those that lie under their names, and the ready experiments, whose folder lies beside them."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["qio_envs", "qio_envs.*", "qio_rllib", "qio_rllib.*"]),
        "qio_rllib.tune_configs",
    ],
    package_dir={"qio_rllib.tune_configs": "tune_configs"},
)
