"""What is said by an answer of Binance, whatever it was asked."""

import orjson
import pytest

from common.errors import VenueError
from common.gateways.binance_answers import complaint, error, field, parsed, pause_ns
from common.http import Reply


def reply(status: int, body: object = None, error: str = "", sent: bool = True, **headers: str) -> Reply:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return Reply(None, status, headers, raw, error, sent, 1 if sent else 0, 2)


@pytest.mark.parametrize(("answer", "pause_s"), [
    (reply(429, {"code": -1003, "msg": ""}, **{"retry-after": "3"}), 3), (reply(429), 1), (reply(418), 120),
    (reply(418, **{"retry-after": "900"}), 900), (reply(403), 60), (reply(400, {"code": -1015, "msg": ""}), 1),
    (reply(200, {"code": -1003}), 0), (reply(503), 0), (reply(0, error="x", sent=False), 0.25),
    (reply(429, **{"retry-after": "soon"}), 1)])
def test_how_long_the_venue_is_left_alone(answer, pause_s):
    assert pause_ns(answer) == pause_s * 10**9


def test_a_refusal_is_told_in_the_words_of_the_venue_and_nonsense_as_it_came():
    assert complaint(reply(400, {"code": -1013, "msg": "no"})) == "HTTP 400: -1013 no"
    assert complaint(reply(502, b"<html>")) == "HTTP 502: b'<html>'" and complaint(reply(0, error="lost")) == "lost"
    assert error(reply(400, b"[1]")) == (0, "") and error(reply(400, {"code": "x", "msg": 5})) == (0, "5")


def test_what_is_no_answer_is_named():
    with pytest.raises(VenueError, match="not JSON"):
        parsed(reply(200, b"<html>"))
    for told in ([], {}, {"orderId": "1"}, {"orderId": True}, None):
        with pytest.raises(VenueError, match="orderId"):
            field(told, "orderId", int)
