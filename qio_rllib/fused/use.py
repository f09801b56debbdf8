"""Where kernels compute in the place of torch: inside `fused_kernels`, on one thread, where they can be compiled."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import types
from collections.abc import Iterator

import torch

logger = logging.getLogger(__name__)


class _Use(threading.local):
    inside = False
    allowed = True
    acting = False


_use = _Use()


@contextlib.contextmanager
def fused_kernels() -> Iterator[None]:
    """Let stacks, losses and optimizers that this thread calls meanwhile compute by kernels where these take them.

    A kernel computes on one thread: where torch may use several, it does.
    """
    before = _use.inside
    _use.inside = _use.allowed and torch.get_num_threads() == 1 and are_available()
    try:
        yield
    finally:
        _use.inside = before


@contextlib.contextmanager
def torch_alone() -> Iterator[None]:
    """Let torch compute everything that this thread asks for meanwhile, inside `fused_kernels` too."""
    before = _use.inside, _use.allowed
    _use.inside, _use.allowed = False, False
    try:
        yield
    finally:
        _use.inside, _use.allowed = before


@contextlib.contextmanager
def acting_kernels() -> Iterator[None]:
    """Let Actors that this thread calls meanwhile act by kernels where these take their networks.

    That is not `fused_kernels`: what else runs meanwhile may trace its networks, which kernels cannot be.
    """
    before = _use.acting
    _use.acting = torch.get_num_threads() == 1 and are_available()
    try:
        yield
    finally:
        _use.acting = before


def acts() -> bool:
    """Return whether this thread is inside `acting_kernels`, and they are what computes."""
    return _use.acting


def in_use() -> bool:
    """Return whether this thread is inside `fused_kernels`, and they are what computes."""
    return _use.inside


def is_plain(tensor: torch.Tensor) -> bool:
    """Return whether a kernel can take a tensor: contiguous float32 in this machine's memory."""
    return tensor.dtype == torch.float32 and tensor.is_cpu and tensor.is_contiguous()


@functools.cache
def are_available() -> bool:
    """Return whether this process has kernels; if not, the log says once why."""
    try:
        kernels()
    except (
        Exception
    ) as error:  # numba raises of all kinds: no place for its cache, no code for this processor
        logger.info("updates and actions are computed by torch alone, kernels cannot be compiled: %s", error)
        return False
    return True


@functools.cache
def kernels() -> types.ModuleType:
    """Return the compiled kernels."""
    # Not before they are needed: numba takes half a second to import, and acting does without.
    from qio_rllib.fused import compiled

    compiled.check()
    return compiled
