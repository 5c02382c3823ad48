"""The journal: what we meant to do, durable before it is done, and what came of it. SQLite, one writer, many readers.

    file     where it lies, its tables, how it is opened      state    what its rows come to: positions, streams, orders
    checks   what is examined of it, so that damage is told   log      commits behind a damaged place of its log
    writer   `Journal`, for the executor                      reader   `Reader`, for commands and pages
"""

from common.journal.file import MOST_NS, located
from common.journal.reader import LAST, News, Reader, within
from common.journal.writer import Journal, Restored

__all__ = ["LAST", "MOST_NS", "Journal", "News", "Reader", "Restored", "located", "within"]
