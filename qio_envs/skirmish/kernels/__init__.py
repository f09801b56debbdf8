"""Numba kernels of the skirmish; each loops over the environments of a batch.

All arithmetic is in float32 and in the order of SMAX's, the type and the environment that it is compared with.
Distances are compared as squares, which spares the square root. The NumPy error model spares the check before each
division; no divisor here can be zero.
"""
