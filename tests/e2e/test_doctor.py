# SPDX-License-Identifier: Apache-2.0
"""vigil doctor: an installation that is well, and each thing that can be wrong with one."""
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("VIGIL_BIN", ROOT / "build/bin"))
TINY = ROOT / "tests/data/models/binary-f32"
HANG_SECONDS = 120
LINE = re.compile(r"^(ok  |warn|FAIL) ([a-z -]+): (.+?)(?: -> (.+))?$")


def free_port():
    with socket.socket() as s:
        s.bind(("", 0))
        return s.getsockname()[1]


def doctor(*arguments, port=None, program=BIN / "vigil-doctor", model=TINY, prefix=(), **more):
    command = [*prefix, str(program), "--port", str(port or free_port())]
    command += ["--model", str(model)] if model else []
    # What a GPU adds is test_cuda.py's.
    env = {"VIGIL_CUDA_LIBRARY": "/none", **more.pop("env", os.environ)}
    return subprocess.run(command + [str(a) for a in arguments], capture_output=True, text=True,
                          timeout=HANG_SECONDS, cwd=ROOT, env=env, **more)


def findings(result):
    """[(level, what, detail, advice)]; the last line is a summary."""
    *lines, summary = result.stdout.splitlines()
    rows = [LINE.match(line).groups() for line in lines]
    warnings, failures = (sum(row[0] == word for row in rows) for word in ("warn", "FAIL"))
    assert summary.endswith(f"{warnings} warnings, {failures} failures")
    assert result.returncode == (1 if failures else 0)
    assert all(row[3] for row in rows if row[0] != "ok  " and row[1] != "self-test")
    assert result.stderr == ""
    return rows


def of(result, what):
    return [row for row in findings(result) if row[1] == what]


def test_all_is_well():
    for model in (TINY, None):
        rows = findings(doctor(model=model))
        assert {row[1] for row in rows} == {
            "processor", "threads", "memory", "huge pages", "frequency", "clock", "open files",
            "library", "gpu", "programs", "port", "model", "self-test"}
        failed = [row for row in rows if row[0] == "FAIL"]
        assert not failed
    assert "int8" in rows[-1][2] and "reference" in rows[-1][2]


def test_json_says_the_same():
    arguments = {"port": free_port(), "model": TINY}
    found = json.loads(doctor("--json", **arguments).stdout)
    rows = findings(doctor(**arguments))
    assert [(c["level"].upper(), c["what"]) for c in found["checks"]] == [
        (row[0].strip().upper(), row[1]) for row in rows]
    assert found["ok"] is True and found["failures"] == 0 and found["version"]


def test_a_port_that_is_taken():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (level, _, detail, advice), = of(doctor(port=port), "port")
        assert level == "warn" and str(port) in detail and "--port" in advice
    assert of(doctor(port=port), "port")[0][0] == "ok  "


def test_models_that_are_not_whole(tmp_path):
    def broken(name, change):
        folder = tmp_path / name
        shutil.copytree(TINY, folder)
        change(folder)
        result = doctor(model=folder)
        rows = of(result, "model")
        assert rows and all(row[0] == "FAIL" for row in rows), name
        assert not of(result, "self-test")
        return rows[0][2]

    def cut(folder):
        data = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(data[:-100])

    assert "model.safetensors" in broken("cut", cut)
    assert "vocab.txt" in broken("words", lambda f: (f / "vocab.txt").unlink())
    assert "config.json" in broken("config", lambda f: (f / "config.json").write_text("{"))
    (level, _, detail, _), *_ = of(doctor(model=tmp_path / "none"), "model")
    assert level == "FAIL" and "none" in detail


def test_few_open_files():
    result = doctor(prefix=["bash", "-c", 'ulimit -n 200; exec "$@"', "bash"])
    (level, _, detail, advice), = of(result, "open files")
    assert (level, detail) == ("warn", "200 at most") and "ulimit" in advice


def test_programs_that_are_missing(tmp_path):
    shutil.copy(BIN / "vigil-doctor", tmp_path)
    shutil.copy(BIN / "vigil", tmp_path)
    (level, _, detail, _), = of(doctor(program=tmp_path / "vigil-doctor"), "programs")
    assert level == "FAIL" and "vigil-serve" in detail and "vigil," not in detail


def test_a_library_that_does_not_load(tmp_path):
    (tmp_path / "libmicrohttpd.so.12").write_text("not a library")
    result = doctor(env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)})
    levels = {row[2].split(" ")[0]: row[0] for row in of(result, "library")}
    assert levels == {"libmicrohttpd.so.12": "FAIL", "libjansson.so.4": "ok  ",
                      "libgnutls.so.30": "ok  "}


MEMORY = "MemTotal:  {} kB\nMemFree: 1 kB\nMemAvailable:  {} kB\n"
POLICY = "sys/devices/system/cpu/cpu0/cpufreq/scaling_"
CLOCK = "sys/devices/system/clocksource/clocksource0/current_clocksource"
HUGE = "sys/kernel/mm/transparent_hugepage/enabled"


@pytest.mark.parametrize("what, level, words, files", [
    ("memory", "FAIL", "100 available", {"proc/meminfo": MEMORY.format(8 << 20, 100 << 10)}),
    ("memory", "warn", "200 available", {"proc/meminfo": MEMORY.format(8 << 20, 200 << 10)}),
    ("memory", "ok  ", "4096 available", {"proc/meminfo": MEMORY.format(8 << 20, 4 << 20)}),
    ("memory", "FAIL", "may have 64", {"proc/meminfo": MEMORY.format(8 << 20, 4 << 20),
                                       "sys/fs/cgroup/memory.max": str(64 << 20)}),
    ("memory", "ok  ", "4096 available", {"proc/meminfo": MEMORY.format(8 << 20, 4 << 20),
                                          "sys/fs/cgroup/memory.max": "max\n"}),
    ("memory", "warn", "may have 160", {
        "proc/meminfo": MEMORY.format(8 << 20, 4 << 20),
        "sys/fs/cgroup/memory/memory.limit_in_bytes": str(160 << 20)}),
    ("memory", "ok  ", "not known", {"proc/meminfo": "MemTotal: 12\n"}),
    ("threads", "ok  ", "cpu.max allows 0.5; 1 to", {"sys/fs/cgroup/cpu.max": "50000 100000"}),
    ("threads", "ok  ", "for this process;", {"sys/fs/cgroup/cpu.max": "max 100000\n"}),
    ("threads", "warn", "cfs_quota_us allows 0.5", {
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}),
    ("threads", "ok  ", "for this process;", {
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}),
    ("huge pages", "warn", "[never]", {HUGE: "always madvise [never]\n"}),
    ("huge pages", "ok  ", "[always]", {HUGE: "[always] madvise never\n"}),
    ("frequency", "warn", "powersave (acpi-cpufreq)", {
        POLICY + "governor": "powersave\n", POLICY + "driver": "acpi-cpufreq\n"}),
    ("frequency", "ok  ", "powersave (intel_pstate)", {
        POLICY + "governor": "powersave\n", POLICY + "driver": "intel_pstate\n"}),
    ("frequency", "warn", "ondemand (unknown", {POLICY + "governor": "ondemand\n"}),
    ("frequency", "ok  ", "performance", {POLICY + "governor": "performance\n"}),
    ("clock", "warn", "hpet", {CLOCK: "hpet\n"}),
    ("clock", "ok  ", "kvm-clock", {CLOCK: "kvm-clock\n"}),
    ("processor", "ok  ", "Some Chip 9000;", {
        "proc/cpuinfo": "processor : 0\nmodel name\t: Some Chip 9000\nflags : fpu\n"}),
])
def test_machines(tmp_path, what, level, words, files):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (found, _, detail, _), = of(doctor("--root", tmp_path), what)
    assert words in detail
    if what != "processor":  # what this one can do is asked of itself
        assert found == level


def test_too_many_threads():
    (level, _, detail, advice), = of(doctor("--threads", 200), "threads")
    assert level == "warn" and "200 to compute with" in detail and "--threads" in advice


def test_command_line():
    assert doctor("--port", 0).returncode == 2
    assert doctor("file").returncode == 2
    text = subprocess.run([str(BIN / "vigil-doctor"), "--help"], capture_output=True,
                          text=True, check=True).stdout
    examples = re.findall(r"^  (vigil doctor.*)$", text.split("Examples:")[1], re.M)
    assert len(examples) >= 2
    for command in examples:
        result = subprocess.run(["bash", "-c", command.replace("DIR", str(TINY))], cwd=ROOT,
                                env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"},
                                capture_output=True, text=True, timeout=HANG_SECONDS)
        assert result.returncode in (0, 1) and "self-test" in result.stdout
