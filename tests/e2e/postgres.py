# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL server for a test: Debian's, in a folder of its own, gone afterwards.

    with postgres.Server() as server:
        server.url      # postgres://vigil:…@127.0.0.1:PORT/vigil

Alone, it starts one, says its URL, and stops it when its standard input ends:

    /usr/bin/python3 tests/e2e/postgres.py
"""
import os
import pathlib
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time

BIN = pathlib.Path("/usr/lib/postgresql/15/bin")
SECONDS = 60  # a bound on hangs

CONFIG = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{folder}'
fsync = {fsync}
max_connections = 40
shared_buffers = 32MB
password_encryption = scram-sha-256
log_min_messages = warning
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """Needs postgresql-15; as root it runs as the user postgres, or nobody."""

    def __init__(self, fsync=False):
        if not (BIN / "initdb").exists():
            raise RuntimeError(f"{BIN} has no PostgreSQL: install postgresql-15")
        self.fsync = fsync
        self.password = secrets.token_hex(8)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="vigil-pg-", dir="/tmp"))
        self.process = None
        self.as_user, self.cwd = [], self.folder
        if os.geteuid() == 0:
            user = next(u for u in pwd.getpwall() if u.pw_name == "postgres") \
                if any(u.pw_name == "postgres" for u in pwd.getpwall()) else pwd.getpwnam("nobody")
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self.as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]

    def run(self, *command, **more):
        done = subprocess.run([*self.as_user, *map(str, command)], cwd=self.cwd, capture_output=True, text=True,
                              timeout=SECONDS, env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}, **more)
        if done.returncode:
            raise RuntimeError(f"{command[0]}: {done.stdout}{done.stderr}")
        return done.stdout

    def __enter__(self):
        try:
            secret = self.folder / "password"
            secret.write_text(self.password + "\n")
            secret.chmod(0o644)
            self.run(BIN / "initdb", "-D", self.folder / "data", "-U", "vigil", "-A", "scram-sha-256",
                     f"--pwfile={secret}", "-E", "UTF8", "--locale=C.UTF-8", *([] if self.fsync else ["--no-sync"]))
            self.start()
            self.sql("CREATE DATABASE vigil", database="postgres")
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self):
        """Also after a stop: the same data, on the same port."""
        for _ in range(5):  # another may take the port before the server does
            self.port = getattr(self, "port", 0) or free_port()
            config = CONFIG.format(port=self.port, folder=self.folder, fsync="on" if self.fsync else "off")
            (self.folder / "vigil.conf").write_text(config)
            log = open(self.folder / "log", "ab")
            self.process = subprocess.Popen(
                [*self.as_user, str(BIN / "postgres"), "-D", str(self.folder / "data"),
                 "-c", f"config_file={self.folder / 'vigil.conf'}",
                 "-c", f"hba_file={self.folder / 'data' / 'pg_hba.conf'}",
                 "-c", f"ident_file={self.folder / 'data' / 'pg_ident.conf'}"],
                cwd=self.cwd, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
            log.close()
            end = time.monotonic() + SECONDS
            while time.monotonic() < end and self.process.poll() is None:
                try:
                    self.sql("SELECT 1", database="postgres")
                    return
                except RuntimeError:
                    time.sleep(0.05)
            self.stop()
            self.port = 0
        raise RuntimeError("PostgreSQL does not start: " + (self.folder / "log").read_text("utf-8", "replace"))

    def stop(self, how="SIGQUIT"):
        """SIGQUIT: at once, as in a crash. SIGINT: connections are cut, then cleanly."""
        if self.process and self.process.poll() is None:
            import signal
            self.process.send_signal(getattr(signal, how))
            try:
                self.process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def url(self):
        return self.url_of("vigil")

    def url_of(self, database):
        return f"postgres://vigil:{self.password}@127.0.0.1:{self.port}/{database}"

    def sql(self, text, database="vigil"):
        """The rows, as lines; columns between |."""
        return self.run(BIN / "psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", text,
                        self.url_of(database)).splitlines()


if __name__ == "__main__":
    with Server() as running:
        print(running.url, flush=True)
        sys.stdin.read()
