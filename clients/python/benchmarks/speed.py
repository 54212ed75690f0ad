"""How fast consumers are, next to what they are compared with; prints JSON.

    python3 benchmarks/speed.py --spillq target/release/spillq --dir DIR [--lines 2000000] [--rounds 3]

Each round generates nothing anew: the group is moved back to the first line. `drain` is `spillq bench drain` in the same folder.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import signal
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spillq_client import AsyncConsumer, Consumer, Line

CONFIG = """
data_dir = "q"
disk.keep = "100GiB"
disk.limit = "200GiB"
[[follow]]
include = ["lines"]
[[group]]
name = "g"
[consumers]
listen = ["unix:c.sock"]
"""


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--spillq", required=True, type=Path)
    arguments.add_argument("--dir", required=True, type=Path)
    arguments.add_argument("--lines", type=int, default=2_000_000)
    arguments.add_argument("--rounds", type=int, default=3)
    args = arguments.parse_args()
    work, spillq = args.dir / "speed", str(args.spillq.resolve())
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    with open(work / "lines", "wb") as file:
        subprocess.run([spillq, "bench", "generate", str(args.lines)], stdout=file, check=True)
    (work / "spillq.toml").write_text(CONFIG)
    with open(work / "err", "wb") as err:
        service = subprocess.Popen([spillq, "run", "--config", "spillq.toml"], cwd=work, stderr=err)
    try:
        print(json.dumps(measured(work, spillq, args.lines, args.rounds), indent=2))
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait()
        shutil.rmtree(work, ignore_errors=True)


def measured(work: Path, spillq: str, lines: int, rounds: int) -> dict[str, Any]:
    size, address = (work / "lines").stat().st_size, f"unix:{work / 'c.sock'}"

    def asked(*words: str) -> str:
        command = [spillq, *words, "--data-dir", "q"]
        return subprocess.run(command, cwd=work, capture_output=True, text=True, check=True).stdout

    def is_ingested() -> bool:
        try:
            return bool(json.loads(asked("status", "--json"))["log"]["next_seq"] > lines)
        except subprocess.CalledProcessError:
            return False

    while not is_ingested():
        time.sleep(0.2)

    def speed(run: Callable[[], int]) -> float:
        began = time.monotonic()
        found = run()
        took = time.monotonic() - began
        assert found == lines, (found, lines)
        return size / took / 1e6

    def raw() -> int:
        count = 0
        with Consumer(address, group="g", wait_ms=1000) as consumer:
            while count < lines and (batch := consumer.next_batch()) is not None:
                count += len(batch)
                batch.ack()
        return count

    def one_in_1500_rejected() -> int:
        count = 0
        with Consumer(address, group="g", wait_ms=1000) as consumer:
            while count < lines and (batch := consumer.next_batch()) is not None:
                for seq in range(batch.first + 700, batch.last + 1, 1500):
                    batch.bad(Line(seq, b"", 1), "no such coin")
                count += len(batch)
                batch.ack()
        return count

    def plain_lines() -> int:
        count = total = 0
        with open(work / "lines", "rb") as file:
            for line in file:
                total += len(line)
                count += 1
        return count

    def plain_json() -> int:
        count = 0
        with open(work / "lines", "rb") as file:
            for line in file:
                json.loads(line)
                count += 1
        return count

    async def each_batch(work_on: Callable[[Any], int]) -> int:
        count = 0
        async with AsyncConsumer(address, group="g", wait_ms=1000) as consumer:
            while count < lines and (batch := await consumer.next_batch()) is not None:
                async with batch:
                    count += work_on(batch)
        return count

    def sum_lines(batch: Any) -> int:
        total = count = 0
        for line in batch.raw_lines():
            total += len(line)
            count += 1
        return count

    def read_json(batch: Any) -> int:
        count = 0
        for line in batch:
            line.json()
            count += 1
        return count

    runs: dict[str, Callable[[], int]] = {
        "raw_acked": raw,
        "one_in_1500_rejected": one_in_1500_rejected,
        "plain_lines": plain_lines,
        "async_lines": lambda: asyncio.run(each_batch(sum_lines)),
        "plain_json": plain_json,
        "async_json": lambda: asyncio.run(each_batch(read_json)),
    }
    found: dict[str, list[float]] = {name: [] for name in [*runs, "drain"]}
    for _ in range(rounds):
        for name, run in runs.items():
            asked("group", "seek", "g", "--to", "beginning")
            found[name].append(speed(run))
        drained = [spillq, "bench", "drain", "--lines", str(lines), "--json", "--dir", str(work)]
        result = json.loads(subprocess.run(drained, capture_output=True, text=True, check=True).stdout)
        found["drain"].append(drain_speed(result))
    medians = {name: round(statistics.median(speeds)) for name, speeds in found.items()}
    ratios = {
        "raw_acked / drain": medians["raw_acked"] / medians["drain"],
        "one_in_1500_rejected / raw_acked": medians["one_in_1500_rejected"] / medians["raw_acked"],
        "async_lines / plain_lines": medians["async_lines"] / medians["plain_lines"],
        "async_json / plain_json": medians["async_json"] / medians["plain_json"],
    }
    return {"megabytes_per_s": medians, "ratios": {name: round(ratio, 2) for name, ratio in ratios.items()}}


def drain_speed(result: dict[str, Any]) -> float:
    """MB/s to the process itself, of what `bench drain --json` prints."""
    return float(result["mb_per_s"])


if __name__ == "__main__":
    main()
