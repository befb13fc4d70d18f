"""The daemon's ear: requests over a socket, one JSON object a line, and the signals that wake the daemon up."""

import contextlib
import selectors
import signal
import socket
from collections.abc import Callable
from types import FrameType

import msgspec

from core.engine.address import MOST_BYTES
from core.engine.messages import Reply, Request

Handler = Callable[[Request], Reply]


class _Client:
    """One connection: what it has said and not finished, what it is still to be told."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.heard = b""
        self.to_say = b""


class Server:
    """Waits for requests and signals."""

    def __init__(self, listening: socket.socket, handle: Handler) -> None:
        self._listening = listening
        self._handle = handle
        self._decoder = msgspec.json.Decoder(Request)
        self._selector = selectors.DefaultSelector()
        self._selector.register(listening, selectors.EVENT_READ)
        self._woken, waker = socket.socketpair()
        self._woken.setblocking(False)
        waker.setblocking(False)
        self._waker = waker
        self._selector.register(self._woken, selectors.EVENT_READ)
        self.told_to_end = False

    def catch_signals(self) -> None:
        """End at SIGTERM and SIGINT, look at the trials at SIGCHLD, and outlive the terminal."""
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._end)
        signal.signal(signal.SIGINT, self._end)
        signal.signal(signal.SIGCHLD, _nothing)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def wait(self, seconds: float) -> bool:
        """Serve what comes in within `seconds`; returns as soon as something did, and whether it did."""
        ready = self._selector.select(seconds)
        for key, mask in ready:
            if key.fileobj is self._listening:
                self._accept()
            elif key.fileobj is self._woken:
                with contextlib.suppress(BlockingIOError):
                    self._woken.recv(4096)
            elif isinstance(key.data, _Client):
                self._serve(key.data, mask)
        return bool(ready)

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._waker.close()
        self._selector.close()

    def _end(self, number: int, frame: FrameType | None) -> None:
        self.told_to_end = True

    def _accept(self) -> None:
        try:
            connection, _ = self._listening.accept()
        except OSError:
            return
        connection.setblocking(False)
        self._selector.register(connection, selectors.EVENT_READ, _Client(connection))

    def _serve(self, client: _Client, mask: int) -> None:
        try:
            if mask & selectors.EVENT_READ and not self._hear(client):
                self._drop(client)
                return
            self._say(client)
        except OSError:
            self._drop(client)

    def _hear(self, client: _Client) -> bool:
        """Take in what the client says; False when it has hung up, says too much or does not listen."""
        try:
            data = client.connection.recv(65_536)
        except BlockingIOError:
            return True
        client.heard += data
        *lines, client.heard = client.heard.split(b"\n")
        for line in lines:
            client.to_say += msgspec.json.encode(self._reply(line)) + b"\n"
        return bool(data) and max(len(client.heard), len(client.to_say)) <= MOST_BYTES

    def _reply(self, line: bytes) -> Reply:
        try:
            request = self._decoder.decode(line)
        except (ValueError, RecursionError) as error:
            # Bytes that are no UTF-8 and a line nested without end are errors of Python's, not of msgspec's.
            return Reply(False, f"the daemon does not understand this request: {error}")
        return self._handle(request)

    def _say(self, client: _Client) -> None:
        if client.to_say:
            with contextlib.suppress(BlockingIOError):
                sent = client.connection.send(client.to_say)
                client.to_say = client.to_say[sent:]
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.to_say else 0)
        self._selector.modify(client.connection, events, client)

    def _drop(self, client: _Client) -> None:
        self._selector.unregister(client.connection)
        client.connection.close()


def _nothing(number: int, frame: FrameType | None) -> None:
    """A signal that only wakes the loop up."""
