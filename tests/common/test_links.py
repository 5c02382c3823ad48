"""Links: senders never block, taps take nothing, and a second receiver is refused instead of stealing."""

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import ConfigError
from common.links import DECISIONS, FRAMES, LINKS, TAPS, LocalLink, Network, Poller
from tests.waiting import until


@pytest.fixture
def network(run_dir):
    network = Network(run_dir)
    yield network
    network.close()
    assert [path.name for path in run_dir.iterdir() if path.suffix == ".sock"] == []


def receive(pull, count: int) -> list[bytes]:
    found = []
    until(lambda: (message := pull.recv()) is not None and found.append(message) or len(found) == count)
    return found


def test_messages_arrive_in_order_whichever_end_is_first(network):
    push = network.push("ticks")
    assert not push.send(b"nobody is there")
    pull = network.pull("ticks")
    until(lambda: push.send(b"0"))
    for number in range(1, 50):
        assert push.send(b"%d" % number)
    assert receive(pull, 50) == [b"%d" % number for number in range(50)]
    assert pull.recv() is None


def test_a_sender_refuses_rather_than_blocks_when_nobody_reads(network):
    _idle = network.pull("ticks")
    push = network.push("ticks")
    until(lambda: push.send(b"x"))
    sent = 0
    while push.send(b"x" * 1000):
        sent += 1
        assert sent < 1_000_000
    assert sent > 100


def test_a_second_receiver_is_refused_and_told_who_is_first(network, run_dir):
    network.pull("predictions")
    program = f"""
from pathlib import Path
from common.links import Network
Network(Path({str(run_dir)!r})).pull("predictions")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                           cwd=Path(__file__).resolve().parents[2])
    assert ended.returncode == 1 and f"held by pid {os.getpid()}" in ended.stderr


def test_a_receiver_killed_and_started_again_is_found_again(network, run_dir):
    program = f"""
import sys, time
from pathlib import Path
from common.links import Network
pull = Network(Path({str(run_dir)!r})).pull("credits")
print("bound", flush=True)
while True:
    if (message := pull.recv()) is not None: print(message.decode(), flush=True)
    else: time.sleep(0.001)
"""
    push = network.push("credits")
    for life in ("first", "second"):
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True,
                                   cwd=Path(__file__).resolve().parents[2])
        assert process.stdout.readline() == "bound\n"
        until(lambda: push.send(life.encode()))
        assert process.stdout.readline() == f"{life}\n"
        process.kill()
        process.communicate()
    (run_dir / "credits.sock").unlink()  # what the killed one left; a next receiver would replace it


def test_a_tap_sees_every_message_and_steals_none(network):
    tap = network.tap("ticks", "ingest")
    pull, push = network.pull("ticks"), network.push("ticks", tap)
    until(lambda: push.send(b"before"))
    listener = network.listen("ticks")
    until(lambda: tap.poll() or tap.wanted)
    for number in range(200):
        assert push.send(b"%d" % number)
    assert receive(pull, 201)[1:] == [b"%d" % number for number in range(200)]
    tap.poll()
    assert [listener.recv(5000) for _ in range(200)] == [b"%d" % number for number in range(200)]
    assert listener.missed == 0
    listener.close()
    until(lambda: tap.poll() or not tap.wanted)


def test_a_tap_knows_of_every_listener_that_comes_and_goes(network):
    tap = network.tap("ticks", "ingest")
    first = network.listen("ticks")
    until(lambda: tap.poll() or tap.joined == 1)
    second = network.listen("ticks", "ingest")
    until(lambda: tap.poll() or tap.joined == 2)
    second.close()
    until(lambda: tap.poll() or tap._listeners == 1)
    assert tap.wanted
    first.close()
    until(lambda: tap.poll() or not tap.wanted)


def test_a_listener_that_stalls_misses_messages_knows_it_and_holds_nobody_up(network):
    tap = network.tap("ticks", "ingest")
    listener = network.listen("ticks")
    until(lambda: tap.poll() or tap.wanted)
    total = 400_000
    for number in range(total):
        tap.send(b"x" * 500)
    tap.poll()
    seen = 0
    while listener.recv(500) is not None:
        seen += 1
    tap.send(b"the last one tells how many there were")
    tap.poll()
    assert listener.recv(5000) is not None
    assert seen < total and listener.missed == total - seen


def test_sockets_live_in_a_folder_of_this_user_alone(network, run_dir):
    network.pull("ticks")
    assert stat.S_IMODE(run_dir.stat().st_mode) == 0o700


def test_a_path_too_long_for_a_socket_is_refused_with_its_length(tmp_path):
    network = Network(tmp_path / ("x" * 90))
    with pytest.raises(ConfigError, match="at most 107"):
        network.pull("ticks")
    network.close()


def test_every_link_can_be_bound_at_once_and_has_a_tap(network):
    assert set(LINKS) | {FRAMES, DECISIONS} == set(TAPS)
    for link in LINKS:
        network.pull(link)
        network.tap(link, "x")


def test_a_poller_waits_for_links_and_for_plain_sockets_alike(network):
    pull, push = network.pull("ticks"), network.push("ticks")
    near, far = socket.socketpair()
    poller = Poller()
    poller.add(pull)
    poller.add(near)
    assert poller.wait(0) == []
    far.send(b"x")
    assert poller.wait(5000) == [near]
    near.recv(1)
    until(lambda: push.send(b"x"))
    assert poller.wait(5000) == [pull]
    poller.remove(near)
    far.send(b"x")
    assert pull.recv() == b"x" and poller.wait(0) == []
    near.close()
    far.close()


def test_a_local_link_keeps_order_and_has_the_same_manners():
    link = LocalLink(capacity=2)
    assert [link.send(b"a"), link.send(b"b"), link.send(b"c")] == [True, True, False]
    assert [link.recv(), link.recv(), link.recv()] == [b"a", b"b", None]
