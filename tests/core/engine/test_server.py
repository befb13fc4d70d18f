import json
import os
import signal
import socket
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.engine import address
from core.engine.messages import Reply, Request
from core.engine.server import Server
from core.study.store import StudyFolder


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Server, Path, list[Request]]]:
    heard: list[Request] = []

    def handle(request: Request) -> Reply:
        heard.append(request)
        return Reply(True, "x" * (request.trial or 1))

    listening, path = address.listen(StudyFolder(tmp_path))
    server = Server(listening, handle)
    yield server, path, heard
    server.close()


def connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))
    connection.settimeout(120)
    return connection


def serve_until(server: Server, done: Callable[[], Any]) -> None:
    for _ in range(6000):
        if done():
            return
        server.wait(0.02)
    raise AssertionError("not served")


def hear(server: Server, connection: socket.socket, lines: int = 1) -> list[Any]:
    """The answers that come while the server serves."""
    parts: list[bytes] = []

    def listen() -> None:
        while b"".join(parts).count(b"\n") < lines:
            data = connection.recv(1 << 20)
            if not data:
                return
            parts.append(data)

    thread = threading.Thread(target=listen)
    thread.start()
    serve_until(server, lambda: not thread.is_alive())
    return [json.loads(line) for line in b"".join(parts).splitlines()]


def test_a_request_is_answered(served: Any) -> None:
    server, path, heard = served
    with connect(path) as connection:
        connection.sendall(b'{"command":"stop","trial":3}\n')
        assert hear(server, connection) == [{"ok": True, "text": "xxx"}]
    assert heard == [Request("stop", 3)]


def test_a_request_may_come_in_pieces_and_several_at_once(served: Any) -> None:
    server, path, _ = served
    with connect(path) as connection:
        connection.sendall(b'{"comma')
        server.wait(0.1)
        connection.sendall(b'nd":"ping"}\n{"command":"ping","trial":2}\n')
        assert [a["text"] for a in hear(server, connection, 2)] == ["x", "xx"]


@pytest.mark.parametrize(
    "line",
    [
        b"hello",
        b'{"command":"explode"}',
        b"[]",
        b'{"command":"stop","trial":"x"}',
        b'{"command":"\xff"}',
        b'{"command":"ping","more":' + b"[" * 200_000,
    ],
    ids=["text", "unknown", "list", "type", "no-utf8", "nested"],
)
def test_what_is_no_request_is_answered_in_words(served: Any, line: bytes) -> None:
    server, path, heard = served
    with connect(path) as connection:
        connection.sendall(line + b"\n")
        (answer,) = hear(server, connection)
    assert not answer["ok"]
    assert "does not understand" in answer["text"]
    assert heard == []


def test_a_client_that_hangs_up_or_never_speaks_disturbs_nobody(served: Any) -> None:
    server, path, _ = served
    silent, gone = connect(path), connect(path)
    gone.sendall(b'{"command":"ping"}\n')
    gone.close()
    with connect(path) as connection:
        connection.sendall(b'{"command":"ping"}\n')
        assert len(hear(server, connection)) == 1
    silent.close()


def test_a_long_answer_arrives_whole(served: Any) -> None:
    server, path, _ = served
    with connect(path) as connection:
        connection.sendall(b'{"command":"ping","trial":900000}\n')
        (answer,) = hear(server, connection)
    assert len(answer["text"]) == 900_000


def test_a_client_that_talks_without_end_is_cut_off(served: Any) -> None:
    server, path, heard = served
    with connect(path) as connection:
        thread = threading.Thread(target=lambda: flood(connection))
        thread.start()
        serve_until(server, lambda: not thread.is_alive())
    assert heard == []


def test_a_client_that_never_listens_is_cut_off(served: Any) -> None:
    server, path, _ = served
    with connect(path) as connection:
        thread = threading.Thread(
            target=lambda: flood(connection, b'{"command":"ping","trial":999}\n')
        )
        thread.start()
        serve_until(server, lambda: not thread.is_alive())


def flood(connection: socket.socket, words: bytes = b"x") -> None:
    block = words * (65_536 // len(words))
    try:
        for _ in range(4 * address.MOST_BYTES // 65_536):
            connection.sendall(block)
    except OSError:
        return
    raise AssertionError("the server took it all")


def test_a_signal_ends_the_wait(served: Any) -> None:
    server, _, _ = served
    handlers = {
        s: signal.getsignal(s)
        for s in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP, signal.SIGPIPE)
    }
    try:
        server.catch_signals()
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        assert server.wait(120)
        assert server.told_to_end
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in handlers.items():
            signal.signal(number, handler)


class TestAddress:
    def test_the_socket_is_in_the_studys_folder_and_private(self, tmp_path: Path) -> None:
        listening, path = address.listen(StudyFolder(tmp_path))
        assert path == tmp_path / "socket"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        listening.close()
        address.clear(path)
        assert not path.exists()
        assert tmp_path.exists()

    def test_a_dead_socket_is_replaced(self, tmp_path: Path) -> None:
        address.listen(StudyFolder(tmp_path))[0].close()
        listening, path = address.listen(StudyFolder(tmp_path))
        with connect(path):
            listening.close()

    def test_a_path_that_is_too_long_for_a_socket_moves_it_to_a_private_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runtime = tmp_path / "run"
        runtime.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(runtime))
        long = tmp_path / ("x" * 120)
        long.mkdir()
        listening, path = address.listen(StudyFolder(long))
        assert path.parent.parent == runtime
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with connect(path):
            listening.close()
        address.clear(path)
        assert list(runtime.iterdir()) == []

    def test_a_file_system_without_sockets_moves_it_too(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        study = tmp_path / "study"
        (study / "socket").mkdir(parents=True)
        listening, path = address.listen(StudyFolder(study))
        assert path.parent.parent == tmp_path
        listening.close()

    def test_a_study_that_was_never_served_has_no_address(self, tmp_path: Path) -> None:
        assert address.read_info(StudyFolder(tmp_path)) is None
