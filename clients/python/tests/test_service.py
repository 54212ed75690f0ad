"""Both consumers against the built program."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from conftest import Service, wait_for

from spillq_client import AsyncConsumer, BadLine, Consumer, FieldMissing, LeaseLost, Refused


def lines(count: int) -> list[str]:
    return [f'{{"n": {number}}}' for number in range(1, count + 1)]


def test_lines_are_delivered_in_order_and_acked(service: Service) -> None:
    service.append(*lines(25))
    seen: list[tuple[int, int]] = []
    with Consumer(service.address, group="fills", name="w1") as consumer:
        for batch in consumer:
            with batch:
                seen.extend((line.seq, line.json()["n"]) for line in batch)
            if len(seen) == 25:
                break
    assert seen == [(number, number) for number in range(1, 26)]
    assert service.group()["ack_floor"] == 25


def test_bad_lines_become_dead_letters_and_the_others_are_acked(service: Service) -> None:
    service.append('{"n": 1}', "not JSON", '{"n": 3}', "nor this")
    with Consumer(service.address, group="fills") as consumer:
        batch = wait_for(consumer.next_batch)
        with batch:
            for line in batch:
                try:
                    line.json()
                except ValueError as error:
                    batch.bad(line, str(error))
    assert service.group()["ack_floor"] == 4
    assert sorted(service.dead_letters()) == [2, 4]


def test_a_bad_line_that_is_raised_is_rejected_and_the_others_come_again(service: Service) -> None:
    service.append(*lines(5))
    seen: list[list[int]] = []
    with Consumer(service.address, group="fills", wait_ms=2000) as consumer:
        while service.group()["ack_floor"] < 5:
            batch = consumer.next_batch()
            if batch is None:
                continue
            seen.append([line.seq for line in batch])
            with batch:
                for line in batch:
                    if line.seq == 3:
                        raise BadLine(line, "no such coin")
    assert seen[0] == [1, 2, 3, 4, 5]
    assert service.dead_letters() == {3: "no such coin"}


def test_an_exception_fails_the_batch_and_it_comes_again(service: Service) -> None:
    service.append(*lines(3))
    with Consumer(service.address, group="fills") as consumer:
        with pytest.raises(RuntimeError), wait_for(consumer.next_batch):
            raise RuntimeError("db down")
        assert service.group()["last_failure"].endswith(": RuntimeError: db down")
        batch = wait_for(consumer.next_batch)
        assert (len(batch), batch.attempt) == (3, 2)
        with batch:
            pass
    assert service.group()["ack_floor"] == 3


def test_a_batch_is_settled_in_parts(service: Service) -> None:
    service.append(*lines(10))
    with Consumer(service.address, group="fills") as consumer:
        batch = wait_for(consumer.next_batch)
        found = list(batch)
        with batch:
            done = batch.ack_through(found[3])
            assert (done.acked, done.left, done.ack_floor) == (4, [(5, 10)], 4)
            done = batch.fail("db down", delay=0.01)
            assert done.left == []
        batch = wait_for(consumer.next_batch)
        assert [line.seq for line in batch] == [5, 6, 7, 8, 9, 10]
        batch.release()
        assert service.group()["leased"] == 0


def test_a_lease_is_extended_while_its_batch_is_open(service: Service) -> None:
    service.append(*lines(1))
    with Consumer(service.address, group="fills", lease_ms=300) as consumer:
        with wait_for(consumer.next_batch):
            time.sleep(1.2)
    assert service.group()["ack_floor"] == 1


def test_a_lost_lease_is_told_at_the_end_of_the_batch(service: Service) -> None:
    service.append(*lines(4))
    with Consumer(service.address, group="fills") as consumer:
        batch = wait_for(consumer.next_batch)
        with pytest.raises(LeaseLost) as lost, batch:
            batch.ack_through(list(batch)[1])
            service.kill()
            service.start()
        assert (lost.value.why, lost.value.acked) == ("restarted", [(1, 2)])
        # The restart does not end the loop.
        batch = wait_for(consumer.next_batch)
        assert [line.seq for line in batch][0] == 3


def test_an_extension_lasts_while_the_batch_is_open(service: Service) -> None:
    service.append(*lines(1))
    with Consumer(service.address, group="fills", lease_ms=600) as consumer:
        batch = wait_for(consumer.next_batch)
        with batch:
            batch.extend(60_000)
            time.sleep(0.5)
            held = service.group()["held"][0]
            assert held["expires_ms"] > 30_000, held


def test_objects_have_the_fields_of_a_line(service: Service) -> None:
    service.append("one", b"\xff\xfe")
    with Consumer(service.address, group="fills", form="objects") as consumer:
        one, two = wait_for(consumer.next_batch)
        assert (one.source, one.offset, one.part, one.labels) == (str(service.folder / "in.log"), 0, None, {})
        assert one.time.endswith("Z")
        assert (two.bytes, two.offset) == (b"\xff\xfe", 4)
    with Consumer(service.address, group="any") as consumer:
        line = list(wait_for(consumer.next_batch))[0]
        with pytest.raises(FieldMissing, match='form="objects"'):
            line.source


def test_a_line_without_a_newline_in_the_middle_is_told_apart(service: Service) -> None:
    # A file that ends without one, and is finished: the next file's lines follow.
    service.append("one")
    wait_for(lambda: True if service.status()["log"]["next_seq"] >= 2 else None)
    with open(service.folder / "in.log", "ab") as file:
        file.write(b"two")
    os.rename(service.folder / "in.log", service.folder / "old.log")
    service.append("three")
    wait_for(lambda: True if service.status()["log"]["next_seq"] >= 4 else None)
    with Consumer(service.address, group="fills") as consumer:
        batch = wait_for(consumer.next_batch)
        assert [line.bytes for line in batch] == [b"one", b"two", b"three"]
        batch.ack()


def test_what_is_refused_is_not_tried_again(service: Service) -> None:
    with Consumer(service.address, group="none") as consumer, pytest.raises(Refused) as refused:
        consumer.next_batch()
    assert (refused.value.status, refused.value.code) == (404, "no-group")
    with pytest.raises(ValueError):
        Consumer("c.sock", group="fills")


def test_stop_ends_a_wait_for_lines(service: Service) -> None:
    with Consumer(service.address, group="fills", name="w1") as consumer:
        thread = threading.Thread(target=lambda: list(consumer))
        thread.start()
        wait_for(lambda: service.group().get("consumers") or None)
        began = time.monotonic()
        consumer.stop()
        thread.join(15)
        assert not thread.is_alive() and time.monotonic() - began < 5


PROGRAM = """
import sys
from spillq_client import Consumer
with Consumer(sys.argv[1], group="fills", name="w1") as consumer:
    for batch in consumer:
        with batch:
            print(len(batch), flush=True)
            if len(batch) == 3:
                sys.stdin.read()
"""


def started(service: Service) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    command = [sys.executable, "-c", PROGRAM, service.address]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )


def test_sigterm_ends_the_loop_after_the_batch_in_hand(service: Service) -> None:
    service.append(*lines(3))
    with started(service) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "3\n"
        process.send_signal(signal.SIGTERM)
        process.stdin.close()
        assert process.wait(30) == 0
    assert service.group()["ack_floor"] == 3


def test_a_killed_consumer_gives_its_lines_back_at_once(service: Service) -> None:
    service.append(*lines(3))
    with started(service) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "3\n"
        process.kill()
    killed = time.monotonic()
    with Consumer(service.address, group="fills", name="w2") as consumer:
        batch = wait_for(consumer.next_batch)
        assert time.monotonic() - killed < 1.5
        assert batch.attempt == 2
        batch.ack()


def run_async(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(main(), 60)

    asyncio.run(bounded())


def test_async_lines_are_delivered_and_bad_ones_rejected(service: Service) -> None:
    async def main() -> None:
        service.append('{"n": 1}', "not JSON", '{"n": 3}')
        seen: list[int] = []
        async with AsyncConsumer(service.address, group="fills", name="w1") as consumer:
            async for batch in consumer:
                async with batch:
                    for line in batch:
                        try:
                            seen.append(line.json()["n"])
                        except ValueError as error:
                            batch.bad(line, str(error))
                consumer.stop()
        assert seen == [1, 3]

    run_async(main)
    assert service.group()["ack_floor"] == 3 and list(service.dead_letters()) == [2]


def test_async_each_rejects_the_lines_whose_handler_fails(service: Service) -> None:
    service.append(*lines(12))

    async def main() -> None:
        async with AsyncConsumer(service.address, group="fills") as consumer:

            async def handler(line: object) -> None:
                number = line.json()["n"]  # type: ignore[attr-defined]
                if number == 12:
                    consumer.stop()
                if number % 5 == 0:
                    raise ValueError(f"no {number}")

            await consumer.each(handler)

    run_async(main)
    assert service.group()["ack_floor"] == 12
    assert service.dead_letters() == {5: "ValueError: no 5", 10: "ValueError: no 10"}


def test_async_outlives_a_restart_of_the_service(service: Service) -> None:
    service.append(*lines(200))
    seen: list[int] = []
    killed: list[bool] = []

    async def main() -> None:
        async with AsyncConsumer(service.address, group="fills") as consumer:
            async for batch in consumer:
                try:
                    async with batch:
                        found = [line.seq for line in batch]
                        if found[0] == 51 and batch.attempt == 1 and not killed:
                            killed.append(True)
                            service.kill()
                            service.start()
                except LeaseLost:
                    continue
                seen.extend(found)
                if len(seen) >= 200:
                    break

    run_async(main)
    assert seen == list(range(1, 201))


def test_async_cancel_releases_the_batch(service: Service) -> None:
    service.append(*lines(3))

    async def main() -> None:
        async with AsyncConsumer(service.address, group="fills") as consumer:

            async def work() -> None:
                batch = await consumer.next_batch()
                assert batch is not None
                async with batch:
                    await asyncio.sleep(60)

            task = asyncio.create_task(work())
            await asyncio.to_thread(wait_for, lambda: service.group()["leased"] or None)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            batch = await consumer.next_batch()
            assert batch is not None and batch.attempt == 1, "nothing is counted"
            await batch.ack()

    run_async(main)
    assert service.group()["ack_floor"] == 3


def test_async_extends_and_stops_while_it_waits(service: Service) -> None:
    service.append(*lines(1))

    async def main() -> None:
        async with AsyncConsumer(service.address, group="fills", lease_ms=300) as consumer:
            batch = await consumer.next_batch()
            assert batch is not None
            async with batch:
                await asyncio.sleep(1.2)
            asyncio.get_running_loop().call_later(0.3, consumer.stop)
            began = time.monotonic()
            assert await consumer.next_batch() is None
            assert time.monotonic() - began < 5

    run_async(main)
    assert service.group()["ack_floor"] == 1
