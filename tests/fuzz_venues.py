"""Coverage-guided fuzzing of every venue, with recorded frames as seeds. A command of its own:

    python -m tests.fuzz_venues --seconds 60            # each venue in turn; --venue okx for one
    python -m tests.fuzz_venues --seconds 600 --found tests/common/venues/corpus

An input is a connection: frames between line ends, and after the first byte 0x01, 0x02 or 0x03 the body of a snapshot,
of increments or of a location instead. Whatever comes, a frame is refused with VenueError, or means something that
fits the book; nothing hangs (10 s an input) or grows (2 GB). What was found stands in tests/common/venues/corpus, one
file each, and is played by tests/common/venues/test_corpus.py with the same `examine`.

Needs atheris, which has no wheels for every Python: pip install -e '.[fuzz]'.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from common.clock import ManualClock
from common.errors import VenueError
from common.market import Market
from common.ring import Books

_SNAPSHOT, _PRECISION, _LOCATION = 1, 2, 3
_MOST = 200  # frames of one input


def examiner(name: str) -> Callable[[bytes], None]:
    """A function that plays an input to a venue and its market, and raises if anything but a refusal comes of it."""
    from common.venues import create
    from tests.common.venues.samples import samples

    symbols = _symbols(name, samples)
    venue = create(name, symbols)
    clock = ManualClock(10**18)
    market = Market(venue, Books.private(symbols, 16), clock, seed=0)

    def examine(data: bytes) -> None:
        if data[:1] in (b"\x01", b"\x02", b"\x03"):
            _body(venue, data[0], data[1:])
            return
        market.on_disconnect(clock.now_ns)
        market.begin()
        market.on_connect(clock.now_ns)
        for frame in data.split(b"\n")[:_MOST]:
            clock.set(clock.now_ns + 1_000_000)
            market.on_frame(frame, clock.now_ns)
            market.work()
            market.outbox.clear()
            market.wants_snapshot.clear()
        for symbol in market.symbols:
            symbol.book._check()
        market.take_refs()

    return examine


def _body(venue, kind: int, body: bytes) -> None:
    with contextlib.suppress(VenueError):
        if kind == _SNAPSHOT and venue.snapshot_request(1) is not None:
            snapshot = venue.decode_snapshot(1, body)
            assert (snapshot.levels[:snapshot.n_bids + snapshot.n_asks, 0] > 0).all()
        elif kind == _PRECISION and venue.precision_request() is not None:
            for precision in venue.decode_precision(body).values():
                assert precision.tick >= 0 and precision.lot >= 0
        elif kind == _LOCATION and venue.locate() is not None:
            assert venue.located(body)


def seeds(name: str, recordings: Path) -> list[bytes]:
    """The frames of the venue's sample: all as one connection, and each by itself; and its snapshot."""
    from tests.common.venues.samples import samples

    sample = samples()[name](recordings)
    found = [b"\n".join(frame for frame in sample.frames[:60] if b"\n" not in frame), *sample.frames[:60]]
    return found + ([b"\x01" + sample.snapshot] if sample.snapshot else [])


def _symbols(name: str, samples) -> tuple[str, str]:
    import os

    folder = Path(os.environ.get("ALPHA_RECORDINGS", Path(__file__).resolve().parents[2] / "shared" / "data"))
    try:
        return samples()[name](folder).symbols
    except FileNotFoundError:  # a sample that is cut from a recording which is not here
        return "OTHER", "BTCUSDT"


def _fuzz(name: str, arguments: list[str]) -> None:
    """This process becomes the fuzzer of one venue."""
    import atheris

    import common.book  # noqa: F401  compiled code must not be instrumented
    import common.scan  # noqa: F401

    for module in [module for module in sys.modules if module.startswith("common.venues")]:
        del sys.modules[module]
    with atheris.instrument_imports(include=["common.venues"]):
        from common.venues import registry

        registry()
    atheris.Setup([sys.argv[0], *arguments], examiner(name))
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venue", action="append", help="only this one; may be repeated")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each venue")
    parser.add_argument("--recordings", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--found", type=Path, default=Path("fuzz-found"), help="where inputs that fail are kept")
    options = parser.parse_args()
    from common.venues import registry

    failed = []
    for name in options.venue or sorted(registry()):
        with tempfile.TemporaryDirectory() as folder:
            corpus = Path(folder) / "corpus"
            corpus.mkdir()
            for number, seed in enumerate(seeds(name, options.recordings)):
                (corpus / f"seed{number}").write_bytes(seed)
            found = options.found / name
            found.mkdir(parents=True, exist_ok=True)
            ended = subprocess.run(
                [sys.executable, "-m", "tests.fuzz_venues", "--fuzz", name, f"-max_total_time={options.seconds:.0f}",
                 "-max_len=20000", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1",
                 f"-artifact_prefix={found}/", str(corpus)], capture_output=True, text=True)
            told = dict(line.removeprefix("stat::").split(":", 1) for line in ended.stderr.splitlines()
                        if line.startswith("stat::"))
            inputs = told.get("number_of_executed_units", "?").strip()
            grown = len(list(corpus.iterdir()))
            print(f"{name:24} {'ok' if not ended.returncode else 'FAILED'}  inputs {inputs}  corpus {grown}  "
                  f"peak {told.get('peak_rss_mb', '?').strip()} MB", flush=True)
            if ended.returncode:
                failed.append(name)
                print(ended.stderr[-3000:], file=sys.stderr)
            if not any(found.iterdir()):
                found.rmdir()
    return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--fuzz"]:
        _fuzz(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(main())
