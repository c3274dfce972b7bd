# SPDX-License-Identifier: Apache-2.0
"""Answers as `vigil serve` does, quickly, and from the text alone: so a result that was given
to the wrong post shows. For most of the kills; the real server takes part in the others.

As a program: classifier.py --port N. In a test, Classifier() counts what it is asked and can
be made slow, unwell or rude.
"""
import argparse
import collections
import hashlib
import http.server
import json
import re
import socket
import struct
import threading
import time

TOKEN = re.compile(r"tok(\d+)e(\d+)x")  # of posts.py, which a program of its own has not

SHA256 = hashlib.sha256(b"the fake model").hexdigest()
MODEL = {"name": "fake", "sha256": SHA256, "dtype": "fp32"}
LABELS = ["Not_AE", "Adverse_Event"]


def probability(text):
    """What the model thinks of these words."""
    return round(int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2 ** 32, 6)


def result(item):
    p = probability(item["text"])
    return {"id": item["id"], "label": LABELS[p >= 0.5], "score": max(p, 1 - p),
            "probs": {"Adverse_Event": p, "Not_AE": round(1 - p, 6)}, "tokens": 7, "windows": 1,
            "truncated": False}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536
    disable_nagle_algorithm = True

    def answer(self, code, what, **headers):
        body = json.dumps(what).encode()
        self.send_response_only(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def hang_up(self):
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        # With the linger above this is a RST, whatever else refers to the socket.
        self.connection.shutdown(socket.SHUT_RDWR)

    def do_GET(self):
        owner = self.server.owner
        if owner.is_down:
            owner.n_probes += 1
            return self.refuse()
        self.answer(200, {"service": "vigil", "ready": True, "model": {
            **MODEL, "labels": LABELS, "tag_labels": []}, "limits": {
                "body_bytes": 6 << 20, "inputs": 512, "text_bytes": 65536}})

    def refuse(self):
        if self.server.owner.how == "reset":
            return self.hang_up()
        return self.answer(503, {"error": "not now", "error_type": "unavailable"})

    def do_POST(self):
        owner = self.server.owner
        inputs = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["inputs"]
        is_down = owner.is_down
        owner.count(inputs, is_down)
        if is_down:
            return self.refuse()
        if owner.seconds:
            time.sleep(owner.seconds)
        self.answer(200, {"model": MODEL, "results": [result(item) for item in inputs]})

    def log_message(self, *_):
        pass


class Http(http.server.ThreadingHTTPServer):
    request_queue_size = 512
    daemon_threads = True

    def handle_error(self, *_):
        pass  # a client that was killed


class Classifier:
    def __init__(self, port=0, seconds=0.0, counts=True):
        self.seconds, self.counts = seconds, counts
        self.is_down, self.how = False, "503"
        self.asked = collections.Counter()  # text: how often
        self.requests = []                  # (time, texts asked before, while down, n texts)
        self.n_probes = 0
        self.lock = threading.Lock()
        self.http = Http(("127.0.0.1", port), Handler)
        self.http.owner = self
        self.port = self.http.server_address[1]
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.05},
                                       daemon=True)
        self.thread.start()

    def count(self, inputs, is_down):
        if not self.counts:
            return
        texts = [item["text"] for item in inputs]
        if not any(TOKEN.search(each) for each in texts):  # a worker asks how the server is
            self.n_probes += 1
            return
        with self.lock:
            again = sum(self.asked[each] > 0 for each in texts)
            self.asked.update(texts)
            self.requests.append((time.monotonic(), again, is_down, len(inputs)))

    def close(self):
        self.http.shutdown()
        self.http.server_close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--port", type=int, required=True)
    Classifier(parser.parse_args().port, counts=False).thread.join()


if __name__ == "__main__":
    main()
