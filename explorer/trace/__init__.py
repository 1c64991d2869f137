"""Logs of real VMMs, read and replayed in the engine: QEMU's own trace, strace, ftrace, perf, JSON lines."""

from explorer.trace.imported import ImportedLog, import_log
from explorer.trace.records import Gap, TraceError
from explorer.trace.replay import Replay, seldom_collecting
from explorer.trace.source import file_source, stream_source

__all__ = [
    "Gap",
    "ImportedLog",
    "Replay",
    "TraceError",
    "file_source",
    "import_log",
    "seldom_collecting",
    "stream_source",
]
