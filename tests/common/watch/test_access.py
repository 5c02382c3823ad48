"""Who may look and who may act, as a table."""

import pytest

from common.errors import ConfigError
from common.watch.access import SECURITY, Access, Kind, address, is_loopback

TOKEN = "correct-horse-battery-staple"
LOCAL, OPEN, ANY = Access("127.0.0.1", TOKEN), Access("10.1.2.3", TOKEN), Access("0.0.0.0", TOKEN)
PAGE, DATA, SOCKET = Kind.PAGE, Kind.DATA, Kind.SOCKET

CASES = [
    # access, kind, Host, Origin, Authorization, Sec-WebSocket-Protocol, status (None: it may pass)
    (LOCAL, PAGE, "127.0.0.1:8766", None, None, None, None),
    (LOCAL, PAGE, "localhost:8766", None, None, None, None),
    (LOCAL, PAGE, "LOCALHOST", None, None, None, None),
    (LOCAL, PAGE, "localhost.:8766", None, None, None, None),
    (LOCAL, PAGE, "[::1]:8766", None, None, None, None),
    (LOCAL, PAGE, "127.9.9.9:1", None, None, None, None),
    (LOCAL, DATA, "localhost:9000", None, None, None, None),  # through a tunnel
    (LOCAL, PAGE, "evil.example:8766", None, None, None, 421),  # DNS rebinding
    (LOCAL, DATA, "evil.example:8766", None, None, None, 421),
    (LOCAL, PAGE, "localhost.evil.example", None, None, None, 421),
    (LOCAL, PAGE, "127.0.0.1.evil.example", None, None, None, 421),
    (LOCAL, PAGE, "10.1.2.3:8766", None, None, None, 421),
    (LOCAL, PAGE, "user@localhost", None, None, None, 421),
    (LOCAL, PAGE, "localhost:8766:1", None, None, None, 421),
    (LOCAL, PAGE, "localhost/x", None, None, None, 421),
    (LOCAL, PAGE, "", None, None, None, 421),
    (LOCAL, PAGE, None, None, None, None, 421),
    (LOCAL, SOCKET, "127.0.0.1:8766", "http://127.0.0.1:8766", None, "alpha", None),
    (LOCAL, SOCKET, "localhost:9000", "http://localhost:9000", None, "alpha", None),
    (LOCAL, SOCKET, "localhost", "http://localhost", None, None, None),
    (LOCAL, SOCKET, "localhost", "https://localhost:443", None, None, None),
    (LOCAL, SOCKET, "[::1]:8766", "http://[::1]:8766", None, None, None),
    (LOCAL, SOCKET, "127.0.0.1:8766", None, None, None, 403),
    (LOCAL, SOCKET, "127.0.0.1:8766", "null", None, None, 403),
    (LOCAL, SOCKET, "127.0.0.1:8766", "http://evil.example", None, None, 403),
    (LOCAL, SOCKET, "127.0.0.1:8766", "http://127.0.0.1:3000", None, None, 403),  # another page of this machine
    (LOCAL, SOCKET, "127.0.0.1:8766", "http://localhost:8766", None, None, 403),
    (LOCAL, SOCKET, "127.0.0.1:8766", "file://127.0.0.1:8766", None, None, 403),
    (LOCAL, SOCKET, "127.0.0.1:8766", "http://127.0.0.1:8766/x", None, None, 403),
    (LOCAL, SOCKET, "127.0.0.1:8766", "http://x@127.0.0.1:8766", None, None, 403),
    (LOCAL, SOCKET, "127.0.0.1:8766", "http://127.0.0.1:99999", None, None, 403),
    (LOCAL, SOCKET, "127.0.0.1:8766", "http://127.0.0.1:8766, http://evil.example", None, None, 403),
    (LOCAL, SOCKET, "evil.example", "http://evil.example", None, None, 421),
    (OPEN, PAGE, "10.1.2.3:8766", None, None, None, None),
    (OPEN, PAGE, "localhost:8766", None, None, None, None),
    (OPEN, PAGE, "10.1.2.4:8766", None, None, None, 421),
    (OPEN, DATA, "10.1.2.3:8766", None, None, None, 401),
    (OPEN, DATA, "10.1.2.3:8766", None, f"Bearer {TOKEN}", None, None),
    (OPEN, DATA, "10.1.2.3:8766", None, f"bearer  {TOKEN}", None, None),
    (OPEN, DATA, "10.1.2.3:8766", None, f"Basic {TOKEN}", None, 401),
    (OPEN, DATA, "10.1.2.3:8766", None, TOKEN, None, 401),
    (OPEN, DATA, "10.1.2.3:8766", None, f"Bearer {TOKEN}x", None, 401),
    (OPEN, DATA, "localhost:8766", None, None, None, 401),  # the port is open to others, whatever the name
    (OPEN, SOCKET, "10.1.2.3:8766", "http://10.1.2.3:8766", None, f"alpha, token.{TOKEN}", None),
    (OPEN, SOCKET, "10.1.2.3:8766", "http://10.1.2.3:8766", None, "alpha, token.guessed", 401),
    (OPEN, SOCKET, "10.1.2.3:8766", "http://10.1.2.3:8766", None, "alpha", 401),
    (OPEN, SOCKET, "10.1.2.3:8766", "http://evil.example", None, f"alpha, token.{TOKEN}", 403),
    (ANY, PAGE, "192.168.1.7:8766", None, None, None, None),
    (ANY, PAGE, "evil.example:8766", None, None, None, 421),
    (ANY, DATA, "192.168.1.7:8766", None, None, None, 401),
]


@pytest.mark.parametrize("access, kind, host, origin, authorization, protocols, status", CASES)
def test_who_may_pass(access, kind, host, origin, authorization, protocols, status):
    told = access.check(kind, *([] if header is None else [header]
                                for header in (host, origin, authorization, protocols)))
    assert (told and told.status) == status


def test_a_header_that_comes_twice_passes_nothing():
    assert LOCAL.check(PAGE, ["localhost", "localhost"]).status == 421
    ours = "http://localhost"
    assert LOCAL.check(SOCKET, ["localhost"], [ours, ours]).status == 403
    assert OPEN.check(DATA, ["localhost"], (), [f"Bearer {TOKEN}"] * 2).status == 401


def test_the_token_is_that_and_nothing_else():
    assert LOCAL.knows(TOKEN)
    for other in ("", TOKEN[:-1], f"{TOKEN} ", TOKEN.upper(), None, 7, ["x"], "\ud800", b"x"):
        assert not LOCAL.knows(other)
    assert not Access("127.0.0.1").knows("") and not Access("127.0.0.1").knows(None)


@pytest.mark.parametrize("host, ours", [("127.0.0.1", True), ("::1", True), ("localhost", True), ("127.8.0.1", True),
                                        ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("example.org", False),
                                        ("localhost.example.org", False), ("", False)])
def test_loopback_is_what_no_other_machine_reaches(host, ours):
    assert is_loopback(host) is ours


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.org"])
def test_beyond_loopback_there_is_no_page_without_a_token(host):
    with pytest.raises(ConfigError, match="ALPHA_MONITOR_TOKEN"):
        Access(host)


@pytest.mark.parametrize("token", ["short", "x" * 129, "with spaces in between", "umlaut-ä-umlaut-ä"])
def test_a_token_that_can_be_guessed_or_not_be_sent_is_refused_and_not_repeated(token):
    with pytest.raises(ConfigError) as caught:
        Access("127.0.0.1", token)
    assert token not in str(caught.value)


def test_nothing_of_elsewhere_is_loaded_and_nobody_frames_us():
    policy = SECURITY["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert "http:" not in policy and "https:" not in policy and "*" not in policy


@pytest.mark.parametrize("host, told", [
    ("127.0.0.1", "http://127.0.0.1:9/"), ("localhost", "http://localhost:9/"), ("::1", "http://[::1]:9/"),
    ("10.1.2.3", "http://10.1.2.3:9/"), ("0.0.0.0", "http://127.0.0.1:9/"), ("::", "http://[::1]:9/")])
def test_the_address_that_is_told_is_one_that_can_be_gone_to(host, told):
    assert address(host, 9) == told
