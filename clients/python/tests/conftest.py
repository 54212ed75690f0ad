"""A real service for the tests: the built program, named by ``SPILLQ``."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")
PATIENCE_S = 60.0
CONFIG = """
data_dir = "q"
[disk]
min_free = "64MiB"
reserve = "8MiB"
[[follow]]
include = ["in.log"]
rotate_wait = "1s"
[[group]]
name = "fills"
batch = { lines = 10 }
[[group]]
name = "any"
order = "none"
in_flight = 4
batch = { lines = 10 }
[consumers]
listen = ["unix:c.sock"]
"""


def binary() -> str:
    named = os.environ.get("SPILLQ")
    built = Path(__file__).parents[3] / "target" / "debug" / "spillq"
    found = named or (str(built) if built.exists() else shutil.which("spillq"))
    assert found, "the program is not built: cargo build, or name it in SPILLQ"
    return found


def wait_for(look: Callable[[], T | None]) -> T:
    until = time.monotonic() + PATIENCE_S
    while True:
        found = look()
        if found is not None:
            return found
        assert time.monotonic() < until, "not within a minute"
        time.sleep(0.01)


class Service:
    """A service in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"unix:{folder / 'c.sock'}"
        (folder / "spillq.toml").write_text(CONFIG)
        self.start()

    def start(self) -> None:
        with open(self.folder / "spillq.err", "ab") as err:
            command = [binary(), "run", "--allow-volatile", "--config", "spillq.toml"]
            self.process = subprocess.Popen(command, cwd=self.folder, stderr=err)
        wait_for(lambda: True if (self.folder / "c.sock").exists() and self.status() else None)

    def append(self, *lines: str | bytes) -> None:
        with open(self.folder / "in.log", "ab") as file:
            for line in lines:
                file.write((line if isinstance(line, bytes) else line.encode()) + b"\n")

    def spillq(self, *args: str) -> subprocess.CompletedProcess[str]:
        command = [binary(), *args, "--data-dir", "q"]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=PATIENCE_S)

    def status(self) -> dict[str, Any]:
        found = self.spillq("status", "--json")
        value: dict[str, Any] = json.loads(found.stdout) if found.returncode == 0 else {}
        return value if value.get("from") == "service" else {}

    def group(self, name: str = "fills") -> dict[str, Any]:
        groups = self.status().get("groups", [])
        found: dict[str, Any] = next((one for one in groups if one["group"] == name), {})
        return found

    def dead_letters(self) -> dict[int, str]:
        listed = self.spillq("dead-letter", "list", "--group", "fills", "--json").stdout
        letters = (json.loads(line) for line in listed.splitlines())
        return {letter["seq"]: letter["reason"] for letter in letters}

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE_S) == 0, (self.folder / "spillq.err").read_text()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path)
    yield service
    if service.process.poll() is None:
        service.stop()
