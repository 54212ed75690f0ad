"""A queue in memory, for unit tests of code that consumes.

.. code-block:: python

    queue = FakeQueue([b'{"coin": "ETH"}', b"not JSON"])
    with queue.consumer() as consumer:
        run_my_service(consumer)          # ends when no line is left
    assert queue.acked == [1] and queue.dead == {2: "not JSON"}
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from typing import Any

from . import _aio, _core, _sync
from ._core import Answer

__all__ = ["FakeQueue"]


class FakeQueue:
    """One group in strict order. Consumers of it end when no line is left, or when a batch has failed ``attempts_max`` times."""

    def __init__(self, lines: Iterable[bytes | str], *, batch_lines: int = 100, attempts_max: int = 20) -> None:
        as_bytes = (line.encode() if isinstance(line, str) else line for line in lines)
        # As the lines of a file have it.
        self.lines = dict(enumerate((line.removesuffix(b"\n") for line in as_bytes), 1))
        #: Seqs of lines that were acked, in order.
        self.acked: list[int] = []
        #: Lines that were rejected, and why.
        self.dead: dict[int, str] = {}
        #: Reasons of failed batches, in order.
        self.failures: list[str] = []
        self._batch_lines = batch_lines
        self._attempts_max = attempts_max
        self._settled: set[int] = set()
        self._attempts: dict[int, int] = {}
        self._leases: dict[str, list[int]] = {}
        self._on_empty: list[Any] = []

    def consumer(self, **options: Any) -> _sync.Consumer:
        """A consumer of the queue, with the options of :class:`spillq_client.Consumer`."""
        consumer = _sync.Consumer("unix:fake", group="fake", **options)
        for asking in (consumer._asking, consumer._side):
            asking._connection = _Connection(asking._connection, self)
        self._on_empty.append(consumer.stop)
        return consumer

    def async_consumer(self, **options: Any) -> _aio.AsyncConsumer:
        """A consumer of the queue, with the options of :class:`spillq_client.AsyncConsumer`."""
        consumer = _aio.AsyncConsumer("unix:fake", group="fake", **options)
        for asking in (consumer._asking, consumer._side):
            asking._connection = _AsyncConnection(asking._connection, self)
        self._on_empty.append(consumer.stop)
        return consumer

    def expire(self) -> None:
        """Ends all leases, as if their time were up."""
        self._leases.clear()

    def answer(self, path: str, headers: dict[str, str], body: bytes) -> Answer:
        wanted = json.loads(body) if body else {}
        if path.endswith("/lease"):
            return self._lease(wanted, headers.get("Accept", ""))
        if path.endswith("/leave"):
            self._leases.clear()
            return _json(200, {"released": 0})
        token = headers.get("Spillq-Lease", "")
        if token not in self._leases:
            return _json(410, {"code": "stale", "why": "expired", "acked": []})
        if path.endswith("/extend"):
            return _json(200, {"expires_ms": 30_000})
        return self._settle(token, wanted)

    def _lease(self, wanted: dict[str, Any], accept: str) -> Answer:
        leased = {seq for seqs in self._leases.values() for seq in seqs}
        most = min(self._batch_lines, wanted.get("max_lines", self._batch_lines))
        first = next((seq for seq in self.lines if seq not in self._settled and seq not in leased), None)
        seqs: list[int] = []
        # Of one lease without a gap.
        while first is not None and len(seqs) < most and first in self.lines:
            if first in self._settled or first in leased:
                break
            seqs.append(first)
            first += 1
        if seqs and self._attempts.get(seqs[0], 0) >= self._attempts_max:
            seqs = []
        if not seqs:
            for stop in self._on_empty:
                stop()
            return Answer(204, {"spillq-why": "empty"}, b"")
        token = secrets.token_hex(16)
        self._leases[token] = seqs
        for seq in seqs:
            self._attempts[seq] = self._attempts.get(seq, 0) + 1
        attempt = self._attempts[seqs[0]]
        headers = {
            "spillq-lease": token,
            "spillq-epoch": "1-0-0",
            "spillq-first-seq": str(seqs[0]),
            "spillq-last-seq": str(seqs[-1]),
            "spillq-lines": str(len(seqs)),
            "spillq-attempt": str(attempt),
            "spillq-expires-ms": "30000",
        }
        if accept == _core.LINES_TYPE:
            return Answer(200, headers, b"".join(self.lines[seq] + b"\n" for seq in seqs))
        objects = [
            {
                "seq": seq,
                "source": "/fake",
                "offset": 0,
                "time": "1970-01-01T00:00:00.000Z",
                "attempt": attempt,
                "text": self.lines[seq].decode("utf-8", "replace"),
            }
            for seq in seqs
        ]
        return Answer(200, headers, b"".join(json.dumps(one).encode() + b"\n" for one in objects))

    def _settle(self, token: str, wanted: dict[str, Any]) -> Answer:
        seqs = self._leases[token]
        bad = {int(line["seq"]): str(line.get("reason", "")) for line in wanted.get("bad", [])}
        done: list[int] = []
        left: list[int] = []
        match wanted.get("ack"):
            case "all":
                done = [seq for seq in seqs if seq not in bad]
                self.dead.update(bad)
            case {"through": through}:
                done = [seq for seq in seqs if seq <= through]
                left = [seq for seq in seqs if seq > through]
            case None if bad:
                # The first of them; the others come again.
                first = min(bad)
                self.dead[first] = bad[first]
        if "fail" in wanted:
            self.failures.append(str(wanted["fail"].get("reason", "")))
        self.acked.extend(done)
        self._settled.update(done, self.dead)
        if left:
            self._leases[token] = left
        else:
            del self._leases[token]
        ranges = [[left[0], left[-1]]] if left else []
        floor = max(self.acked, default=0)
        dead = len(bad) if wanted.get("ack") == "all" else min(len(bad), 1)
        found = {"acked": len(done), "dead": dead, "left": ranges, "ack_floor": floor, "durable": True}
        return _json(200, found | {"again": len(seqs) - len(done) - dead - len(left)})


def _json(status: int, value: dict[str, Any]) -> Answer:
    return Answer(status, {}, json.dumps(value).encode())


class _Connection(_sync._Connection):
    def __init__(self, like: _sync._Connection, queue: FakeQueue) -> None:
        super().__init__(like.target, like.options)
        self._queue = queue

    def ask(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        return self._queue.answer(path, headers, body)


class _AsyncConnection(_aio._Connection):
    def __init__(self, like: _aio._Connection, queue: FakeQueue) -> None:
        super().__init__(like.target, like.options)
        self._queue = queue

    async def ask(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        return self._queue.answer(path, headers, body)
