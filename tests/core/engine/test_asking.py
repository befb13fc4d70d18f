"""How a process is asked: what it says arrives, why it died is told, and it never outlives its client."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from core.engine.asking import Asked, AskingError, BabbleError

ROOT = Path(__file__).resolve().parents[3]
SAY = "import json, sys\ndef say(x): print(json.dumps(x), flush=True)\n"
ENDLESS = SAY + "say('here')\nimport time\nwhile True: time.sleep(1)"


def decode(line: bytes) -> str:
    return msgspec.json.decode(line, type=str)


def asked(body: str, grace: float = 20.0, **environment: str) -> Asked[str]:
    command = [sys.executable, "-I", "-S", "-c", body]
    return Asked(command, decode, "the process", grace=grace, environment=environment)


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """Whether a process is over; a zombie that nobody has buried is."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_requests_are_answered_message_by_message_to_the_end() -> None:
    with asked(f"{SAY}for line in sys.stdin: say(line.strip()); say('done')") as process:
        for text in ("one", "two"):
            process.send(f"{text}\n".encode())
            assert (process.hear(), process.hear()) == (text, "done")
        assert process.poll() is None
    assert process.poll() == 0, "the end of its input ended it"


def test_long_messages_and_a_last_one_without_its_end_arrive_whole() -> None:
    body = f"{SAY}say('x' * 300_000); say('y'); sys.stdout.write('\"z\"')"
    with asked(body) as process:
        heard = [process.hear() for _ in range(4)]
    assert heard == ["x" * 300_000, "y", "z", None]


def test_what_is_no_message_is_told_and_the_next_one_heard() -> None:
    with asked(f"{SAY}print('a library speaks', flush=True); say('fine')") as process:
        with pytest.raises(BabbleError):
            process.hear()
        assert process.hear() == "fine"


def test_the_environment_is_its_clients_with_what_is_given() -> None:
    body = f"{SAY}import os; say(os.environ['OWN'] + str('PATH' in os.environ))"
    with asked(body, OWN="mine") as process:
        assert process.hear() == "mineTrue"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("import sys; sys.exit('one\\ntwo\\n')", r"^the process ended \(exit code 1\): two$"),
        ("pass", r"^the process ended \(exit code 0\)$"),
        ("import os; os.kill(os.getpid(), 9)", "was killed: most likely the machine's memory ran out"),
        ("import os; os.write(1, b'\"half'); os.kill(os.getpid(), 9)", "was killed: most likely"),
        ("import os; os.kill(os.getpid(), 15)", r"ended \(signal 15\)"),
        ("import sys; sys.stderr.write('x' * 200_000 + '\\nthe end'); sys.exit(2)", r"code 2\): the end$"),
    ],
)  # fmt: skip
def test_its_last_words_say_how_it_ended(body: str, told: str) -> None:
    with asked(body) as process:
        assert process.hear() is None
        with pytest.raises(AskingError, match=told):
            raise AskingError(process.last_words())


def test_asking_one_that_is_dead_is_an_error_with_its_last_words() -> None:
    with asked("import sys; sys.exit('out of order')") as process:
        process.wait()
        with pytest.raises(AskingError, match="out of order"):
            process.send(b"{}\n")


def test_what_cannot_be_started_is_told_and_leaves_nothing_open(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(AskingError, match="the process cannot be started: No such file"):
        Asked([str(tmp_path / "none")], decode, "the process", grace=1)
    assert set(os.listdir("/proc/self/fd")) == before


def test_an_answer_that_is_not_wanted_any_more_is_not_waited_for() -> None:
    with pytest.raises(KeyError), asked(ENDLESS) as process:
        assert process.hear() == "here"
        assert process.hear(lambda: False) is None
        raise KeyError
    assert process.poll() == -signal.SIGTERM


def test_one_that_is_given_up_is_told_to_end_and_may_clean_up(tmp_path: Path) -> None:
    body = (
        f"{SAY}import signal, time\ndef end(*_):\n open({str(tmp_path / 'cleaned')!r}, 'w'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\nsay('here')\nwhile True: time.sleep(1)"
    )
    with pytest.raises(KeyboardInterrupt), asked(body) as process:
        assert process.hear() == "here"
        raise KeyboardInterrupt
    assert process.poll() == 0 and (tmp_path / "cleaned").exists()


@pytest.mark.parametrize("given_up", [True, False])
def test_one_that_does_not_listen_is_killed(given_up: bool) -> None:
    deaf = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{ENDLESS}"
    process = asked(deaf, grace=0.05)
    assert process.hear() == "here"
    process.close(given_up=given_up)
    assert process.poll() == -signal.SIGKILL
    process.close()


def test_somebody_without_patience_ends_the_waiting_and_the_process() -> None:
    deaf = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{ENDLESS}"
    process = asked(deaf, grace=600.0)
    assert process.hear() == "here"

    def impatient(seconds: float | None = None) -> int | None:
        raise KeyboardInterrupt

    process.wait = impatient  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        process.close()
    assert process.poll() == -signal.SIGKILL


def test_nothing_of_it_is_left_open() -> None:
    before = set(os.listdir("/proc/self/fd"))
    with asked(f"{SAY}say('here')") as process:
        process.hear()
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGHUP])
def test_it_ends_with_its_client_however_that_dies(number: signal.Signals, tmp_path: Path) -> None:
    child = f"{SAY}import os\nsay(str(os.getpid()))\nsys.stdin.read()"
    client = tmp_path / "client.py"
    client.write_text(
        # What is started in the background, or by nohup, ignores them.
        "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        f"sys.path.insert(0, {str(ROOT)!r})\nimport msgspec\nfrom core.engine.asking import Asked\n"
        f"with Asked([sys.executable, '-I', '-S', '-c', {child!r}], msgspec.json.decode, 'x', grace=20) as process:\n"
        "    print(process.hear(), flush=True)\n    process.hear()\n"
    )
    running = subprocess.Popen(
        [sys.executable, str(client)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert running.stdout is not None
    pid = int(running.stdout.readline())
    assert not gone(pid)
    running.send_signal(number)
    running.wait(timeout=60)
    running.stdout.close()
    until(lambda: gone(pid))
