"""A connection to a venue: what is sent leaves at the venue's pace, heartbeats on time, and silence is noticed."""

import pytest

from common.capture_lines import Connect
from common.clock import ManualClock
from common.connection import Connection
from common.events import Heartbeat
from common.venues.vectrade import VecTrade
from tests.venue_server import VenueServer
from tests.waiting import until

S = 10**9


class Paced(VecTrade):
    name = ""
    sends_per_s = 2.0

    def heartbeat(self):
        return Heartbeat(20.0, b'{"op":"ping"}')


@pytest.fixture
def connect():
    made = []

    def make(server, venue, **options):
        lines, clock = [], ManualClock(S)
        connection = Connection(f"{server.ws_url}/ws", venue, clock, max_frame=1 << 20, say=lines.append,
                                **{"silence_s": 10.0, **options})
        made.append(connection)
        until(lambda: connection.recv() or connection.opened_ns)
        return connection, clock, lines

    yield make
    for connection in made:
        connection.close()


def test_frames_leave_at_the_pace_that_the_venue_allows(connect):
    with VenueServer(lambda peer: peer.hold()) as server:
        connection, clock, lines = connect(server, Paced(["A"]))
        connection.send([b"1", b"2", b"3"])
        assert lines[0] == Connect(f"{server.ws_url}/ws") and b"subscribe" in lines[1].frame and len(lines) == 2
        for expected in ([b"1"], [b"1", b"2"], [b"1", b"2", b"3"]):
            connection.work(clock.now_ns)
            clock.set(connection.due_ns)
            connection.work(clock.now_ns)
            assert [line.frame for line in lines[2:]] == expected
        assert connection.due_ns == 0


def test_a_heartbeat_leaves_when_it_is_due_and_before_what_waits(connect):
    with VenueServer(lambda peer: peer.hold()) as server:
        connection, clock, lines = connect(server, Paced(["A"]))
        clock.set(clock.now_ns + 19 * S)
        connection.work(clock.now_ns)
        assert len(lines) == 2
        clock.set(clock.now_ns + S)
        connection.send([b"1", b"2"])
        connection.work(clock.now_ns)
        clock.set(clock.now_ns + S)
        connection.work(clock.now_ns)
        assert [line.frame for line in lines[2:]] == [b"1", b'{"op":"ping"}']


def test_a_silent_peer_is_asked_and_its_pong_is_a_sign_of_life(connect):
    with VenueServer(lambda peer: peer.hold()) as server:
        connection, clock, _ = connect(server, VecTrade(["A"]))
        clock.set(clock.now_ns + 6 * S)
        connection.work(clock.now_ns)  # a ping
        clock.set(clock.now_ns + 2 * S)
        until(lambda: connection.recv() or connection._socket.heard_ns == clock.now_ns)
        clock.set(clock.now_ns + 9 * S)
        assert not connection.is_dead(clock.now_ns)
        clock.set(clock.now_ns + 2 * S)
        assert connection.is_dead(clock.now_ns)
