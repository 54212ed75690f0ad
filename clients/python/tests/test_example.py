"""The incident's service on this client, as it is in examples/python."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from conftest import PATIENCE_S, Service, wait_for

PROGRAM = Path(__file__).parents[3] / "examples" / "python" / "asyncio_fills.py"


def started(service: Service) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    command = [sys.executable, str(PROGRAM), service.address, "fills.db"]
    return subprocess.Popen(command, cwd=service.folder, env=environment)


def test_the_service_of_the_incident_stores_each_fill_once_through_kills(service: Service) -> None:
    service.append(*(f'{{"coin": "ETH", "sz": "{number}"}}' for number in range(1, 501)), "not JSON", '{"coin": 5}')
    for _ in range(3):
        with started(service) as process:
            acked = service.group().get("acked_lines", 0)
            wait_for(lambda: True if service.group().get("acked_lines", 0) > acked else None)
            process.kill()
    service.kill()
    service.start()
    with started(service) as process:
        wait_for(lambda: True if service.group().get("ack_floor") == 502 else None)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    with sqlite3.connect(service.folder / "fills.db") as db:
        stored = [int(size) for (size,) in db.execute("SELECT size FROM fill ORDER BY seq")]
    assert stored == list(range(1, 501))
    assert sorted(service.dead_letters()) == [501, 502]
