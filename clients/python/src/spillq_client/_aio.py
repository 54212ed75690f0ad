"""The consumer for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any

from . import _core as core
from ._core import Answer, BadLine, Form, Lease, LeaseLost, Line, Settled, TryAgain
from ._sync import default_name

__all__ = ["AsyncBatch", "AsyncConsumer"]


class _Connection:
    """One connection that is kept. One request at a time."""

    def __init__(self, target: core.Target, options: core.Options) -> None:
        self.target = target
        self.options = options
        self._socket: socket.socket | None = None

    async def ask(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """:raises TryAgain: if there is no answer."""
        sent = core.request(self.target, self.options, method, path, headers, body)
        wait = self.options.wait_ms / 1000 + core.ANSWER_WAIT_S
        try:
            return await asyncio.wait_for(self._exchange(sent), wait)
        except (OSError, TryAgain, asyncio.TimeoutError) as error:
            self.close()
            raise TryAgain(str(error) or type(error).__name__) from error
        except BaseException:
            # Half of an answer may be left in it.
            self.close()
            raise

    async def _exchange(self, sent: bytes) -> Answer:
        loop = asyncio.get_running_loop()
        if self._socket is None:
            self._socket = await self._connect(loop)
        connection = self._socket
        await loop.sock_sendall(connection, sent)
        data = bytearray()
        while (end := data.find(b"\r\n\r\n")) < 0:
            if len(data) > core.HEAD_BYTES_MAX:
                raise TryAgain("the head of the answer is too long")
            some = await loop.sock_recv(connection, 64 * 1024)
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
            count = await loop.sock_recv_into(connection, view[filled:])
            if not count:
                raise TryAgain("the connection was closed in the middle of an answer")
            filled += count
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Answer(status, headers, bytes(body))

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> socket.socket:
        if self.target.path is not None:
            found: list[tuple[int, Any]] = [(socket.AF_UNIX, self.target.path)]
        else:
            infos = await loop.getaddrinfo(self.target.host, self.target.port, type=socket.SOCK_STREAM)
            found = [(family, address) for family, _, _, _, address in infos]
        failed: OSError = OSError("no address")
        for family, address in found:
            connection = socket.socket(family, socket.SOCK_STREAM)
            connection.setblocking(False)
            try:
                await loop.sock_connect(connection, address)
                return connection
            except OSError as error:
                connection.close()
                failed = error
            except BaseException:
                connection.close()
                raise
        raise failed

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class _Asking:
    """Asks until there is an answer, or until it is stopped."""

    def __init__(self, connection: _Connection, *, quiet: bool = False) -> None:
        self._connection = connection
        self._backoff = core.Backoff(str(connection.target), quiet=quiet)
        self._lock = asyncio.Lock()

    async def ask_again(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes,
        *,
        stopped: asyncio.Event | None = None,
        within: float | None = None,
    ) -> Answer:
        """:raises TryAgain: if there was no answer within ``within`` seconds, or it was stopped."""
        until = None if within is None else time.monotonic() + within
        async with self._lock:
            while True:
                try:
                    answer = await self._or_stop(self._connection.ask(method, path, headers, body), stopped)
                    if not core.is_passing(answer.status):
                        self._backoff.succeeded()
                        return answer
                    failed: object = f"status {answer.status}"
                except TryAgain as error:
                    failed = error
                if stopped is not None and stopped.is_set():
                    raise TryAgain("stopped")
                pause = self._backoff.failed(failed)
                if until is not None and time.monotonic() >= until:
                    raise TryAgain(str(failed))
                with contextlib.suppress(TryAgain):
                    await self._or_stop(_slept(pause), stopped)

    async def _or_stop(self, asked: Any, stopped: asyncio.Event | None) -> Answer:
        if stopped is None:
            return await asked  # type: ignore[no-any-return]
        asking = asyncio.ensure_future(asked)
        stopping = asyncio.ensure_future(stopped.wait())
        try:
            await asyncio.wait((asking, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise TryAgain("stopped")
            return asking.result()  # type: ignore[no-any-return]
        finally:
            for task in (asking, stopping):
                if not task.done():
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError, TryAgain):
                        await task


async def _slept(seconds: float) -> None:
    await asyncio.sleep(seconds)


class AsyncBatch:
    """The lines of one lease, as a context: leaving it acks them, an exception fails them.

    Leaving it by ``break`` or ``return`` acks too: lines that were not looked at are acked with the others. Call
    :meth:`ack_through` before, and the rest is delivered again, or :meth:`release`. While it is open, the lease is extended at a third
    of its time.
    """

    def __init__(self, consumer: AsyncConsumer, lease: Lease) -> None:
        self._consumer = consumer
        self._lease = lease
        self._verdict = core.Verdict()
        self._extender: asyncio.Task[None] | None = None

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

    async def ack(self) -> Settled:
        """Acks all lines, except those that are :meth:`bad`."""
        return await self._settle(self._verdict.ack(self._consumer._options))

    async def ack_through(self, line: Line) -> Settled:
        """Acks the lines up to this one. The rest stays leased; leaving the batch gives it back, to be delivered again."""
        self._verdict.check_through(line.seq)
        return await self._settle({"ack": {"through": line.seq}})

    async def fail(self, reason: str, delay: float | None = None) -> Settled:
        """The lines are delivered again; with ``delay`` (seconds) not before, and no attempt is counted."""
        pause = {} if delay is None else {"delay_ms": round(delay * 1000)}
        return await self._settle({"fail": {"reason": reason, **pause}})

    async def release(self) -> Settled:
        """The lines were not processed: they are delivered again at once."""
        return await self._settle({"release": True})

    async def extend(self, lease_ms: int | None = None) -> None:
        """Sets the deadline anew, to ``lease_ms`` from now on, and again at each third of it while the batch is open.

        :raises LeaseLost: if the lease has ended.
        """
        if lease_ms is not None:
            self._verdict.lease_ms = lease_ms
        request = core.extend_request(self._lease, self._verdict.lease_ms or self._consumer._options.lease_ms)
        try:
            answer = await self._consumer._side.ask_again("POST", *request, within=self._lease.expires_s)
        except TryAgain as error:
            raise LeaseLost(f"no answer: {error}", []) from error
        if core.is_gone(answer):
            raise LeaseLost(str(answer.json().get("why", "unknown")), [])
        if answer.status != 200:
            raise answer.refused()
        self._lease.expires_s = int(answer.json().get("expires_ms", 0)) / 1000 or self._lease.expires_s

    async def __aenter__(self) -> AsyncBatch:
        self._extender = asyncio.create_task(self._extend_it(), name="spillq-extend")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        await self._end()
        if self._verdict.is_settled:
            return False
        if error is None:
            await self._settle(self._verdict.left(self._consumer._options))
        elif isinstance(error, BadLine):
            await self._settle({"bad": [{"seq": error.line.seq, "reason": error.reason}]})
            return True
        elif isinstance(error, Exception):
            await self.fail(f"{type(error).__name__}: {error}")
        else:
            await asyncio.shield(self.release())
        return False

    async def _settle(self, settlement: dict[str, Any]) -> Settled:
        acks_all = settlement == {"ack": "all"}
        path, headers, body = core.settle_request(self._lease, settlement)
        within = max(self._lease.expires_s, core.SETTLE_WAIT_S)
        try:
            # Also while the consumer stops.
            answer = await self._consumer._asking.ask_again("POST", path, headers, body, within=within)
        except TryAgain as error:
            raise LeaseLost(f"no answer: {error}", []) from error
        done = core.settled(self._lease, answer, acks_all)
        core.log_rejected(self._lease, settlement, done)
        self._verdict.is_partly = bool(done.left)
        if not done.left:
            self._verdict.is_settled = True
            await self._end()
        return done

    async def _end(self) -> None:
        if self._extender is not None:
            self._extender.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._extender
            self._extender = None

    async def _extend_it(self) -> None:
        while True:
            await asyncio.sleep(max(self._lease.expires_s / 3, 0.02))
            try:
                await self.extend()
            except (LeaseLost, core.Refused) as error:
                # The settlement says so too.
                core.log.warning("could not extend a lease: %s", error.why if isinstance(error, LeaseLost) else error)
                return


class AsyncConsumer:
    """Leases batches of a group, one after the other. See :class:`spillq_client.Consumer` for the parameters.

    The event loop must be free to extend the lease: what blocks belongs into ``asyncio.to_thread``. The handler of SIGTERM replaces one
    that the loop has; ``handle_sigterm=False`` leaves it.

    Iterating ends after :meth:`stop` or SIGTERM. A service that cannot be reached or restarts does not end it;
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
        self._stopped = asyncio.Event()
        self._asking = _Asking(_Connection(target, self._options))
        # Extensions must not wait for the request for lines.
        self._side = _Asking(_Connection(target, self._options), quiet=True)
        self._whys = core.Whys(group)
        self._handles_sigterm = handle_sigterm

    def stop(self) -> None:
        """Ends the loop after the batch in hand."""
        self._stopped.set()

    async def __aenter__(self) -> AsyncConsumer:
        if self._handles_sigterm:
            # Only the main thread has signals.
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.stop)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Leaves: what is still leased is delivered to others at once."""
        if self._handles_sigterm:
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
        path = f"/v1/groups/{self._options.group}/consumers/{self._options.name}/leave"
        # If the service is down, its leases have ended with it.
        with contextlib.suppress(TryAgain):
            await self._side.ask_again("POST", path, {}, b"", within=0)
        self._asking._connection.close()
        self._side._connection.close()

    async def __aiter__(self) -> AsyncIterator[AsyncBatch]:
        while not self._stopped.is_set():
            batch = await self.next_batch()
            if batch is not None:
                yield batch
                if not batch._verdict.is_settled:
                    core.log.warning(
                        "lines %d-%d were not settled, and come again: use the batch with `async with`, or ack it", batch.first, batch.last
                    )

    async def next_batch(self) -> AsyncBatch | None:
        """The next batch; ``None`` if there was none within ``wait_ms``, or the consumer was stopped."""
        request_id, form = core.new_request_id(), self._options.form
        while not self._stopped.is_set():
            path, headers, body = core.lease_request(self._options, request_id, form)
            if self._options.bind:
                headers["Spillq-Bind"] = "connection"
            try:
                answer = await self._asking.ask_again("POST", path, headers, body, stopped=self._stopped)
            except TryAgain:
                return None
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
                return AsyncBatch(self, lease)
            # A line without a newline in the middle: the same lease again, as objects.
            form = "objects"
        return None

    async def each(
        self,
        handler: Callable[[Line], Awaitable[object] | object],
        *,
        commit: Callable[[], Awaitable[object] | object] | None = None,
        rejects: tuple[type[Exception], ...] = core.REJECTS,
    ) -> None:
        """Runs a handler for every line, until :meth:`stop`. See :meth:`spillq_client.Consumer.each`."""
        self._options.max_lines = min(self._options.max_lines or core.BAD_LINES_MAX, core.BAD_LINES_MAX)
        async for batch in self:
            try:
                async with batch:
                    for line in batch:
                        try:
                            result = handler(line)
                            if inspect.isawaitable(result):
                                await result
                        except BadLine as error:
                            batch.bad(line, error.reason)
                        except rejects as error:
                            batch.bad(line, f"{type(error).__name__}: {error}")
                    if commit is not None:
                        result = commit()
                        if inspect.isawaitable(result):
                            await result
            except LeaseLost as error:
                core.log.warning("%s", error)
            except Exception:
                core.log.exception("the handler failed; its batch is delivered again")
