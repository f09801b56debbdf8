"""Pickling of environments as they are, in the middle of an episode."""

from __future__ import annotations

from typing import Any

import gymnasium
from ray import cloudpickle


class WholePickler(cloudpickle.Pickler):
    """Pickles environments as they are, also those that would give their constructor's arguments only (EzPickle).

    Classes of the user's own script go by value, so that another process can load them.
    """

    def reducer_override(self, obj: Any) -> Any:
        """Return how an object is pickled, see `pickle.Pickler.reducer_override`."""
        if isinstance(obj, gymnasium.utils.EzPickle):
            return object.__new__, (type(obj),), obj.__dict__, None, None, _set_attributes
        if type(obj).__module__.startswith("pygame"):  # a viewer's canvas and font: made again, not copied
            if hasattr(obj, "get_size") and hasattr(obj, "blit"):
                return type(obj), (obj.get_size(),)
            if type(obj).__name__ == "Font":
                return _font, ()
        return super().reducer_override(obj)


def _font() -> Any:
    # The default one: pygame forgets what a font was made of when any environment is closed.
    import pygame.freetype

    pygame.freetype.init()
    return pygame.freetype.Font(None, 24)


def _set_attributes(obj: Any, attributes: dict[str, Any]) -> None:
    obj.__dict__.update(attributes)
