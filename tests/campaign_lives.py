"""Processes that are born fast and die where they are told to, for `tests.campaign`.

A nursery is one process that has imported the stages; each life is a fork of it which runs the command as `alpha`
would: a process, sockets and files of its own, without the second that the imports take.

A life may carry a point at which it ends, by SIGKILL from its own hand: POINTS are calls of the journal and of the
gateway, wrapped in the process that is to die and in no other. The product knows nothing of it.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: where a process may end, and when that is; each counts its own calls
POINTS = {
    "decided": "before the intent is written",
    "journaled": "the intent is in the journal, nothing was sent",
    "queued": "the gateway has the order, no byte has left",
    "left": "the order has left, nothing has come back",
    "heard": "the venue's word is read, nobody was told",
    "booking": "a fill is about to be written",
    "half-booked": "a fill is written, and not committed",
    "booked": "a fill is committed",
    "restoring": "a start is about to read the journal",
    "restored": "a start has read the journal",
    "asking": "the venue is asked about an order of an earlier life",
    "answered": "it has answered, nobody was told",
    "comparing": "the venue is asked for its positions",
    "compared": "it has answered, nobody was told",
}


#: Keeps of each file of a journal what has been synchronised: that is what a power cut leaves.
_PLATTER = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void keep(int fd) {
    const char *folder = getenv("CAMPAIGN_PLATTER");
    char link[64], path[4096], draft[4096], kept[4096], block[65536];
    if (!folder) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return;
    path[length] = 0;
    const char *name = strrchr(path, '/') + 1;
    if (strncmp(name, "journal.", 8)) return;
    snprintf(kept, sizeof kept, "%s/%s", folder, name);
    snprintf(draft, sizeof draft, "%s.draft", kept);
    int in = open(path, O_RDONLY), out = open(draft, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (in < 0 || out < 0) abort();
    for (ssize_t count; (count = read(in, block, sizeof block)) > 0;)
        if (write(out, block, count) != count) abort();
    close(in);
    close(out);
    if (rename(draft, kept)) abort();
}

int fsync(int fd) {
    int code = ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
    if (!code) keep(fd);
    return code;
}

int fdatasync(int fd) {
    int code = ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
    if (!code) keep(fd);
    return code;
}
"""


def _kept(folder: Path) -> dict[str, str]:
    """The environment in which processes of the nursery keep what they synchronise; empty without a compiler."""
    compiler, library = shutil.which("cc"), folder / "platter.so"
    if compiler is None:
        return {}
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, "-xc", "-", "-ldl"], input=_PLATTER, text=True,
                   check=True)
    return {"LD_PRELOAD": str(library)}


class Life:
    """A process of the nursery. Any thread may kill it; one waits for it and reaps it."""

    def __init__(self, nursery: "Nursery", pid: int) -> None:
        self.pid, self._nursery = pid, nursery
        self._fd = os.pidfd_open(pid)  # unlike a pid, never another's
        self._status: int | None = None
        self._lock = threading.Lock()

    def wait(self, seconds: float) -> bool:
        """Whether it has ended; waits that long for it."""
        return self._status is not None or bool(select.select([self._fd], [], [], seconds)[0])

    def kill(self, number: int = signal.SIGKILL) -> None:
        with self._lock, contextlib.suppress(ProcessLookupError):
            if self._status is None:
                signal.pidfd_send_signal(self._fd, number)

    def reap(self) -> int:
        """Its exit status, below 0 the signal that ended it; waits for its end."""
        if self._status is None:
            select.select([self._fd], [], [])
            with self._lock:
                self._status = self._nursery.ask({"reap": self.pid})["status"]
                os.close(self._fd)
        return self._status


class Nursery:
    """Where lives begin; any thread may ask. Whatever still lives ends with it."""

    def __init__(self) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("ALPHA_")}
        self._folder = tempfile.TemporaryDirectory(prefix="ac")
        self.environ = environ | _kept(Path(self._folder.name))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.campaign_lives"], cwd=ROOT, text=True, start_new_session=True,
            # A thread does not survive a fork.
            env={**self.environ, "ALPHA_SUPERVISED": "1", "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._lock = threading.Lock()

    def ask(self, question: dict) -> dict:
        with self._lock:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        assert answer, "the nursery has ended"
        return json.loads(answer)

    def start(self, command: str, arguments: list[str], log: Path, kill: tuple[str, int] | None = None,
              rests: bool = False, platter: Path | None = None) -> Life:
        """`alpha COMMAND ARGUMENTS` with its output in `log`; `kill`: a point, and at which call of it; `rests`: many
        an order waits at the exchange instead of taking what it can; `platter`: a folder for what of the journal was
        synchronised, if there is a compiler."""
        told = self.ask({"start": command, "arguments": arguments, "log": str(log), "kill": kill, "rests": rests,
                         "platter": str(platter or "")})
        return Life(self, told["pid"])

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._folder.cleanup()


# ---- in the nursery

def main() -> None:
    from common import placement
    from procs import exchange, executor

    placement.die_with_parent()
    commands = {"executor": executor.executor, "exchange": exchange.exchange}
    for line in sys.stdin:
        question = json.loads(line)
        if "reap" in question:
            answer = {"status": os.waitstatus_to_exitcode(os.waitpid(question["reap"], 0)[1])}
        else:
            answer = {"pid": os.fork()}
            if not answer["pid"]:
                _live(commands[question["start"]], question)
        print(json.dumps(answer), flush=True)


def _live(command, question: dict) -> None:
    """Never returns."""
    status = 70
    try:
        nothing, log = os.open(os.devnull, os.O_RDONLY), os.open(question["log"], os.O_WRONLY | os.O_CREAT, 0o600)
        for fd, stands_for in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(fd, stands_for)
        if question["platter"]:
            os.environ["CAMPAIGN_PLATTER"] = question["platter"]
        if question["rests"]:
            rest()
        if question["kill"]:
            arm(*question["kill"], lambda: os.kill(os.getpid(), signal.SIGKILL))
        command.main(args=question["arguments"], prog_name=question["start"])
    except SystemExit as end:
        status = end.code or 0
    except BaseException:  # whatever it is, it is to stand in the log
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def rest() -> None:
    """Many an order of this process waits at the exchange until it is cancelled: at the touch, or a little way off."""
    from common.orders import BUY, Order
    from procs import executor

    answer, step = executor.answer, 1_000_000  # the increment of prices in the campaign

    def resting(*arguments):
        found = answer(*arguments)
        if type(found) is not Order or found.reduce_only or (choice := found.seq % 4) == 0:
            return found
        away = (0 if choice == 1 else found.price // 100) // step * step
        return found._replace(time_in_force="GTC", price=found.price - (away if found.side == BUY else -away))

    executor.answer = resting


def arm(point: str, count: int, end: Callable[[], None]) -> None:
    """`end` is called at the `count`-th time that `point` is reached."""
    from common.gateways import Absent, Acked, Portfolio
    from common.gateways.vectrade import VecTrade
    from common.journal import Journal

    left = [count]

    def strike() -> None:
        left[0] -= 1
        if not left[0]:
            end()

    def wrap(owner: type, name: str, before: Callable = lambda: None, after: Callable = lambda result: None) -> None:
        found = getattr(owner, name)

        def wrapped(*arguments, **named):
            before()
            result = found(*arguments, **named)
            after(result)
            return result

        setattr(owner, name, wrapped)

    def after_hearing(*kinds: type) -> None:
        wrap(VecTrade, "work", after=lambda events: strike() if any(type(one) in kinds for one in events) else None)

    match point:
        case "decided":
            wrap(Journal, "intent", before=strike)
        case "journaled":
            wrap(Journal, "intent", after=lambda _: strike())
        case "queued":
            wrap(VecTrade, "submit", after=lambda _: strike())
        case "left":
            waiting: list[bool] = []
            wrap(VecTrade, "submit", before=lambda: waiting.append(True))
            wrap(VecTrade, "work", after=lambda _: strike() if waiting and waiting.pop() else None)
        case "heard":
            after_hearing(Acked)
        case "booking":
            wrap(Journal, "fill", before=strike)
        case "half-booked":
            wrap(Journal, "fill", after=lambda _: strike())
        case "booked":
            _after_commit(Journal, wrap, strike)
        case "restoring":
            wrap(Journal, "restore", before=strike)
        case "restored":
            wrap(Journal, "restore", after=lambda _: strike())
        case "asking":
            wrap(VecTrade, "query", after=lambda _: strike())
        case "answered":
            after_hearing(Acked, Absent)
        case "comparing":
            wrap(VecTrade, "portfolio", after=lambda _: strike())
        case "compared":
            after_hearing(Portfolio)
        case _:
            raise KeyError(point)


def _after_commit(journal: type, wrap: Callable, strike: Callable[[], None]) -> None:
    """Strikes when the outermost batch with a fill in it has ended."""
    found, fills, depth = journal.batch, [], [0]
    wrap(journal, "fill", before=lambda: fills.append(True))

    @contextlib.contextmanager
    def batch(self):
        depth[0] += 1
        try:
            with found(self) as db:
                yield db
        finally:
            depth[0] -= 1
        if fills and not depth[0]:
            fills.clear()
            strike()

    journal.batch = batch


if __name__ == "__main__":
    main()
