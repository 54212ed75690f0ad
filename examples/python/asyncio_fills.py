#!/usr/bin/env python3
"""The service of the incident on spillq: what waits is on its disk, and this process holds one batch.

    python3 -m venv venv && venv/bin/pip install clients/python
    venv/bin/python examples/python/asyncio_fills.py unix:/run/spillq/consumers.sock fills.db

The configuration needs a group `fills` without a processor, and a socket under [consumers]. asyncio_before.py is the service as it was.
"""

import asyncio
import logging
import sqlite3
import sys

from spillq_client import AsyncConsumer, LeaseLost

log = logging.getLogger("fills")


class NodeFills:
    def __init__(self, address, path):
        self.address = address
        # Batches are processed in threads, one at a time.
        self.db = sqlite3.connect(path, check_same_thread=False)
        self.db.execute(
            "CREATE TABLE IF NOT EXISTS fill (epoch TEXT, seq INTEGER, coin TEXT, size REAL, PRIMARY KEY (epoch, seq))"
        )

    def _process_batch(self, batch):
        fills = []
        for line in batch:
            try:
                fill = line.json()
                fills.append((batch.epoch, line.seq, str(fill["coin"]), float(fill["sz"])))
            except (ValueError, KeyError, TypeError) as error:
                batch.bad(line, f"{type(error).__name__}: {error}")
        with self.db:  # one transaction; a batch that comes again counts once
            self.db.executemany("INSERT OR IGNORE INTO fill VALUES (?, ?, ?, ?)", fills)

    async def run(self):
        async with AsyncConsumer(self.address, group="fills") as consumer:
            async for batch in consumer:  # until SIGTERM
                try:
                    async with batch:
                        await asyncio.to_thread(self._process_batch, batch)
                except (LeaseLost, sqlite3.OperationalError) as error:
                    # The batch is delivered again: after a back-off, if the database was locked or its disk was full.
                    log.warning("%s", error)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(NodeFills(sys.argv[1], sys.argv[2]).run())
