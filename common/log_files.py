"""The files in which supervisord keeps what stages say, read in the order of time and followed while they are written.

    <state_dir>/log/NAME.log     what is written now
    <state_dir>/log/NAME.log.1   what was written before, .2 before that

Supervisord renames them once one is full, and begins another: who follows goes on in the one that was renamed to its
end, then in each that came after. The first ingest is `ingest-0` there, and `ingest` everywhere else.
"""

import heapq
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from common.log_lines import Event, parse

FOLDER = "log"  #: in the state folder
_LAST = 8192  # bytes of a file that hold its last lines


def stage_of(path: Path) -> str:
    """.../ingest-0.log.1 -> ingest"""
    name = path.name.partition(".log")[0]
    return "ingest" if name == "ingest-0" else name


def found(state_dir: Path, stages: Sequence[str] = ()) -> dict[str, Path]:
    """The file that is written now, of each stage; of those named `stages`, "inference" being every worker. The first
    ingest may be named as its file is, too."""
    named = {stage_of(Path(f"{name}.log")) for name in stages}
    files = {stage_of(path): path for path in sorted((state_dir / FOLDER).glob("*.log"))}
    return {name: path for name, path in files.items()
            if not stages or name in named or name.partition("-")[0] in stages}


def rotated(path: Path) -> list[Path]:
    """A file and those that were written before it, newest first."""
    before = {int(one.suffix[1:]): one for one in path.parent.glob(f"{path.name}.*") if one.suffix[1:].isdigit()}
    return [path, *(before[number] for number in sorted(before))]


def last_words(state_dir: Path, stage: str) -> str:
    """The last event of a stage, "" where it left none."""
    path = found(state_dir).get(stage_of(Path(f"{stage}.log")))
    if path is None:
        return ""
    with path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _LAST))
        lines = file.read().decode(errors="replace").split("\n")
    for line in reversed(lines):
        if line.strip():
            return parse(line.strip(), stage).event
    return ""


Place = tuple[int, int]  #: the inode of a file, and an offset in it


def history(files: dict[str, Path], until: dict[str, Place | None] | None = None) -> Iterator[Event]:
    """All events of these files, merged by time; of stages in `until` up to where followers began."""
    def told(stage: str, path: Path) -> Iterator[Event]:
        dated, end = _Dated(stage), until.get(stage) if until else None
        for one in reversed(rotated(path)):
            try:
                file = one.open("rb")
            except FileNotFoundError:
                continue  # renamed between the look and here: its lines come with the next name, or are too old
            with file:
                last = end is not None and os.fstat(file.fileno()).st_ino == end[0]
                left = end[1] if last else None
                for line in file:
                    if left is not None and (left := left - len(line)) < 0:
                        break
                    yield from dated.event(line)
            if last:
                break
        yield from dated.rest(path)

    # By the time of each file's own order: a clock that was set back does not turn the lines of one stage around.
    return heapq.merge(*(_rising(told(stage, path)) for stage, path in files.items()), key=lambda event: event.at_ns)


def _rising(events: Iterator[Event]) -> Iterator[Event]:
    last = 0
    for event in events:
        last = max(last, event.at_ns)
        yield event._replace(at_ns=last)


class _Dated:
    """Lines of one stage, each with a time: those that say none go with the one before, the first with the one that
    follows; of a follower, which waits for none, with the time at which they are read."""

    def __init__(self, stage: str, waits: bool = True) -> None:
        self._stage, self._waits, self._last_ns = stage, waits, 0
        self._undated: list[Event] = []

    def event(self, line: bytes) -> Iterator[Event]:
        text = line.decode(errors="replace")
        if text.strip():
            event = parse(text, self._stage)
            if not event.at_ns and not self._last_ns and self._waits:
                self._undated.append(event)
                return
            self._last_ns = event.at_ns or self._last_ns or time.time_ns()
            yield from self._with(self._last_ns)
            yield event._replace(at_ns=self._last_ns)

    def rest(self, path: Path) -> Iterator[Event]:
        """What no line had a time for: it was there when the file was last written."""
        if self._undated:
            try:
                at_ns = path.stat().st_mtime_ns
            except OSError:
                at_ns = time.time_ns()
            yield from self._with(at_ns)

    def _with(self, at_ns: int) -> Iterator[Event]:
        undated, self._undated = self._undated, []
        return (event._replace(at_ns=at_ns) for event in undated)


class Follower:
    """What is written to the file of one stage from now on, or from its beginning where `whole`; across renaming,
    restarts and a file that does not exist yet."""

    def __init__(self, stage: str, path: Path, whole: bool = False) -> None:
        self._path, self._dated = path, _Dated(stage, waits=False)
        self._file = None
        self._rest = b""
        if not whole:
            self._open(path)
            if self._file is not None:
                self._file.seek(_end_of_lines(self._file))

    @property
    def place(self) -> Place | None:
        """Where it stands; None before the first file."""
        return (os.fstat(self._file.fileno()).st_ino, self._file.tell() - len(self._rest)) if self._file else None

    def read(self) -> list[Event]:
        """What has come since the last time."""
        events: list[Event] = []
        while True:
            if self._file is not None:
                self._take(events)
            following = self._next()
            if following is None:
                return events
            if self._file is not None:
                self._take(events)  # what came between reading to the end and the renaming
            if self._rest:
                events += self._dated.event(self._rest)  # a last line without an end: none will come
                self._rest = b""
            self.close()
            self._open(following)
            if self._file is None:
                return events  # renamed again meanwhile: the next look finds it

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _take(self, events: list[Event]) -> None:
        stat = os.fstat(self._file.fileno())
        if stat.st_size < self._file.tell():  # cut short, as `> file` does
            self._file.seek(0)
            self._rest = b""
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        for line in lines:
            events += self._dated.event(line)

    def _next(self) -> Path | None:
        """The file that came after the one that is being read; None where there is none yet."""
        paths = rotated(self._path)
        if self._file is None:
            return paths[0] if paths[0].exists() else None
        ours = os.fstat(self._file.fileno())
        for place, path in enumerate(paths):
            try:
                if os.path.samestat(os.stat(path), ours):
                    return paths[place - 1] if place else None
            except FileNotFoundError:
                continue
        # Ours has been removed: all that there is came after it. Without a file of that name, one will come.
        return paths[-1] if paths[-1].exists() else None

    def _open(self, path: Path) -> None:
        try:
            self._file = path.open("rb")
        except FileNotFoundError:
            self._file = None


def _end_of_lines(file) -> int:
    """Where the last whole line ends: the rest is still being written."""
    size = file.seek(0, os.SEEK_END)
    while size:
        begin = max(0, size - _LAST)
        file.seek(begin)
        at = file.read(size - begin).rfind(b"\n")
        if at >= 0:
            return begin + at + 1
        size = begin
    return 0
