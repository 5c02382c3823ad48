"""The judge: truth on whole recordings, and the right word on each kind of damage."""

import itertools
import json

import orjson
import pytest

from common import captures, venues
from common.capture_lines import Connect, Disconnect, End, Frame, Header, Http, Missed, Stale, encode, text
from common.events import Delta, Lost
from common.imports.sessions import entries
from common.venues.vectrade import VecTrade
from common.verify import FLAWED, KEPT, OK, UNUSABLE, Judge, worst
from tests.frames import delta, depth, rest, snapshot, ticker, trade

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


def judge(*lines: bytes | tuple[int, bytes], venue: str = "vectrade", symbols=("A",)) -> dict:
    """The report on lines that come a second apart, where they do not say when."""
    over = Judge(venues.create(venue, symbols))
    for number, line in enumerate(lines, 1):
        recv_ns, frame = line if isinstance(line, tuple) else (START + number * SECOND, line)
        over.line(recv_ns, frame, "file", number)
    told = over.report()
    assert json.loads(json.dumps(told)) == told, "the report is plain JSON"
    return told


def found(told: dict, name: str) -> list[tuple[str, str]]:
    """(symbol, where) of each finding of a kind."""
    return [(entry["symbol"], entry["where"]) for entry in told["findings"][name]["first"]]


# ---- whole recordings


@pytest.mark.parametrize("name, quotes, lines", [
    ("usdm_btcusdt_202407{}.gz", 625, 71_984), ("usdm_ethusdt_202407{}.gz", 834, 69_913),
    ("spot_btcusdt_202408{}.gz", 1_072, 99_574)])
def test_a_pair_of_binance_is_ok_and_its_best_quotes_equal_the_venues_at_every_common_update(
        recordings, name, quotes, lines):
    days = ("18", "19") if "usdm" in name else ("08", "09")
    paths = [recordings / "binance" / name.format(day) for day in days]
    told = judge(*captures.tape(paths), venue=captures.describe(paths).venue, symbols=captures.describe(paths).symbols)
    assert (told["verdict"], told["reasons"], told["lines"]) == (OK, [], lines)
    assert told["quote_checks"] == {"equal": quotes, "unequal": 0}
    assert not any(kind["count"] for kind in told["findings"].values())
    (symbol,) = told["symbols"].values()
    assert symbol["valid_share"] > 0.999 and symbol["valid_at_end"]
    assert -1_600 < told["clock"]["envelope_ms"] <= told["clock"]["median_ms"] < -1_200
    assert any("behind the venue's" in note for note in told["notes"]), "a skewed clock is stated, and no flaw"


@pytest.fixture(scope="module")
def kraken(recordings) -> tuple[tuple[str, ...], list[tuple[int, bytes]]]:
    """Symbols and lines of a recorded session with checksums."""
    lines = [(entry.recv_ns, text(entry.data)) for entry in entries(recordings / "venues_ws" / "KRAKEN.jsonl.zst")
             if entry.kind == "recv"]
    names = [orjson.loads(line)[-1] for _, line in lines if b'"book-1000"' in line[-30:]]
    return tuple(dict.fromkeys(names)), lines


def test_every_checksum_of_a_session_of_kraken_is_right(kraken):
    symbols, lines = kraken
    told = judge((lines[0][0], encode(Header("kraken-v1", symbols))), (lines[0][0], encode(Connect(""))), *lines,
                 (lines[-1][0], encode(End(len(lines), 0))), venue="kraken-v1", symbols=symbols)
    assert (told["verdict"], told["checksums"]) == (OK, {"right": 4_269, "wrong": 0})
    assert told["connections"] == 1 and all(symbol["valid_at_end"] for symbol in told["symbols"].values())


def test_a_digit_changed_in_a_session_of_kraken_is_a_wrong_checksum(kraken):
    symbols, lines = kraken
    at = next(i for i, (_, line) in enumerate(lines) if i > 2000 and b'"a":[["' in line)
    frame = lines[at][1]
    digit = frame.index(b'"', frame.index(b'"a":[["') + 7) - 1
    wrong = frame[:digit] + bytes([ord("0") + (frame[digit] - ord("0") + 1) % 10]) + frame[digit + 1:]
    told = judge(*lines[:at], (lines[at][0], wrong), *lines[at + 1:], venue="kraken-v1", symbols=symbols)
    assert (told["verdict"], told["checksums"]["wrong"]) == (FLAWED, 1)
    ((symbol, where),) = found(told, "checksums_wrong")
    assert where == f"file:{at + 1}" and told["symbols"][symbol]["invalid"][-1]["cause"] == "checksum"


# ---- damaged recordings


@pytest.fixture(scope="module")
def usdm(recordings) -> list[tuple[int, bytes]]:
    names = ("usdm_btcusdt_20240718.gz", "usdm_btcusdt_20240719.gz")
    return list(captures.tape([recordings / "binance" / name for name in names]))[:30_000]


def of_usdm(lines) -> dict:
    return judge(*lines, venue="binance-usdm", symbols=("BTCUSDT",))


def places(lines, kind: bytes) -> list[int]:
    return [i for i, (_, frame) in enumerate(lines) if kind in frame[:80]]


def test_a_dropped_delta_is_a_gap_where_the_next_one_stands(usdm):
    deltas = places(usdm, b'"depthUpdate"')
    at, after = deltas[3000], deltas[3001]
    told = of_usdm(usdm[:at] + usdm[at + 1:])
    assert told["verdict"] == FLAWED and found(told, "gaps") == [("BTCUSDT", f"file:{after}")]
    assert len(told["reasons"]) == 2 and "1 gap " in told["reasons"][0] and "to the end" in told["reasons"][1]
    (_, spell) = told["symbols"]["BTCUSDT"]["invalid"]
    assert (spell["cause"], spell["from_ns"], spell["to_ns"]) == ("gap", usdm[after][0], usdm[-1][0])


def test_a_wrong_digit_at_the_best_price_contradicts_the_venues_quote(usdm):
    quotes = {data["u"]: data for data in (orjson.loads(usdm[i][1])["data"] for i in places(usdm, b"bookTicker"))}
    for at in places(usdm, b'"depthUpdate"')[500:]:
        data = orjson.loads(usdm[at][1])["data"]
        quote = quotes.get(data["u"], {})
        hit = [level for level in data["b"] if level == [quote.get("b"), quote.get("B")]]
        if hit:
            break
    level = b'["%s","%s"]' % tuple(part.encode() for part in hit[0])
    wrong = usdm[at][1].replace(level, level[:-3] + bytes([level[-3] ^ 1]) + level[-2:])
    told = of_usdm([*usdm[:at], (usdm[at][0], wrong), *usdm[at + 1:]])
    assert told["verdict"] == FLAWED and told["quote_checks"]["unequal"] == 1
    assert told["symbols"]["BTCUSDT"]["invalid"][-1]["cause"] == "quote"


def test_swapped_deltas_are_a_gap_and_a_step_back_in_time(usdm):
    deltas = places(usdm, b'"depthUpdate"')
    one = next(i for i, j in zip(deltas[1000:], deltas[1001:]) if j == i + 1 and usdm[i][0] != usdm[j][0])
    told = of_usdm([*usdm[:one], usdm[one + 1], usdm[one], *usdm[one + 2:]])
    assert told["verdict"] == FLAWED
    assert [told["findings"][name]["count"] for name in ("gaps", "recv_reversals", "event_reversals")] == [1, 1, 1]
    assert found(told, "recv_reversals") == [("", f"file:{one + 2}")]


def test_swapped_trades_are_out_of_order_and_none_is_missing(usdm):
    trades = places(usdm, b'"trade"')
    one, other = trades[500], trades[501]
    lines = list(usdm)
    lines[one], lines[other] = (usdm[one][0], usdm[other][1]), (usdm[other][0], usdm[one][1])
    told = of_usdm(lines)
    assert told["verdict"] == FLAWED and told["trade_ids"]["missing"] == 0
    assert [told["findings"][name]["count"] for name in ("trade_reversals", "trade_duplicates")] == [1, 0]


def test_a_dropped_and_a_repeated_trade_are_a_hole_and_a_duplicate(usdm):
    trades = places(usdm, b'"trade"')
    told = of_usdm(line for i, line in enumerate(usdm) if i != trades[500])
    assert told["verdict"] == FLAWED and told["trade_ids"]["missing"] == 1
    assert any("1 trades missing" in reason for reason in told["reasons"])
    told = of_usdm(itertools.chain.from_iterable([line, line] if i == trades[500] else [line]
                                                 for i, line in enumerate(usdm)))
    assert told["findings"]["trade_duplicates"]["count"] == 1 and told["trade_ids"]["missing"] == 0


# ---- one kind at a time


def test_a_whole_recording_of_ours_is_ok():
    told = judge(encode(Header("vectrade", ("A",))), encode(Connect("ws://x")), snapshot("A", 1),
                 delta("A", 2, bids=[(100, 5)]), trade("A", 1), ticker("A", 2, 100, 5), encode(End(4, 0)))
    assert (told["verdict"], told["reasons"]) == (OK, [])
    assert (told["frames"], told["ticks"], told["trades"], told["quotes"]) == (4, 3, 1, 1)
    assert told["quote_checks"] == {"equal": 1, "unequal": 0} and told["connections"] == 1


@pytest.mark.parametrize("lines", [[], [trade("A", 1)], [b"{}", b"[]"], [encode(Header("vectrade", ("A",)))]])
def test_a_recording_without_a_book_is_unusable(lines):
    assert judge(*lines)["verdict"] == UNUSABLE


def test_one_symbol_without_a_book_is_a_flaw_and_the_others_go_on():
    told = judge(snapshot("A", 1), delta("A", 2), symbols=("A", "B"))
    assert told["verdict"] == FLAWED and told["reasons"] == ["no valid book of B"]


def test_gaps_are_found_with_symbol_and_place_also_while_the_book_is_not_valid():
    told = judge(snapshot("A", 1), delta("A", 2), delta("A", 4), delta("A", 5), delta("A", 9), snapshot("A", 20),
                 delta("A", 21), symbols=("A",))
    assert found(told, "gaps") == [("A", "file:3"), ("A", "file:5")]
    assert told["findings"]["gaps"]["total_s"] == told["findings"]["gaps"]["longest_s"] == 3.0
    assert told["resyncs"] == 1 and told["symbols"]["A"]["valid_share"] == pytest.approx(3 / 6)


def test_crossed_books_are_told_with_how_long_they_lasted():
    told = judge(snapshot("A", 1), delta("A", 2, bids=[(102, 1)]), delta("A", 3), snapshot("A", 4), delta("A", 5))
    crossed = told["findings"]["crossed"]
    assert told["verdict"] == FLAWED and (crossed["count"], crossed["total_s"]) == (1, 2.0)
    assert found(told, "crossed") == [("A", "file:2")]


def test_locked_books_are_a_note_and_their_time_is_summed():
    told = judge(snapshot("A", 1), delta("A", 2, bids=[(101, 1)]), delta("A", 3, bids=[(50, 1)]),
                 delta("A", 4, bids=[(101, 0)]), delta("A", 5, asks=[(99, 1)]), delta("A", 6))
    locked = told["findings"]["locked"]
    assert told["verdict"] == OK and (locked["count"], locked["total_s"], locked["longest_s"]) == (2, 3.0, 2.0)
    assert any("2 locked books" in note for note in told["notes"])


def test_a_quote_that_differs_ends_the_validity_of_the_book():
    told = judge(snapshot("A", 1), delta("A", 2), ticker("A", 2, 98), snapshot("A", 3))
    assert told["quote_checks"] == {"equal": 0, "unequal": 1} and told["verdict"] == FLAWED
    assert [spell["cause"] for spell in told["symbols"]["A"]["invalid"]] == ["start", "quote"]


def test_malformed_frames_are_told_with_their_errors_and_the_rest_is_judged():
    told = judge(snapshot("A", 1), b'{"channel":"trades:A","type":"what"}', b"{", delta("A", 2))
    first, second = told["findings"]["malformed"]["first"]
    assert "what" in first["text"] and first["where"] == "file:2" and "JSON" in second["text"]
    assert told["verdict"] == FLAWED and told["symbols"]["A"]["valid_at_end"]


def test_silence_is_a_flaw_only_where_the_venue_promises_to_speak():
    lines = [(START, snapshot("A", 1)), (START + 15 * SECOND, delta("A", 2)), (START + 16 * SECOND, delta("A", 3))]
    told = judge(*lines)
    assert told["verdict"] == OK and any("1 silence " in note for note in told["notes"])
    assert told["findings"]["silences"]["longest_s"] == 15.0

    class Talkative(VecTrade):
        silence_s = 14.0

    over = Judge(Talkative(("A",)))
    for number, (recv_ns, frame) in enumerate(lines, 1):
        over.line(recv_ns, frame, "file", number)
    assert over.report()["verdict"] == FLAWED


def test_a_disconnect_that_is_told_of_is_no_flaw_nor_is_the_silence_after_it():
    told = judge((START, snapshot("A", 1)), (START + SECOND, encode(Disconnect("gone"))),
                 (START + 99 * SECOND, encode(Connect(""))), (START + 100 * SECOND, snapshot("A", 1)))
    assert told["verdict"] == OK and told["disconnects"] == 1 and told["findings"]["silences"]["count"] == 0
    assert told["symbols"]["A"]["valid_share"] == pytest.approx(0.01)
    assert [spell["cause"] for spell in told["symbols"]["A"]["invalid"]] == ["start", "disconnect"]


def test_a_book_that_was_given_up_as_stale_is_a_note():
    told = judge(snapshot("A", 1), delta("A", 2), encode(Stale("A")), delta("A", 3), snapshot("A", 4))
    assert told["verdict"] == OK and found(told, "stale") == [("A", "file:3")]
    assert told["symbols"]["A"]["invalid"][-1]["cause"] == "stale" and told["findings"]["stale"]["total_s"] == 2.0


def test_missed_messages_are_a_flaw():
    told = judge(snapshot("A", 1), encode(Missed(7)), delta("A", 9), snapshot("A", 10))
    assert (told["verdict"], told["missed_messages"]) == (FLAWED, 7)
    assert told["findings"]["gaps"]["count"] == 0, "what comes after is not held against what came before"
    assert told["reasons"] == ["7 messages missed by the recorder"]


def test_a_recording_of_ours_without_an_end_is_cut_off():
    told = judge(encode(Header("vectrade", ("A",))), encode(Connect("")), snapshot("A", 1))
    assert told["verdict"] == FLAWED and "no orderly end" in told["reasons"][0]


def test_an_end_that_counts_other_frames_contradicts_the_file():
    head = [encode(Header("vectrade", ("A",))), encode(Connect("")), snapshot("A", 1), encode(Frame(b"{\n}"))]
    assert judge(*head, encode(End(2, 0)))["findings"]["manifest"]["count"] == 0
    told = judge(*head, encode(End(3, 0)))
    assert told["reasons"][-1] == "file has 2 frames, and by its own last line 3"


def test_parts_of_a_session_follow_each_other_and_one_that_is_missing_is_noticed():
    def part(number: int, *frames: bytes) -> list[bytes]:
        return [encode(Header("vectrade", ("A",), "s", number)), *frames, encode(End(len(frames), 0))]

    first = part(0, snapshot("A", 1), delta("A", 2))
    over = Judge(venues.create("vectrade", ("A",)))
    for name, lines in (("one", first), ("two", part(1, delta("A", 3)))):
        for number, line in enumerate(lines, 1):
            over.line(START + over.lines, line, name, number)
    told = over.report()
    assert (told["verdict"], told["ticks"]) == (OK, 3)
    told = judge(*first, *part(2, delta("A", 9)))
    assert "part 2 of the recording follows part 0" in told["findings"]["missed"]["first"][0]["text"]
    assert told["verdict"] == FLAWED


def test_a_step_back_between_files_that_the_clocks_of_a_recorder_explain_is_forgiven():
    over = Judge(venues.create("vectrade", ("A",)))
    over.line(START, snapshot("A", 1), "one", 1)
    over.line(START - 500, delta("A", 2), "two", 1)
    over.line(START - 400, delta("A", 3), "two", 2)
    assert over.report()["verdict"] == OK


def test_holes_in_the_numbering_of_a_venue_are_told_with_its_words():
    class Numbered(VecTrade):
        def decode(self, frame):
            return (Lost(0, "4 after 2"), *super().decode(frame)) if b'"sequence":4' in frame else \
                super().decode(frame)

    over = Judge(Numbered(("A",)))
    for number, frame in enumerate((snapshot("A", 1), delta("A", 2), delta("A", 4)), 1):
        over.line(START + number, frame, "file", number)
    told = over.report()
    assert [entry["text"] for entry in told["findings"]["lost"]["first"]] == ["4 after 2"]
    assert told["verdict"] == FLAWED and told["symbols"]["A"]["invalid"][-1]["cause"] == "lost"


def test_a_refused_snapshot_is_a_word_of_the_venue_and_a_snapshot_that_does_not_join_leaves_no_book():
    told = judge(encode(Http("A", "/depth", 429, b"{}")), depth("A", 5, 6, 4), encode(Http("A", "", 200, rest(2))),
                 venue="binance-usdm")
    assert told["verdict"] == UNUSABLE and told["findings"]["venue_errors"]["count"] == 1


def test_trades_missed_between_connections_are_a_note(usdm):
    trades = places(usdm, b'"trade"')
    at, after = trades[100], trades[110]
    base = (usdm[at][0], encode(Disconnect(""))), (usdm[at][0], encode(Connect("")))
    told = of_usdm([*usdm[:at], *base, *usdm[after:]])
    assert told["trade_ids"] == {"contiguous": True, "missing": 0, "missed_between_connections": 10}
    assert told["verdict"] == OK and not told["symbols"]["BTCUSDT"]["valid_at_end"]


def test_control_lines_that_are_damaged_or_of_another_venue_are_malformed():
    told = judge(snapshot("A", 1), b'{"alpha":"what"}', encode(Header("okx", ("A",))), delta("A", 2))
    assert told["findings"]["malformed"]["count"] == 2 and told["symbols"]["A"]["valid_at_end"]


def test_what_the_shell_finds_is_part_of_the_verdict():
    over = Judge(venues.create("vectrade", ("A",)))
    over.line(START, snapshot("A", 1), "file", 1)
    over.cut_off("file:2 is cut off")
    over.contradiction("file", ["file: bytes is 3, by its manifest 4"])
    told = over.report()
    assert told["verdict"] == FLAWED
    assert told["reasons"] == ["file:2 is cut off", "file: bytes is 3, by its manifest 4"]


def test_findings_are_counted_beyond_those_that_are_kept():
    told = judge(snapshot("A", 1), *(b"{" for _ in range(3 * KEPT)))
    assert told["findings"]["malformed"]["count"] == 3 * KEPT
    assert len(told["findings"]["malformed"]["first"]) == KEPT


def test_every_event_of_a_frame_is_seen_by_who_looks():
    over = Judge(venues.create("vectrade", ("A",)))
    over.line(START, snapshot("A", 1), "file", 1)
    over.line(START, delta("A", 2), "file", 2)
    assert [type(event) for event in over.events] == [Delta]
    over.line(START, b"{", "file", 3)
    assert over.events == ()


# ---- clocks and words


def test_a_stamp_that_no_clock_can_show_is_malformed():
    told = judge((START, snapshot("A", 1)), (10**30, delta("A", 2)), (START + 1, delta("A", 2)))
    assert told["findings"]["malformed"]["count"] == 1 and told["ticks"] == 2


def test_the_worst_verdict_is_that_of_all():
    assert worst([OK, FLAWED, OK]) == FLAWED and worst([OK, UNUSABLE]) == UNUSABLE and worst([]) == UNUSABLE
