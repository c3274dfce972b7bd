# SPDX-License-Identifier: Apache-2.0
"""Times Vigil and its CPU rivals side by side, in one run, on the same random checkpoint.

usage: ${VIGIL_SCRATCH:-~/.cache/vigil-scratch}/rivals/bin/python bench/rivals/cpu.py [--dim 384]

Every engine is a process that loads once, warms up and is then stopped (SIGSTOP). A round
lets each of them run alone for a turn, in random order: single sequences of 32 and 128
tokens, the stream as it comes, the stream sorted by length. So a slow minute of the machine
hits all of them alike, and an idle rival cannot take a core. A figure is the median over the
rounds; ratios are between medians. What other processes took during a turn is measured; a
turn that lost more than FOREIGN_LIMIT of the cores is not counted as long as enough quiet
ones remain. engines.py has the lines that are spoken with an engine.

An engine whose logits are not those of PyTorch's fp32 is named and left out.
"""
import argparse
import datetime
import json
import os
import platform
import random
import re
import signal
import statistics
import subprocess
import sys
import time

import models
import workload
from engines import ENGINES

HERE = os.path.dirname(os.path.abspath(__file__))
RESULTS = os.path.join(workload.ROOT, "bench/results")
SCRATCH = os.environ.get("VIGIL_SCRATCH", os.path.expanduser("~/.cache/vigil-scratch"))
ROWS = ("int8", "bf16", "fp32")
COLUMNS = ("1x32", "1x128", "arrival", "sorted")
RUNS = {"1x32": 15, "1x128": 9}  # of a turn, after as many warm ones as fit in WARM_SECONDS
WARM_SECONDS = 0.3
FOREIGN_LIMIT = 0.05
QUIET_ROUNDS = 3  # with this many quiet turns, noisy ones are not counted
AGREEMENT_TEXTS = 48
# Largest difference to PyTorch's fp32 logits, in units of their standard deviation over texts.
# Random weights leave int8 and bf16 little, and a rival that is fast because it is coarse is
# still the rival: only an engine that computes something else (several deviations) is out.
AGREEMENT = {"fp32": 3e-4, "bf16": 1.0, "int8": 2.0}
HOPELESS = 1.6  # after PROBE_ROUNDS, a rival this far behind in every column sits out
PROBE_ROUNDS = 2

# What the product is held to, against the best rival of the row.
BARS = {
    768: {
        "int8": {"1x32": 1.5, "1x128": 1.45, "arrival": 2.2, "sorted": 1.5},
        "bf16": {"1x32": 1.4, "1x128": 1.25, "arrival": 1.7, "sorted": 1.1},
        "fp32": {"1x32": 1.25, "1x128": 1.2, "arrival": 1.35, "sorted": 1.15},
    },
    384: {"int8": {"1x32": 1.8, "1x128": 1.6, "arrival": 2.4, "sorted": 1.6}},
}


def say(text):
    print(text, file=sys.stderr, flush=True)


class Process:
    """An engine's process: stopped unless it is its turn."""

    def __init__(self, name, command, environment, log):
        self.name, self.log_path = name, log
        with open(log, "wb") as errors:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                env=environment, text=True, start_new_session=True)
        self.about = self.read()
        self.stop()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            with open(self.log_path, encoding="utf-8", errors="replace") as log:
                tail = log.read().strip().splitlines()[-3:]
            raise RuntimeError(f"{self.name} ended: {' | '.join(tail) or 'no message'}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"{self.name}: {answer['error']}")
        return answer

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.read()

    def stop(self):
        os.killpg(self.process.pid, signal.SIGSTOP)

    def go(self):
        os.killpg(self.process.pid, signal.SIGCONT)

    def ticks(self):
        """CPU time of the process and of what it started, in clock ticks"""
        total = 0
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                        fields = file.read().rpartition(")")[2].split()
                except OSError:
                    continue
                if int(fields[2]) == self.process.pid:
                    total += int(fields[11]) + int(fields[12])
        return total

    def end(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def machine_ticks():
    """Ticks in which any core of the machine did something, or was taken by its host"""
    with open("/proc/stat", encoding="ascii") as stat:
        user, nice, system, _, _, irq, softirq, steal = map(int, stat.readline().split()[1:9])
    return user + nice + system + irq + softirq + steal


def turn(process):
    """One turn of one engine: {column: [ms, ...], "foreign": share of the cores}"""
    is_vigil = process.about["engine"].startswith("vigil")
    process.go()
    own, all_of_it, start = process.ticks(), machine_ticks(), time.perf_counter()
    result = {}
    for name, runs in RUNS.items():
        warm = time.perf_counter() + WARM_SECONDS
        while True:
            process.ask(f"{name} 3")
            if time.perf_counter() > warm:
                break
        result[name] = process.ask(f"{name} {runs}")["ms"]
    for order in ("arrival",) if is_vigil else ("arrival", "sorted"):
        result[order] = process.ask(f"stream {order}")["ms"]
    if is_vigil:  # it batches in its own way: one stream stands against both orders
        result["arrival"] += process.ask("stream arrival")["ms"]
        result["sorted"] = result["arrival"]
    wall = (time.perf_counter() - start) * os.sysconf("SC_CLK_TCK") * os.cpu_count()
    result["foreign"] = max(0.0, (machine_ticks() - all_of_it - process.ticks() + own) / wall)
    process.stop()
    return result


def counted(turns):
    quiet = [t for t in turns if t["foreign"] <= FOREIGN_LIMIT]
    return quiet if len(quiet) >= min(QUIET_ROUNDS, len(turns)) else turns


def summary(turns, column):
    """(median of the turns' medians, smallest), ms"""
    turns = counted(turns)
    return (
        statistics.median(statistics.median(t[column]) for t in turns),
        min(min(t[column]) for t in turns),
    )


def row_of(process):
    return process.about["row"]


def rivals_of(processes, row):
    return [p for p in processes if row_of(p) == row and not p.about["engine"].startswith("vigil")]


def hopeless(process, processes, turns):
    """True when rivals of the row are far ahead in every column."""
    if process.about["engine"].startswith("vigil"):
        return False
    for column in COLUMNS:
        best = min(summary(turns[p.name], column)[1] for p in rivals_of(processes, row_of(process)))
        if summary(turns[process.name], column)[1] < HOPELESS * best:
            return False
    return True


def environment_for_engines(threads):
    environment = dict(os.environ)
    environment.update(
        OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads), TOKENIZERS_PARALLELISM="false",
        HF_HUB_OFFLINE="1", PYTHONWARNINGS="ignore", OPENVINO_TELEMETRY_OPT_OUT="1")
    return environment


def vigil_commands(options, ids):
    """{name: (row, command)}; the int8 checkpoint is made on the way"""
    checkpoint = f"{options.work}/checkpoint"
    quantised = f"{options.work}/checkpoint-int8"
    if not os.path.exists(f"{quantised}/config.json"):
        subprocess.run([options.vigil, "model", "quantize", checkpoint, quantised], check=True)
    commands = {}
    for row in ROWS:
        model = quantised if row == "int8" else checkpoint
        commands[f"vigil-{row}"] = (row, [
            options.vigil, "bench", "--interactive", ids, "--model", model, "--dtype", row,
            "--threads", str(options.threads)])
    return commands


def start(options, ids, temporary):
    """Every engine, one after the other, so that each tunes alone. ([process], {name: why not})"""
    environment = environment_for_engines(options.threads)
    commands = {}
    for name, (row, _, _) in ENGINES.items():
        tuning = f"{options.work}/tuning-{name}-{options.threads}.json"
        if options.tune and os.path.exists(tuning):
            os.remove(tuning)
        commands[name] = (row, [
            sys.executable, os.path.join(HERE, "engines.py"), name, options.work, "--ids", ids,
            "--threads", str(options.threads), "--tuning", tuning])
    if os.path.exists(options.vigil):
        commands.update(vigil_commands(options, ids))
    else:
        say(f"no {options.vigil}: rivals only")
    processes, absent = [], {}
    for name, (row, command) in commands.items():
        if row not in options.rows or (options.only and not re.search(options.only, name)):
            continue
        say(f"start: {name}")
        try:
            process = Process(name, command, environment, f"{temporary}/{name}.log")
        except (RuntimeError, OSError, ValueError) as error:
            absent[name] = str(error)
            say(f"  left out: {error}")
            continue
        process.about.update(engine=name, row=row)
        processes.append(process)
    return processes, absent


def check_agreement(processes, options, ids):
    """Drops and names the engines whose answers are not PyTorch's. {name: largest difference}"""
    reference = f"{options.work}/reference-logits.json"
    if not os.path.exists(reference):
        code = (
            "import engines,json,sys,workload;"
            f"r=engines.PyTorch({options.work!r},'fp32',{options.threads});"
            f"json.dump([[float(x) for x in r.logits(s)] for s in workload.read_ids({ids!r})"
            f"[:{AGREEMENT_TEXTS}]],open({reference!r},'w'))")
        subprocess.run([sys.executable, "-c", code], check=True, cwd=HERE, stderr=subprocess.DEVNULL)
    with open(reference, encoding="ascii") as file:
        expected = json.load(file)
    spread = statistics.pstdev(row[0] for row in expected)
    differences, wrong = {}, []
    for process in processes:
        process.go()
        found = process.ask(f"logits {len(expected)}")["logits"]
        process.stop()
        difference = max(abs(a - b) for e, f in zip(expected, found) for a, b in zip(e, f))
        differences[process.name] = difference
        bound = AGREEMENT[row_of(process)] * spread
        is_wrong = not difference <= bound or len(found) != len(expected)
        say(f"agree: {process.name}: largest difference {difference:.2g} (bound {bound:g}, spread {spread:.2g})")
        if is_wrong:
            say(f"  {process.name} gives wrong answers and is not timed")
            wrong.append(process)
    for process in wrong:
        process.end()
        processes.remove(process)
    return {"spread": spread, "largest_difference": differences, "left_out": [p.name for p in wrong]}


def check_idle(processes):
    """Nobody may compute while nobody has a turn."""
    before = {p.name: p.ticks() for p in processes}
    time.sleep(0.5)
    busy = [p.name for p in processes if p.ticks() != before[p.name]]
    if busy:
        raise SystemExit(f"these engines compute while they are stopped: {', '.join(busy)}")


def play(processes, options):
    """{name: [turn, ...]}"""
    turns = {p.name: [] for p in processes}
    playing, generator = list(processes), random.Random(options.seed)
    for number in range(options.rounds):
        generator.shuffle(playing)
        begin = time.perf_counter()
        for process in playing:
            turns[process.name].append(turn(process))
        noisy = sum(turns[p.name][-1]["foreign"] > FOREIGN_LIMIT for p in playing)
        say(f"round {number + 1} of {options.rounds}: {len(playing)} engines, "
            f"{time.perf_counter() - begin:.0f} s, {noisy} noisy turns")
        if number + 1 == PROBE_ROUNDS and not options.all:
            out = [p for p in playing if hopeless(p, processes, turns)]
            for process in out:
                say(f"  {process.name} is far behind and sits out")
                playing.remove(process)
    return turns


def probe(options):
    """{row: GMAC/s that the machine's instructions reach}, or {} when Vigil cannot say"""
    if not os.path.exists(options.vigil):
        return {}
    command = [options.vigil, "bench", "--probe", "--threads", str(options.threads), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        say(f"no probe: {done.stderr.strip()}")
        return {}
    found = json.loads(done.stdout)
    return {row: found[f"{row}_gmac_s"] for row in ROWS if found.get(f"{row}_gmac_s")}


def work_of(n_tokens, n_texts, dim):
    """Multiply-adds of the encoder's products; the last layer makes K and V of every token
    and all else for one row a text."""
    kv, rest = 2 * dim * dim, 2 * dim * dim + 2 * dim * 4 * dim
    return n_tokens * (models.LAYERS * kv + (models.LAYERS - 1) * rest) + n_texts * rest


def floors(peaks, options, sequences):
    """{row: {column: ms}}"""
    sizes = {name: (n, 1) for name, n in workload.SHAPES.items()}
    sizes["arrival"] = sizes["sorted"] = (sum(map(len, sequences)), len(sequences))
    return {
        row: {c: work_of(*sizes[c], options.dim) / peak / 1e6 for c in COLUMNS}
        for row, peak in peaks.items()}


def display(column, ms, n_texts):
    return f"{ms:.2f}" if column in workload.SHAPES else f"{1e3 * n_texts / ms:.0f}"


def compare(processes, turns, options, floor):
    """{row: {column: {best, best_ms, vigil_ms, ratio, bar, floor_share}}}"""
    table = {}
    for row in options.rows:
        rivals = rivals_of(processes, row)
        vigil = next((p for p in processes if p.name == f"vigil-{row}"), None)
        table[row] = {}
        for column in COLUMNS if rivals else ():
            best = min(rivals, key=lambda p: summary(turns[p.name], column)[0])
            cell = {"best": best.name, "best_ms": summary(turns[best.name], column)[0]}
            if vigil:
                cell["vigil_ms"], smallest = summary(turns[vigil.name], column)
                cell["ratio"] = cell["best_ms"] / cell["vigil_ms"]
                cell["ratio_of_smallest"] = summary(turns[best.name], column)[1] / smallest
                cell["bar"] = BARS.get(options.dim, {}).get(row, {}).get(column)
                if row in floor:
                    cell["floor_share"] = floor[row][column] / cell["vigil_ms"]
            table[row][column] = cell
    return table


def print_tables(processes, turns, table, n_texts, options):
    print(f"\n{models.LAYERS} layers x {options.dim}, {options.threads} threads: median (best) of the rounds\n")
    print("| engine | computes in | 1x32 ms | 1x128 ms | stream, as it comes, texts/s | sorted texts/s |")
    print("|---|---|---|---|---|---|")
    for row in options.rows:
        for process in (p for p in processes if row_of(p) == row):
            cells = []
            for column in COLUMNS:
                median, smallest = summary(turns[process.name], column)
                cells.append(f"{display(column, median, n_texts)} ({display(column, smallest, n_texts)})")
            print(f"| {process.name} | {process.about.get('effective', '')} | {' | '.join(cells)} |")
    print("\n| Vigil / best rival | 1x32 | 1x128 | stream, rival as they come | stream, rival sorted |")
    print("|---|---|---|---|---|")
    for row, columns in table.items():
        cells = []
        for column in COLUMNS:
            cell = columns.get(column, {})
            if "ratio" not in cell:
                cells.append("-")
                continue
            text = f"{cell['ratio']:.2f}x over {cell['best'].rpartition('-' + row)[0] or cell['best']}"
            if cell["bar"]:
                text += f" ({'meets' if cell['ratio'] >= cell['bar'] else 'MISSES'} {cell['bar']:g}x)"
            if "floor_share" in cell:
                text += f", {100 * cell['floor_share']:.0f} % of floor"
            cells.append(text)
        print(f"| {row} | {' | '.join(cells)} |")


def describe_machine():
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        info = dict(re.findall(r"^(model name|flags|cache size)\s*: (.*)$", file.read(), re.M))
    kept = r"^(avx|fma|f16c|amx|sse4|vnni)"
    return {
        "cpu": info.get("model name", platform.machine()), "cores": os.cpu_count(),
        "flags": " ".join(f for f in info.get("flags", "").split() if re.match(kept, f)),
        "kernel": platform.release(),
    }


def isa_name(machine):
    for name in ("amx_int8", "avx512_vnni", "avx512f", "avx2"):
        if name in machine["flags"].split():
            return name.replace("_", "-")
    return platform.machine()


def save(path, machine, processes, turns, absent, agreement, table, peaks, about, options):
    result = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine, "threads": options.threads, "dim": options.dim, "layers": models.LAYERS,
        "rounds": options.rounds, "stream": about, "probed_gmac_s": peaks, "agreement": agreement,
        "absent": absent, "comparison": table,
        "engines": [
            {**p.about, "turns": [
                {k: round(v, 4) if k == "foreign" else [round(x, 4) for x in v] for k, v in t.items()}
                for t in turns[p.name]]}
            for p in processes],
    }
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as out:
        json.dump(result, out, indent=1)
        out.write("\n")
    say(f"\nwritten: {os.path.relpath(path)}")


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dim", type=int, default=768, help="width; hidden is 4 times that (default 768)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--texts", type=int, default=512, help="length of the stream")
    parser.add_argument("--rows", default=",".join(ROWS), help="of int8,bf16,fp32")
    parser.add_argument("--only", help="engines whose name matches this regular expression")
    parser.add_argument("--all", action="store_true", help="no rival sits out, however slow")
    parser.add_argument("--tune", action="store_true", help="tune the rivals anew")
    parser.add_argument("--synthetic", action="store_true", help="do not use the tweets")
    parser.add_argument("--seed", type=int, default=0, help="of the order of turns")
    parser.add_argument("--vigil", default=os.path.join(workload.ROOT, "build/bin/vigil"))
    parser.add_argument("--output", help="default: bench/results/rivals-DIM-ISA.json")
    options = parser.parse_args()
    options.rows = [r for r in ROWS if r in options.rows.split(",")]
    options.work = f"{SCRATCH}/rivals-{options.dim}"
    return options


def main():
    options = parse()
    machine = describe_machine()
    # In a process of its own: what the converters load must not stay in memory here.
    subprocess.run([sys.executable, os.path.join(HERE, "models.py"), options.work, str(options.dim)], check=True)
    sequences, what = workload.stream(options.texts, not options.synthetic)
    ids = f"{options.work}/stream.ids"
    workload.write_ids(sequences, ids)
    mean = statistics.mean(map(len, sequences))
    say(f"stream: {len(sequences)} texts, {what}, mean {mean:.1f} tokens")
    processes = []
    try:
        processes, absent = start(options, ids, options.work)
        agreement = check_agreement(processes, options, ids)
        check_idle(processes)
        peaks = probe(options)
        turns = play(processes, options)
        again = probe(options)
        peaks = {row: max(peak, again.get(row, 0)) for row, peak in peaks.items()}
    finally:
        for process in processes:
            process.end()
    table = compare(processes, turns, options, floors(peaks, options, sequences))
    print_tables(processes, turns, table, len(sequences), options)
    about = {"texts": len(sequences), "mean_tokens": round(mean, 1), "what": what}
    path = options.output or f"{RESULTS}/rivals-{options.dim}-{isa_name(machine)}.json"
    save(path, machine, processes, turns, absent, agreement, table, peaks, about, options)


if __name__ == "__main__":
    main()
