"""Waits for all workers before TensorFlow starts, which waits forever, ignores Ctrl-C and names no missing worker."""

import contextlib
import selectors
import socket
import time

from vessels import UserError

MINUTE = 60  # seconds


def meet(workers, index):
    """Returns as soon as all `workers`, a list of "host:port", have called this, each with its own `index`.

    The first worker listens at its address, where TensorFlow's server will be afterwards, and tells the others who is
    missing. Each worker prints this every minute.

    Raises:
        UserError: A worker is missing after ten minutes, or the first worker's port is in use.
    """
    patience = Patience()
    if index == 0:
        receive(workers, patience)
    else:
        report(workers[0], index, patience)


class Patience:
    def __init__(self):
        self.began, self.said = time.monotonic(), 0

    def ask_for(self, absent):
        minutes = int((time.monotonic() - self.began) / MINUTE)
        if minutes >= 10:
            raise UserError(f"{absent} did not connect within ten minutes: start the same command there, with the "
                            "same addresses in TF_CONFIG, and check that the machines can reach each other")
        if minutes > self.said:
            print(f"still waiting for {absent} after {minutes} min", flush=True)
        self.said = minutes


def receive(workers, patience):
    with contextlib.ExitStack() as stack:
        try:
            both = {"family": socket.AF_INET6, "dualstack_ipv6": True} if socket.has_dualstack_ipv6() else {}
            server = stack.enter_context(socket.create_server(("", address(workers[0])[1]), **both))
        except OSError as error:
            raise UserError(f"{workers[0]}: {error.strerror}; stop the program that listens there, or choose another "
                            "port in TF_CONFIG") from None
        selector = stack.enter_context(selectors.DefaultSelector())
        selector.register(server, selectors.EVENT_READ)
        present = {}  # index of the worker at the other end of each connection
        while absent := ", ".join(worker for i, worker in enumerate(workers) if i and i not in present.values()):
            tell(present, absent)
            patience.ask_for(absent)
            for key, _ in selector.select(MINUTE / 60):
                if key.fileobj is server:
                    selector.register(stack.enter_context(server.accept()[0]), selectors.EVENT_READ)
                elif (index := hear(key.fileobj).strip()).isdigit():
                    present[key.fileobj] = int(index)
                else:
                    selector.unregister(key.fileobj)
                    present.pop(key.fileobj, None)
        tell(present, "")


def report(first, index, patience):
    absent = first
    while absent:
        patience.ask_for(absent)
        try:
            with socket.create_connection(address(first), timeout=MINUTE / 6) as connection:
                tell([connection], str(index))
                while absent and (lines := hear(connection)):
                    absent = lines.splitlines()[-1]
                    patience.ask_for(absent)
        except OSError:
            absent = first
            time.sleep(MINUTE / 600)
        else:
            absent = absent and first


def tell(connections, line):
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.sendall(f"{line}\n".encode())


def hear(connection):
    """Lines that were received, or "" if the other side is gone."""
    try:
        return connection.recv(65536).decode(errors="replace")  # any program may connect to the port
    except ConnectionError:
        return ""


def address(worker):
    """`(host, port)`. Raises ValueError."""
    host, _, port = worker.rpartition(":")
    return host.strip("[]"), int(port)
