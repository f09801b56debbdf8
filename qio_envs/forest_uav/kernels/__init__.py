"""Numba kernels of the UAV forest; each loops over the environments of a batch.

Maps carry a margin of ``r`` (the sensing radius) cells on every side, so that a crop never needs a border
check: there, a cell is blocked, without vegetation, and nobody believes it unmonitored. On the right the
margin goes on to the next multiple of eight columns, and below there is one row more, so that from any cell
of a crop eight can be read. Positions are without margin.

A *cell* is an index into one map, row by row. What is true or false of a cell is one bit: bit ``cell % 8`` of
byte ``cell // 8``. The small maps of a whole batch so stay in the processor's nearest memory, and beliefs are
joined 64 cells at a time.

The kernels of a step see the maps as flat arrays and index them by unsigned integers, which spares the test
for negative indices; a *base* is the start of an environment's or UAV's map. The NumPy error model spares the
check before each division; no divisor here can be zero.
"""
