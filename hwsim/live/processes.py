"""A few processes that run one function together: started, listened to, and never left behind.

Each is a new Python that is told over its stdin what to run and answers on its stdout in JSON. Its stdin is a leash:
when this process ends, however it ends, the other end closes and the child exits. As soon as one fails, all are killed.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from hwsim.errors import HwsimError, printable

WORKER = "hwsim.live.processes"
LONGEST_WORDS = 300
"""Characters shown of what a failed process said last."""


class WorkerError(HwsimError):
    """A process of a measurement that failed, was killed, or took too long."""


def run_ranks(
    function: str,
    ranks: int,
    arguments: Mapping[str, Any],
    timeout_s: float,
    heard: Callable[[Any], None] = lambda message: None,
) -> list[Any]:
    """Run ``function(rank, ranks, say, **arguments)`` in `ranks` processes and return what each gave back.

    Parameters
    ----------
    function
        "package.module:name".
    ranks
        How many processes.
    arguments
        Keyword arguments that JSON can carry; what the function returns and says must be such, too.
    timeout_s
        After which all are killed. [s]
    heard
        Is called with what a process says meanwhile.

    Raises
    ------
    WorkerError
        If one fails, is killed, or time is up; no process is left then, nor after an interrupt.
    """
    end = time.monotonic() + timeout_s
    with tempfile.TemporaryFile() as words:
        workers = [_start(words) for _ in range(ranks)]
        try:
            for rank, worker in enumerate(workers):
                _tell(worker, {"function": function, "rank": rank, "ranks": ranks, "arguments": dict(arguments)})
            return _listen(workers, end, heard, words)
        finally:
            _end(workers)


def _start(words: IO[bytes]) -> subprocess.Popen[bytes]:
    root = str(Path(__file__).parents[2])
    known = [root, *(path for path in sys.path if path)]
    return subprocess.Popen(
        [sys.executable, "-c", f"from {WORKER} import obey; obey()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=words,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(known))},
        start_new_session=True,
    )


def _tell(worker: subprocess.Popen[bytes], order: Mapping[str, Any]) -> None:
    pipe = _pipe(worker.stdin)
    try:
        pipe.write(json.dumps(order).encode() + b"\n")
        pipe.flush()
    except BrokenPipeError:
        pass  # it has ended already, which listening to it will tell


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        msg = "a process of the measurement has no pipe"
        raise WorkerError(msg)
    return stream


def _listen(
    workers: list[subprocess.Popen[bytes]], end: float, heard: Callable[[Any], None], words: IO[bytes]
) -> list[Any]:
    """Gather messages until every process has given its result."""
    results: dict[int, Any] = {}
    rest = [b""] * len(workers)
    with selectors.DefaultSelector() as ears:
        for rank, worker in enumerate(workers):
            ears.register(_pipe(worker.stdout), selectors.EVENT_READ, rank)
        while len(results) < len(workers):
            ready = ears.select(max(end - time.monotonic(), 0.0))
            if not ready:
                msg = f"{len(workers)} processes took too long together and were ended"
                raise WorkerError(msg)
            for key, _ in ready:
                rank = int(key.data)
                text = os.read(key.fd, 1 << 16)
                *lines, rest[rank] = (rest[rank] + text).split(b"\n")
                for line in map(json.loads, lines):
                    if "result" in line:
                        results[rank] = line["result"]
                    else:
                        heard(line["said"])
                if not text:
                    ears.unregister(key.fileobj)
                    if rank not in results:
                        raise WorkerError(_why(rank, workers[rank], words))
    return [results[rank] for rank in range(len(workers))]


def _why(rank: int, worker: subprocess.Popen[bytes], words: IO[bytes]) -> str:
    """What became of a process that gave no result."""
    code = worker.wait(timeout=5.0)
    end = f"was killed (signal {-code})" if code < 0 else f"failed (exit code {code})"
    words.seek(0)
    said = [line for line in words.read().decode(errors="replace").splitlines() if line.strip()]
    last = f": {printable(said[-1].strip(), LONGEST_WORDS)}" if said and code >= 0 else ""
    return f"process {rank} of the measurement {end}{last}; nothing was written"


def _end(workers: list[subprocess.Popen[bytes]]) -> None:
    """Kill what still runs, and wait for all."""
    for worker in workers:
        if worker.poll() is None:
            worker.kill()
    for worker in workers:
        worker.wait()
        for stream in (worker.stdin, worker.stdout):
            _pipe(stream).close()


def obey() -> None:
    """Do what the other end of stdin orders; exit when it closes."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not be taken for an answer
    order = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    module, _, name = order["function"].partition(":")

    def send(**message: Any) -> None:
        answers.write(json.dumps(message).encode() + b"\n")
        answers.flush()

    function = getattr(import_module(module), name)
    result = function(order["rank"], order["ranks"], lambda said: send(said=said), **order["arguments"])
    send(result=result)
    answers.close()
    sys.stderr.flush()
    os._exit(0)  # no clean-up of libraries, which may wait for peers


def _exit_with_parent() -> None:
    while os.read(0, 1 << 12):
        pass
    os._exit(1)
