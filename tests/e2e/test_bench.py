# SPDX-License-Identifier: Apache-2.0
"""vigil bench: the load generator against a stand-in that misbehaves on demand and against
the real server, the engine's figures, and what it says when something is wrong."""
import http.server
import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import threading
import time
import xml.etree.ElementTree as xml

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("VIGIL_BIN", ROOT / "build/bin"))
TEXTS = ["it made me sick", 'a "quoted" \\ one', "naïve 😀", "<tag> & more", "fifth"]
QUANTILES = ["min", "p50", "p90", "p99", "p99.9", "max"]


def bench(*arguments, code=0, timeout=120, **env):
    done = subprocess.run([BIN / "vigil", "bench", *map(str, arguments)], capture_output=True,
                          text=True, timeout=timeout, cwd=ROOT, env={**os.environ, **env})
    assert done.returncode == code, done.stderr + done.stdout
    return done


def figures(*arguments, **env):
    return json.loads(bench(*arguments, "--json", **env).stdout)


class StandIn(http.server.ThreadingHTTPServer):
    """Answers every POST with answer(n), n counting from 0: (code, body) or None to hang up."""
    daemon_threads = True
    request_queue_size = 512

    def __init__(self, answer=lambda n: (200, b"{}"), seconds=0.0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer, self.seconds = answer, seconds
        self.timing = ""
        self.seen, self.lock = [], threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05},
                         daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        pass  # clients leave when the time is up

    def bodies(self):
        return [json.loads(body) for _, _, body in self.seen]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            n = len(self.server.seen)
            self.server.seen.append((self.path, dict(self.headers), body))
            time.sleep(self.server.seconds)  # one at a time
        answer = self.server.answer(n)
        if answer is None:
            self.close_connection = True
            return
        self.send_response(answer[0])
        self.send_header("Content-Length", str(len(answer[1])))
        if self.server.timing:
            self.send_header("Server-Timing", self.server.timing)
        self.end_headers()
        self.wfile.write(answer[1])

    def log_message(self, *_):
        pass


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


SHORT = ["--duration", "300ms", "--warmup", "50ms", "--concurrency", "4"]


def check_latencies(latencies):
    assert [latencies[q] for q in QUANTILES] == sorted(latencies[q] for q in QUANTILES)
    assert latencies["min"] > 0


# ---- the load ---------------------------------------------------------------------------


def test_closed_loop(texts):
    with StandIn() as server:
        found = figures("--url", server.url, *SHORT, texts)
    result = found["result"]
    assert found["loop"] == "closed" and found["connections"] == 4
    assert result["codes"] == {"200": result["due"]} and result["due"] > 10
    assert result["no_answer"] == {} and result["unsent"] == 0
    assert result["latency_ms"]["answered"]["n"] == result["due"]
    assert result["latency_ms"]["refused"]["n"] == 0
    assert result["requests_per_s"] == result["texts_per_s"] > 0
    check_latencies(result["latency_ms"]["answered"])
    check_latencies(result["latency_ms"]["answered_corrected"])
    assert result["latency_ms"]["answered_corrected"]["n"] >= result["due"]
    # Every text in turn, as it is.
    sent = [body["inputs"] for body in server.bodies()]
    assert set(sent) == set(TEXTS)


@pytest.mark.parametrize("route, path, body", [
    ("native", "/v1/classify", lambda texts: {"inputs": texts}),
    ("sagemaker", "/invocations", lambda texts: texts),
    ("tei", "/predict", lambda texts: {"inputs": [[t] for t in texts]}),
    ("huggingface", "/", lambda texts: {"inputs": texts}),
])
def test_requests_of_a_route(texts, route, path, body):
    with StandIn() as server:
        figures("--url", server.url, "--route", route, "--batch", "2", *SHORT, texts)
    assert {seen for seen, _, _ in server.seen} == {path}
    # Five texts in twos: the last request begins again.
    pairs = [TEXTS[0:2], TEXTS[2:4], [TEXTS[4], TEXTS[0]]]
    assert all(found in [body(pair) for pair in pairs] for found in server.bodies())
    with StandIn() as server:
        figures("--url", server.url, "--route", route, *SHORT, texts)
    single = [t if route == "sagemaker" else {"inputs": t} for t in TEXTS]
    assert all(found in single for found in server.bodies())


def test_what_is_asked_for_is_sent(texts):
    with StandIn() as server:
        figures("--url", server.url + "/endpoints/x/invocations", *SHORT, "--entities", texts,
                VIGIL_API_KEY="a-key")
    for path, headers, body in server.seen:
        assert path == "/endpoints/x/invocations"
        assert headers["Authorization"] == "Bearer a-key"
        assert headers["Content-Type"] == "application/json"
        assert headers["Host"] == server.url.removeprefix("http://")
        assert json.loads(body)["entities"] is True


def test_the_engines_part(texts):
    with StandIn(seconds=0.005) as server:
        server.timing = "parse;dur=0.1, queue;dur=1, compute;dur=2.5"
        latency = figures("--url", server.url, *SHORT, texts)["result"]["latency_ms"]
    assert latency["engine"]["n"] == latency["around_engine"]["n"] == latency["answered"]["n"]
    assert latency["engine"]["min"] == latency["engine"]["max"] == 2.5
    assert latency["around_engine"]["max"] == pytest.approx(latency["answered"]["max"] - 2.5)
    assert latency["around_engine"]["min"] >= 2.5


def test_refusals_stand_apart(texts):
    codes = [200, 429, 503, 500]
    with StandIn(lambda n: (codes[n % 4] if n else 200, b'{"error":"no"}')) as server:
        result = figures("--url", server.url, *SHORT, texts)["result"]
    assert set(result["codes"]) == {"200", "429", "503", "500"}
    latency = result["latency_ms"]
    assert latency["answered"]["n"] == result["codes"]["200"]
    assert latency["refused"]["n"] == result["codes"]["429"] + result["codes"]["503"]
    assert latency["other"]["n"] == result["codes"]["500"]
    # Only answers count as throughput. Those in flight at either end may fall out.
    assert abs(result["requests_per_s"] * result["seconds"] - result["codes"]["200"]) <= 8


def test_no_answer_is_counted(texts):
    with StandIn(lambda n: None if n % 2 else (200, b"{}")) as server:
        result = figures("--url", server.url, *SHORT, texts)["result"]
    assert set(result["no_answer"]) == {"closed early"}
    assert result["no_answer"]["closed early"] + result["codes"]["200"] == result["due"]
    with StandIn(lambda n: time.sleep(3 if n else 0) or (200, b"{}")) as server:
        result = figures("--url", server.url, *SHORT, "--timeout", "100ms", texts)["result"]
    assert set(result["no_answer"]) == {"timed out"}


def test_open_loop_counts_from_when_a_request_was_due(texts):
    """20 ms a request, one connection, 200 a second: three of four wait for the others, and
    the wait is theirs. A closed loop sees 20 ms."""
    with StandIn(seconds=0.02) as server:
        one = ["--url", server.url, "--concurrency", "1", "--warmup", "0s", "--duration", "1s"]
        closed = figures(*one, texts)["result"]
        opened = figures(*one, "--rate", "200", "--arrivals", "even", texts)
    assert opened["loop"] == "open" and opened["result"]["rate"] == 200
    opened = opened["result"]
    assert opened["due"] == 200 and opened["unsent"] > 100
    assert opened["codes"]["200"] + opened["unsent"] == opened["due"]
    assert opened["latency_ms"]["answered"]["p50"] > 5 * closed["latency_ms"]["answered"]["min"]


def test_open_loop_keeps_its_rate(texts):
    with StandIn() as server:
        result = figures("--url", server.url, "--rate", "100", "--warmup", "0s", "--duration",
                         "1s", "--arrivals", "even", texts)["result"]
        random = figures("--url", server.url, "--rate", "300", "--warmup", "0s", "--duration",
                         "1s", texts)["result"]
    assert result["due"] == 100 and result["codes"] == {"200": 100}
    assert 200 < random["due"] < 400 and random["due"] != 300


def test_table(texts):
    with StandIn() as server:
        out = bench("--url", server.url, *SHORT, texts).stdout
    assert "closed loop: 4 connections; 1 text a request; 0.3 s" in out
    assert re.search(r"answered +[\d.]+ requests/s, [\d.]+ texts/s", out)
    assert re.search(r"codes +200: \d+\n", out)
    assert "p99.9" in out and "if none had waited" in out


def test_sweep(texts, tmp_path):
    picture = tmp_path / "sweep.svg"
    with StandIn(seconds=0.002) as server:
        found = figures("--url", server.url, "--sweep", "--svg", picture, "--duration", "200ms",
                        "--warmup", "20ms", texts)
    rates = [point["rate"] for point in found["sweep"]]
    assert rates == sorted(rates) and rates
    tree = xml.parse(picture).getroot()
    svg = "{http://www.w3.org/2000/svg}"
    assert len(tree.findall(f"{svg}polyline")) == 3
    assert len(tree.findall(f"{svg}circle")) == 3 * sum(
        point["latency_ms"]["answered"]["n"] > 0 for point in found["sweep"])
    assert {"p50", "p90", "p99"} <= {text.text for text in tree.findall(f"{svg}text")}
    assert "prefers-color-scheme:dark" in tree.find(f"{svg}style").text


def test_an_interrupt_shows_what_was_measured(texts):
    with StandIn() as server:
        process = subprocess.Popen(
            [BIN / "vigil", "bench", "--url", server.url, "--json", "--warmup", "0s", "--duration",
             "60s", texts], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        while len(server.seen) < 200:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        result = json.loads(process.communicate(timeout=30)[0])["result"]
    assert process.returncode == 0
    assert result["codes"]["200"] >= 100 and 0 < result["seconds"] < 60


# ---- what is wrong ------------------------------------------------------------------------


def test_messages(texts, tmp_path):
    def says(expected, *arguments, code=1):
        done = bench(*arguments, code=code)
        assert done.stdout == ""
        assert expected in done.stderr and done.stderr.count("\n") <= 2, done.stderr

    empty, lines = tmp_path / "empty", tmp_path / "bad.jsonl"
    empty.write_text("\n\n")
    lines.write_text('{"text": "fine"}\n{"txt": "secret"}\n')
    says("cannot connect to 127.0.0.1 port 9: Connection refused", "--url", "http://127.0.0.1:9")
    says("expected a URL as http://", "--url", "localhost:8080")
    says("plain HTTP only", "--url", "https://localhost")
    says("there is no text in it", empty)
    says('bad.jsonl line 2: expected an object with a string "text"', lines)
    assert "secret" not in bench(lines, code=1).stderr
    says("cannot open /nowhere", "/nowhere")
    says("only the native route", "--entities", "--route", "tei")
    says("only with --sweep", "--svg", tmp_path / "x.svg")
    says("expected a list such as 0,2-3", "--cpus", "zero")
    says("--shapes: only with --engine", "--shapes", "1x32")
    says("--shapes: takes no file", "--engine", "--shapes", "1x32", texts)
    says('such as 8x128, or mixed; not "32"', "--engine", "--shapes", "1x8,32")
    says('not "0x8"', "--engine", "--shapes", "0x8")
    says('not ""', "--engine", "--shapes", "1x8,")
    says("sequences of 513 tokens, this model takes 512", "--engine", "--shapes", "1x513")
    says("at most 16 shapes", "--engine", "--shapes", ",".join(["1x1"] * 17))
    says("no device is called tpu", "--engine", "--device", "tpu", texts)
    says("unknown option", "--nonsense", code=2)
    says("batch", "--batch", "0", code=2)


def test_a_wrong_path_or_key_is_an_error_at_once(texts):
    for code, body, expected in [(404, b'{"error": "no such route"}', "404: no such route"),
                                 (401, b"not JSON", "answers 401\n"), (500, b"", "answers 500\n")]:
        with StandIn(lambda n: (code, body)) as server:
            done = bench("--url", server.url, *SHORT, texts, code=1)
        assert expected in done.stderr and len(server.seen) == 1


# ---- the engine ---------------------------------------------------------------------------


def test_engine(texts):
    found = figures("--engine", "--threads", "1", "--rounds", "1", texts)
    assert found["model"] == "ade" and found["threads"] == 1 and found["texts"] == len(TEXTS)
    assert set(found["figures"]) == {"1x32", "1x128", "packed", "single"}
    for figure in found["figures"].values():
        assert figure["ms"] >= figure["best_ms"] > 0
    out = bench("--engine", "--rounds", "1", "--limit", "3", texts).stdout
    assert "3 texts" in out and "1 x 128 tokens" in out
    ids = subprocess.run([BIN / "vigil", "tokenize", "--model", ROOT / "weights/ade"],
                         input="\n".join(TEXTS) + "\n", capture_output=True, text=True, timeout=60)
    if ids.returncode == 0:
        assert found["tokens"] == len(ids.stdout.split())


def test_made_up_texts_have_the_lengths_of_tweets():
    found = figures("--engine", "--rounds", "1")
    assert found["texts"] == 512
    assert 23 < found["tokens"] / found["texts"] < 26


def test_instruction_floor():
    done = subprocess.run([BIN / "vigil", "bench", "--probe", "--json"], capture_output=True,
                          text=True, timeout=120, cwd=ROOT)
    if done.returncode:
        assert "there is no instruction probe" in done.stderr
        pytest.skip("no instruction probe on this machine")
    found = json.loads(done.stdout)
    assert found["int8_gmac_s"] > 0 and found["fp32_gmac_s"] > 0
    engine = figures("--engine", "--probe", "--rounds", "1", "--limit", "64")
    assert all(figure["floor_share"] > 0 for figure in engine["figures"].values())


def test_shapes():
    found = figures("--engine", "--shapes", "1x16,3x8,mixed", "--rounds", "1", "--threads", "1")
    assert list(found["shapes"]) == ["1x16", "3x8", "mixed"]
    sizes = {name: (f["sequences"], f["tokens"]) for name, f in found["shapes"].items()}
    assert sizes == {"1x16": (1, 16), "3x8": (3, 24), "mixed": (256, 10240)}
    assert found["device"] == "cpu" and found["open_ms"] > 0
    for figure in found["shapes"].values():
        times = figure["ms"]
        assert 0 < times["best"] <= times["p10"] <= times["median"] <= times["p90"]
        assert figure["batches"] >= 1 and figure["sequences_per_s"] > 0
        # The CPU has no clock of its own, and no rate of a chip was given.
        assert not {"device_ms", "in_flight_device_ms", "floor_ms"} & set(figure)
    # 10,240 tokens are more than the CPU's batch: several batches are one pass.
    assert found["shapes"]["mixed"]["batches"] > 1
    assert found["shapes"]["mixed"]["ms"]["n"] >= 2 and found["shapes"]["1x16"]["ms"]["n"] > 5


def test_shapes_and_their_floor(tmp_path):
    """Against 2.4 of the arithmetic that floors are made of: DistilBERT-base, 32 x 128."""
    model = tmp_path / "base"
    subprocess.run([BIN / "vigil", "model", "random", "--dim", "768", "--heads", "12", "--vocab", "2000",
                    "--dtype", "f16", model], check=True, capture_output=True, timeout=120)
    found = figures("--engine", "--shapes", "1x32,32x128", "--rounds", "1", "--model", model,
                    "--peak-tflops", "0.5", "--peak-gbps", "20")
    large, one = found["shapes"]["32x128"], found["shapes"]["1x32"]
    assert large["gflop"] == pytest.approx(308, rel=0.01)
    assert large["weight_mb"] == one["weight_mb"] == pytest.approx(86.1, rel=0.01)
    assert large["traffic_mb"] == pytest.approx(4096 * 0.092, rel=0.01) and large["launches"] == 45
    for figure in (one, large):
        expected = max(figure["gflop"] / 0.5, figure["weight_mb"] / 20) + figure["traffic_mb"] / 20
        expected += 1.3e-3 * 45 * figure["batches"]
        assert figure["floor_ms"] == pytest.approx(expected, rel=1e-3)
        assert figure["floor_share"] == pytest.approx(expected / figure["ms"]["median"], rel=1e-3)
    out = bench("--engine", "--shapes", "1x32", "--rounds", "1", "--model", model, "--peak-tflops", "1",
                "--peak-gbps", "20").stdout
    assert re.search(r"^1x32 +\d+ +- ", out, re.M) and "floor: 1 TFLOP/s, 20 GB/s" in out


LIBRARY = ROOT / os.environ.get("VIGIL_BUILD", "build") / "cuda-emulated/libvigil_cuda.so"
TINY = ROOT / "tests/data/models/binary-f32"


@pytest.mark.skipif(not LIBRARY.exists(), reason=f"{LIBRARY} is not built: make e2e builds it")
def test_a_device_with_a_clock(texts):
    env = {"VIGIL_CUDA_LIBRARY": str(LIBRARY), "VIGIL_CUDA_DISABLE": "graphs,tuning,cache"}
    model = ["--device", "cuda:0", "--model", TINY, "--batch-tokens", "128", "--rounds", "1"]
    found = figures("--engine", *model, "--shapes", "1x8,2x16", **env)
    assert found["device"] == "cuda:0" and found["dtype"] == "fp16" and found["in_flight"] == 2
    for figure in found["shapes"].values():
        assert 0 < figure["device_ms"]["median"] <= figure["ms"]["median"]
        assert figure["in_flight_device_ms"]["n"] == figure["device_ms"]["n"] == figure["ms"]["n"]
    assert bench("--engine", *model, "--shapes", "1x8", "--isa", "wmma", **env).stdout.count("(wmma)") == 1
    whole = figures("--engine", *model, "--limit", "3", texts, **env)
    assert all(f["device_ms"] > 0 for f in whole["figures"].values())
    assert "device ms" in bench("--engine", *model, "--limit", "3", texts, **env).stdout
    answers = ask_turns("shape 1x8 3\nflight 1x8 3\nanswers 1x8\nquit\n", *model[:4], **env)
    assert len(answers[1]["device_ms"]) == len(answers[2]["device_ms"]) == 3
    assert "cuda:0" == answers[0]["device"] and len(answers[3]["logits"]) == 1


def ask_turns(lines, *arguments, ids=None, **env):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "ids"
        path.write_text(ids or "0 1 2\n")
        done = subprocess.run([BIN / "vigil", "bench", "--interactive", path, *map(str, arguments)], cwd=ROOT,
                              text=True, input=lines, capture_output=True, timeout=120, env={**os.environ, **env})
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_turns_over_shapes():
    """The ids of a shape are those that it computes, packed as one by one."""
    told = ask_turns("ids mixed\nids mixed\nids 3x5\nanswers 3x5\nshape 3x5 4\nflight 3x5 4\nshape 3x5\n"
                     "shape 3x5 0\nids 4\nids 1x600\nanswers\nids 1x9 \n", "--dtype", "fp32")
    mixed = told[1]["ids"]
    assert told[2] == told[1] and len(mixed) == 256 and sum(map(len, mixed)) == 10240
    assert min(map(len, mixed)) == 16 and max(map(len, mixed)) == 64
    assert len({len(ids) for ids in mixed}) == 49 and [len(i) for i in mixed] != sorted(len(i) for i in mixed)
    assert all(ids[0] == 101 and ids[-1] == 102 and 1000 <= min(ids[1:-1]) and max(ids) < 30522 for ids in mixed)
    assert [len(ids) for ids in told[3]["ids"]] == [5, 5, 5] and told[4]["logits"][0] != told[4]["logits"][1]
    assert len(told[5]["ms"]) == 4 and told[5]["device_ms"] == [] and told[6]["ms"] > 0
    assert all("expected" in told[i]["error"] for i in (7, 8))
    assert "a shape is" in told[9]["error"] and "this model takes 512" in told[10]["error"]
    assert "error" in told[11] and len(told[12]["ids"]) == 1
    lines = "".join(" ".join(map(str, ids)) + "\n" for ids in told[3]["ids"])
    alone = ask_turns("logits 9\nstream\nquit\n", "--dtype", "fp32", ids=lines)
    for one, packed in zip(alone[1]["logits"], told[4]["logits"]):
        assert one == pytest.approx(packed, abs=1e-4)
    assert alone[2]["ms"][0] > 0


def test_turns(tmp_path):
    ids = tmp_path / "ids"
    ids.write_text("101 7592 102\n101 7592 2088 102\n")
    done = subprocess.run([BIN / "vigil", "bench", "--interactive", ids], cwd=ROOT, text=True,
                          input="1x32 2\nstream\nlogits 2\nquit\n", capture_output=True, timeout=60)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert answers[0]["engine"] == "vigil" and len(answers[1]["ms"]) == 2
    assert [len(row) for row in answers[3]["logits"]] == [2, 2]


# ---- the real server ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def server():
    if not (BIN / "vigil-serve").exists():
        pytest.skip("vigil serve is not built")
    process = subprocess.Popen([BIN / "vigil", "serve", "--model", ROOT / "weights/ade", "--port",
                                "0"], stderr=subprocess.PIPE, text=True, cwd=ROOT)
    port = None
    for line in process.stderr:
        if "event=ready" in line:
            port = re.search(r"\bport=(\d+)", line).group(1)
            break
    assert port, "the server ended before it was ready"
    threading.Thread(target=process.stderr.read, daemon=True).start()
    yield f"http://127.0.0.1:{port}"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0


@pytest.mark.parametrize("route", ["native", "sagemaker", "tei", "huggingface"])
@pytest.mark.parametrize("batch", [1, 3])
def test_real_server(server, texts, route, batch):
    result = figures("--url", server, "--route", route, "--batch", batch, *SHORT, texts)["result"]
    assert set(result["codes"]) == {"200"} and result["no_answer"] == {}
    assert result["texts_per_s"] > 0
    assert result["latency_ms"]["engine"]["n"] == result["due"]


def test_real_server_open_loop_with_entities(server, texts):
    result = figures("--url", server, "--rate", "50", "--entities", "--duration", "500ms",
                     "--warmup", "0s", texts)["result"]
    assert set(result["codes"]) == {"200"} and result["unsent"] == 0


def test_real_server_refuses_a_wrong_route(server, texts):
    assert "answers 404" in bench("--url", server + "/nowhere", texts, code=1).stderr
