"""The same handlers under a processor of kind ``exec-stream``: spillq starts the program and sends it batches.

.. code-block:: python

    from spillq_client.stdio import run

    def handle(line):
        store(line.json())              # what is not JSON is rejected

    run(handle)
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from typing import BinaryIO

from ._core import BAD_LINES_MAX, REJECTS, Answer, BadLine, Form, Lease, Line

__all__ = ["run"]

#: A header of a batch is shorter.
HEAD_BYTES_MAX = 64 * 1024

_Work = tuple[Callable[[Line], object], Callable[[], object] | None, tuple[type[Exception], ...]]


def run(
    handler: Callable[[Line], object],
    *,
    form: Form | None = None,
    commit: Callable[[], object] | None = None,
    rejects: tuple[type[Exception], ...] = REJECTS,
    stdin: BinaryIO | None = None,
    stdout: BinaryIO | None = None,
) -> None:
    """Runs a handler for every line, until standard input ends.

    A line for which it raises ``BadLine`` or one of ``rejects`` is rejected. After any other exception the batch is delivered again
    a second later. ``commit`` runs after the last line of each batch; if it raises, the batch is delivered again too. ``form`` is
    found by itself: ``"objects"`` for ``input = "ndjson"`` in the configuration. What the handler prints goes to standard error,
    as standard output has the answers.
    """
    source, answers = stdin or sys.stdin.buffer, stdout or sys.stdout.buffer
    with contextlib.redirect_stdout(sys.stderr):
        _serve(source, answers, (handler, commit, rejects), form)


def _serve(source: BinaryIO, answers: BinaryIO, work: _Work, form: Form | None) -> None:
    while head := source.readline(HEAD_BYTES_MAX):
        header = json.loads(head)
        data = source.read(header["bytes"])
        if len(data) < header["bytes"]:
            # The service has ended.
            return
        said = _answer(work, _lease(header, data, form or _form(header, data)))
        answers.write(said.encode() + b"\n")
        answers.flush()


def _form(header: dict[str, int], data: bytes) -> Form:
    """Objects of spillq begin with their seq; what a file has may be JSON too."""
    try:
        first = json.loads(data.split(b"\n", 1)[0])
    except ValueError:
        return "lines"
    is_object = isinstance(first, dict) and {"seq", "source", "offset", "time", "attempt"} <= first.keys()
    return "objects" if is_object and first["seq"] == header["first_seq"] else "lines"


def _lease(header: dict[str, int], data: bytes, form: Form) -> Lease:
    headers = {
        "spillq-lease": "",
        "spillq-first-seq": str(header["first_seq"]),
        "spillq-last-seq": str(header["last_seq"]),
        "spillq-lines": str(header["lines"]),
        "spillq-attempt": str(header["attempt"]),
    }
    return Lease(Answer(200, headers, data), form)


def _answer(work: _Work, lease: Lease) -> str:
    handler, commit, rejects = work
    faults: tuple[type[Exception], ...] = (BadLine, *rejects)
    if not lease.is_whole():
        return 'NAK a line of the batch has no newline, so that its lines cannot be told apart: use input = "ndjson"'
    bad: list[dict[str, object]] = []
    for number, line in enumerate(lease.lines(), 1):
        try:
            handler(line)
        except faults as error:
            reason = error.reason if isinstance(error, BadLine) else f"{type(error).__name__}: {error}"
            bad.append({"n": number, "reason": _one_line(reason)})
            if len(bad) > BAD_LINES_MAX:
                return f"NAK {number} {_one_line(reason)}"
        except Exception as error:
            return _later(error)
    if commit is not None:
        try:
            commit()
        except Exception as error:
            return _later(error)
    rejected = f" BAD {json.dumps(bad)}" if bad else ""
    return f"OK {lease.last}{rejected}"


def _later(error: Exception) -> str:
    return f"LATER 1000 {_one_line(f'{type(error).__name__}: {error}')}"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200] or "no reason"
