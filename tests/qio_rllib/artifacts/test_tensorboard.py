"""TensorBoard files, read record by record."""

import math
import struct

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from qio_rllib.artifacts.tensorboard import ScalarEvents


def events_of(path):
    """A record is its length (8 bytes), a checksum (4), the event, and a checksum (4)."""
    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        found.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return found


def test_a_row_is_in_the_file_when_it_has_been_added(tmp_path):
    events = ScalarEvents(tmp_path / "tensorboard", first_step=40)
    events.add({"a/b": 0.5, "c": math.nan, "d": 3}, step=40)
    (path,) = (tmp_path / "tensorboard").iterdir()
    version, start, row = events_of(path)  # the file is still open
    assert version.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (40, SessionLog.START)
    assert (row.step, [(value.tag, value.simple_value) for value in row.summary.value]) == (
        40,
        [("a/b", 0.5), ("d", 3.0)],
    )
    events.close()


def test_a_second_file_does_not_take_the_place_of_the_first(tmp_path):
    for step in (10, 20):
        ScalarEvents(tmp_path, step).close()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_cannot_be_made_is_an_error_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        ScalarEvents(tmp_path / "file", 0)
