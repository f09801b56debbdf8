"""Numbers by which kernels and what calls them mean the same thing."""

from __future__ import annotations

LINEAR, RELU, SILU, TANH = range(4)
"""Activations."""
WEIGHT, BIAS, INPUTS, OUTPUTS, ACTIVATION, WEIGHT_GRADIENT, BIAS_GRADIENT = range(7)
"""Columns of the table of layers, int64 ``[L, 7]``: addresses, sizes, an activation and addresses."""
WIDTH = 16
"""Rows of the kernels' buffers are a multiple of so many numbers long."""
BY_VALUE, BY_NORM, BY_GLOBAL_NORM = range(3)
"""Ways to clip gradients."""
GRADIENT, SIZE, PARAMETER, FIRST, SECOND, STEP = range(6)
"""Columns of the table of parameters, int64 ``[P, 6]``: addresses and a size."""
GAIN, ENTROPY, ERROR, ERROR_UNCLIPPED, DIVERGENCE = range(5)
"""Places of a loss's means; those of entropy and divergence are those of their weights too."""
CLIP, VALUE, VALUE_CLIP = 0, 2, 3
"""Places of its other weights."""
PLAIN, SQUARE, HUBER = range(3)
"""What a mean is taken of: differences, their squares, Huber's error."""
