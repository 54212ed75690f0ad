"""The same handlers under a processor of kind ``exec-stream``: spillq starts the program and sends it batches.

.. code-block:: python

    from spillq_client.stdio import run

    def handle(line):
        store(line.json())              # an exception rejects the line

    run(handle)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import BinaryIO

from ._core import BAD_LINES_MAX, Answer, BadLine, Form, Lease, Line

__all__ = ["run"]

#: A header of a batch is shorter.
HEAD_BYTES_MAX = 64 * 1024


def run(
    handler: Callable[[Line], object],
    *,
    form: Form = "lines",
    commit: Callable[[], object] | None = None,
    stdin: BinaryIO | None = None,
    stdout: BinaryIO | None = None,
) -> None:
    """Runs a handler for every line, until standard input ends.

    A line for which it raises an exception is rejected. ``commit`` runs after the last line of each batch; if it raises, the
    batch has failed and is delivered again. ``form`` must be that of ``input`` in the configuration: ``"objects"`` is
    ``input = "ndjson"``. What the handler prints must not go to standard output.
    """
    source, answers = stdin or sys.stdin.buffer, stdout or sys.stdout.buffer
    while head := source.readline(HEAD_BYTES_MAX):
        header = json.loads(head)
        data = source.read(header["bytes"])
        if len(data) < header["bytes"]:
            # The service has ended.
            return
        said = _answer(handler, commit, _lease(header, data, form))
        answers.write(said.encode() + b"\n")
        answers.flush()


def _lease(header: dict[str, int], data: bytes, form: Form) -> Lease:
    headers = {
        "spillq-lease": "",
        "spillq-first-seq": str(header["first_seq"]),
        "spillq-last-seq": str(header["last_seq"]),
        "spillq-lines": str(header["lines"]),
        "spillq-attempt": str(header["attempt"]),
    }
    return Lease(Answer(200, headers, data), form)


def _answer(handler: Callable[[Line], object], commit: Callable[[], object] | None, lease: Lease) -> str:
    if not lease.is_whole():
        return 'NAK a line of the batch has no newline, so that its lines cannot be told apart: use input = "ndjson"'
    bad: list[dict[str, object]] = []
    for number, line in enumerate(lease.lines(), 1):
        try:
            handler(line)
        except Exception as error:
            reason = error.reason if isinstance(error, BadLine) else f"{type(error).__name__}: {error}"
            bad.append({"n": number, "reason": _one_line(reason)})
            if len(bad) > BAD_LINES_MAX:
                return f"NAK {number} {_one_line(reason)}"
    if commit is not None:
        try:
            commit()
        except Exception as error:
            return f"LATER 1000 {_one_line(f'{type(error).__name__}: {error}')}"
    rejected = f" BAD {json.dumps(bad)}" if bad else ""
    return f"OK {lease.last}{rejected}"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200] or "no reason"
