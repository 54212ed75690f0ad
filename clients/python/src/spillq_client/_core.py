"""What both consumers share, without I/O: requests, answers, lines, settlements and back-off."""

from __future__ import annotations

import json
import logging
import random
import re
import uuid
from base64 import b64decode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

log = logging.getLogger("spillq_client")

LINES_TYPE = "application/vnd.spillq.lines"
NDJSON_TYPE = "application/x-ndjson"

#: How the lines of a body are sent.
Form = Literal["lines", "objects"]

#: The first pause after a failed request, and the longest.
BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 10.0
#: A head of an answer is shorter.
HEAD_BYTES_MAX = 64 * 1024
#: Any answer without lines is shorter.
JSON_BYTES_MAX = 1024 * 1024
#: In addition to ``wait_ms``: an answer that takes longer is given up.
ANSWER_WAIT_S = 30.0
#: A settlement without an answer is retried while its lease lasts, at least for this time.
SETTLE_WAIT_S = 10.0
#: The bad lines that one settlement takes.
BAD_LINES_MAX = 256


#: What ``each`` and ``stdio.run`` take for a fault of the line. Anything else, such as an error of a database, fails the batch.
REJECTS: tuple[type[Exception], ...] = (ValueError, KeyError, TypeError, IndexError)

_NAME = re.compile(r"[A-Za-z0-9._:@-]{1,64}")
_GROUP = re.compile(r"[a-z0-9_-]{1,64}")


class BadLine(Exception):
    """Raise it for a line that is at fault: the line is rejected, and the others of its batch are delivered again without it."""

    __module__ = "spillq_client"

    def __init__(self, line: Line, reason: str) -> None:
        super().__init__(f"line {line.seq}: {reason}")
        self.line = line
        self.reason = reason


class LeaseLost(Exception):
    """The batch was not settled in time, or the service was restarted: others may have its lines.

    ``acked`` has what of its lines is settled all the same, as ranges of seqs.
    """

    __module__ = "spillq_client"

    def __init__(self, why: str, acked: Sequence[tuple[int, int]]) -> None:
        super().__init__(f"the lease of the batch is no longer valid ({why}): others may have its lines")
        self.why = why
        self.acked = list(acked)


class Refused(Exception):
    """The service refuses: a wrong token, an unknown group, a group with a processor. Trying again does not help."""

    __module__ = "spillq_client"

    def __init__(self, status: int, code: str, error: str, hint: str) -> None:
        super().__init__(f"{error} ({code}, status {status}); {hint}")
        self.status = status
        self.code = code


class FieldMissing(AttributeError):
    """The field is not sent with ``form="lines"``."""

    __module__ = "spillq_client"

    def __init__(self, name: str) -> None:
        super().__init__(f'line.{name} is sent only with form="objects": pass it to the consumer')


class TryAgain(Exception):
    """The service cannot be reached, or says that it may answer later."""


class Line:
    """One line. ``bytes`` is without its newline."""

    __slots__ = ("_fields", "attempt", "bytes", "seq")

    def __init__(self, seq: int, data: bytes, attempt: int, fields: dict[str, Any] | None = None) -> None:
        self.seq = seq
        self.bytes = data
        self.attempt = attempt
        self._fields = fields

    @property
    def text(self) -> str:
        """The line as text; bytes that are not UTF-8 become U+FFFD."""
        return self.bytes.decode("utf-8", "replace")

    def json(self) -> Any:
        """The line, read as JSON.

        :raises ValueError: if it is not JSON.
        """
        return json.loads(self.bytes)

    def _field(self, name: str) -> Any:
        if self._fields is None:
            raise FieldMissing(name)
        return self._fields.get(name)

    @property
    def source(self) -> str:
        """The path of its file; or the number of the source, if the path is not stored any more."""
        return str(self._field("source"))

    @property
    def offset(self) -> int:
        """Where it begins in its file."""
        return int(self._field("offset"))

    @property
    def time(self) -> str:
        """When it was stored, RFC 3339 in UTC."""
        return str(self._field("time"))

    @property
    def labels(self) -> dict[str, str]:
        """The labels of its source."""
        return dict(self._field("labels") or {})

    @property
    def part(self) -> str | None:
        """``first``, ``middle`` or ``last`` of a line that was longer than the service takes."""
        part = self._field("part")
        return None if part is None else str(part)

    def __repr__(self) -> str:
        return f"<Line {self.seq}: {self.bytes[:60]!r}>"


@dataclass(frozen=True)
class Settled:
    """A settlement that is durable."""

    acked: int
    #: Lines of the lease that became dead letters.
    dead: int
    #: Lines of the lease that are delivered again.
    again: int
    #: What remains leased: ranges of seqs.
    left: list[tuple[int, int]]
    #: All lines of the group up to here are settled.
    ack_floor: int


@dataclass(frozen=True)
class Target:
    """Where the service is."""

    #: Of a unix socket.
    path: str | None
    host: str
    port: int

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"

    @staticmethod
    def of(address: str) -> Target:
        """``unix:/run/spillq/consumers.sock`` or ``http://127.0.0.1:9465``.

        :raises ValueError: if it is neither.
        """
        if address.startswith("unix:"):
            path = address.removeprefix("unix:")
            if not path:
                raise ValueError('names no socket; write it as "unix:/run/spillq/consumers.sock"')
            return Target(path, "spillq", 0)
        parts = urlsplit(address)
        if parts.scheme == "https":
            raise ValueError("this client speaks no TLS: use a unix socket, or a proxy on this host")
        wrong = f'{address!r}: write it as "unix:/PATH" or "http://127.0.0.1:9465"'
        try:
            port = parts.port
        except ValueError:
            raise ValueError(wrong) from None
        if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/"):
            raise ValueError(wrong)
        return Target(None, parts.hostname, port or 80)


@dataclass
class Options:
    """What a consumer asks for."""

    group: str
    name: str
    token: str | None = None
    max_lines: int | None = None
    max_bytes: int | None = None
    wait_ms: int = 20_000
    lease_ms: int | None = None
    form: Form = "lines"
    #: On a unix socket the lease ends when this process dies.
    bind: bool = True

    def __post_init__(self) -> None:
        if not _GROUP.fullmatch(self.group):
            raise ValueError(f"group is {self.group!r}: 1 to 64 of a-z, 0-9, _ and -")
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name is {self.name!r}: 1 to 64 of A-Z a-z 0-9 . _ : @ -")
        if self.form not in ("lines", "objects"):
            raise ValueError(f'form is {self.form!r}: "lines" or "objects"')
        if self.token is not None:
            if not isinstance(self.token, str) or self.token.startswith(("file:", "env:")):
                raise ValueError('token is the token itself, not where it is: Path("/etc/spillq/consumers.token").read_text()')
            # As it is read from a file, with its newline.
            self.token = self.token.strip()
            if not self.token.isascii() or not self.token.isprintable() or not self.token:
                raise ValueError("token: it is empty, or not plain characters")


@dataclass
class Answer:
    """An answer of the service, whole."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        try:
            value = json.loads(self.body)
        except ValueError:
            value = {}
        return value if isinstance(value, dict) else {}

    def refused(self) -> Refused:
        found = self.json()
        code, error, hint = (str(found.get(key) or "") for key in ("code", "error", "next"))
        if self.status == 401:
            hint = "pass token= to the consumer: [consumers] or [[group]] in the configuration says which"
        elif error.startswith("Spillq-Bind"):
            hint = "pass bind=False to the consumer"
        return Refused(self.status, code or "unknown", error or "the service refuses", hint or "see its log")


def request(target: Target, options: Options, method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
    """The bytes of a request."""
    host = target.host if target.path is not None else f"{target.host}:{target.port}"
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}", "Content-Type: application/json"]
    if options.token is not None:
        lines.append(f"Authorization: Bearer {options.token}")
    lines.extend(f"{name}: {value}" for name, value in headers.items())
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def head(data: bytes) -> tuple[int, dict[str, str]]:
    """The status and the headers of an answer.

    :raises TryAgain: if it is no answer of HTTP.
    """
    first, *rest = data.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
        raise TryAgain(f"not an answer of HTTP: {first[:80]!r}")
    pairs = (line.partition(":") for line in rest if line)
    return int(words[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}


def body_bytes(status: int, headers: dict[str, str]) -> int:
    """How long the body is.

    :raises TryAgain: if that is not said, or is too long.
    """
    if status == 204:
        return 0
    length = headers.get("content-length", "")
    if not length.isdigit():
        raise TryAgain("an answer without its length")
    if "spillq-lease" not in headers and int(length) > JSON_BYTES_MAX:
        raise TryAgain("an answer that is too long")
    return int(length)


def lease_request(options: Options, request_id: str, form: Form) -> tuple[str, dict[str, str], bytes]:
    """Path, headers and body of a request for lines."""
    wanted: dict[str, Any] = {"consumer": options.name, "wait_ms": options.wait_ms, "request": request_id}
    for key in ("max_lines", "max_bytes", "lease_ms"):
        value = getattr(options, key)
        if value is not None:
            wanted[key] = value
    headers = {"Accept": LINES_TYPE if form == "lines" else NDJSON_TYPE}
    return f"/v1/groups/{options.group}/lease", headers, json.dumps(wanted).encode()


def new_request_id() -> str:
    """A name of a request, so that it can be repeated when its answer is lost."""
    return uuid.uuid4().hex


class Lease:
    """A lease, and the lines that came with it."""

    def __init__(self, answer: Answer, form: Form) -> None:
        number = {
            name: int(answer.headers.get(f"spillq-{name}", "0"))
            for name in ("first-seq", "last-seq", "lines", "attempt", "expires-ms")
        }
        self.token = answer.headers["spillq-lease"]
        self.epoch = answer.headers.get("spillq-epoch", "")
        self.first = number["first-seq"]
        self.last = number["last-seq"]
        self.count = number["lines"]
        self.attempt = number["attempt"]
        self.expires_s = number["expires-ms"] / 1000
        self.body = answer.body
        self.form = form

    def is_whole(self) -> bool:
        """Whether the lines of the body can be separated: a line without a newline ends where the next one begins."""
        if self.form == "objects":
            return True
        ends = self.body.count(b"\n") + (not self.body.endswith(b"\n"))
        return ends == self.count and self.count == self.last - self.first + 1

    def raw_lines(self) -> list[bytes]:
        """The lines, without their newlines."""
        if self.form == "objects":
            return [line.bytes for line in self.lines()]
        lines = self.body.split(b"\n")
        if self.body.endswith(b"\n"):
            lines.pop()
        return lines

    def lines(self) -> Iterator[Line]:
        """The lines."""
        attempt = self.attempt
        if self.form == "lines":
            for seq, data in enumerate(self.raw_lines(), self.first):
                yield Line(seq, data, attempt)
            return
        for text in self.body.splitlines():
            fields = json.loads(text)
            data = fields["text"].encode() if "text" in fields else b64decode(fields.get("base64", ""))
            yield Line(fields["seq"], data, fields.get("attempt", attempt), fields)


@dataclass
class Verdict:
    """What is known so far of the lines of a batch."""

    bad: dict[int, str] = field(default_factory=dict)
    is_settled: bool = False
    #: A part is acked, and the rest is still leased.
    is_partly: bool = False
    #: More lines are bad than one settlement takes.
    is_too_bad: bool = False
    #: The time that the user extends the lease to.
    lease_ms: int | None = None

    def check_through(self, seq: int) -> None:
        lost = [bad for bad in self.bad if bad <= seq]
        if lost:
            raise ValueError(f"line {min(lost)} is bad: ack_through would ack it too; ack the whole batch")

    def reject(self, seq: int, reason: str) -> None:
        if len(self.bad) < BAD_LINES_MAX or seq in self.bad:
            self.bad[seq] = reason
        else:
            self.is_too_bad = True

    def ack(self, options: Options) -> dict[str, Any]:
        """The settlement that acks all lines except the bad ones. If they are too many for one, the batch comes again in smaller ones."""
        if self.is_too_bad:
            options.max_lines = min(options.max_lines or BAD_LINES_MAX, BAD_LINES_MAX)
            log.warning(
                "more than %d lines of a batch are bad: it is delivered again, in batches of %d lines",
                BAD_LINES_MAX,
                options.max_lines,
            )
            return {"release": True}
        bad = self.bad_lines()
        return {"ack": "all", "bad": bad} if bad else {"ack": "all"}

    def left(self, options: Options) -> dict[str, Any]:
        """The settlement of a batch that is left without one: all is done, or, after a part was acked, the rest comes again."""
        return {"release": True} if self.is_partly else self.ack(options)

    def bad_lines(self) -> list[dict[str, Any]]:
        return [{"seq": seq, "reason": reason} for seq, reason in sorted(self.bad.items())]


def settle_request(lease: Lease, settlement: dict[str, Any]) -> tuple[str, dict[str, str], bytes]:
    """Path, headers and body of a settlement."""
    claim = {"epoch": lease.epoch, "first": lease.first, "last": lease.last, **settlement}
    return "/v1/leases/settle", {"Spillq-Lease": lease.token}, json.dumps(claim).encode()


def extend_request(lease: Lease, lease_ms: int | None) -> tuple[str, dict[str, str], bytes]:
    """Path, headers and body of an extension."""
    body = {} if lease_ms is None else {"lease_ms": lease_ms}
    return "/v1/leases/extend", {"Spillq-Lease": lease.token}, json.dumps(body).encode()


def settled(lease: Lease, answer: Answer, acks_all: bool) -> Settled:
    """What a settlement has changed.

    :raises LeaseLost: if the token counts no more, unless all lines are acked and only the answer was lost.
    :raises Refused: if it does not fit the lease.
    :raises TryAgain: if the service cannot answer now.
    """
    found = answer.json()
    if answer.status == 200:
        left = [(int(first), int(last)) for first, last in found.get("left", [])]
        count = {key: int(found.get(key, 0)) for key in ("acked", "dead", "again", "ack_floor")}
        return Settled(left=left, **count)
    if is_gone(answer):
        acked = [(int(first), int(last)) for first, last in found.get("acked") or []]
        if acks_all and acked == [(lease.first, lease.last)]:
            return Settled(lease.count, 0, 0, [], lease.last)
        raise LeaseLost(str(found.get("why", "unknown")), acked)
    if is_passing(answer.status):
        raise TryAgain(f"status {answer.status}")
    raise answer.refused()


def is_gone(answer: Answer) -> bool:
    """Whether the lease has ended."""
    return answer.status == 410 or (answer.status == 404 and answer.json().get("code") == "no-lease")


def is_passing(status: int) -> bool:
    """Whether another try may succeed."""
    return status in (408, 429) or status >= 500


def log_rejected(lease: Lease, settlement: dict[str, Any], done: Settled) -> None:
    """What was rejected, and whether it was believed."""
    bad = settlement.get("bad")
    if bad:
        first, again = bad[0], f"; {done.again} are delivered again" if done.again else ""
        log.warning(
            "rejected %d of %d lines, the first is line %d: %s%s", len(bad), lease.count, first["seq"], first["reason"], again
        )


class Whys:
    """Why there is nothing to lease: each new reason is logged."""

    def __init__(self, group: str) -> None:
        self._group = group
        self._word = "empty"

    def said(self, why: str) -> None:
        word = why.split(" ")[0] if why else "empty"
        if word != self._word and word != "empty":
            level = logging.WARNING if word in ("refused", "blocked", "paused") else logging.INFO
            log.log(level, "no lines of group %s can be leased: %s", self._group, why)
        self._word = word


class Backoff:
    """Pauses that grow with each failure in a row, with jitter. Unless it is quiet, the first failure is logged, and the end of the last."""

    def __init__(self, address: str, *, quiet: bool = False) -> None:
        self.address = address
        self.failures = 0
        self._quiet = quiet

    def failed(self, what: object) -> float:
        """The pause before the next try, in seconds."""
        if self.failures == 0 and not self._quiet:
            denied = "Errno 13" in str(what)
            hint = " (socket_mode and socket_group under [consumers] say who may use it)" if denied else ""
            log.warning("no answer of spillq at %s: %s%s; trying again", self.address, what, hint)
        longest = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** min(self.failures, 20))
        self.failures += 1
        return random.uniform(longest / 2, longest)

    def succeeded(self) -> None:
        if self.failures and not self._quiet:
            log.warning("spillq answers again (failed tries: %d)", self.failures)
        self.failures = 0
