#!/usr/bin/env python3
"""The service of the incident, as it was: it follows a file, and keeps its lines in a list until they are stored.

The list is the fault. If `_process_batch` is never called, fails, hangs, or is slower than the node writes, the list grows until memory
runs out; with it every line is lost that was read and not stored. asyncio_fills.py is the same service on spillq.
"""

import asyncio
import json
import sqlite3
import sys


class NodeFills:
    def __init__(self, log, path):
        self.log = log
        self.db = sqlite3.connect(path)
        self.db.execute("CREATE TABLE IF NOT EXISTS fill (coin TEXT, size REAL)")
        self.buffer = []

    async def _follow(self):
        with open(self.log) as file:
            while True:
                if line := file.readline():
                    self.buffer.append(line)
                else:
                    await asyncio.sleep(0.1)

    async def _process_batches(self):
        while True:
            await asyncio.sleep(1)
            fills = [json.loads(line) for line in self.buffer]
            with self.db:
                self.db.executemany("INSERT INTO fill VALUES (?, ?)", [(fill["coin"], fill["sz"]) for fill in fills])
            # What was read meanwhile is in the list too; after an error above, nothing is ever removed.
            del self.buffer[: len(fills)]

    async def run(self):
        await asyncio.gather(self._follow(), self._process_batches())


if __name__ == "__main__":
    asyncio.run(NodeFills(sys.argv[1], sys.argv[2]).run())
