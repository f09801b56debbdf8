import numpy as np
import pytest
from numba import njit

from qio_envs.forest_uav.kernels.lanes import LANES, divide, divide_each, spread, word


@njit
def read_word(array, index):
    return word(array, index)


@njit
def write_bits(out, place, bits):
    spread(out, place, bits)


@njit
def write_quotient(out, place, array, index, divisor):
    divide(out, place, array, index, divisor)


@njit
def write_quotients(out, place, array, index, divisors, first):
    divide_each(out, place, array, index, divisors, first)


@pytest.mark.parametrize("index", range(9))
def test_a_word_is_eight_bytes_from_anywhere(index):
    array = np.random.default_rng(index).integers(0, 256, 20, np.uint8)
    assert read_word(array, np.uintp(index)) == int.from_bytes(array[index : index + 8].tobytes(), "little")


@pytest.mark.parametrize("bits", [0, 1, 0b10110010, 255, 0xABCD_EF01_2345_6789])
def test_the_lowest_eight_bits_become_floats(bits):
    out = np.full(20, 7, np.float32)
    write_bits(out, np.uintp(3), np.uint64(bits))
    np.testing.assert_array_equal(out[3:11], [bits >> k & 1 for k in range(LANES)])
    assert (np.delete(out, np.s_[3:11]) == 7).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32])
def test_quotients_are_those_of_numpy(dtype):
    generator = np.random.default_rng(0)
    array = (generator.normal(size=30) * 100).astype(dtype)
    divisors = generator.uniform(1, 9, 30).astype(np.float32)
    out = np.full(20, 7, np.float32)
    write_quotient(out, np.uintp(5), array, np.uintp(2), divisors[0])
    np.testing.assert_array_equal(out[5:13], array[2:10].astype(np.float32) / divisors[0])
    write_quotients(out, np.uintp(5), array, np.uintp(9), divisors, np.uintp(11))
    np.testing.assert_array_equal(out[5:13], array[9:17].astype(np.float32) / divisors[11:19])
    assert (np.delete(out, np.s_[5:13]) == 7).all()
