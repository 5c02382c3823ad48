"""The commands on recordings: verdicts, exit codes, descriptions, conversion, pictures."""

import gzip
import hashlib
import json

import pytest
from click.testing import CliRunner, Result

from common.capture_lines import Connect, End, Header, encode
from common.recorder import CaptureFile
from common.synthetic import SyntheticMarket
from procs import capture as module
from procs.capture import capture, streams
from tests.frames import delta, snapshot
from tests.pipeline import command, environment

SYMBOLS = ("BTC-USD", "AAPL")
START_MS = 1_700_000_000_000


def alpha(*arguments) -> Result:
    return CliRunner().invoke(capture, [str(argument) for argument in arguments])


def verified(*arguments) -> tuple[int, dict]:
    result = alpha("verify", "--json", *arguments)
    return result.exit_code, json.loads(result.stdout)


def write(path, lines) -> str:
    path.write_bytes(b"".join(b"%d %s\n" % line for line in lines))
    return str(path)


@pytest.fixture(scope="module")
def market() -> list[tuple[int, bytes]]:
    """Ten seconds of the synthetic market."""
    return list(SyntheticMarket(SYMBOLS, seed=3, rate=100.0, start_ms=START_MS).frames(10))


@pytest.fixture
def session(tmp_path, market):
    """What a recorder writes: two files with their manifests."""
    half = len(market) // 2
    for part, lines in enumerate((market[:half], market[half:])):
        file = CaptureFile(tmp_path / f"s-{part:04}.gz", Header("vectrade", SYMBOLS, "s", part), lines[0][0])
        if not part:
            file.write(lines[0][0], encode(Connect("ws://x")))
        file.control += not part
        for recv_ns, frame in lines:
            file.write(recv_ns, frame)
            file.frames += 1
        file.close()
    return [str(tmp_path / f"s-{part:04}.gz") for part in range(2)]


# ---- verify


def test_the_files_of_a_session_are_judged_as_one_in_any_order(session, market):
    code, told = verified(*session[::-1])
    assert (code, told["schema"], told["verdict"]) == (0, 1, "ok")
    (one,) = told["captures"]
    assert one["files"] == session and one["frames"] == len(market) and one["connections"] == 1
    assert all(symbol["valid_at_end"] for symbol in one["symbols"].values())


def test_people_are_told_the_same(session):
    result = alpha("verify", *session)
    assert result.exit_code == 0
    assert result.stdout.startswith("BTC-USD, AAPL on vectrade: ok\n") and "book valid" in result.stdout


def test_a_part_by_itself_has_no_book_before_the_first_snapshot(session):
    code, told = verified(session[1])
    assert (code, told["verdict"]) == (4, "unusable") and told["captures"][0]["reasons"][0] == "no book was ever valid"


@pytest.mark.parametrize("key, value", [("frames", 3), ("sha256", "0" * 64), ("bytes", 1), ("last_recv_ns", 5),
                                        ("control_lines", 9)])
def test_a_manifest_that_does_not_fit_its_file_is_a_flaw(session, key, value):
    path = session[0] + ".json"
    with open(path) as file:
        manifest = json.load(file)
    with open(path, "w") as file:
        json.dump({**manifest, key: value}, file)
    code, told = verified(*session)
    (reason,) = told["captures"][0]["reasons"]
    assert code == 1 and f"s-0000.gz: {key} is " in reason and reason.endswith(f"by its manifest {value}")


def test_a_manifest_that_cannot_be_read_is_an_error_that_says_what_to_do(session):
    with open(session[0] + ".json", "w") as file:
        file.write("{")
    result = alpha("verify", *session)
    assert result.exit_code == 4 and "s-0000.gz.json" in result.stderr and "fetch it again" in result.stderr


def test_a_file_that_is_cut_off_is_flawed_and_judged_up_to_there(session):
    with open(session[1], "rb") as file:
        content = file.read()
    with open(session[1], "wb") as file:
        file.write(content[:len(content) // 2])
    code, told = verified(*session)
    (one,) = told["captures"]
    assert code == 1 and one["frames"] > 500
    reasons = " ".join(one["reasons"])
    assert "no end" in reasons and "no orderly end" in reasons and "sha256" in reasons


def test_a_file_that_is_damaged_inside_is_judged_up_to_the_damage(recordings, tmp_path):
    content = bytearray((recordings / "binance" / "usdm_btcusdt_20240718.gz").read_bytes())
    content[len(content) // 2:len(content) // 2 + 64] = bytes(64)
    (tmp_path / "a.gz").write_bytes(content)
    code, told = verified(tmp_path / "a.gz")
    (one,) = told["captures"]
    assert code == 1 and one["frames"] > 1000
    (told,) = one["findings"]["cut_off"]["first"]  # the decompressor's word, or what it made of the damage is no line
    assert str(tmp_path / "a.gz") in told["text"]


def test_a_line_that_is_none_ends_the_judgement_and_is_named(tmp_path, market):
    lines = [(1, encode(Header("vectrade", SYMBOLS))), *market[:300], (1, b"nonsense"), *market[300:]]
    path = write(tmp_path / "a", lines)
    code, told = verified(path)
    assert code == 1 and any(f"{path}:302" in reason for reason in told["captures"][0]["reasons"])


def test_recordings_of_several_symbols_and_venues_are_judged_by_themselves(recordings, tmp_path, market):
    folder = recordings / "binance"
    paths = [folder / "usdm_ethusdt_20240718.gz", folder / "usdm_btcusdt_20240718.gz", write(tmp_path / "a", market)]
    code, told = verified(*paths)
    assert code == 0
    assert [(one["venue"], list(one["symbols"])) for one in told["captures"]] == [
        ("binance-usdm", ["ETHUSDT"]), ("binance-usdm", ["BTCUSDT"]), ("vectrade", list(SYMBOLS))]


def test_files_of_the_same_time_are_judged_by_themselves_and_the_worst_verdict_counts(tmp_path, market):
    lines = [(recv_ns + 1, frame) for recv_ns, frame in market]
    holed = [line for i, line in enumerate(lines) if i != 500]
    code, told = verified(write(tmp_path / "b", holed), write(tmp_path / "a", market))
    assert (code, told["verdict"]) == (1, "flawed")
    assert [one["verdict"] for one in told["captures"]] == ["ok", "flawed"]


def test_a_pair_of_binance_in_the_wrong_order_with_a_dropped_delta(recordings, tmp_path):
    folder = recordings / "binance"
    first, second = folder / "usdm_btcusdt_20240718.gz", folder / "usdm_btcusdt_20240719.gz"
    code, told = verified(second, first)
    assert code == 0 and told["captures"][0]["quote_checks"] == {"equal": 625, "unequal": 0}
    lines = gzip.decompress(second.read_bytes()).splitlines(keepends=True)
    dropped = next(i for i, line in enumerate(lines) if i > 5000 and b"depthUpdate" in line)
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"".join(lines[:dropped] + lines[dropped + 1:])))
    code, told = verified(first, tmp_path / "b.gz")
    (gap,) = told["captures"][0]["findings"]["gaps"]["first"]
    assert code == 1 and gap["where"].startswith("b.gz:") and gap["symbol"] == "BTCUSDT"
    result = alpha("verify", first, tmp_path / "b.gz")
    assert result.exit_code == 1 and f"  ! 1 gap (at {gap['at']} BTCUSDT {gap['where']})" in result.stdout


@pytest.mark.parametrize("content", [b"", b"1 {}\n", b"hello\n"])
@pytest.mark.parametrize("what", ["verify", "info"])
def test_what_is_of_nothing_known_is_refused_with_the_code_of_the_venue(tmp_path, what, content):
    (tmp_path / "a").write_bytes(content)
    result = alpha(what, tmp_path / "a")
    assert result.exit_code == 4 and str(tmp_path / "a") in result.stderr


def test_progress_is_told_on_standard_error_only(monkeypatch, session):
    monkeypatch.setattr(module, "_EVERY", 64)
    monkeypatch.setattr(module, "_PAUSE_S", 0.0)
    result = alpha("verify", "--json", *session)
    assert json.loads(result.stdout)["verdict"] == "ok" and "lines, " in result.stderr


def test_the_command_is_one_of_alpha(session, instance, tmp_path, run_dir):
    process = command("capture", "verify", *session, env=environment(instance, tmp_path, run_dir))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and ": ok" in out and err == ""


# ---- info


def test_info_says_what_a_capture_is(session, market):
    result = alpha("info", "--json", *session)
    first, second = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (first["format"], first["venue"], first["symbols"]) == ("capture 1", "vectrade", list(SYMBOLS))
    assert (first["session"], first["part"], second["part"]) == ("s", 0, 1)
    assert first["frames"] + second["frames"] == len(market)
    assert (first["connections"], second["connections"], first["control_lines"]) == (1, 0, 3)
    assert (first["from_ns"], second["to_ns"]) == (market[0][0], market[-1][0])
    assert first["manifest"] and first["whole"]
    assert "session s, part 0" in alpha("info", *session).stdout


def test_info_of_a_large_file_comes_from_its_manifest(session, monkeypatch):
    scanned = json.loads(alpha("info", "--json", session[0]).stdout)
    monkeypatch.setattr(module, "SCANNED_BYTES", 0)
    told = json.loads(alpha("info", "--json", session[0]).stdout)
    assert told == [{**scanned[0], "connections": None}]


def test_info_says_what_is_missing(tmp_path, market):
    path = write(tmp_path / "a", [(1, encode(Header("vectrade", SYMBOLS))), *market])
    assert "not whole: no orderly end" in alpha("info", path).stdout
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[:-3])
    assert "is cut off" in alpha("info", path).stdout


def test_info_of_a_foreign_recording(recordings):
    path = recordings / "binance" / "usdm_btcusdt_20240718.gz"
    (told,) = json.loads(alpha("info", "--json", path).stdout)
    assert (told["format"], told["venue"], told["frames"], told["connections"]) == (
        "foreign", "binance-usdm", 11_414, None)
    assert told["span_s"] == pytest.approx(178.0, abs=0.1) and not told["manifest"]


# ---- convert


def test_what_was_converted_is_judged_as_what_it_was_made_of(recordings, tmp_path):
    paths = [recordings / "binance" / f"usdm_btcusdt_202407{day}.gz" for day in ("18", "19")]
    result = alpha("convert", "--json", *paths, "--out", tmp_path / "a.gz")
    told = json.loads(result.stdout)
    assert result.exit_code == 0 and (told["venue"], told["symbols"]) == ("binance-usdm", ["BTCUSDT"])
    code, told = verified(tmp_path / "a.gz")
    assert code == 0 and told["captures"][0]["quote_checks"] == {"equal": 625, "unequal": 0}
    digest = hashlib.sha256((tmp_path / "a.gz").read_bytes()).hexdigest()
    assert json.loads((tmp_path / "a.gz.json").read_text())["sha256"] == digest
    result = alpha("convert", *paths, "--out", tmp_path / "a.gz")
    assert result.exit_code == 2 and "there is a file already" in result.stderr


def test_convert_tells_people_what_it_made(tmp_path, session):
    result = alpha("convert", *session, "--out", tmp_path / "a.txt")
    assert result.exit_code == 0 and result.stdout.startswith(f"{tmp_path / 'a.txt'}: BTC-USD, AAPL on vectrade")


# ---- plot


def test_a_picture_is_drawn_of_the_symbol_and_the_time_asked_for(tmp_path, session):
    pytest.importorskip("matplotlib")
    out = tmp_path / "a.svg"
    result = alpha("plot", *session, "--out", out, "--symbol", "AAPL", "--from", "2023-11-14T22:13:22", "--to",
                   "2023-11-14T22:13:25.5Z")
    assert result.exit_code == 0, result.output
    assert "AAPL on vectrade, 2023-11-14 22:13:22 to 2023-11-14 22:13:25 UTC" in out.read_text()


@pytest.mark.parametrize("options, words", [
    (["--symbol", "TSLA"], "known: BTC-USD, AAPL"), (["--from", "noon"], "--from=noon"),
    (["--out", "a.gif"], "no known kind"), (["--from", "2030-01-01"], "nothing to draw")])
def test_what_cannot_be_drawn_is_refused_with_what_to_do(tmp_path, session, options, words):
    pytest.importorskip("matplotlib")
    result = alpha("plot", *session, "--out", tmp_path / "a.png", *options)
    assert result.exit_code == 2 and words in result.stderr


# ---- streams


def test_files_are_sorted_into_streams_by_venue_and_symbols_and_by_time(tmp_path):
    def file(name: str, at: int, symbol: str) -> str:
        return write(tmp_path / name, [(at, encode(Header("vectrade", (symbol,)))), (at, snapshot(symbol, 1)),
                                       (at, delta(symbol, 2)), (at, encode(End(2, 0)))])

    late, other, early = file("a", 9, "A"), file("b", 5, "B"), file("c", 1, "A")
    assert [(stream.symbols, stream.paths) for stream in streams((late, other, early))] == [
        (("A",), [early, late]), (("B",), [other])]
