"""The consumer for threads."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any

from . import _core as core
from ._core import Answer, BadLine, Form, Lease, LeaseLost, Line, Settled, TryAgain

__all__ = ["Batch", "Consumer"]


class _Connection:
    """One connection that is kept. Not for two threads at once."""

    def __init__(self, target: core.Target, options: core.Options) -> None:
        self.target = target
        self.options = options
        self._socket: socket.socket | None = None

    def ask(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """:raises TryAgain: if there is no answer."""
        sent = core.request(self.target, self.options, method, path, headers, body)
        try:
            if self._socket is None:
                self._socket = self._connect()
            self._socket.settimeout(self.options.wait_ms / 1000 + core.ANSWER_WAIT_S)
            self._socket.sendall(sent)
            return self._read(self._socket)
        except (OSError, TryAgain) as error:
            self.close()
            raise TryAgain(str(error) or type(error).__name__) from error

    def _connect(self) -> socket.socket:
        if self.target.path is None:
            return socket.create_connection((self.target.host, self.target.port), timeout=core.ANSWER_WAIT_S)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(core.ANSWER_WAIT_S)
            connection.connect(self.target.path)
        except OSError:
            connection.close()
            raise
        return connection

    def _read(self, connection: socket.socket) -> Answer:
        data = bytearray()
        while (end := data.find(b"\r\n\r\n")) < 0:
            if len(data) > core.HEAD_BYTES_MAX:
                raise TryAgain("the head of the answer is too long")
            some = connection.recv(64 * 1024)
            if not some:
                raise TryAgain("the connection was closed")
            data += some
        status, headers = core.head(bytes(data[:end]))
        length = core.body_bytes(status, headers)
        body = bytearray(length)
        begun = data[end + 4 :][:length]
        body[: len(begun)] = begun
        view, filled = memoryview(body), len(begun)
        while filled < length:
            count = connection.recv_into(view[filled:])
            if not count:
                raise TryAgain("the connection was closed in the middle of an answer")
            filled += count
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Answer(status, headers, bytes(body))

    def interrupt(self) -> None:
        """Ends a wait for an answer, from another thread or a signal."""
        connection = self._socket
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Batch:
    """The lines of one lease, as a context: leaving it acks them, an exception fails them.

    Leaving it by ``break`` or ``return`` acks too: lines that were not looked at are acked with the others. Call
    :meth:`ack_through` before, and the rest is delivered again, or :meth:`release`. While it is open, the lease is extended at a third
    of its time.
    """

    def __init__(self, consumer: Consumer, lease: Lease) -> None:
        self._consumer = consumer
        self._lease = lease
        self._verdict = core.Verdict()
        self._closed = threading.Event()
        self._extender: threading.Thread | None = None

    @property
    def first(self) -> int:
        """The seq of the first line."""
        return self._lease.first

    @property
    def last(self) -> int:
        """The seq of the last line."""
        return self._lease.last

    @property
    def epoch(self) -> str:
        """What the seqs belong to."""
        return self._lease.epoch

    @property
    def attempt(self) -> int:
        """How often these lines were delivered, this time included."""
        return self._lease.attempt

    def __iter__(self) -> Iterator[Line]:
        return self._lease.lines()

    def __len__(self) -> int:
        return self._lease.count

    def raw_lines(self) -> list[bytes]:
        """The lines as bytes, without newlines: faster than iterating, if nothing else is needed."""
        return self._lease.raw_lines()

    def bad(self, line: Line, reason: str) -> None:
        """Rejects a line: it becomes a dead letter when the batch is acked."""
        self._verdict.reject(line.seq, reason)

    def ack(self) -> Settled:
        """Acks all lines, except those that are :meth:`bad`."""
        return self._settle(self._verdict.ack(self._consumer._options))

    def ack_through(self, line: Line) -> Settled:
        """Acks the lines up to this one. The rest stays leased; leaving the batch gives it back, to be delivered again."""
        self._verdict.check_through(line.seq)
        return self._settle({"ack": {"through": line.seq}})

    def fail(self, reason: str, delay: float | None = None) -> Settled:
        """The lines are delivered again; with ``delay`` (seconds) not before, and no attempt is counted."""
        pause = {} if delay is None else {"delay_ms": round(delay * 1000)}
        return self._settle({"fail": {"reason": reason, **pause}})

    def release(self) -> Settled:
        """The lines were not processed: they are delivered again at once."""
        return self._settle({"release": True})

    def extend(self, lease_ms: int | None = None) -> None:
        """Sets the deadline anew, to ``lease_ms`` from now on, and again at each third of it while the batch is open.

        :raises LeaseLost: if the lease has ended.
        """
        if lease_ms is not None:
            self._verdict.lease_ms = lease_ms
        request = core.extend_request(self._lease, self._verdict.lease_ms or self._consumer._options.lease_ms)
        try:
            answer = self._consumer._side.ask_again("POST", *request, within=self._lease.expires_s)
        except TryAgain as error:
            raise LeaseLost(f"no answer: {error}", []) from error
        if core.is_gone(answer):
            raise LeaseLost(str(answer.json().get("why", "unknown")), [])
        if answer.status != 200:
            raise answer.refused()
        self._lease.expires_s = int(answer.json().get("expires_ms", 0)) / 1000 or self._lease.expires_s

    def __enter__(self) -> Batch:
        self._extender = threading.Thread(target=self._extend_it, name="spillq-extend", daemon=True)
        self._extender.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._end()
        if self._verdict.is_settled:
            return False
        if error is None:
            self._settle(self._verdict.left(self._consumer._options))
        elif isinstance(error, BadLine):
            self._settle({"bad": [{"seq": error.line.seq, "reason": error.reason}]})
            return True
        elif isinstance(error, Exception):
            self.fail(f"{type(error).__name__}: {error}")
        else:
            self.release()
        return False

    def _settle(self, settlement: dict[str, Any]) -> Settled:
        acks_all = settlement == {"ack": "all"}
        path, headers, body = core.settle_request(self._lease, settlement)
        within = max(self._lease.expires_s, core.SETTLE_WAIT_S)
        try:
            # Also while the consumer stops.
            answer = self._consumer._asking.ask_again("POST", path, headers, body, within=within)
        except TryAgain as error:
            raise LeaseLost(f"no answer: {error}", []) from error
        done = core.settled(self._lease, answer, acks_all)
        core.log_rejected(self._lease, settlement, done)
        self._verdict.is_partly = bool(done.left)
        if not done.left:
            self._verdict.is_settled = True
            self._end()
        return done

    def _end(self) -> None:
        self._closed.set()
        if self._extender is not None and self._extender is not threading.current_thread():
            self._extender.join()

    def _extend_it(self) -> None:
        while not self._closed.wait(max(self._lease.expires_s / 3, 0.02)):
            try:
                self.extend()
            except (LeaseLost, core.Refused) as error:
                # The settlement says so too.
                core.log.warning("could not extend a lease: %s", error.why if isinstance(error, LeaseLost) else error)
                return


class _Asking:
    """Asks until there is an answer, or until it is stopped."""

    def __init__(self, connection: _Connection, *, quiet: bool = False) -> None:
        self._connection = connection
        self._backoff = core.Backoff(str(connection.target), quiet=quiet)
        self._lock = threading.Lock()
        self._never = threading.Event()

    def ask_again(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes,
        *,
        stopped: threading.Event | None = None,
        within: float | None = None,
    ) -> Answer:
        """:raises TryAgain: if there was no answer within ``within`` seconds, or it was stopped."""
        until = None if within is None else time.monotonic() + within
        with self._lock:
            while True:
                try:
                    answer = self._connection.ask(method, path, headers, body)
                    if not core.is_passing(answer.status):
                        self._backoff.succeeded()
                        return answer
                    failed: object = f"status {answer.status}"
                except TryAgain as error:
                    failed = error
                if stopped is not None and stopped.is_set():
                    raise TryAgain("stopped")
                is_late = until is not None and time.monotonic() >= until
                if is_late or (stopped or self._never).wait(self._backoff.failed(failed)):
                    raise TryAgain(str(failed))


class Consumer:
    """Leases batches of a group, one after the other.

    :param address: ``unix:/run/spillq/consumers.sock`` or ``http://127.0.0.1:9465``
    :param group: the group
    :param name: for ``spillq status`` and ``doctor``; host and process if not given. No other consumer of the group may have it: who
        leaves gives back all that is leased under its name
    :param token: the bearer token
    :param form: ``"lines"`` is fast; ``"objects"`` adds source, offset, time and labels to each line
    :param bind: the lease ends with the connection; on a unix socket of ``[consumers]`` if not given. False for the socket in the
        data dir
    :param handle_sigterm: SIGTERM ends the loop after the batch in hand; only in the main thread

    Iterating ends after :meth:`stop`. A service that cannot be reached or restarts does not end it;
    with a batch in hand a restart means :class:`LeaseLost` at the end of that batch.

    :raises Refused: if the service refuses, which another try does not change.
    """

    def __init__(
        self,
        address: str,
        *,
        group: str,
        name: str | None = None,
        token: str | None = None,
        max_lines: int | None = None,
        max_bytes: int | None = None,
        wait_ms: int = 20_000,
        lease_ms: int | None = None,
        form: Form = "lines",
        bind: bool | None = None,
        handle_sigterm: bool = True,
    ) -> None:
        target = core.Target.of(address)
        name = name or default_name()
        self._options = core.Options(
            group,
            name,
            token,
            max_lines,
            max_bytes,
            wait_ms,
            lease_ms,
            form,
            target.path is not None if bind is None else bind,
        )
        self._stopped = threading.Event()
        self._asking = _Asking(_Connection(target, self._options))
        self._waits_for_lines = False
        # Extensions must not wait for the request for lines.
        self._side = _Asking(_Connection(target, self._options), quiet=True)
        self._whys = core.Whys(group)
        self._handles_sigterm = handle_sigterm
        self._handler_before: Any = None

    def stop(self) -> None:
        """Ends the loop after the batch in hand."""
        self._stopped.set()
        if self._waits_for_lines:
            self._asking._connection.interrupt()

    def __enter__(self) -> Consumer:
        if self._handles_sigterm and threading.current_thread() is threading.main_thread():
            self._handler_before = signal.signal(signal.SIGTERM, self._on_sigterm)
        return self

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        self.stop()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leaves: what is still leased is delivered to others at once."""
        if self._handler_before is not None:
            signal.signal(signal.SIGTERM, self._handler_before)
            self._handler_before = None
        path = f"/v1/groups/{self._options.group}/consumers/{self._options.name}/leave"
        try:
            self._side.ask_again("POST", path, {}, b"", within=0)
        except TryAgain:
            # The service is down: its leases have ended with it.
            pass
        self._asking._connection.close()
        self._side._connection.close()

    def __iter__(self) -> Iterator[Batch]:
        while not self._stopped.is_set():
            batch = self.next_batch()
            if batch is not None:
                yield batch
                if not batch._verdict.is_settled:
                    core.log.warning(
                        "lines %d-%d were not settled, and come again: use the batch with `with`, or ack it", batch.first, batch.last
                    )

    def next_batch(self) -> Batch | None:
        """The next batch; ``None`` if there was none within ``wait_ms``, or the consumer was stopped."""
        request_id, form = core.new_request_id(), self._options.form
        while not self._stopped.is_set():
            path, headers, body = core.lease_request(self._options, request_id, form)
            if self._options.bind:
                headers["Spillq-Bind"] = "connection"
            try:
                self._waits_for_lines = True
                answer = self._asking.ask_again("POST", path, headers, body, stopped=self._stopped)
            except TryAgain:
                return None
            finally:
                self._waits_for_lines = False
            if answer.status == 204:
                self._whys.said(answer.headers.get("spillq-why", ""))
                return None
            if answer.status == 410:
                # The answer was lost, and the lease has ended since.
                request_id = core.new_request_id()
                continue
            if answer.status != 200:
                raise answer.refused()
            self._whys.said("")
            lease = Lease(answer, form)
            if lease.is_whole():
                return Batch(self, lease)
            # A line without a newline in the middle: the same lease again, as objects.
            form = "objects"
        return None

    def each(
        self,
        handler: Callable[[Line], object],
        *,
        commit: Callable[[], object] | None = None,
        rejects: tuple[type[Exception], ...] = core.REJECTS,
    ) -> None:
        """Runs a handler for every line, until :meth:`stop`.

        A line for which it raises :class:`BadLine` or one of ``rejects`` is rejected. Any other exception fails the batch: it is
        delivered again after a back-off, so that an outage makes no dead letters. ``commit`` runs after the last line of each batch,
        before it is acked; if it raises, the batch has failed too.
        """
        self._options.max_lines = min(self._options.max_lines or core.BAD_LINES_MAX, core.BAD_LINES_MAX)
        for batch in self:
            try:
                with batch:
                    for line in batch:
                        try:
                            handler(line)
                        except BadLine as error:
                            batch.bad(line, error.reason)
                        except rejects as error:
                            batch.bad(line, f"{type(error).__name__}: {error}")
                    if commit is not None:
                        commit()
            except LeaseLost as error:
                core.log.warning("%s", error)
            except Exception:
                core.log.exception("the handler failed; its batch is delivered again")


_numbers = itertools.count(1)


def default_name() -> str:
    """The host and the process, and a number if it is not the first consumer of this process: a name is of one consumer."""
    host = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in socket.gethostname())
    number = next(_numbers)
    return f"{host[:45] or 'consumer'}:{os.getpid()}" + (f":{number}" if number > 1 else "")
