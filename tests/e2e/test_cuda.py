# SPDX-License-Identifier: Apache-2.0
"""vigil on CUDA devices, which here are emulated (tests/cuda/emulation): what it takes, what it
says, and above all what it does when a device fails, hangs or computes wrongly."""
import concurrent.futures
import http.client
import json
import os
import re
import signal
import subprocess
import threading
import time

import pytest

from serving import AE, BIN, NOT_AE, PATIENCE, ROOT, check_log, http_bytes
from test_operations import vigil

BUILD = ROOT / os.environ.get("VIGIL_BUILD", "build")
LIBRARY = BUILD / "cuda-emulated/libvigil_cuda.so"
TINY = ROOT / "tests/data/models/binary-f32"
EX_SOFTWARE = 70
IS_SLOW = "asan" in str(BIN) or "tsan" in str(BIN)
# From the first 503 to the end of the process: the rule is a second.
END_SECONDS = 10 if IS_SLOW else 1.8

emulated = pytest.mark.skipif(not LIBRARY.exists(), reason=f"{LIBRARY} is not built: make e2e builds it")


def env(**more):
    """Without what takes the emulation long and is the engine's own business."""
    return {"VIGIL_CUDA_LIBRARY": str(LIBRARY), "VIGIL_CUDA_DISABLE": "graphs,tuning,cache",
            **{key: str(value) for key, value in more.items()}}


def run_serve(*arguments, **more):
    """vigil serve that does not come up: (exit code, what it said)."""
    ended = subprocess.run(
        [str(BIN / "vigil"), "serve", "--port", "0", "--model", str(TINY), *map(str, arguments)],
        capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=ROOT,
        env={**os.environ, **{key: str(value) for key, value in more.items()}})
    lines = [line for line in ended.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, ended.stderr
    return ended.returncode, lines[0]


def engine(server):
    return server.get("/info").ok()["engine"]


def metric(server, series):
    text = server.get("/metrics").body.decode()
    return float(re.search(rf"^{re.escape(series)} (\S+)", text, re.M)[1])


# --- Without a device ------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["tpu", "cuda:x", "cuda:0,", "cuda:1,1", "cuda:", "cpu:0", "CUDA"])
def test_names_that_are_none(device):
    code, said = run_serve("--device", device)
    assert code == 1 and device in said, said


@pytest.mark.parametrize("flags", [
    ("--device", "cuda", "--dtype", "int8"), ("--device", "cuda", "--isa", "avx2"),
    ("--device", "cpu", "--dtype", "fp16"), ("--isa", "mma", "--dtype", "bf16")])
def test_combinations_that_cannot_be(flags):
    code, said = run_serve(*flags)
    assert code == 1 and any(word in said for word in flags[1::2]), said


def make_library(folder, name, *fields):
    """A library that is no engine of this build."""
    source = folder / f"{name}.c"
    source.write_text("#include \"kernels/cuda/plugin.h\"\n" + (
        "const struct cuda_plugin *vigil_cuda_plugin(void);\n"
        "const struct cuda_plugin *vigil_cuda_plugin(void) {\n"
        f"    static const struct cuda_plugin p = {{{', '.join(fields)}}};\n"
        "    return &p;\n}\n" if fields else "extern const int nothing;\nconst int nothing = 1;\n"))
    library = folder / f"{name}.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-I", ROOT, "-o", library, source], check=True)
    return library


@pytest.fixture(scope="module")
def bad_libraries(tmp_path_factory):
    """name: (library, words that have to be said, whether "auto" is quiet about it)"""
    folder = tmp_path_factory.mktemp("libraries")
    (folder / "text.so").write_text("no library\n")
    return {
        "missing": (folder / "none.so", ("make cuda", str(folder / "none.so")), True),
        "text": (folder / "text.so", ("cannot load",), False),
        "empty": (make_library(folder, "empty"), ("vigil_cuda_plugin",), False),
        "abi": (make_library(folder, "abi", ".abi = CUDA_PLUGIN_ABI + 1", '.version = "0"'),
                ("interface", "make all cuda"), False),
        "version": (make_library(folder, "version", ".abi = CUDA_PLUGIN_ABI", '.version = "0.0.7"'),
                    ("0.0.7", "make all cuda"), False),
    }


@pytest.mark.parametrize("name", ["missing", "text", "empty", "abi", "version"])
def test_bad_libraries(name, bad_libraries, start):
    library, words, is_quiet = bad_libraries[name]
    for device in ("cuda", "cuda:0", "cuda:all"):
        code, said = run_serve("--device", device, VIGIL_CUDA_LIBRARY=library)
        assert code == 1 and all(word in said for word in words), said
    server = start(model=TINY, env={"VIGIL_CUDA_LIBRARY": str(library)})
    assert engine(server)["device"] == "cpu"
    assert ("event=fallback" in server.log()) != is_quiet, server.log()
    ended = vigil("doctor", "--model", TINY, env={**os.environ, "VIGIL_CUDA_LIBRARY": str(library)})
    line, = re.findall(r"^.* gpu: .*$", ended.stdout, re.M)
    assert line.startswith("ok" if is_quiet else "warn"), line
    assert not is_quiet or "no error" in line
    assert ended.returncode == 0


# --- Answers ----------------------------------------------------------------------------------------


@emulated
def test_answers_agree(start):
    """With those of the CPU in fp32."""
    texts = [AE, NOT_AE, "ibuprofen wrecked my stomach", "a"]
    gpu = start("--device", "cuda", "--timeout", "120s", env=env())
    cpu = start("--device", "cpu", "--dtype", "fp32")
    for found, expected in zip(gpu.classify(texts, entities=True), cpu.classify(texts, entities=True)):
        assert found["label"] == expected["label"]
        for label, p in expected["probs"].items():
            assert abs(found["probs"][label] - p) < 5e-3, (found, expected)
        assert [(e["type"], e["begin"], e["end"]) for e in found["entities"]] == \
            [(e["type"], e["begin"], e["end"]) for e in expected["entities"]]
    info = gpu.get("/info").ok()
    assert info["engine"]["device"] == "cuda:0" and info["engine"]["isa"] in ("mma", "wmma")
    assert info["model"]["dtype"] == "fp16"
    assert re.search(r'event=loaded .*device=cuda:0 dtype=fp16', gpu.log())
    assert metric(gpu, 'vigil_device_busy_seconds_total{device="cuda:0"}') > 0


@emulated
def test_isa(start):
    server = start("--isa", "wmma", model=TINY, env=env())
    assert engine(server)["device"] == "cuda:0" and engine(server)["isa"] == "wmma"
    assert server.classify(AE)


@emulated
def test_two_devices(start):
    server = start("--device", "cuda:all", "--timeout", "120s", "--max-wait", "0", model=TINY,
                   env=env(VIGIL_EMULATION_DEVICES=2))
    assert [e["device"] for e in engine(server)["devices"]] == ["cuda:0", "cuda:1"]
    expected = server.classify([AE] * 3)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for results in pool.map(lambda n: server.classify([AE] * n), [1 + n % 5 for n in range(40)]):
            for result in results:
                assert result["label"] == expected[0]["label"]
    for device in ("cuda:0", "cuda:1"):
        assert metric(server, f'vigil_device_batches_total{{device="{device}"}}') > 0
        assert metric(server, f'vigil_engine_memory_bytes{{device="{device}"}}') > 0
    assert len(re.findall(r"^vigil_model_info{", server.get("/metrics").body.decode(), re.M)) == 2
    one = start("--device", "cuda:1", model=TINY, env=env(VIGIL_EMULATION_DEVICES=2))
    assert [e["device"] for e in engine(one)["devices"]] == ["cuda:1"]
    code, said = run_serve("--device", "cuda:2", **env(VIGIL_EMULATION_DEVICES=2))
    assert code == 1 and "cuda:2" in said and "event=" not in said  # before it listens


@emulated
def test_auto(start):
    for n, device in ((1, "cuda:0"), (2, "cuda:0"), (0, "cpu")):
        server = start(model=TINY, env=env(VIGIL_EMULATION_DEVICES=n))
        assert engine(server)["device"] == device
        assert [e["device"] for e in engine(server)["devices"]] == [device]
    code, said = run_serve("--device", "cuda", **env(VIGIL_EMULATION_DEVICES=0))
    assert code == 1 and re.search("no .*(driver|device)", said), said
    # A precision that a GPU does not have is the CPU's.
    server = start("--dtype", "fp32", model=TINY, env=env())
    assert engine(server)["device"] == "cpu"
    server = start("--dtype", "fp16", model=TINY, env=env())
    assert engine(server)["device"] == "cuda:0"


@emulated
@pytest.mark.parametrize("fault", [
    {"VIGIL_EMULATION_FAULT": "malloc:3:2"}, {"VIGIL_EMULATION_MEMORY": 3_000_000},
    {"VIGIL_EMULATION_FAULT": "launch:1:700:sticky"}, {"VIGIL_EMULATION_FAULT": "flip:1"},
    {"VIGIL_EMULATION_FAULT": "nan:1"}], ids=["malloc", "memory", "sticky", "flip", "nan"])
def test_a_device_that_is_not_good_at_start(fault, start):
    """Who asked for it is refused, with numbers; "auto" is the CPU, and says so."""
    code, said = run_serve("--device", "cuda", **env(**fault))
    assert code == 1 and "event=load_failed" in said and "cuda:0" in said, said
    if "malloc" in str(fault) or "MEMORY" in str(fault):
        assert re.search(r"\d+ MB", said), said
    server = start(model=TINY, env=env(**fault))
    assert engine(server)["device"] == "cpu"
    line, = re.findall(r"^.*event=fallback.*$", server.log(), re.M)
    assert "level=warning" in line and "cuda:0" in line
    assert server.classify(AE)


@emulated
def test_classify(tmp_path):
    posts = tmp_path / "posts.jsonl"
    posts.write_text("".join(json.dumps({"id": n, "text": f"{AE} {'and so on ' * (n % 7)}"}) + "\n"
                             for n in range(50)))
    said = {}
    for device in ("cpu", "cuda"):
        ended = vigil("classify", "--model", TINY, "--device", device, "--batch-tokens", "256", posts,
                      env={**os.environ, **env()})
        assert ended.returncode == 0, ended.stderr
        said[device] = [json.loads(line) for line in ended.stdout.splitlines()]
    assert len(said["cpu"]) == 50
    for found, expected in zip(said["cuda"], said["cpu"]):
        assert found["id"] == expected["id"]
        for label, p in expected["probs"].items():
            assert abs(found["probs"][label] - p) < 5e-3
    ended = vigil("classify", "--model", TINY, "--device", "cuda:all", posts,
                  env={**os.environ, **env(VIGIL_EMULATION_DEVICES=2)})
    assert ended.returncode == 1 and "one" in ended.stderr


@emulated
@pytest.mark.parametrize("fault", ["launch:1:700:sticky", "hang:1"])
def test_classify_on_a_device_that_fails(fault, tmp_path):
    """Says so and ends, though the device cannot be closed."""
    process = subprocess.Popen(
        [str(BIN / "vigil"), "classify", "--model", str(TINY), "--device", "cuda", "--format", "lines"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, **env(VIGIL_EMULATION_FAULT_FILE=tmp_path / "fault",
                                 VIGIL_CUDA_DEADLINE_MS=5000 if IS_SLOW else 1000)})
    process.stdin.write(f"{AE}\n")
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["id"] == 1
    (tmp_path / "fault").write_text(fault)
    time.sleep(0.05)
    out, said = process.communicate(f"{AE}\n", PATIENCE)
    assert process.returncode == 1 and not out, (out, said)
    assert "cuda:0" in said, said


@emulated
def test_doctor():
    ended = vigil("doctor", "--model", TINY, env={**os.environ, **env(VIGIL_EMULATION_DEVICES=2)})
    assert ended.returncode == 0, ended.stdout
    assert re.search(r"^ok +cuda engine: .*libvigil_cuda.so, built for ", ended.stdout, re.M)
    for n in (0, 1):
        assert re.search(rf"^ok +gpu: cuda:{n} is .*, sm_\d+, .* GiB free; CUDA \d+\.\d+ in the driver, .*cuBLASLt",
                         ended.stdout, re.M), ended.stdout
        assert re.search(rf"^ok +self-test: cuda:{n}: .*fp16", ended.stdout, re.M), ended.stdout
    ended = vigil("doctor", "--model", TINY, env={**os.environ, **env(VIGIL_EMULATION_FAULT="flip:1")})
    assert ended.returncode == 1 and re.search(r"^FAIL self-test: cuda:0", ended.stdout, re.M), ended.stdout


# --- Reload, canary ---------------------------------------------------------------------------------


@emulated
def test_canary_and_reload(start):
    """It goes on through reloads, is counted by itself alone, and does not get in the way."""
    server = start("--device", "cuda:0,1", "--canary", "100ms", model=TINY, env=env(VIGIL_EMULATION_DEVICES=2))
    ok = 'vigil_canary_total{result="ok"}'
    for n in range(3):
        before, end = metric(server, ok), time.monotonic() + PATIENCE
        while metric(server, ok) < before + 4:
            assert time.monotonic() < end, server.log()
            time.sleep(0.02)
        assert server.classify(AE)
        server.signal(signal.SIGHUP)
        server.wait_log("event=reloaded", n + 1)
    assert metric(server, 'vigil_canary_total{result="failed"}') == 0
    assert metric(server, "vigil_sequences_total") == 3
    assert metric(server, "vigil_queue_wait_seconds_count") == 3


@emulated
def test_a_reload_that_does_not_fit(start):
    """Stays on the device with the old model: "auto" is decided once."""
    server = start(model=TINY, env=env())
    held = engine(server)["memory_bytes"]
    server.stop()
    server = start(model=TINY, env=env(VIGIL_EMULATION_MEMORY=int(held * 1.5)))
    assert engine(server)["device"] == "cuda:0"
    server.signal(signal.SIGHUP)
    said = server.wait_log(r"event=reload_failed.*")[0]
    assert re.search(r"\d+ MB", said), said
    assert engine(server)["device"] == "cuda:0" and server.classify(AE)


# --- A device that fails while it serves --------------------------------------------------------------


class Watched:
    """Clients that ask without end, and one that asks for the health. Each answer as
    (when it was asked for, when it came, code, error_type)."""

    def __init__(self, server, n_clients=4):
        self.server, self.posts, self.healths, self.over = server, [], [], threading.Event()
        self.threads = [threading.Thread(target=self.ask, args=(self.posts, self.post))
                        for _ in range(n_clients)]
        self.threads += [threading.Thread(target=self.ask, args=(self.healths, get))
                         for get in (lambda: server.get("/health"), lambda: server.get("/ready"),
                                     lambda: server.get("/ping"))]
        for thread in self.threads:
            thread.start()

    def post(self):
        return self.server.post("/v1/classify", {"inputs": [AE] * 3})

    def ask(self, answers, how):
        while not self.over.is_set():
            asked = time.monotonic()
            try:
                answer = how()
            except ConnectionRefusedError:
                return
            except (OSError, http.client.HTTPException):
                continue
            kind = answer.json()["error_type"] if answer.code != 200 else None
            answers.append((asked, time.monotonic(), answer.code, kind))
            if how is not self.post:
                time.sleep(0.005)

    def finish(self):
        self.over.set()
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()


def break_device(server, fault_file, fault, seconds=PATIENCE):
    """Arms the fault under load; checks that the server ends as it has to."""
    server.expected_exit = EX_SOFTWARE
    watched = Watched(server)
    end = time.monotonic() + PATIENCE
    while sum(code == 200 for _, _, code, _ in watched.posts) < 5:
        assert time.monotonic() < end, server.log()
        time.sleep(0.01)
    half = server.connect()  # whose request never ends: nobody waits for that
    half.sendall(http_bytes("POST", "/v1/classify", b"x" * 1000)[:-900])
    fault_file.with_suffix(".new").write_text(fault)
    fault_file.with_suffix(".new").rename(fault_file)
    try:
        assert server.wait_end(seconds) == EX_SOFTWARE, server.log()
        ended = time.monotonic()
    finally:
        watched.finish()
        half.close()
    refusals = [came for _, came, code, _ in watched.posts if code == 503]
    if refusals:
        first = min(refusals)
        assert ended - first < END_SECONDS
        late = [answer for answer in watched.posts if answer[0] > first and answer[2] == 200]
        assert not late, "a 200 after the fault"
        late = [answer for answer in watched.healths if answer[0] > first and answer[2] == 200]
        assert not late, "healthy after the fault"
    assert {(code, kind) for _, _, code, kind in watched.posts} <= {
        (200, None), (429, "overloaded"), (503, "engine_failed")}
    errors = [line for line in server.log().splitlines() if "level=error" in line]
    assert len(errors) == 1 and "event=device_failed" in errors[0] and "cuda:" in errors[0], errors
    assert f"exit_code={EX_SOFTWARE}" in errors[0]
    check_log(server.log())
    return watched, errors[0]


def start_breakable(start, folder, *flags, **more):
    fault_file = folder / "fault"
    server = start("--device", "cuda:all", *flags, model=TINY,
                   env=env(VIGIL_EMULATION_FAULT_FILE=fault_file, **more))
    return server, fault_file


@emulated
@pytest.mark.parametrize("fault", ["launch:1:700:sticky", "launch:20:719:sticky", "memcpy:1:700:sticky",
                                   "event:1:214:sticky"])
def test_sticky_fault(fault, start, tmp_path):
    server, fault_file = start_breakable(start, tmp_path)
    watched, _ = break_device(server, fault_file, fault)
    assert any(code == 503 for _, _, code, _ in watched.posts)


@emulated
def test_one_of_two_devices_fails(start, tmp_path):
    """What the other one says is not believed either."""
    server, fault_file = start_breakable(start, tmp_path, VIGIL_EMULATION_DEVICES=2)
    _, line = break_device(server, fault_file, "launch@1:1:700:sticky")
    assert "cuda:1" in line


@emulated
def test_hang(start, tmp_path):
    """The engine gives up after its own deadline."""
    server, fault_file = start_breakable(start, tmp_path,
                                         VIGIL_CUDA_DEADLINE_MS=5000 if IS_SLOW else 1000)
    _, line = break_device(server, fault_file, "hang:1")
    assert "ms" in line


@emulated
@pytest.mark.parametrize("n_signals", [1, 2])
def test_fault_while_draining(n_signals, start, tmp_path):
    """The second signal wants an end at once; but what hangs cannot be closed."""
    server, fault_file = start_breakable(start, tmp_path, "--drain-timeout", "30s",
                                         VIGIL_CUDA_DEADLINE_MS=5000 if IS_SLOW else 1500)
    server.expected_exit = EX_SOFTWARE
    server.classify(AE)
    fault_file.write_text("hang:1")
    time.sleep(0.05)  # it is looked for every 10 ms
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.post, "/v1/classify", {"inputs": AE})
        end = time.monotonic() + PATIENCE
        while metric(server, "vigil_queue_jobs") < 1:
            assert time.monotonic() < end
        for _ in range(n_signals):
            server.signal(signal.SIGTERM)
            time.sleep(0.1)
        answer.result().error(503, "engine_failed")
    assert server.wait_end() == EX_SOFTWARE


@emulated
def test_wrong_answers(start, tmp_path):
    """Only the canary can see them."""
    server, fault_file = start_breakable(start, tmp_path, "--canary", "200ms")
    watched, line = break_device(server, fault_file, "flip:1")
    assert "wrongly" in line
    assert any(code == 200 for _, _, code, _ in watched.posts)


@emulated
def test_not_a_number(start, tmp_path):
    """The batch fails and the server goes on: an ordinary failure."""
    server, fault_file = start_breakable(start, tmp_path, "--canary", "0")
    assert server.classify(AE) and server.get("/health").code == 200
    fault_file.write_text("nan:1")
    end = time.monotonic() + PATIENCE
    while True:
        answer = server.post("/v1/classify", {"inputs": AE})
        if answer.code != 200:
            break
        assert time.monotonic() < end
    answer.error(503, "engine_failed")
    server.get("/health").error(503, "engine_failed")
    server.get("/ready").error(503, "not_ready")
    assert "event=engine_failed" in server.log() and "device_failed" not in server.log()
    assert server.process.poll() is None
