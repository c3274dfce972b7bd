# SPDX-License-Identifier: Apache-2.0
"""Scenarios that are programs in C (tests/faults/test_*.c), which say what they counted in lines
of JSON, each behind a word of its own: power cuts under a store and under the lake's files, a
full disk. Their negative controls are in them.
"""
import json
import os
import subprocess

from ground import BIN

SECONDS = 1500  # a bound on hangs


def take(outcome, tier, name, word, setting, numbers):
    """Runs build/faults/NAME; setting: the variable that says how often, {tier: number}."""
    program = BIN.parent / "faults" / name
    if not program.exists():
        outcome.is_wrong(f"{program} is not built; run make tests")
        return
    env = {**os.environ, "VIGIL_FAULT_SEED": str(outcome.seed), setting: str(numbers[tier])}
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False,
                          timeout=SECONDS, env=env)
    lines = [line for line in done.stdout.splitlines() if line.startswith(word + " ")]
    for line in lines:
        said = json.loads(line.split(" ", 1)[1])
        outcome.faults += said.get("points", 0) + said.get("fills", 0)
        outcome.lost += said["lost"]
        outcome.doubled += said["doubled"]
        outcome.wrong += said["corrupt"] + said.get("torn", 0)
    outcome.check(bool(lines), f"{name} said no count")
    outcome.check(done.returncode == 0, f"{name}: exit code {done.returncode}: {done.stdout[-500:]}")


def power(outcome, tier):
    take(outcome, tier, "test_power", "VIGIL_POWER", "VIGIL_FAULT_POINTS", {"ci": 200, "night": 2000})
    take(outcome, tier, "test_lake", "VIGIL_LAKE_CUT", "VIGIL_FAULT_POINTS", {"ci": 200, "night": 2000})


def disk_full(outcome, tier):
    take(outcome, tier, "test_disk_full", "VIGIL_DISK_FULL", "VIGIL_FAULT_FILLS", {"ci": 10, "night": 100})
