"""Command lines in separate processes that can be stopped and killed; a server forks them, which saves the imports.

One server process imports everything once; each command is a fork of it, so that it is a real process with the
real entry point, and begins at once.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

_SERVER = """
import json, os, sys
import torch
torch.set_num_threads(1)
import dagaug.augment.run, dagaug.cli.app, dagaug.exchange.export, dagaug.score.experiment, dagaug.training.train
import dagaug.translate.folder
from dagaug.__main__ import main

def run(job):
    os.setsid()
    for number, name in ((0, os.devnull), (1, job["out"]), (2, job["err"])):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644), number)
    sys.stdin, sys.stdout, sys.stderr = (open(n, m, closefd=False) for n, m in ((0, "r"), (1, "w"), (2, "w")))
    os.chdir(job["cwd"])
    os.environ["COLUMNS"] = "200"
    sys.argv = ["dagaug", *job["argv"]]
    code = 1
    try:
        exec(job["prelude"], {})
        open(job["err"] + ".begun", "x").close()
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

print("ready", flush=True)
for line in sys.stdin:
    what, job = json.loads(line)
    if what == "start":
        pid = os.fork()
        if not pid:
            run(job)
        print(pid, flush=True)
    else:
        print(os.waitpid(job, os.WUNTRACED)[1], flush=True)
"""


@dataclass
class Process:
    """A command that was started."""

    server: Server
    pid: int
    out: Path
    err: Path

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def begun(self) -> None:
        """Wait until the command has taken over from the server."""
        while not self.err.with_name(self.err.name + ".begun").exists():
            time.sleep(0.001)

    def wait(self) -> int:
        """Wait until it has ended, or stopped itself: its exit code, or the signal as a negative number."""
        status = int(self.server.ask("wait", self.pid))
        return -os.WSTOPSIG(status) if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status)

    def errors(self) -> list[str]:
        """The lines on stderr that are errors of dagaug's; a traceback fails."""
        text = self.err.read_text()
        assert "Traceback" not in text, text
        return [line.removeprefix("dagaug: ") for line in text.splitlines() if line.startswith("dagaug: ")]


class Server:
    """Starts commands; use it in a ``with`` block.

    Args:
        folder: receives what commands print.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._read() == "ready"

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.communicate(timeout=60)

    def _read(self) -> str:
        assert self._server.stdout is not None
        return self._server.stdout.readline().strip()

    def ask(self, what: str, job: object) -> str:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps([what, job]) + "\n")
        self._server.stdin.flush()
        return self._read()

    def start(self, *argv: object, cwd: Path, prelude: str = "") -> Process:
        """Start a command; ``prelude`` is executed before it, in its process."""
        self.count += 1
        out, err = self.folder / f"{self.count}.out", self.folder / f"{self.count}.err"
        job = {
            "argv": [str(word) for word in argv],
            "cwd": str(cwd),
            "out": str(out),
            "err": str(err),
            "prelude": prelude,
        }
        return Process(self, int(self.ask("start", job)), out, err)

    def run(self, *argv: object, cwd: Path, prelude: str = "") -> tuple[int, list[str]]:
        """Run a command to its end: exit code and error messages."""
        process = self.start(*argv, cwd=cwd, prelude=prelude)
        return process.wait(), process.errors()
