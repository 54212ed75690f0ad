#!/usr/bin/env python3
"""Stores fills, which a blockchain node writes to hourly files, in a SQLite table, batch by batch.

Run by spillq as a processor of kind "exec-stream": the lines that wait are on spillq's disk, not in a list here, and
`_process_batch` is called for each batch until it has succeeded. Each fill is kept under its epoch and its seq, so a batch
that is delivered again after a crash, however it is cut, counts once. The seq alone would not do: after `spillq restore` the seqs
above the backup's end are given to other lines, in another epoch.

    [[processor]]
    kind = "exec-stream"
    command = ["./node_fills.py", "fills.db"]
    input = "ndjson"
"""

import json
import sqlite3
import sys


class BadLine(Exception):
    """The n-th line of the batch, from 1, is not a fill."""


class NodeFills:
    def __init__(self, path):
        self.db = sqlite3.connect(path)
        self.db.execute(
            "CREATE TABLE IF NOT EXISTS fill "
            "(epoch TEXT, seq INTEGER, coin TEXT, size REAL, PRIMARY KEY (epoch, seq))"
        )

    def _process_batch(self, epoch, objects):
        fills = []
        for number, line in enumerate(objects, start=1):
            entry = json.loads(line)
            try:
                fill = json.loads(entry["text"])
                fills.append((epoch, entry["seq"], str(fill["coin"]), float(fill["sz"])))
            except (KeyError, TypeError, ValueError) as error:
                raise BadLine(f"{number} {type(error).__name__}: {error}") from error
        with self.db:  # one transaction: all of the batch, or nothing of it
            self.db.executemany("INSERT OR IGNORE INTO fill VALUES (?, ?, ?, ?)", fills)

    def run(self):
        while header := sys.stdin.buffer.readline():
            batch = json.loads(header)
            data = sys.stdin.buffer.read(batch["bytes"])
            if len(data) < batch["bytes"]:
                return  # spillq has ended: the batch will be delivered again
            try:
                self._process_batch(batch["epoch"], data.splitlines())
                answer = f"OK {batch['last_seq']}"
            except BadLine as error:
                answer = f"NAK {error}"  # spillq delivers the other lines without it
            except sqlite3.Error as error:
                answer = f"NAK sqlite: {error}"  # the batch will be delivered again, later
            print(answer.replace("\n", " "), flush=True)


if __name__ == "__main__":
    NodeFills(sys.argv[1]).run()
