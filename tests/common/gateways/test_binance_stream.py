"""The user stream: it opens, stays open, begins anew, and tells when it does not know."""

import orjson
import pytest

from common.clock import SystemClock
from common.gateways.binance_stream import RENEW_NS, SILENCE_NS, UserStream
from tests.venue_server import VenueServer
from tests.waiting import until

KEY = "l1stenK3y"
EVENT = {"e": "ORDER_TRADE_UPDATE", "o": {"c": "x"}}


class Later(SystemClock):
    """The real clock, moved on by the test."""

    later_ns = 0

    def monotonic_ns(self) -> int:
        return super().monotonic_ns() + self.later_ns


class Listener:
    """A stream, and what was asked on its behalf; a key is told as soon as it is asked for."""

    def __init__(self, url: str, keyed: bool, key: str = KEY) -> None:
        self.clock, self.asked, self.renewed, self.events = Later(), 0, [], []
        more = {"ask_key": self._ask, "renew_key": self.renewed.append} if keyed else {"hello": lambda: b'{"id":"h"}'}
        self.key, self.stream = key, UserStream(url, self.clock, 5.0, **more)

    def _ask(self) -> None:
        self.asked += 1
        self.stream.key_told(self.key)

    def step(self) -> bool:
        self.events += self.stream.work(self.clock.monotonic_ns())
        return True

    def until(self, condition) -> None:
        until(lambda: self.step() and condition())


@pytest.fixture
def listen():
    made: list[Listener] = []

    def listen(*args, **kwargs) -> Listener:
        made.append(Listener(*args, **kwargs))
        return made[-1]

    yield listen
    for listener in made:
        listener.stream.close()


def frame(told: object) -> bytes:
    return orjson.dumps(told)


def test_a_listen_key_names_the_stream_and_events_come_as_they_are(listen):
    def talk(peer) -> None:
        peer.send(frame(EVENT), frame({"e": "ACCOUNT_UPDATE"}))
        peer.hold()

    with VenueServer(talk) as server:
        listener = listen(server.ws_url, keyed=True)
        listener.until(lambda: len(listener.events) == 2)
        assert server.peers[0].path == f"/ws/{KEY}" and listener.events == [EVENT, {"e": "ACCOUNT_UPDATE"}]
        assert listener.stream.live and (listener.asked, listener.stream.openings) == (1, 1)
        assert listener.stream.fileno() >= 0 and listener.stream.due_ns() > listener.clock.monotonic_ns()


def test_a_signed_request_subscribes_and_events_are_unwrapped(listen):
    def talk(peer) -> None:
        assert peer.recv() == b'{"id":"h"}'
        peer.send(frame({"id": "h", "status": 200, "result": {"subscriptionId": 0}}),
                  frame({"subscriptionId": 0, "event": EVENT}))
        peer.hold()

    with VenueServer(talk) as server:
        listener = listen(server.ws_url, keyed=False)
        listener.until(lambda: listener.events)
        assert listener.events == [EVENT] and listener.stream.live


def test_a_refused_subscription_is_tried_again_and_says_why(listen):
    def talk(peer) -> None:
        peer.recv()
        peer.send(frame({"id": "h", "status": 400, "error": {"code": -1022, "msg": "Signature is not valid."}}))
        peer.hold()

    with VenueServer(talk) as server:
        listener = listen(server.ws_url, keyed=False)
        listener.until(lambda: len(server.peers) == 2)
        listener.until(lambda: "-1022" in listener.stream.error)
        assert not listener.stream.live and listener.stream.openings == 0


@pytest.mark.parametrize("last", [b"not JSON", b"[]", b'{"e":5}', frame({"e": "listenKeyExpired"}),
                                  frame({"event": {"e": "eventStreamTerminated"}})])
def test_after_nonsense_or_the_end_it_begins_anew_with_another_key(listen, last):
    def talk(peer) -> None:
        if len(server.peers) == 1:
            peer.send(last)
        peer.hold()

    with VenueServer(talk) as server:
        listener = listen(server.ws_url, keyed=True)
        listener.until(lambda: listener.stream.openings == 2 and listener.stream.live)
        assert listener.asked == 2 and listener.events == []


def test_a_connection_that_ends_is_made_again(listen):
    with VenueServer(lambda peer: None) as server:
        listener = listen(server.ws_url, keyed=True)
        listener.until(lambda: listener.asked == 2)
        assert "connection" in listener.stream.error and not listener.stream.live


def test_the_key_is_renewed_before_it_ends(listen):
    with VenueServer() as server:
        listener = listen(server.ws_url, keyed=True)
        listener.until(lambda: listener.stream.live)
        for count in (1, 2):
            until(lambda: listener.stream._socket.heard_ns)
            listener.clock.later_ns += RENEW_NS
            listener.stream._socket.heard_ns = listener.clock.monotonic_ns()
            listener.step()
            assert listener.renewed == [KEY] * count


def test_while_the_venue_is_left_alone_nothing_is_renewed_or_opened(listen):
    with VenueServer() as server:
        listener = listen(server.ws_url, keyed=True)
        listener.until(lambda: listener.stream.live)
        until(lambda: listener.stream._socket.heard_ns)
        listener.clock.later_ns += RENEW_NS
        now = listener.stream._socket.heard_ns = listener.clock.monotonic_ns()
        listener.stream.leave_alone(now + 5 * 10**9)
        listener.step()
        assert listener.renewed == [] and listener.stream.live and listener.stream.due_ns() > now
        listener.clock.later_ns += 6 * 10**9
        listener.step()
        assert listener.renewed == [KEY]
        listener.stream.leave_alone(listener.clock.monotonic_ns() + 3600 * 10**9)
        listener.stream.failed("lost")
        listener.clock.later_ns += 3500 * 10**9
        listener.step()
        assert listener.asked == 1 and listener.stream.due_ns() > listener.clock.monotonic_ns()
        listener.clock.later_ns += 101 * 10**9
        listener.until(lambda: listener.stream.live)
        assert listener.asked == 2


def test_silence_is_asked_about_and_then_the_connection_is_dead(listen):
    with VenueServer() as server:
        listener = listen(server.ws_url, keyed=True)
        listener.until(lambda: listener.stream.live)
        heard = listener.stream._socket.heard_ns
        listener.clock.later_ns = SILENCE_NS // 2 + 10**9
        listener.until(lambda: listener.stream._socket.heard_ns > heard)  # the answer to a ping
        listener.clock.later_ns += SILENCE_NS + 10**9
        listener.step()
        assert not listener.stream.live and "too long" in listener.stream.error


def test_a_key_that_is_none_is_refused_and_in_no_error(listen):
    with VenueServer() as server:
        listener = listen(server.ws_url, keyed=True, key="bad key\r\n")
        listener.until(lambda: listener.asked == 2)
        assert "characters" in listener.stream.error and "bad" not in listener.stream.error
        assert server.peers == []
    refused = listen("ws://127.0.0.1:1", keyed=True)
    refused.until(lambda: "cannot connect" in refused.stream.error)
    assert KEY not in refused.stream.error


def test_after_close_nothing_comes(listen):
    with VenueServer() as server:
        listener = listen(server.ws_url, keyed=True)
        listener.until(lambda: listener.stream.live)
        listener.stream.close()
        assert not listener.stream.live and listener.stream.fileno() == -1
