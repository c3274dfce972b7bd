# SPDX-License-Identifier: Apache-2.0
"""Real nats-server nodes with JetStream, one or three, to be killed, stopped and started again.

    with Cluster(tmp_path, nodes=3) as cluster:
        cluster.url("VIGIL")      # nats://127.0.0.1:p1,127.0.0.1:p2,127.0.0.1:p3/VIGIL
        cluster.nodes[0].kill()   # SIGKILL; start() brings it back with its disk
        cluster.wait_healthy()

Ports are free ones, files lie in the folder that is given, and nothing outlives the block.
"""
import json
import pathlib
import shutil
import signal
import socket
import subprocess
import time
import urllib.request

SERVER = shutil.which("nats-server") or "/usr/sbin/nats-server"
HEALTHY_SECONDS = 120  # a bound on hangs
ILL_SECONDS = 15


def free_ports(n):
    """Ports that are free now; all are held until the last is found, so that they differ."""
    sockets = [socket.socket() for _ in range(n)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Node:
    def __init__(self, folder, name, ports, routes, extra):
        self.name, self.folder = name, pathlib.Path(folder) / name
        self.port, self.monitor, self.route = ports
        self.store = self.folder / "store"
        self.process = None
        self.folder.mkdir(parents=True)
        lines = [f"server_name: {name}", f'listen: "127.0.0.1:{self.port}"',
                 f'http: "127.0.0.1:{self.monitor}"',
                 f'jetstream {{ store_dir: "{self.store}" }}', extra]
        if routes:
            lines += [f'cluster {{ name: vigil-test, listen: "127.0.0.1:{self.route}",',
                      "  routes: [" + ", ".join(f'"nats://127.0.0.1:{r}"' for r in routes) + "] }"]
        self.config = self.folder / "nats.conf"
        self.config.write_text("\n".join(lines) + "\n", "utf-8")

    def start(self):
        assert self.process is None
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen([SERVER, "-c", str(self.config)], stdout=log,
                                            stderr=log, stdin=subprocess.DEVNULL)

    def end(self, how):
        if self.process:
            self.process.send_signal(how)
            self.process.send_signal(signal.SIGCONT)
            self.process.wait(30)
            self.process = None

    def kill(self):
        self.end(signal.SIGKILL)

    def stop(self):
        """As an operator does it: the node closes its files."""
        self.end(signal.SIGTERM)

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def is_running(self):
        return self.process is not None

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.monitor}{path}", timeout=2) as answer:
            return json.load(answer)

    def is_healthy(self):
        """Whether it takes part: its streams and the cluster's own group are up to date."""
        try:
            return self.get("/healthz").get("status") == "ok"
        except (OSError, ValueError):
            return False

    def log(self):
        return (self.folder / "log").read_text("utf-8", "replace")


class Cluster:
    def __init__(self, folder, nodes=1, extra=""):
        ports = free_ports(3 * nodes)
        routes = ports[2 * nodes:] if nodes > 1 else []
        self.nodes = [Node(folder, f"n{i}", (ports[i], ports[nodes + i], ports[2 * nodes + i]),
                           routes, extra) for i in range(nodes)]

    def __enter__(self):
        for node in self.nodes:
            node.start()
        try:
            self.wait_healthy()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for node in self.nodes:
            node.kill()

    def url(self, stream="VIGIL", options="", secret=""):
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"nats://{secret}{hosts}/{stream}" + (f"?{options}" if options else "")

    def wait_healthy(self, seconds=HEALTHY_SECONDS):
        """Until every node that runs says that it is well. nats-server 2.9 now and then never
        does after a kill: such a node is started anew, as whoever looks after it would."""
        until = time.monotonic() + seconds
        again = time.monotonic() + ILL_SECONDS
        while True:
            ill = [node for node in self.nodes if node.is_running() and not node.is_healthy()]
            ended = [node for node in self.nodes
                     if node.is_running() and node.process.poll() is not None]
            assert not ended, f"{ended[0].name} ended by itself:\n{ended[0].log()[-3000:]}"
            if not ill:
                return
            if time.monotonic() >= again:
                for node in ill:
                    node.kill()
                    node.start()
                again = time.monotonic() + ILL_SECONDS
            assert time.monotonic() < until, \
                f"not healthy within {seconds} s: {[node.name for node in ill]}\n" \
                + ill[0].log()[-3000:]
            time.sleep(0.05)

    def bytes_found(self, needle):
        """The files of all nodes that hold these bytes."""
        found = []
        for node in self.nodes:
            for path in sorted(node.store.rglob("*")):
                if path.is_file() and needle in path.read_bytes():
                    found.append(str(path.relative_to(node.folder.parent)))
        return found
