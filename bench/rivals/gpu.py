#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times Vigil and PyTorch side by side on one GPU, on the same checkpoint and the same ids.

usage: python3 bench/rivals/gpu.py [--model DIR] [--out FILE] [--budget SECONDS] [--only REGEX]

Every engine is a process that loads once (gpu_engines.py). Each gets ready for the shapes in
turn, as far as the budget reaches: the fast ones first, those that compile at the same time,
the one that times kernels while it compiles alone. Then its logits are compared with those of
PyTorch in fp32 and with Vigil's. Rounds follow in which Vigil and the rivals take turns on
each shape: Vigil, a rival, Vigil, the next one. A figure is the median over rounds of a turn's
median, by the device's clock; ratios are between such medians. Whoever is missing is named,
with the reason. FILE is written after every step, so that what was measured is kept.

--dry tries all of it on the CPU with PyTorch in fp32: its figures mean nothing.
"""
import argparse
import array
import concurrent.futures
import datetime
import json
import os
import pathlib
import random
import re
import selectors
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import gpu_engines

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# The bars are on mixed and at batch 1: if the budget ends early, those are there.
SHAPES = ("mixed", "1x128", "1x32", "32x128", "8x128")
RATIO_BAR = 2.0  # against the best rival, on these:
BARRED = ("mixed", "1x32", "1x128")
AGREEMENT = 2e-2  # of a logit
TURN_MS = 60.0  # runs of a turn, as many as that takes
MIN_RUNS, MAX_RUNS = 5, 60
HOPELESS, PROBE_ROUNDS = 1.6, 2  # a rival so far behind everywhere sits out after these
NEAR = 1.3  # rivals within so much of the best also run queued
LOAD_SECONDS = 90
GRACE_SECONDS = 20  # for an engine that does not hear its alarm, until it is ended
TURN_SECONDS = 30


def say(text):
    print(text, file=sys.stderr, flush=True)


class Failed(Exception):
    """An engine gave no answer, or an error."""


class Engine:
    """A process that answers lines with lines of JSON."""

    def __init__(self, name, command, log, environment=None):
        self.name, self.log_path, self.about = name, log, {}
        with open(log, "wb") as errors:
            self.process = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                env=environment, start_new_session=True)
        os.set_blocking(self.process.stdout.fileno(), False)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.process.stdout, selectors.EVENT_READ)
        self.left = b""

    def tail(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return " | ".join(line for line in log.read().strip().splitlines()[-3:])[-400:]

    def read(self, seconds):
        end = time.monotonic() + seconds
        while b"\n" not in self.left:
            if not self.selector.select(max(0.0, end - time.monotonic())):
                self.kill()
                raise Failed(f"no answer within {seconds:.0f} s")
            data = self.process.stdout.read()
            if data is None:
                continue
            if not data:
                code = self.process.wait()
                raise Failed(f"ended with {code}: {self.tail() or 'no message'}")
            self.left += data
        line, _, self.left = self.left.partition(b"\n")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def ask(self, line, seconds=TURN_SECONDS):
        if self.process.poll() is not None:
            raise Failed(f"ended with {self.process.returncode}: {self.tail() or 'no message'}")
        try:
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()
        except OSError as problem:
            raise Failed(f"ended: {self.tail() or problem}") from problem
        return self.read(seconds)

    def kill(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, 9)
        self.process.wait()


class Run:
    def __init__(self, options, scratch):
        self.options, self.scratch = options, scratch
        self.start = time.monotonic()
        self.engines, self.absent, self.prepared, self.not_reached = {}, {}, {}, {}
        self.turns = {}  # {engine: {shape: [turn, …]}}
        self.report = {
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "is_dry": options.dry, "shapes": list(options.shapes), "absent": self.absent,
            "prepared": self.prepared, "not_reached": self.not_reached, "seconds": {}}

    def write(self):
        if not self.options.out:
            return
        scratch = f"{self.options.out}.part"
        with open(scratch, "w", encoding="utf-8") as file:
            json.dump(self.report, file, indent=1)
            file.write("\n")
        os.replace(scratch, self.options.out)

    def spent(self, step, start):
        self.report["seconds"][step] = round(time.monotonic() - start, 1)
        self.write()

    def left(self):
        """Seconds of the budget for getting ready"""
        return self.options.budget - (time.monotonic() - self.start)

    def drop(self, name, why):
        say(f"  {name} is out: {why}")
        self.absent[name] = str(why)
        engine = self.engines.pop(name, None)
        if engine:
            engine.kill()

    # --- getting ready ---

    def open_vigil(self):
        ids = f"{self.scratch}/ids"
        with open(ids, "w", encoding="ascii") as file:
            file.write("0 1 2\n")
        command = [*self.options.vigil.split(), "bench", "--interactive", ids, "--model", self.options.model,
                   "--device", self.options.device, *self.options.vigil_options.split()]
        vigil = Engine("vigil", command, f"{self.scratch}/vigil.log")
        self.engines["vigil"] = vigil
        vigil.about = vigil.read(LOAD_SECONDS)
        self.report["vigil"] = vigil.about
        say(f"vigil: {vigil.about['effective']}")
        shapes = {shape: vigil.ask(f"ids {shape}")["ids"] for shape in self.options.shapes}
        with open(f"{self.scratch}/work.json", "w", encoding="ascii") as file:
            json.dump(shapes, file)

    def open_rivals(self):
        environment = dict(
            os.environ, TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1", PYTHONWARNINGS="ignore",
            TORCHINDUCTOR_CACHE_DIR=f"{self.scratch}/inductor", TRITON_CACHE_DIR=f"{self.scratch}/triton")
        names = [name for name in gpu_engines.ENGINES
                 if name == "reference" or not self.options.only or re.search(self.options.only, name)]
        for name in names:
            self.engines[name] = Engine(name, [
                sys.executable, HERE / "gpu_engines.py", name, "--model", self.options.model,
                "--work", f"{self.scratch}/work.json", *(["--dry"] if self.options.dry else [])],
                f"{self.scratch}/{name}.log", environment)
        for name in names:
            try:
                self.engines[name].about = self.engines[name].read(LOAD_SECONDS)
                self.report.setdefault("versions", {}).update(self.engines[name].about["versions"])
            except (Failed, ValueError) as problem:
                self.drop(name, problem)

    def measure_peaks(self):
        try:
            self.report["peaks"] = self.engines["reference"].ask("peaks", 60)
        except (Failed, KeyError, ValueError) as problem:
            self.report["peaks"] = {"error": str(problem)}
        say(f"peaks: {self.report['peaks']}")

    def prepare(self, name):
        """All shapes of one engine, one after the other; what fails or is not reached is told."""
        engine, slowest = self.engines[name], 0.0
        for shape in self.options.shapes:
            start = time.monotonic()
            if slowest * 1.2 > self.left() or self.left() < 1:
                self.not_reached.setdefault(name, []).append(shape)
                continue
            try:
                left = max(5.0, self.left())
                ways = engine.ask(f"prepare {shape} {left:.1f}", left + GRACE_SECONDS)["ways"]
            except (Failed, ValueError) as problem:
                return str(problem)
            slowest = max(slowest, time.monotonic() - start)
            self.prepared.setdefault(name, {})[shape] = ways
        return None

    def prepare_all(self):
        rivals = [name for name in self.engines if name != "vigil"]
        together = [name for name in rivals if name not in gpu_engines.ALONE]
        for group in (together, [name for name in rivals if name in gpu_engines.ALONE]):
            with concurrent.futures.ThreadPoolExecutor(max(1, len(group))) as pool:
                for name, why in zip(group, list(pool.map(self.prepare, group))):
                    if why:
                        self.prepared.pop(name, None)
                        self.drop(name, why)
            self.write()
        for name in rivals:
            for shape, ways in list(self.prepared.get(name, {}).items()):
                failed = {way: why for way, why in ways.items() if isinstance(why, str)}
                for way, why in failed.items():
                    say(f"  {name}, {shape}, {way}: {why}")
                if len(failed) == len(ways):  # none too, when time was over before the first
                    self.prepared[name].pop(shape)
                    self.not_reached.setdefault(name, []).append(shape)
        if self.not_reached:
            say(f"  not ready: {self.not_reached}")

    def choose(self):
        self.report["ways"] = {}
        for name in [name for name in self.engines if name != "vigil"]:
            for shape in list(self.prepared.get(name, {})):
                try:
                    self.report["ways"].setdefault(name, {})[shape] = self.engines[name].ask(f"choose {shape}")
                except (Failed, ValueError) as problem:
                    self.drop(name, problem)
                    break

    # --- answers ---

    def logits(self, name, shape):
        return self.engines[name].ask(f"answers {shape}")["logits"]

    def check(self):
        """Whoever is off is named and not timed."""
        found = self.report["agreement"] = {"bound": AGREEMENT, "shapes": {}, "wrong": []}
        for shape in self.options.shapes:
            answers = {}
            for name in list(self.engines):
                if name == "vigil" or shape in self.prepared.get(name, {}):
                    try:
                        answers[name] = self.logits(name, shape)
                    except (Failed, ValueError) as problem:
                        self.drop(name, problem)
            base = answers.get("reference") or answers.get("vigil")
            if not base:
                continue
            column = [row[0] for row in base]
            told = found["shapes"][shape] = {
                "against": "reference" if "reference" in answers else "vigil",
                "spread": statistics.pstdev(column), "from_reference": {}, "from_vigil": {}}
            for name, rows in answers.items():
                told["from_reference"][name] = largest_difference(base, rows)
                if "vigil" in answers:
                    told["from_vigil"][name] = largest_difference(answers["vigil"], rows)
                off = max(told["from_reference"][name], told["from_vigil"].get(name, 0.0))
                if not off <= AGREEMENT:
                    # Vigil itself is held against the reference; a rival against both.
                    if name not in found["wrong"]:
                        found["wrong"].append(name)
                    say(f"  {name}, {shape}: logits are off by {off:.2g}, at most {AGREEMENT:g}")
        for name in found["wrong"]:
            if name not in ("vigil", "reference") and "vigil" not in found["wrong"]:
                self.drop(name, f"its logits are off by more than {AGREEMENT:g}")
        worst = {}
        for told in found["shapes"].values():
            for name, off in told["from_reference"].items():
                worst[name] = max(worst.get(name, 0.0), off)
        spread = max((told["spread"] for told in found["shapes"].values()), default=0.0)
        say(f"agree: logits spread by {spread:.2g}; largest difference from PyTorch's fp32: "
            + ", ".join(f"{name} {value:.1e}" for name, value in worst.items()))
        if spread < 5 * AGREEMENT:
            say("  that spread is too small to tell a right engine from a wrong one")

    # --- rounds ---

    def turn(self, name, shape, runs):
        answer = self.engines[name].ask(f"shape {shape} {runs}")
        self.turns.setdefault(name, {}).setdefault(shape, []).append({
            "ms": statistics.median(answer["ms"]),
            "device_ms": statistics.median(answer["device_ms"] or answer["ms"]),
            "p10": quantile(answer["device_ms"] or answer["ms"], 0.1),
            "p90": quantile(answer["device_ms"] or answer["ms"], 0.9), "n": runs})

    def runs_for(self, name, shape):
        """As many as fit into a turn, and at least a few"""
        turns = self.turns.get(name, {}).get(shape)
        expected = turns[-1]["ms"] if turns else self.engines[name].ask(f"shape {shape} {MIN_RUNS}")["ms"][-1]
        return int(min(MAX_RUNS, max(MIN_RUNS, TURN_MS / max(expected, 1e-3))))

    def rivals_for(self, shape):
        return [name for name in self.engines
                if name not in ("vigil", "reference") and shape in self.report["ways"].get(name, {})]

    def play(self):
        generator, out = random.Random(1), set()
        for number in range(self.options.rounds):
            start = time.monotonic()
            for shape in self.options.shapes:
                rivals = [name for name in self.rivals_for(shape) if name not in out]
                generator.shuffle(rivals)
                for name in rivals or [None]:
                    for who in ("vigil", name):
                        if who is None or who not in self.engines:
                            continue
                        try:
                            self.turn(who, shape, self.runs_for(who, shape))
                        except (Failed, ValueError) as problem:
                            self.drop(who, problem)
            if number + 1 == PROBE_ROUNDS and not self.options.all:
                for name in self.hopeless():
                    say(f"  {name} is far behind and sits out")
                    out.add(name)
            say(f"round {number + 1} of {self.options.rounds}: {time.monotonic() - start:.1f} s")
            self.report["turns"] = self.turns
            self.write()

    def hopeless(self):
        best = {shape: min((self.figure(name, shape) for name in self.rivals_for(shape)
                            if self.figure(name, shape)), default=0) for shape in self.options.shapes}
        return [name for name in self.engines if name not in ("vigil", "reference") and name in self.turns
                and all(self.figure(name, shape) > HOPELESS * best[shape] for shape in self.turns[name])]

    def figure(self, name, shape, key="device_ms"):
        turns = self.turns.get(name, {}).get(shape)
        return statistics.median(t[key] for t in turns) if turns else None

    def play_flights(self):
        """Runs queued without a break, of Vigil and of the rivals that are near the best: no
        launch from the host, no Python between two runs"""
        found = self.report["in_flight"] = {}
        for shape in self.options.shapes:
            rivals = {name: self.figure(name, shape) for name in self.rivals_for(shape) if self.figure(name, shape)}
            near = [name for name, ms in rivals.items() if ms <= NEAR * min(rivals.values())]
            for name in ("vigil", *near):
                if name not in self.engines:
                    continue
                try:
                    runs = 2 * self.runs_for(name, shape)
                    answers = [self.engines[name].ask(f"flight {shape} {runs}") for _ in range(3)]
                except (Failed, ValueError) as problem:
                    self.drop(name, problem)
                    continue
                found.setdefault(shape, {})[name] = {
                    "ms": statistics.median(a["ms"] / runs for a in answers),
                    "device_ms": statistics.median(statistics.median(a["device_ms"]) for a in answers)
                    if answers[0]["device_ms"] else None}

    # --- figures ---

    def compare(self):
        table = self.report["figures"] = {}
        for shape in self.options.shapes:
            engines = {}
            for name in self.turns:
                if self.figure(name, shape):
                    engines[name] = {key: self.figure(name, shape, key) for key in ("device_ms", "ms", "p10", "p90")}
                    engines[name]["way"] = self.report["ways"].get(name, {}).get(shape, {}).get("way")
            cell = table[shape] = {"engines": engines}
            rivals = {name: e["device_ms"] for name, e in engines.items() if name != "vigil"}
            if rivals and "vigil" in engines:
                best = min(rivals, key=rivals.get)
                cell.update(best=best, best_ms=rivals[best], vigil_ms=engines["vigil"]["device_ms"],
                            ratio=rivals[best] / engines["vigil"]["device_ms"],
                            bar=RATIO_BAR if shape in BARRED else None)
            flights = {name: f["device_ms"] or f["ms"] for name, f in self.report["in_flight"].get(shape, {}).items()}
            ours = flights.pop("vigil", None)
            if flights and ours:
                best = min(flights, key=flights.get)
                cell["in_flight"] = {"best": best, "best_ms": flights[best], "vigil_ms": ours,
                                     "ratio": flights[best] / ours}
        self.report["turns"] = self.turns

    def print_table(self):
        figures, shapes = self.report["figures"], self.options.shapes
        what = "DRY: means nothing" if self.options.dry else self.report["peaks"].get("device", "")
        print(f"\nmedians of {self.options.rounds} rounds, ms by the device's clock; {what}\n")
        print("| engine | " + " | ".join(shapes) + " |\n|---|" + "---|" * len(shapes))
        names = ["vigil"] + [n for n in gpu_engines.ENGINES if n in self.turns]
        for name in names:
            cells = []
            for shape in shapes:
                e = figures[shape]["engines"].get(name)
                best = figures[shape].get("best") == name
                cells.append("-" if not e else f"{'**' if best else ''}{e['device_ms']:.4f}{'**' if best else ''}")
            print(f"| {name} | " + " | ".join(cells) + " |")
        print("| ratio to the best rival | " + " | ".join(
            f"{figures[s]['ratio']:.2f}" + (f" (bar {RATIO_BAR:g})" if s in BARRED else "")
            if figures[s].get("ratio") else "-" for s in shapes) + " |")
        print("| the same, runs queued | " + " | ".join(
            f"{figures[s]['in_flight']['ratio']:.2f}" if figures[s].get("in_flight") else "-" for s in shapes) + " |")
        for name, why in self.absent.items():
            print(f"absent: {name}: {why}")
        for name, missing in self.not_reached.items():
            print(f"not ready in time: {name}: {', '.join(missing)}")


def make_model(vigil, directory, *options):
    """DistilBERT-base's shape with random weights. At its usual initial size the head answers
    nearly the same to every text, and a wrong engine would agree with a right one: scaled up."""
    command = [*vigil.split(), "model", "random", *(options or ("--dim", "768", "--heads", "12", "--layers", "6")),
               directory]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"cannot make a model: {done.stderr.strip()}")
    with open(f"{directory}/model.safetensors", "r+b") as file:
        n_header = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(n_header))
        for name, factor in (("pre_classifier.weight", 4.0), ("classifier.weight", 4.0)):
            begin, end = header[name]["data_offsets"]
            file.seek(8 + n_header + begin)
            values = array.array("f", file.read(end - begin))
            file.seek(8 + n_header + begin)
            file.write(array.array("f", (factor * value for value in values)).tobytes())


def quantile(values, q):
    ordered = sorted(values)
    return ordered[round(q * (len(ordered) - 1))]


def largest_difference(a, b):
    """inf where the shapes differ or a value is not a number"""
    if len(a) != len(b) or any(len(x) != len(y) for x, y in zip(a, b)):
        return float("inf")
    most = max(abs(u - v) for x, y in zip(a, b) for u, v in zip(x, y))
    return most if most == most else float("inf")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--model", help="directory of a DistilBERT in f32, f16 or bf16; else a random one is made")
    parser.add_argument("--vigil", default=str(ROOT / "build/bin/vigil"), help="a program, or words that start one")
    parser.add_argument("--device", default="cuda", help="Vigil's")
    parser.add_argument("--vigil-options", default="", help="more options for vigil bench")
    parser.add_argument("--shapes", default=",".join(SHAPES), help="most important first")
    parser.add_argument("--budget", type=float, default=100, help="seconds until all are ready; 100")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help="rivals whose name this matches")
    parser.add_argument("--all", action="store_true", help="nobody sits out")
    parser.add_argument("--out", help="JSON")
    parser.add_argument("--dry", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options.shapes = options.shapes.split(",")
    with tempfile.TemporaryDirectory() as scratch:
        run = Run(options, scratch)
        try:
            if not options.model:
                options.model = f"{scratch}/model"
                make_model(options.vigil, options.model)
            steps = [("vigil", run.open_vigil), ("load", run.open_rivals), ("peaks", run.measure_peaks),
                     ("prepare", run.prepare_all), ("choose", run.choose), ("check", run.check),
                     ("rounds", run.play), ("in_flight", run.play_flights), ("figures", run.compare)]
            for name, step in steps:
                start = time.monotonic()
                step()
                run.spent(name, start)
            run.print_table()
        except Failed as problem:
            say(f"bench/rivals/gpu.py: {problem}")
            run.report["error"] = str(problem)
            return 1
        finally:
            run.write()
            for engine in list(run.engines.values()):
                engine.kill()
    wrong = "vigil" in run.report["agreement"]["wrong"]
    if wrong:
        say("bench/rivals/gpu.py: Vigil's logits are not PyTorch's")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
