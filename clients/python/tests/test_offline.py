"""Without a service: the fake queue, the protocol of exec-stream, and answers that are wrong."""

from __future__ import annotations

import asyncio
import io
import json

import pytest

from spillq_client import BadLine, Consumer, LeaseLost, Line, _core
from spillq_client.stdio import run
from spillq_client.testing import FakeQueue


def test_the_fake_queue_runs_real_consumers() -> None:
    queue = FakeQueue(["1", "x", "3", "4"], batch_lines=2)
    with queue.consumer() as consumer:
        for batch in consumer:
            with batch:
                for line in batch:
                    if line.text == "x":
                        batch.bad(line, "no number")
    assert (queue.acked, queue.dead) == ([1, 3, 4], {2: "no number"})


def test_the_fake_queue_fails_rejects_and_expires() -> None:
    queue = FakeQueue(["1", "2", "3"])
    with queue.consumer() as consumer:
        first = consumer.next_batch()
        assert first is not None
        with pytest.raises(RuntimeError), first:
            raise RuntimeError("db down")
        assert queue.failures == ["RuntimeError: db down"]
        second = consumer.next_batch()
        assert second is not None and second.attempt == 2
        with second:
            raise BadLine(list(second)[1], "bad")
        third = consumer.next_batch()
        assert third is not None and [line.seq for line in third] == [1]
        queue.expire()
        with pytest.raises(LeaseLost):
            third.ack()
    assert queue.dead == {2: "bad"} and queue.acked == []


def test_the_fake_queue_is_there_for_asyncio_too() -> None:
    queue = FakeQueue(["1", "2"])

    async def main() -> None:
        async with queue.async_consumer(form="objects") as consumer:
            async for batch in consumer:
                async with batch:
                    assert [line.source for line in batch] == ["/fake", "/fake"]

    asyncio.run(main())
    assert queue.acked == [1, 2]


def said(batches: list[tuple[int, bytes]], handler: object, **options: object) -> list[str]:
    sent = b""
    for first, data in batches:
        count = data.count(b"\n") + (not data.endswith(b"\n"))
        header = {"lines": count, "bytes": len(data), "first_seq": first, "last_seq": first + count - 1, "attempt": 1}
        sent += json.dumps(header).encode() + b"\n" + data
    out = io.BytesIO()
    run(handler, stdin=io.BytesIO(sent), stdout=out, **options)  # type: ignore[arg-type]
    return out.getvalue().decode().splitlines()


def test_the_same_handler_runs_under_exec_stream() -> None:
    def handler(line: Line) -> None:
        if line.bytes == b"x":
            raise BadLine(line, "no number")
        int(line.bytes)

    answers = said([(1, b"1\n2\n"), (3, b"3\nx\ny\n")], handler)
    assert answers[0] == "OK 2"
    assert answers[1].startswith("OK 5 BAD ")
    bad = json.loads(answers[1].removeprefix("OK 5 BAD "))
    assert [one["n"] for one in bad] == [2, 3] and bad[0]["reason"] == "no number"

    def broken() -> None:
        raise OSError("db\ndown")

    assert said([(1, b"1\n")], handler, commit=broken) == ["LATER 1000 OSError: db down"]
    assert said([(1, b"1\n2")], handler) == ["OK 2"]


@pytest.mark.parametrize("data", [b"", b"SSH-2.0", b"HTTP/1.1", b"HTTP/1.1 abc"])
def test_what_is_no_answer_is_tried_again(data: bytes) -> None:
    with pytest.raises(_core.TryAgain):
        _core.head(data)


def test_lengths_are_checked() -> None:
    for headers in ({}, {"content-length": "-1"}, {"content-length": "x"}, {"content-length": "99999999"}):
        with pytest.raises(_core.TryAgain):
            _core.body_bytes(200, headers)
    assert _core.body_bytes(200, {"content-length": "99999999", "spillq-lease": "t"}) == 99_999_999
    assert _core.body_bytes(204, {}) == 0


def test_a_lost_answer_to_an_ack_is_told_from_lost_work() -> None:
    headers = {"spillq-lease": "t", "spillq-first-seq": "1", "spillq-last-seq": "3", "spillq-lines": "3"}
    lease = _core.Lease(_core.Answer(200, headers, b"a\nb\nc\n"), "lines")

    def gone(acked: list[list[int]]) -> _core.Answer:
        return _core.Answer(410, {}, json.dumps({"why": "settled", "acked": acked}).encode())

    assert _core.settled(lease, gone([[1, 3]]), acks_all=True).acked == 3
    with pytest.raises(LeaseLost):
        _core.settled(lease, gone([[1, 2]]), acks_all=True)
    with pytest.raises(LeaseLost):
        _core.settled(lease, gone([[1, 3]]), acks_all=False)


def test_pauses_grow_and_are_bounded() -> None:
    backoff = _core.Backoff("there")
    pauses = [backoff.failed("no") for _ in range(30)]
    assert pauses[0] <= 0.1 and max(pauses) <= _core.BACKOFF_MAX_S and pauses[-1] >= _core.BACKOFF_MAX_S / 2


def test_more_bad_lines_than_a_settlement_takes_come_again_in_smaller_batches() -> None:
    queue = FakeQueue(["x"] * 600, batch_lines=1000)
    sizes: list[int] = []
    with queue.consumer() as consumer:
        for batch in consumer:
            with batch:
                sizes.append(len(batch))
                for line in batch:
                    batch.bad(line, "bad")
    assert sizes == [600, 256, 256, 88] and len(queue.dead) == 600 and queue.acked == []


def test_what_is_left_behind_an_acked_part_comes_again() -> None:
    queue = FakeQueue([str(number) for number in range(1, 11)], batch_lines=10)
    seen: list[list[int]] = []
    with queue.consumer() as consumer:
        for batch in consumer:
            with batch:
                seen.append([line.seq for line in batch])
                for line in batch:
                    if line.seq == 3:
                        batch.ack_through(line)
                        break
        assert queue.acked == list(range(1, 11))
    assert seen == [list(range(1, 11)), list(range(4, 11))]

    async def main(queue: FakeQueue) -> None:
        async with queue.async_consumer() as consumer:
            first = await consumer.next_batch()
            assert first is not None
            async with first:
                await first.ack_through(next(iter(first)))
            assert queue.acked == [1]

    asyncio.run(main(FakeQueue(["1", "2"])))


def test_lines_of_a_file_have_newlines_and_a_handler_that_always_fails_ends() -> None:
    assert FakeQueue(["a\n", b"b\n", "c"]).lines == {1: b"a", 2: b"b", 3: b"c"}
    queue = FakeQueue(["1"], attempts_max=3)
    commits: list[int] = []

    def handler(line: Line) -> None:
        raise OSError("db down")

    with queue.consumer() as consumer:
        consumer.each(handler, commit=lambda: commits.append(1))
    assert len(queue.failures) == 3 and not commits


def test_each_commits_after_the_last_line_and_before_the_ack() -> None:
    queue = FakeQueue(["1", "2", "3"], batch_lines=2)
    done: list[str] = []
    failures = [OSError("disk full")]

    def commit() -> None:
        if failures:
            raise failures.pop()
        done.append(f"commit {queue.acked}")

    with queue.consumer() as consumer:
        consumer.each(lambda line: done.append(line.text), commit=commit)
    assert done == ["1", "2", "1", "2", "commit []", "3", "commit [1, 2]"]
    assert queue.failures == ["OSError: disk full"]


def test_what_a_person_has_to_know_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    queue = FakeQueue(["1", "x"])
    with queue.consumer() as consumer:
        consumer.each(lambda line: int(line.text))
        for why in ("held-by w2 18 s", "held-by w2 17 s", "refused 12 s", "empty"):
            consumer._whys.said(why)
        batch = FakeQueue(["1"]).consumer().next_batch()
        assert batch is not None
    text = caplog.text
    assert "rejected 1 of 2 lines, the first is line 2: ValueError" in text
    assert "no lines of group fake can be leased: refused 12 s" in text and "held-by" not in text
    other = FakeQueue(["1"])
    with other.consumer() as consumer:
        for batch in consumer:
            other.expire()
            consumer.stop()
    assert "lines 1-1 were not settled, and come again" in caplog.text


def test_a_bad_line_cannot_be_acked_by_a_later_one() -> None:
    queue = FakeQueue(["1", "2", "3"])
    with queue.consumer() as consumer:
        batch = consumer.next_batch()
        assert batch is not None
        lines = list(batch)
        batch.bad(lines[1], "bad")
        batch.ack_through(lines[0])
        with pytest.raises(ValueError, match="line 2 is bad"):
            batch.ack_through(lines[2])
        batch.ack()
    assert (queue.acked, queue.dead) == ([1, 3], {2: "bad"})


def test_each_rejects_faults_of_lines_and_fails_the_batch_for_others() -> None:
    queue = FakeQueue([str(number) for number in range(600)], batch_lines=600)
    failures = [OSError("db down")]

    def handler(line: Line) -> None:
        if line.seq == 300 and failures:
            raise failures.pop()
        if int(line.text) % 2:
            raise BadLine(line, "odd")

    with queue.consumer() as consumer:
        consumer.each(handler)
    assert queue.failures == ["OSError: db down"]
    assert len(queue.acked) == 300 and len(queue.dead) == 300


def test_stdio_keeps_prints_away_from_its_answers_and_waits_for_a_database() -> None:
    def handler(line: Line) -> None:
        print("stored", line.seq)
        if line.seq == 2:
            raise OSError("db down")

    assert said([(1, b"1\n"), (2, b"2\n")], handler) == ["OK 1", "LATER 1000 OSError: db down"]


def test_stdio_finds_out_the_form_of_the_lines() -> None:
    seen: list[tuple[int, str]] = []
    line = {"seq": 1, "source": "/a", "offset": 0, "time": "t", "attempt": 1, "text": '{"seq": 1}'}
    handler = lambda line: seen.append((line.seq, line.text))  # noqa: E731
    objects = json.dumps(line).encode() + b"\n"
    assert said([(1, objects), (5, b'{"seq": 5}\n'), (6, objects)], handler) == ["OK 1", "OK 5", "OK 6"]
    assert seen == [(1, '{"seq": 1}'), (5, '{"seq": 5}'), (6, objects.decode().strip())]


def test_options_are_checked() -> None:
    for wrong in ({"group": "no pe"}, {"group": "g", "name": "a b"}, {"group": "g", "token": "a\r\nX: b"}, {"group": "g", "form": "x"}):
        with pytest.raises(ValueError):
            Consumer("unix:/s", **wrong)  # type: ignore[arg-type]
    assert Consumer("unix:/s", group="g", token="secret\n")._options.token == "secret"
    with pytest.raises(ValueError, match="the token itself"):
        Consumer("unix:/s", group="g", token="file:/etc/token")
    with pytest.raises(ValueError, match="write it as"):
        Consumer("http://127.0.0.1:x", group="g")
    one, two = Consumer("unix:/s", group="g"), Consumer("unix:/s", group="g")
    assert one._options.name != two._options.name, "who leaves gives back what is leased under its name"
    with pytest.raises(ValueError, match="TLS"):
        Consumer("https://h", group="g")
