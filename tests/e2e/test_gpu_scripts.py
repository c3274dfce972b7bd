# SPDX-License-Identifier: Apache-2.0
"""tests/cuda/gpu-check and bench/gpu where there is no GPU: what they say then, and how they
count what fails, hangs, is refused or finds no time. nvidia-smi, compute-sanitizer and the
tests' programs are stand-ins; the bench runs on the CPU (--dry)."""
import json
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = os.environ.get("VIGIL_BUILD", "build")

NVIDIA_SMI = 'echo "NVIDIA H100 80GB HBM3, 580.159.04, 9.0, 81559 MiB, GPU-1"'
# Hangs, finds a race, or is refused, by the name of the case.
SANITIZER = """
[[ $1 == --version ]] && { echo "Compute Sanitizer version 2025.3.1.0"; exit 0; }
tool=$2
while [[ $1 == --* ]]; do shift 2; done
echo "========= COMPUTE-SANITIZER"
case $2 in
hang*) sleep 60 ;;
refused*) echo "========= Error: Device not supported"; exit 86 ;;
race*) [[ $tool == racecheck ]] && { echo "========= RACECHECK SUMMARY: 3 hazards displayed (3 errors, 0 warnings)"; exit 86; } ;;
silent*) exit 0 ;;
esac
"$@" || exit
echo "========= ERROR SUMMARY: 0 errors"
"""
PROGRAM = """
name=$(basename "$0") n=0 failed=0
cases=("sound case" "hang" "race" "refused" "silent")
[[ $name == test_parity ]] && cases=("tiny models wmma")
for case in "${cases[@]}"; do
    [[ $case == *"${1-}"* ]] || continue
    echo "  ok    $case, 0.1 s"
    n=$((n + 1))
done
[[ $name == test_attention && $# == 0 ]] && kill -SEGV $$
if [[ $name == test_gemm && $# == 0 ]]; then
    printf '%s\\n' "        [1,2]: expected 1, got 2" "  FAIL  wrong case, 0.0 s" \\
        "        SKIPPED: mma needs sm_80" "  skip  new case, 0.0 s"
    failed=1
fi
echo "[  PASSED  ] $n test(s)."
((failed)) && printf '%s\\n' "[  SKIPPED ] 1 test(s)" "[  FAILED  ] 1 test(s)"
exit $failed
"""


def script(path, text):
    path.write_text("#!/bin/bash\n" + text)
    path.chmod(0o755)


@pytest.fixture
def machine(tmp_path):
    """Runs a script of this tree where programs() are first on PATH: (exit code, output)"""
    programs = tmp_path / "path"
    programs.mkdir()

    def run(name, *arguments):
        done = subprocess.run([ROOT / name, *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE, timeout=300,
                              stderr=subprocess.STDOUT, text=True, check=False,
                              env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"})
        return done.returncode, done.stdout

    run.add = lambda name, text: script(programs / name, text)
    run.add("nvidia-smi", "echo 'could not communicate with the NVIDIA driver'; exit 9")
    return run


@pytest.mark.parametrize("name", ["tests/cuda/gpu-check", "bench/gpu"])
def test_no_gpu_is_no_pass(machine, name):
    code, said = machine(name)
    assert code == 2 and "no NVIDIA GPU here: nvidia-smi finds none: could not communicate" in said
    assert "passed" not in said


def test_check_counts_what_happens(machine, tmp_path):
    machine.add("nvidia-smi", NVIDIA_SMI)
    machine.add("compute-sanitizer", SANITIZER)
    packed = tmp_path / "packed"
    (packed / "tests").mkdir(parents=True)
    for path in (ROOT / "tests/cuda").glob("test_*.c"):
        script(packed / "tests" / path.stem, PROGRAM)
    (packed / "commit").write_text("0123abc\n")
    options = ["--prebuilt", packed, "--out", tmp_path / "out", "--seconds", "60", "--case-seconds", "1", "--tools",
               "memcheck,racecheck"]

    def check(*more):
        code, said = machine("tests/cuda/gpu-check", *options, *more)
        report = json.loads((tmp_path / "out/gpu-check.json").read_text())
        assert said.splitlines()[-1] == (f"{report['passed']} passed, {report['failed']} failed, "
                                         f"{report['skipped']} skipped")
        return code, said, report, {(s["step"], s["name"], s["outcome"]): s for s in report["steps"]}

    # A test failed: its case is looked at, and nothing else is done.
    code, said, report, outcomes = check()
    assert code == 1 and report["machine"]["commit"] == "0123abc"
    assert report["machine"]["gpu"]["name"] == "NVIDIA H100 80GB HBM3" and "sm_90" in said
    assert outcomes["tests", "test_kernels", "passed"]["n"] == 5
    assert "expected 1, got 2" in "".join(outcomes["tests", "test_gemm", "failed"]["tail"])
    assert "mma needs sm_80" in outcomes["tests", "test_gemm", "skipped"]["why"]
    assert outcomes["tests", "test_attention", "failed"]["why"] == "ended with -11"
    assert outcomes["tests", "test_parity", "passed"]["n"] == 1  # group by group
    assert [s["name"] for s in report["steps"] if s["step"] == "sanitizer"] == [
        "memcheck test_gemm wrong case", "racecheck test_gemm wrong case"]
    assert "something failed before" in outcomes["bench", "bench/gpu", "skipped"]["why"]

    # None did: all are looked at.
    for name in ("test_gemm", "test_attention"):
        script(packed / "tests" / name, PROGRAM.replace("test_gemm", "x").replace("test_attention", "x"))
    code, said, report, outcomes = check("--go-on")
    assert code == 1 and ("sanitizer", "memcheck test_kernels sound case", "passed") in outcomes
    assert ("sanitizer", "memcheck test_kernels race", "passed") in outcomes
    assert outcomes["sanitizer", "racecheck test_kernels race", "failed"]["why"] == "3 found"
    assert outcomes["sanitizer", "memcheck test_kernels hang", "skipped"]["why"].startswith("not within 1 s")
    assert "refuses" in outcomes["sanitizer", "memcheck test_kernels refused", "skipped"]["why"]
    assert outcomes["sanitizer", "memcheck test_kernels silent", "failed"]["why"] == "no summary"
    assert "is not there" in outcomes["bench", "bench/gpu", "skipped"]["why"]


def test_check_that_checks_nothing_fails(machine, tmp_path):
    machine.add("nvidia-smi", NVIDIA_SMI)
    code, said = machine("tests/cuda/gpu-check", "--steps", "sanitizer", "--out", tmp_path / "out", "--seconds", "30")
    assert code == 1 and said.splitlines()[-1].startswith("0 passed, 1 failed"), said


def test_bench_on_the_cpu(machine, tmp_path):
    """What is not to be had there is named, and makes the exit code."""
    code, said = machine("bench/gpu", "--dry", "--device", "cpu", "--build", BUILD, "--parts", "shapes,http", "--seconds",
                         "200", "--out", tmp_path, "--vigil-options", "--threads 1")
    report = json.loads((tmp_path / "gpu-dry.json").read_text())
    assert code == 1 and all("wmma" in problem for problem in report["problems"]), said
    assert set(report["shapes"]) == {"best", *(f"without {w}" for w in (
        "graphs", "overlap", "own", "cublas", "tuning"))}
    assert len(report["shapes"]["best"]) == 2 and len(report["http"]["engine"]) == 2
    rows = report["http"]["closed_loop"]
    assert [(r["clients"], r["texts_a_request"]) for r in rows] == [
        (1, 1), (8, 1), (64, 1), (512, 1), (1, 64), (8, 64), (64, 64)]
    assert all(set(r["codes"]) <= {"200", "429", "503"} for r in rows) and rows[0]["texts_per_s"] > 0
    assert "DRY, means nothing" in (tmp_path / "gpu-dry.txt").read_text() and "1 x 64" in said
