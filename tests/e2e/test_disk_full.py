# SPDX-License-Identifier: Apache-2.0
"""vigil stream on a real disk that is full: a tmpfs in a mount namespace, with a file on it that
leaves little room. It reads no further, says so, goes on when that file is gone, and then
everything is there once.

VIGIL_STREAM_FILLS: how often, 2 unless it says so. VIGIL_FAULT_SEED."""
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import threading
import time

import pytest

from test_stream import BIN, HANG_SECONDS, get, jsonl, port_of, post, wait_for

FILLS = int(os.environ.get("VIGIL_STREAM_FILLS", "2"))
SEED = int(os.environ.get("VIGIL_FAULT_SEED", "20261126"))
DISK_BYTES = 192 << 20
POSTS = 12000
LONG = " and more" * 300  # so that not all of them find room in the program


class Disk:
    """A tmpfs that is seen by the processes that enter its namespace."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        root = os.geteuid() == 0
        mount = f'mount -t tmpfs -o size={DISK_BYTES} tmpfs "$0" && echo ready && exec cat'
        self.holder = subprocess.Popen(
            ["unshare", "-m", *([] if root else ["-r"]), "sh", "-c", mount, str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.is_there = self.holder.stdout.readline() == "ready\n"
        self.enter = ["nsenter", "-t", str(self.holder.pid), "-m",
                      *([] if root else ["-U", "--preserve-credentials"])]
        self.inside = pathlib.Path(f"/proc/{self.holder.pid}/root{folder}")

    def leave(self, n_bytes):
        room = os.statvfs(self.inside)
        with open(self.inside / "ballast", "wb") as ballast:
            ballast.write(bytes(room.f_bavail * room.f_bsize - n_bytes))

    def rows(self, sql):
        """The first column, as text; by a process that sees the disk."""
        look = "import sqlite3, sys\nfor row in sqlite3.connect(sys.argv[1]).execute(sys.argv[2]): print(row[0])"
        return subprocess.run([*self.enter, sys.executable, "-c", look, self.folder / "vigil.db", sql],
                              check=True, capture_output=True, text=True,
                              timeout=HANG_SECONDS).stdout.split()

    def close(self):
        self.holder.stdin.close()
        self.holder.wait(HANG_SECONDS)


@pytest.fixture
def disk(tmp_path):
    disk = Disk(tmp_path / "disk")
    yield disk
    disk.close()


class Running:
    """vigil-stream on the disk, which reads posts from a pipe as fast as it takes them."""

    def __init__(self, disk, posts):
        command = [str(BIN / "vigil-stream"), "--no-fold", "--json", "--metrics", "127.0.0.1:0", "-"]
        self.process = subprocess.Popen(
            [*disk.enter, "sh", "-c", 'cd "$0" && exec "$@"', str(disk.folder), *command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.sent = 0
        self.writer = threading.Thread(target=self.write, args=(posts,))

    def write(self, posts):
        for one in posts:
            self.process.stdin.write(one)
            self.process.stdin.flush()
            self.sent += 1
        self.process.stdin.close()


@pytest.mark.parametrize("number", range(FILLS))
def test_stream(disk, number):
    if not disk.is_there:
        pytest.skip("no file system can be mounted here")
    chance = random.Random(SEED * 1000 + number)
    text = "zoloft gave me a rash" + LONG
    running = Running(disk, [jsonl([post(n, text)]) for n in range(POSTS)])
    url = port_of(running)
    disk.leave(chance.randrange(100 << 10, 2 << 20))
    running.writer.start()
    wait_for(lambda: get(url + "/health")[0] == 503, "the disk was never full")
    status, page = get(url + "/metrics")
    assert status == 200 and "vigil_stream_store_up 0" in page
    time.sleep(1)
    sent = running.sent
    time.sleep(1)
    assert running.sent == sent < POSTS, "it reads on, although it can keep nothing"
    kept = set(disk.rows("SELECT key FROM posts"))
    os.unlink(disk.inside / "ballast")
    running.writer.join(HANG_SECONDS)
    running.process.stdin = None
    out, err = running.process.communicate(timeout=HANG_SECONDS)
    assert running.process.returncode == 0, err
    assert "no space left" in err
    assert re.findall(r"state=(down|up)", err) == ["down", "up"]
    assert json.loads(out)["lines"] == POSTS
    assert disk.rows("PRAGMA integrity_check") == ["ok"]
    keys = disk.rows("SELECT key FROM posts")
    assert len(keys) == len(set(keys)) == POSTS and kept <= set(keys)
    assert disk.rows("SELECT count(*) FROM raw") == ["0"]
    assert disk.rows("SELECT count(DISTINCT post_id) FROM queue") == [str(POSTS)]
    assert disk.rows("SELECT count(*) FROM queue") == [str(POSTS)]
