"""Names for Tune: algorithms and environments are registered as soon as Ray Tune is imported, and not before.

`qio_rllib.algorithms` registers all of them when it is imported. Policy files and the mathematics need no Ray, and
importing RLlib takes seconds; so `register_when_tune_is_there` imports it at once where Tune has been imported already,
and elsewhere waits for Tune with a finder on ``sys.meta_path``. That finder finds nothing by itself: it lets the others
find ``ray.tune`` and ``ray.rllib``, and acts after their code has run. (RLlib imports Tune while it is imported itself;
then what is waited for is the end of RLlib's own import.)
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

_TUNE, _RLLIB, _ALGORITHMS = "ray.tune", "ray.rllib", "qio_rllib.algorithms"


def register_when_tune_is_there() -> None:
    """Register algorithms and environments now if Tune has been imported, else as soon as it has."""
    if _TUNE in sys.modules:
        importlib.import_module(_ALGORITHMS)
    elif not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())


class _AfterImport(importlib.abc.MetaPathFinder):
    """Imports the algorithms once the import of Tune, and of RLlib where that has begun, is over."""

    def __init__(self) -> None:
        self.begun: set[str] = set()
        self.over: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the spec that the other finders have, with a loader that tells when it is done."""
        if fullname not in (_TUNE, _RLLIB) or fullname in self.begun:
            return None
        self.begun.add(fullname)  # before the others are asked, which asks this finder again
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return None
        spec.loader = _Loader(spec.loader, self)
        return spec

    def loaded(self, name: str) -> None:
        """Take note of a module that has been imported."""
        self.over.add(name)
        if _TUNE in self.over and self.begun == self.over and self in sys.meta_path:
            sys.meta_path.remove(self)
            importlib.import_module(_ALGORITHMS)


class _Loader(importlib.abc.Loader):
    """Another loader, after which a finder is told."""

    def __init__(self, loader: Any, finder: _AfterImport) -> None:
        self.loader, self.finder = loader, finder

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """Let the other loader create the module."""
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Let the other loader run the module's code."""
        spec = module.__spec__
        if spec is not None:
            spec.loader = self.loader
        module.__loader__ = self.loader
        self.loader.exec_module(module)
        self.finder.loaded(module.__name__)
