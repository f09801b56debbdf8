"""The ready experiments, whose folder lies beside the packages, are put into ``qio_rllib`` where a wheel is built."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithExperiments(build_py):
    """Adds ``tune_configs/``; in an editable installation the folder of the clone is read instead."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "qio_rllib" / "tune_configs"
            target.mkdir(parents=True, exist_ok=True)
            for path in sorted(Path("tune_configs").glob("*.yaml")):
                self.copy_file(str(path), str(target / path.name))


setup(cmdclass={"build_py": BuildWithExperiments})
