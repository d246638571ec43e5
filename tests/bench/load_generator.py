"""Simulated charge points in one epoll loop, and the CPU and memory of the server under load.

It speaks just enough WebSocket and OCPP-J: its frames are templates with the numbers filled in,
and of an answer it reads the message id and the transactionId.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import resource
import select
import socket
import sys
import time
from array import array
from pathlib import Path
from urllib.parse import urlsplit

from websockets.frames import apply_mask

from .messages import (  # fmt: skip
    ACTIONS,
    BOOTING,
    CLOSED,
    CONNECTING,
    MASK,
    OPEN,
    RECORDED,
    SESSION,
    SHAKING,
    Charger,
    Say,
    boot,
    frame,
    start,
)

TRANSACTION_ID = re.compile(rb'"transactionId"\s*:\s*(\d+)')
UNLIMITED = sys.maxsize


# --- the process under load -------------------------------------------------------------------


class Process:
    """CPU seconds and resident bytes of a server, from /proc."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def cpu_s(self) -> float:
        if not self._pid:
            return 0.0
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        if not self._pid:
            return 0
        pages = int(Path(f"/proc/{self._pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()


# --- the loop ---------------------------------------------------------------------------------


class Load:
    """N chargers against one server.

    fixed_reply: the server answers every frame with the same text, so message ids are not looked
        at.
    """

    def __init__(self, url: str, prefix: str, *, fixed_reply: bool, record: bool) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._path = parts.path.rstrip("/")
        self._prefix = prefix
        self._fixed_reply = fixed_reply
        self._record: array[int] | None = array("q") if record else None
        self._epoll = select.epoll()
        self._by_fd: dict[int, Charger] = {}
        self.chargers: list[Charger] = []
        self.script = SESSION
        self.busy = 0
        self.open = 0
        self._lost = 0
        self.measuring = False
        self.latencies: dict[str, array[float]] = {}
        self.sent: dict[str, int] = dict.fromkeys(RECORDED, 0)  # and answered with a result
        self.answered = 0  # all of them, warm-up included
        self.errors = 0
        self.first_error = ""

    # connecting

    def connect(self, count: int, in_flight: int, timeout: float = 60.0) -> float:
        """Connect and boot `count` more chargers, at most `in_flight` at a time; seconds taken."""
        began = time.perf_counter()
        deadline = began + timeout
        target = len(self.chargers) + count
        while (settled := self.open + self._lost) < target:
            waiting = len(self.chargers) - settled
            while len(self.chargers) < target and waiting < in_flight:
                self._dial()
                waiting += 1
            if time.perf_counter() > deadline:
                self._fault(f"{waiting} chargers did not connect and boot in {timeout:.0f} s")
                break
            self._turn(0.1)
        return time.perf_counter() - began

    def _dial(self) -> None:
        charger = Charger(len(self.chargers), self._prefix)
        self.chargers.append(charger)
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Eight source addresses: each has its own range of ephemeral ports.
        sock.bind((f"127.0.0.{1 + charger.index % 8}", 0))
        charger.sock = sock
        code = sock.connect_ex(self._address)
        self._by_fd[sock.fileno()] = charger
        self._epoll.register(sock.fileno(), select.EPOLLOUT)
        if code not in (0, errno.EINPROGRESS):
            self._lose(charger, os.strerror(code))

    def _shake(self, charger: Charger) -> None:
        code = charger.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._lose(charger, os.strerror(code))
            return
        self._epoll.modify(charger.sock.fileno(), select.EPOLLIN)
        charger.state = SHAKING
        self._write(
            charger,
            (
                f"GET {self._path}/{charger.id} HTTP/1.1\r\n"
                f"Host: {self._address[0]}:{self._address[1]}\r\n"
                "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: ocpp1.6\r\n\r\n"
            ).encode(),
        )

    # one turn of the loop

    def _turn(self, timeout: float) -> None:
        if timeout > 0:
            # epoll's own timeout has whole milliseconds; select's has microseconds.
            select.select([self._epoll], [], [], timeout)
        by_fd = self._by_fd
        for fd, _ in self._epoll.poll(0, 512):
            charger = by_fd.get(fd)
            if charger is None:
                continue
            if charger.state == CONNECTING:
                self._shake(charger)
                continue
            try:
                data = charger.sock.recv(65536)
            except BlockingIOError:
                continue
            except OSError as error:
                self._lose(charger, str(error))
                continue
            if not data:
                self._lose(charger, "the server closed the connection")
                continue
            # By far the most common: one short text frame, whole.
            if (
                charger.state >= BOOTING
                and not charger.buffer
                and data[0] == 0x81
                and data[1] < 126
                and len(data) == data[1] + 2
            ):
                self._text(charger, data[2:])
            else:
                charger.buffer += data
                self._parse(charger)

    def _parse(self, charger: Charger) -> None:
        if charger.state == SHAKING:
            head, end, rest = charger.buffer.partition(b"\r\n\r\n")
            if not end:
                return
            if b" 101 " not in head.split(b"\r\n")[0]:
                self._lose(charger, head.split(b"\r\n")[0].decode("latin-1"))
                return
            charger.buffer = rest
            charger.state = BOOTING
            self._send(charger, boot, time.perf_counter())
        while charger.state in (BOOTING, OPEN) and len(charger.buffer) >= 2:
            data = charger.buffer
            opcode, size, begin = data[0] & 0x0F, data[1], 2
            if size == 126:
                size, begin = int.from_bytes(data[2:4], "big"), 4
            elif size == 127:
                size, begin = int.from_bytes(data[2:10], "big"), 10
            if len(data) < begin + size:
                return
            charger.buffer = data[begin + size :]
            self._frame(charger, opcode, data[begin : begin + size])

    def _frame(self, charger: Charger, opcode: int, payload: bytes) -> None:
        if opcode == 1:
            self._text(charger, payload)
        elif opcode == 9:
            pong = b"\x8a" + bytes([0x80 | len(payload)]) + MASK
            self._write(charger, pong + apply_mask(payload, MASK))
        elif opcode == 8:
            self._lose(charger, f"closed by the server: {payload!r}")

    def _text(self, charger: Charger, text: bytes) -> None:
        good = True
        if not (text.startswith(charger.awaited) or self._fixed_reply):
            if text.startswith(b"[2"):  # the server asks something; a charger always answers
                message_id = json.loads(text)[1]
                answer = json.dumps([4, message_id, "NotImplemented", "", {}])
                self._write(charger, frame(answer.encode()))
                return
            # Another server may space its JSON otherwise.
            good = json.loads(text)[:2] == [3, str(charger.number)]
            if not good:
                self._fault(f"answer {text[:200]!r}")
        now = time.perf_counter()
        if charger.state == BOOTING:
            charger.state = OPEN
            charger.awaited = b""
            self.open += 1
            if not self._fixed_reply and b'"Accepted"' not in text:
                self._fault(f"boot not accepted: {text[:200]!r}")
            return
        say = self.script[charger.step]
        self.answered += 1
        if say is start:
            found = TRANSACTION_ID.search(text)
            if found and b'"Accepted"' in text:
                charger.transaction_id = found[1]
            else:
                self._fault(f"no transaction: {text[:200]!r}")
        action = ACTIONS[say]
        if self.measuring:
            self.latencies.setdefault(action, array("d")).append(now - charger.sent_at)
        if good and action in self.sent:
            self.sent[action] += 1
            if self._record is not None:
                self._record.extend((RECORDED.index(action), charger.index, charger.last_ms))
        charger.step = (charger.step + 1) % len(self.script)
        if charger.quota:
            charger.quota -= 1
            self._send(charger, self.script[charger.step], now)
        elif charger.due:
            self._send(charger, self.script[charger.step], charger.due.popleft())
        else:
            charger.awaited = b""
            self.busy -= 1

    def _send(self, charger: Charger, say: Say, at: float) -> None:
        charger.number += 1
        number = b"%d" % charger.number
        charger.awaited = b'[3,"' + number + b'",'
        charger.sent_at = at
        self._write(charger, frame(b'[2,"' + number + b'",' + say(charger) + b"]"))

    def _write(self, charger: Charger, data: bytes) -> None:
        try:
            sent = charger.sock.send(data)
            if sent != len(data):  # never in a closed loop, where one request is under way
                charger.sock.settimeout(10)
                charger.sock.sendall(data[sent:])
                charger.sock.setblocking(False)
        except OSError as error:
            self._lose(charger, str(error))

    def _lose(self, charger: Charger, why: str) -> None:
        if charger.state == CLOSED:
            return
        self._fault(f"{charger.id}: {why}")
        if charger.state == OPEN:
            self.open -= 1
            self.busy -= bool(charger.awaited)
        self._lost += 1
        charger.state = CLOSED
        charger.quota = 0
        del self._by_fd[charger.sock.fileno()]
        charger.sock.close()

    def _fault(self, why: str) -> None:
        self.errors += 1
        self.first_error = self.first_error or why

    # what a run consists of

    def go(self, charger: Charger, quota: int) -> None:
        """Let an idle charger send `quota` requests, one after the other."""
        if charger.state == OPEN and quota:
            charger.quota = quota - 1
            self.busy += 1
            self._send(charger, self.script[charger.step], time.perf_counter())

    def settle(self, timeout: float = 20.0) -> None:
        """Turn until no charger waits for an answer."""
        deadline = time.perf_counter() + timeout
        while self.busy > 0:
            self._turn(0.1)
            if time.perf_counter() > deadline:
                self._fault(f"{self.busy} requests were not answered in {timeout:.0f} s")
                return

    def play(self, script: tuple[Say, ...]) -> None:
        """Every charger says `script` once, from its beginning."""
        self.script = script
        for charger in self.chargers:
            charger.step = 0
            self.go(charger, len(script))
        self.settle()

    def spread(self) -> None:
        """Bring the chargers to different places of the script, else they march in step."""
        for charger in self.chargers:
            self.go(charger, charger.index % len(self.script))
        self.settle()

    def finish(self) -> None:
        """End every script that was begun, so that no transaction is left open."""
        for charger in self.chargers:
            left = len(self.script) - charger.step
            if charger.awaited:
                charger.quota = left - 1
            elif charger.step:
                self.go(charger, left)
        self.settle()

    def closed(self, seconds: float) -> None:
        """Every charger sends its next request as soon as it has its answer."""
        for charger in self.chargers:
            if charger.awaited:
                charger.quota = UNLIMITED
            else:
                self.go(charger, UNLIMITED)
        end = time.perf_counter() + seconds
        while self.open and time.perf_counter() < end:
            self._turn(0.05)

    def paced(self, rate: float, seconds: float) -> None:
        """`rate` requests a second whatever the answers do; latency counts from the plan."""
        began = time.perf_counter()
        chargers, count = self.chargers, len(self.chargers)
        sent, total = 0, int(rate * seconds)
        while sent < total and self.open:
            now = time.perf_counter()
            while sent < total and (intended := began + sent / rate) <= now:
                charger = chargers[sent % count]
                sent += 1
                if charger.state != OPEN:
                    continue
                if charger.awaited:
                    charger.due.append(intended)
                else:
                    self.busy += 1
                    self._send(charger, self.script[charger.step], intended)
            self._turn(max(began + sent / rate - time.perf_counter(), 0.0))
        self.settle()  # what is late counts, else the slowest answers would go unmeasured

    def hold(self, seconds: float) -> None:
        """Stay connected, answering pings."""
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            self._turn(min(left, 0.1))

    def close(self) -> None:
        """Leave as a charger does: a Close frame, then the socket."""
        for charger in self.chargers:
            if charger.state != CLOSED:
                with contextlib.suppress(OSError):
                    charger.sock.send(b"\x88\x82" + MASK + apply_mask(b"\x03\xe8", MASK))
        time.sleep(0.2)
        for charger in self.chargers:
            if charger.state != CLOSED:
                charger.sock.close()

    def write_record(self, file: Path) -> None:
        with file.open("wb") as out:
            self._record.tofile(out)
