"""Workers that wait for each other."""

import contextlib
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from vessels import UserError
from vessels.training import rendezvous


def free_addresses(number):
    with contextlib.ExitStack() as stack:
        free = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in free:
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in free]


@pytest.mark.parametrize("missing", [2, 0])
def test_workers_know_who_is_missing(missing, monkeypatch):
    class EnoughError(Exception):
        pass

    def ask_for(self, absent):
        if absent == workers[missing]:
            raise EnoughError

    monkeypatch.setattr(rendezvous.Patience, "ask_for", ask_for)
    workers = free_addresses(3)
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(rendezvous.meet, workers, index) for index in range(3) if index != missing]
    assert [type(each.exception()) for each in waiting] == [EnoughError, EnoughError]


def test_missing_workers_are_named_each_minute_for_ten_minutes(monkeypatch, capsys):
    monkeypatch.setattr(rendezvous.time, "monotonic", iter(range(0, 10_000, 20)).__next__)
    patience = rendezvous.Patience()
    with pytest.raises(UserError, match=r"^a:1 did not connect within ten minutes: start the same command there"):
        while True:
            patience.ask_for("a:1")
    lines = [f"still waiting for a:1 after {minutes} min" for minutes in range(1, 10)]
    assert capsys.readouterr().out.splitlines() == lines


def test_workers_meet_in_any_order_and_strangers_do_not_count():
    workers = free_addresses(3)
    with ThreadPoolExecutor() as pool:
        last = pool.submit(rendezvous.meet, workers, 2)
        first = pool.submit(rendezvous.meet, workers, 0)
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                with socket.create_connection(rendezvous.address(workers[0])) as stranger:
                    stranger.sendall(b"GET / HTTP/1.1 \xff\xfe")
                break
        assert not first.done() and not last.done()
        pool.submit(rendezvous.meet, workers, 1).result(timeout=60)
        assert first.result(timeout=60) is last.result(timeout=60) is None


def test_a_port_that_is_taken_is_said_so():
    with socket.create_server(("", 0)) as taken, pytest.raises(UserError, match="stop the program that listens there"):
        rendezvous.meet([f"127.0.0.1:{taken.getsockname()[1]}", "127.0.0.1:1"], 0)
