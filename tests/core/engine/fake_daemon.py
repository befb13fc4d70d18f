"""Real daemons with the fake worker and short times: `fake_daemon.py SOCKET`, a file descriptor.

Loading takes a daemon longer than most tests do, so that it is done once: each message on the socket, {folder, options,
environment} with two file descriptors, is answered with a daemon that is forked. Its standard output is the first
descriptor; its pid, and its exit code when it has ended, are lines on the second.
"""

import errno
import json
import os
import signal
import socket
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2]))

import msgspec  # noqa: E402

from core.devices.gpu import FakeReader, GpuReading, GpuSnapshot  # noqa: E402
from core.engine.daemon import serve  # noqa: E402
from core.engine.launch import LocalLauncher  # noqa: E402
from core.engine.memory import foresight  # noqa: E402
from core.engine.memory.advisers import Advisers  # noqa: E402
from core.engine.proposing import Proposer  # noqa: E402
from core.engine.service import Settings  # noqa: E402
from core.memory import closed_form  # noqa: E402
from core.study import journal  # noqa: E402
from core.study.store import StudyFolder  # noqa: E402

OPTIONS = {}


def launcher():
    worker = HERE / "fake_worker.py"
    return LocalLauncher(
        lambda folder: [sys.executable, "-I", "-S", str(worker), str(folder)],
        stop_grace=OPTIONS.get("stop_grace", 5.0),
    )


def advisers():
    adviser = HERE / "fake_adviser.py"
    return Advisers(
        lambda job: [sys.executable, "-I", "-S", str(adviser), str(job)],
        patience=OPTIONS.get("advice_patience", 30.0),
    )


def proposer():
    command = [sys.executable, "-I", "-S", str(HERE / "fake_proposer.py")]
    return Proposer(
        lambda: [*command, json.dumps(OPTIONS.get("proposer", {}))],
        patience=OPTIONS.get("proposal_patience", 30.0),
    )


def estimate(profile, architecture, target, lengths=None):
    """More than the fake adviser would say; where that is told nothing, the real closed form."""
    script = json.loads(profile.profile.notes).get("advice") or {}
    rows = profile.train.per_device_train_batch_size
    real = closed_form.estimate(profile, architecture, target, lengths)
    if "gib_a_row" not in script and "problem" not in script:
        return real
    need = int(1.6 * rows * script.get("gib_a_row", 2.0) * (1 << 30))
    return msgspec.structs.replace(
        real, allocated=need, reserved=need, needed=need, context=1 << 29
    )


def gpus():
    cards = tuple(
        GpuSnapshot(
            index=i, uuid=f"GPU-{i}", name="Fake", memory_total=8 << 30, memory_used=0, utilization=0,
            power_watts=None, power_limit_watts=None, temperature_c=None, processes=(), mig=False,
        )
        for i in range(OPTIONS.get("gpus", 0))
    )  # fmt: skip
    return FakeReader([GpuReading(cards, None if cards else "no driver")])


def fill_the_disk(flag):
    """While the file `flag` exists the journal's disk is full, after a piece of the record was written."""
    real = journal.os.fsync

    def fsync(fd):
        if flag.exists() and Path(f"/proc/self/fd/{fd}").resolve().name == "journal.jsonl":
            raise OSError(errno.ENOSPC, "No space left on device")
        real(fd)

    journal.os.fsync = fsync


def die_at(when, number):
    """Die without a word before or after the journal's append of this number."""
    real, count = journal.JournalWriter.append, [0]

    def append(self, *bodies):
        count[0] += 1
        if (when, count[0]) == ("before", number):
            os._exit(9)
        real(self, *bodies)
        if (when, count[0]) == ("after", number):
            os._exit(9)

    journal.JournalWriter.append = append


def hand_over(study):
    """Note that the next step of a recipe is due."""
    with Path(OPTIONS["handed"]).open("a") as handed:
        handed.write(f"{study}\n")


def daemon(folder):
    if "die_at" in OPTIONS:
        die_at(*OPTIONS["die_at"])
    if "full_flag" in OPTIONS:
        fill_the_disk(Path(OPTIONS["full_flag"]))
    foresight.estimate = estimate
    settings = Settings(
        launcher=launcher,
        gpus=gpus,
        advisers=advisers,
        proposer=proposer,
        tick=OPTIONS.get("tick", 0.1),
        gpu_tick=0.05,
        linger=OPTIONS.get("linger", 0.3),
        stall_patience=OPTIONS.get("stall_patience", 300.0),
        pause_patience=OPTIONS.get("pause_patience", 300.0),
        hand_over=hand_over,
    )
    return serve(StudyFolder(Path(folder).resolve()), settings, lambda w: print(w, flush=True))


def keep(request, out, told):
    """Fork the daemon, and wait for its end."""
    # Those of the nursery, which waits for nobody, are not for daemons.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os.close(told)
        os.setsid()
        os.dup2(out, 1)
        os.close(out)
        os.environ.clear()
        os.environ.update(request["environment"])
        OPTIONS.update(request["options"])
        code = daemon(request["folder"])
        sys.stdout.flush()
        os._exit(code)
    os.close(out)
    os.write(told, b"%d\n" % pid)
    os.write(told, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def nursery(asked):
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, fds, _, _ = socket.recv_fds(asked, 1 << 20, 2)
        if not message:
            return
        if os.fork() == 0:
            asked.close()
            try:
                keep(json.loads(message), *fds)
            finally:
                os._exit(1)
        for fd in fds:
            os.close(fd)


nursery(socket.socket(fileno=int(sys.argv[1])))
