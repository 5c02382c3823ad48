"""One descriptor wakes for each of several connections, for reading and for writing."""

import select
import socket

import pytest

from common.gateways.joint import Joint


class End:
    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.wants_write = False

    def fileno(self) -> int:
        return self.ours.fileno()

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def ends():
    ends = [End(), End()]
    yield ends
    for end in ends:
        end.close()


def wakes(joint: Joint) -> bool:
    return bool(select.select([joint.fileno()], [], [], 0)[0])


def test_it_wakes_for_each_and_follows_what_they_want(ends):
    joint = Joint(*ends)
    for end in ends:
        assert not wakes(joint)
        end.theirs.send(b"x")
        assert wakes(joint)
        end.ours.recv(1)
        end.wants_write = True
        assert wakes(joint)
        end.wants_write = False
    joint.close()
    assert joint.fileno() == -1


def test_a_connection_that_is_closed_and_one_that_is_new_take_no_word_of_the_caller(ends):
    joint = Joint(*ends)
    number = joint.fileno()
    ends[0].close()
    assert ends[0].fileno() == -1 and not wakes(joint)
    ends[0].__init__()
    ends[0].theirs.send(b"x")
    assert wakes(joint) and joint.fileno() == number
    joint.close()
