# SPDX-License-Identifier: Apache-2.0
"""What bench/gpu and tests/cuda/gpu-check know of a machine: its GPU, its CUDA, and how the
programs of a build, or of a folder packed elsewhere (tests/cuda/pack-for-gpu), are run there.
"""
import contextlib
import datetime
import glob
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
END_SECONDS = 8  # from SIGTERM to SIGKILL
DRIVER = "/usr/local/nvidia/lib64"  # where containers have it, whether the loader knows or not
CXX_RUNTIMES = [f"{folder}/libstdc++.so.6" for folder in ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/lib64")]


class Done:
    """How a command ended. code None: it did not, within its time."""

    def __init__(self, command, code, output, seconds):
        self.command, self.code, self.output, self.seconds = command, code, output, seconds

    def tail(self, lines=15):
        return [line[:400] for line in self.output.strip().splitlines()[-lines:]]


def end(process):
    """Asks a session that run() or a like made to end, and then ends it"""
    for number, seconds in ((signal.SIGTERM, END_SECONDS), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            return process.communicate(timeout=seconds)[0]
        except subprocess.TimeoutExpired:
            continue
    return b""


def end_on_term():
    """SIGTERM leaves through every `finally`: what was measured is written, children end too"""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def run(command, seconds, env=None, errors=None, cwd=ROOT):
    """Runs a command in a session of its own and ends all of it when its time is over. errors:
    a file for what it says beside its answer; else both are in the output."""
    start = time.monotonic()
    words = [str(word) for word in command]
    with open(errors or os.devnull, "wb") as beside:
        try:
            process = subprocess.Popen(words, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                       stderr=beside if errors else subprocess.STDOUT, start_new_session=True)
        except OSError as problem:
            return Done(words, 127, str(problem), 0.0)
        try:
            output, _ = process.communicate(timeout=max(0.1, seconds))
            code = process.returncode
        except subprocess.TimeoutExpired:
            output, code = end(process), None
        except BaseException:
            end(process)
            raise
    return Done(words, code, output.decode("utf-8", "replace"), time.monotonic() - start)


def first_line(command):
    done = run(command, 20)
    return next(iter(done.output.strip().splitlines()), "") if done.code == 0 else None


def find_gpu():
    """(facts, None), or (None, why there is no GPU)"""
    fields = ("name", "driver_version", "compute_cap", "memory.total", "uuid")
    program = shutil.which("nvidia-smi")
    if not program:
        return None, "there is no nvidia-smi on PATH"
    done = run([program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader"], 30)
    lines = [line for line in done.output.splitlines() if line.count(",") == len(fields) - 1]
    if done.code != 0 or not lines:
        return None, f"nvidia-smi finds none: {' '.join(done.tail(2)) or f'exit code {done.code}'}"
    facts = dict(zip(fields, (value.strip() for value in lines[0].split(","))))
    facts["count"] = len(lines)
    return facts, None


def state():
    """Clocks, power and heat of the first GPU at this moment; read, never set"""
    line = first_line(["nvidia-smi", "--query-gpu=clocks.sm,clocks.mem,power.draw,temperature.gpu,utilization.gpu",
                       "--format=csv,noheader"])
    return dict(zip(("sm", "memory", "power", "celsius", "busy"), map(str.strip, line.split(",")))) if line else None


def cuda_folders():
    """Where libcublasLt may lie: toolkits, then PyTorch's packages"""
    homes = [os.environ.get("CUDA_HOME"), "/usr/local/cuda", *sorted(glob.glob("/usr/local/cuda-*"), reverse=True)]
    nvcc = shutil.which("nvcc")
    if nvcc:
        homes.insert(0, str(pathlib.Path(nvcc).resolve().parent.parent))
    found = [f"{home}/{folder}" for home in homes if home for folder in ("lib64", "targets/x86_64-linux/lib")]
    for base in dict.fromkeys(sys.path + ["/opt/torch/.venv/lib/python3.12/site-packages"]):
        if base:
            found += glob.glob(f"{base}/nvidia/*/lib")
    return list(dict.fromkeys(found))


def find_cublas():
    """The folder of libcublasLt, CUDA 13's first; None where the loader has to find it"""
    for name in ("libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so.11"):
        for folder in cuda_folders():
            if os.path.exists(f"{folder}/{name}"):
                return folder
    return None


def toolkit():
    """{nvcc, compute-sanitizer: version or None}"""
    extra = ["/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer"]
    path = os.pathsep.join([os.environ.get("PATH", ""), *extra])
    found = {}
    for name in ("nvcc", "compute-sanitizer"):
        program = shutil.which(name, path=path)
        done = run([program, "--version"], 20) if program else None
        match = re.search(r"release ([\d.]+)|[Vv]ersion ([\d.]+)", done.output) if done else None
        found[name] = {"path": program, "version": next(filter(None, match.groups()), "") if match else ""} \
            if program else None
    return found


class Programs:
    """The programs of a build (make all cuda; make gpu-tests), or of a packed folder."""

    def __init__(self, build="build", prebuilt=None):
        self.prebuilt = pathlib.Path(prebuilt).resolve() if prebuilt else None
        self.folder = self.prebuilt or (ROOT / build).resolve()
        self.vigil = self.folder / "bin/vigil"
        self.tests = self.folder / ("tests" if prebuilt else "gpu")
        self.library = next((path for path in (
            self.folder / "lib/vigil/libvigil_cuda.so", self.folder / "gpu/libvigil_cuda.so") if path.exists()), None)
        self.cublas = find_cublas()

    def environment(self, **more):
        env = dict(os.environ, LC_ALL="C.UTF-8", **more)
        folders = [str(self.folder / "lib")] if self.prebuilt else []
        if self.prebuilt and not any(map(os.path.exists, CXX_RUNTIMES)):
            folders.append(str(self.folder / "lib/fallback"))
        folders += [folder for folder in (self.cublas, DRIVER) if folder and os.path.exists(folder)]
        if os.environ.get("LD_LIBRARY_PATH"):
            folders.append(os.environ["LD_LIBRARY_PATH"])
        if folders:
            env["LD_LIBRARY_PATH"] = os.pathsep.join(folders)
        if self.library:
            env.setdefault("VIGIL_CUDA_LIBRARY", str(self.library))
        return env

    def problem(self):
        """Why vigil cannot be run here, or None"""
        if not self.vigil.exists():
            return f"{self.vigil} is not there: make all, or pack it (tests/cuda/pack-for-gpu)"
        done = run([self.vigil, "--version"], 20, self.environment())
        if done.code != 0:
            return f"{self.vigil} does not run here: {' '.join(done.tail(2))}"
        return None

    def commit(self):
        kept = self.folder / "commit"
        if kept.exists():
            return kept.read_text("utf-8").strip()
        commit = first_line(["git", "rev-parse", "--short=12", "HEAD"])
        changed = run(["git", "status", "--porcelain", "--untracked-files=no"], 20)
        return f"{commit}{' with changes' if changed.output.strip() else ''}" if commit else "unknown"


def facts(programs):
    gpu, why = find_gpu()
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "")
    return {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "commit": programs.commit(), "gpu": gpu or why, "toolkit": toolkit(),
            "cublas_folder": programs.cublas, "library": str(programs.library), "processor": model,
            "processors": len(os.sched_getaffinity(0)), "kernel": os.uname().release}


def slug(name):
    """NVIDIA H100 80GB HBM3 -> h100-80gb-hbm3"""
    return re.sub(r"[^a-z0-9]+", "-", name.lower().replace("nvidia", "")).strip("-") or "unknown"


def write_json(path, value):
    """Whole or not at all"""
    scratch = f"{path}.part"
    with open(scratch, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        file.write("\n")
    os.replace(scratch, path)
