import copy
import pickle

import numpy as np
from numba import njit

from qio_envs.api.kernels import Kernel
from qio_envs.api.random import MAX_NORMAL, normals


@njit
def add(first, second):
    return first + second


def test_a_kernel_gives_what_its_function_gives():
    kernel = Kernel(add)
    assert kernel(1, 2) == 3
    assert kernel(40, 2) == 42
    draw = Kernel(normals)
    assert draw(1, 2, 3, 4, 5) == normals(1, 2, 3, 4, 5)
    assert max(map(abs, draw(0, 0, 0, 0, 0))) < MAX_NORMAL


def test_copies_of_a_kernel_look_up_their_own_types():
    kernel = Kernel(add)
    kernel(np.ones(2), np.ones(2))
    for duplicate in (copy.deepcopy(kernel), pickle.loads(pickle.dumps(Kernel(normals)))):
        assert duplicate is not kernel
    assert copy.deepcopy(kernel)(1.5, 2) == 3.5
