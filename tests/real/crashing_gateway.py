"""A gateway that is started again and again: a script, run in a process of its own.

    crashing_gateway.py gateway.toml

Each line on stdin is one run: a JSON object with its faults, `{}` for none.  The gateway has been
imported by then, so a run begins in a few milliseconds by a fork and calls the same `main` as the
command.  On stdout: `started PID`, what the gateway prints (`ready ...`), and `ended STATUS`,
negative for a signal.

The faults, where no signal from outside could be aimed so well:

    "die": [when, what]     SIGKILL itself `before` or `after` the commit that holds such an event
                            (`TransactionStarted`) or the checkpoint of such a reader
                            (`thingsboard`), or once such a request was `answered`
                            (`StartTransaction`)
    "slow_fsync": seconds   each commit takes so long more
    "busy_timeout": seconds how long it waits for a store that another process has locked
    "clock": FILE           its wall clock is off by the seconds that the file holds, read anew
                            each time
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

from gateway import service
from gateway.cli import main as cli
from gateway.journal.sqlite import SqliteStore
from gateway.southbound.connection import ChargePointConnection

PR_SET_PDEATHSIG = 1


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def holds(appends, what: str) -> bool:
    return any(
        (append.checkpoint is not None and append.checkpoint.reader == what)
        or any(type(event).__name__ == what for event in append.events)
        for append in appends
    )


def kill_at(when: str, what: str) -> None:
    commit, handle = SqliteStore.commit, ChargePointConnection._handle

    def fatal_commit(store, appends):
        concerned = holds(appends, what)
        if concerned and when == "before":
            die()
        commit(store, appends)
        if concerned and when == "after":
            die()

    async def fatal_handle(connection, text):
        await handle(connection, text)
        if f'"{what}"' in text:
            die()

    if when == "answered":
        ChargePointConnection._handle = fatal_handle
    else:
        SqliteStore.commit = fatal_commit


def slow_fsync(seconds: float) -> None:
    commit = SqliteStore.commit

    def slow_commit(store, appends):
        time.sleep(seconds)
        commit(store, appends)

    SqliteStore.commit = slow_commit


def busy_timeout(seconds: float) -> None:
    opened = SqliteStore.open.__func__

    def open_with_timeout(cls, path):
        store = opened(cls, path)
        for connection in (store._writer, store._reader):
            connection.execute(f"pragma busy_timeout = {int(seconds * 1000)}")
        return store

    SqliteStore.open = classmethod(open_with_timeout)


def shift_clock(file: str) -> None:
    real = service.utc_now
    service.utc_now = lambda: real() + timedelta(seconds=float(Path(file).read_text()))


def run(config: str, faults: dict) -> None:
    """One run, in the child: it does not return."""
    # If the tests are killed, the gateway dies with them.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if "die" in faults:
        kill_at(*faults["die"])
    if "slow_fsync" in faults:
        slow_fsync(faults["slow_fsync"])
    if "busy_timeout" in faults:
        busy_timeout(faults["busy_timeout"])
    if "clock" in faults:
        shift_clock(faults["clock"])
    status = 1
    try:
        status = cli.main(["run", "--config", config])
    finally:
        sys.stdout.flush()
        os._exit(status)


def main() -> None:
    config = sys.argv[1]
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(config, json.loads(line))
        print(f"started {child}", flush=True)
        _, status = os.waitpid(child, 0)
        print(f"ended {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    main()
