# SPDX-License-Identifier: Apache-2.0
"""A source driven by itself (tests/drivers/source_driver.c), for the tests of sources."""
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from serving import BIN, MARK, PATIENCE  # noqa: E402

DRIVER = BIN.parent / "drivers" / "source_driver"


class Source:
    """source_driver under way: lines, phases and the end as they come; its log in `log`."""

    def __init__(self, kind, target, *, scale=1, environment=(), **settings):
        words = [f"{name}={str(value).lower() if isinstance(value, bool) else value}"
                 for name, value in settings.items() if value is not None]
        self.process = subprocess.Popen(
            [str(DRIVER), kind, target, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env={**os.environ, "VIGIL_TEST_TIME_SCALE": str(scale),
                            **dict(environment)})
        self.lines, self.phases, self.end, self.log = [], [], None, []
        self.changed = threading.Condition()
        self.threads = [threading.Thread(target=self._read, daemon=True),
                        threading.Thread(target=self._read_log, daemon=True)]
        for thread in self.threads:
            thread.start()

    def _read(self):
        for text in self.process.stdout:
            what = json.loads(text)
            with self.changed:
                if "line" in what:
                    self.lines.append(what)
                elif "phase" in what:
                    self.phases.append(what)
                else:
                    self.end = what
                self.changed.notify_all()

    def _read_log(self):
        for text in self.process.stderr:
            with self.changed:
                self.log.append(text.rstrip("\n"))
                self.changed.notify_all()

    def wait(self, is_there, what="", seconds=PATIENCE):
        """Until is_there() is true: what it gave."""
        until = time.monotonic() + seconds
        with self.changed:
            while True:
                found = is_there()
                if found:
                    return found
                assert time.monotonic() < until, (what, self.phases[-3:], self.end, self.log[-5:],
                                                  len(self.lines))
                assert self.process.poll() is None or self.threads[0].is_alive() or is_there(), \
                    (what, self.end, self.log[-5:])
                self.changed.wait(0.05)

    def wait_lines(self, n):
        self.wait(lambda: len(self.lines) >= n, f"{n} lines")
        return self.lines

    def phase_names(self):
        return [phase["phase"] for phase in self.phases]

    def waits(self):
        """The waits that were logged, in seconds as the table has them."""
        found = [re.search(r'event=\w+_wait .*seconds=([0-9.e+-]+)', line) or
                 re.search(r'_wait.*seconds=([0-9.e+-]+)', line) for line in self.log]
        return [float(match.group(1)) for match in found if match]

    def posts(self, action="put"):
        return [line["post"] for line in self.lines
                if line.get("post", {}).get("action") == action]

    def stop(self, code=0):
        """SIGTERM; checks that nothing private was said."""
        self.process.send_signal(signal.SIGTERM)
        return self.finish(code)

    def finish(self, code):
        assert self.process.wait(PATIENCE) == code, (self.end, self.log[-5:])
        for thread in self.threads:
            thread.join(PATIENCE)
        said = "\n".join(self.log) + json.dumps(self.end)
        assert MARK not in said, said
        assert "Sanitizer" not in said and "runtime error" not in said, said
        return self.end

    def kill(self):
        self.process.kill()
        self.process.wait()


def secret(folder, name, text):
    path = pathlib.Path(folder) / name
    path.write_text(text + "\n")
    path.chmod(0o600)
    return path


def until(is_there, what, seconds=PATIENCE):
    """Polls until is_there() is true."""
    end = time.monotonic() + seconds
    while not is_there():
        assert time.monotonic() < end, what
        time.sleep(0.01)
