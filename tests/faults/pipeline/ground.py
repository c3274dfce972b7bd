# SPDX-License-Identifier: Apache-2.0
"""What a scenario stands on: a scratch folder, the programs that it starts and kills, and what
it hands back.

    with Ground("kills-file", seed) as ground:
        stream = ground.program("stream", "--follow", "a.jsonl")
        ground.kill(stream); stream.start()

Nothing outlives the block. A program that ends by itself is a fault of its own (`wrong`),
unless it may.
"""
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
for _folder in (ROOT / "tests", ROOT / "tests" / "e2e"):
    sys.path.insert(0, str(_folder))

BIN = pathlib.Path(os.environ.get("VIGIL_BIN", ROOT / "build/bin"))
HANG_SECONDS = 120  # a bound on hangs, not a measurement
MAX_NOTES = 20


class Outcome:
    """A row of the report."""

    def __init__(self, name, seed):
        self.name, self.seed = name, seed
        self.faults = self.posts = self.lost = self.doubled = self.wrong = 0
        self.notes, self.figures = [], {}
        self.seconds = 0.0

    def note(self, text):
        if len(self.notes) < MAX_NOTES:
            self.notes.append(text)

    def is_wrong(self, text):
        self.wrong += 1
        self.note(text)

    def check(self, is_so, text):
        """What has to hold beside the counts of posts."""
        if not is_so:
            self.is_wrong(text)

    @property
    def is_good(self):
        return self.lost == self.doubled == self.wrong == 0

    def as_dict(self):
        return {"scenario": self.name, "seed": self.seed, "faults": self.faults,
                "posts": self.posts, "lost": self.lost, "doubled": self.doubled,
                "wrong": self.wrong, "seconds": round(self.seconds, 1),
                "figures": self.figures, "notes": self.notes}


class Program:
    def __init__(self, ground, name, command, environment):
        self.ground, self.name, self.command = ground, name, [str(word) for word in command]
        self.environment = environment
        self.process = None
        self.log_path = ground.folder / f"{name}.log"
        self.n_kills = 0
        self.start()

    def start(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.command, cwd=self.ground.folder, stdout=log,
                                            stderr=log, stdin=subprocess.DEVNULL,
                                            env=self.environment)
        return self

    def has_ended(self):
        """By itself; said once."""
        if self.process is None or self.process.poll() is None:
            return False
        self.ground.outcome.is_wrong(f"{self.name} ended by itself, code "
                                     f"{self.process.returncode}: {self.tail()}")
        self.process = None
        return True

    def tail(self):
        lines = self.log().splitlines()[-3:]
        return " | ".join(line[-300:] for line in lines)

    def log(self):
        return self.log_path.read_text("utf-8", "replace")

    def kill(self):
        """kill -9; true when it ran."""
        if self.process is None or self.has_ended():
            return False
        self.process.kill()
        self.process.wait()
        self.process = None
        self.n_kills += 1
        return True

    def finish(self, code=0):
        """Until it has ended by itself, as it should."""
        try:
            got = self.process.wait(HANG_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            got = f"none in {HANG_SECONDS} s"
        self.process = None
        self.ground.outcome.check(got == code, f"{self.name}: exit code {got}: {self.tail()}")

    def stop(self, code=0):
        """SIGTERM, as an operator does it: the exit code is checked."""
        if self.process is None or self.has_ended():
            return
        self.process.send_signal(signal.SIGTERM)
        self.finish(code)


class Ground:
    """A scratch folder and all that runs in it. On tmpfs where there is one: a kill takes no
    page from the kernel, so that costs nothing of what is tested here (the loss of power is
    tested elsewhere), and keeps the disk of a shared machine out of it."""

    def __init__(self, outcome):
        self.outcome = outcome
        self.chance = random.Random(outcome.seed)
        memory = pathlib.Path("/dev/shm")
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="vigil-faults-",
                                                    dir=memory if memory.is_dir() else None))
        self.programs, self.closers = [], []
        (self.folder / "watch").write_text("sertraline: zoloft\n")

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        for program in self.programs:
            if program.process and program.process.poll() is None:
                program.process.kill()
                program.process.wait()
        for close in reversed(self.closers):
            close()
        keep = os.environ.get("VIGIL_FAULTS_KEEP")
        if keep and (kind or not self.outcome.is_good):
            shutil.copytree(self.folder, pathlib.Path(keep) / self.folder.name, dirs_exist_ok=True,
                            ignore_dangling_symlinks=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def store(self):
        return self.folder / "vigil.db"

    def until_closed(self, close):
        self.closers.append(close)

    def program(self, name, *arguments, command=None, environment=(), label=None):
        """vigil-NAME with these arguments, or another command."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("VIGIL_")}
        env.update({"TERM": "dumb", **dict(environment)})
        words = command or [BIN / f"vigil-{name}"]
        started = Program(self, label or name, [*words, *arguments], env)
        self.programs.append(started)
        return started

    def stream(self, *arguments, scale=0.01, store=None, label=None, environment=(), **more):
        """vigil stream, every wait for a network made shorter."""
        return self.program("stream", "--store", store or self.store, "--watch-list", "watch",
                            "--key-file", self.folder / "key", "--allow-plain", "--quiet",
                            "--no-fold", "--log-level", "warning", *arguments, label=label,
                            environment={"VIGIL_TEST_TIME_SCALE": str(scale), **dict(environment)},
                            **more)

    def worker(self, number, server_port, *arguments, store=None, **more):
        return self.program("enrich", "--store", store or self.store, "--server",
                            f"http://127.0.0.1:{server_port}", "--quiet", "--log-level", "warning",
                            *arguments, label=f"enrich-{number}", **more)

    def kill(self, program):
        """kill -9, and at once anew."""
        if program.kill():
            self.outcome.faults += 1
        program.start()

    def look_after(self):
        """Whoever ended by itself is started anew, as an init system would."""
        for program in self.programs:
            if program.has_ended():
                program.start()


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def until(is_there, seconds=HANG_SECONDS, pause=0.02):
    """Polls; what it gave, or None when the time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = is_there()
        if found:
            return found
        time.sleep(pause)
    return None


def wait_for_port(port, seconds=HANG_SECONDS):
    def answers():
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            return False
    return until(answers, seconds)
