# SPDX-License-Identifier: Apache-2.0
"""`make run`, as somebody who sees it for the first time: a thousand posts from a file through
stream, store, worker and server, and the counts that come out of it."""
import csv
import fcntl
import io
import json
import os
import re
import subprocess

import pytest

from serving import BIN, ROOT

POSTS = ROOT / "client/demo/posts.jsonl"
DRUGS = {
    "sertraline": ("zoloft", "sertraline", "setraline"),
    "escitalopram": ("lexapro", "escitalopram"),
    "ibuprofen": ("advil", "ibuprofen", "motrin"),
    "metformin": ("metformin", "glucophage"),
    "atorvastatin": ("lipitor", "atorvastatin"),
    "semaglutide": ("ozempic", "wegovy", "semaglutide"),
    "lisinopril": ("lisinopril", "zestril"),
    "amoxicillin": ("amoxicillin", "amoxil"),
}
# Posts by drug: (Adverse_Event, Not_AE). They change with the posts, the watch list, the
# folding and the model, and with nothing else.
EXPECTED = {
    "amoxicillin": (39, 40), "atorvastatin": (35, 40), "escitalopram": (35, 42), "ibuprofen": (39, 33),
    "lisinopril": (32, 37), "metformin": (31, 32), "semaglutide": (46, 41), "sertraline": (33, 39),
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """What the demo printed, and its store."""
    build = tmp_path_factory.mktemp("demo")
    (build / "bin").symlink_to(BIN)
    env = {k: v for k, v in os.environ.items() if not k.startswith("VIGIL_")}
    ended = subprocess.run([ROOT / "client/demo/run", "--build", build, "--port", "0", "--once"],
                           env=env, capture_output=True, text=True, timeout=180, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended, build / "run/vigil.db"


def query(store, sql):
    out = subprocess.run([BIN / "vigil", "query", "--store", store, "--format", "csv", sql],
                         capture_output=True, text=True, check=True).stdout
    return list(csv.DictReader(io.StringIO(out)))


def records():
    """The readable lines of the file."""
    for line in POSTS.read_text("utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("id"), str):
            yield record


def named(text):
    words = set(re.findall(r"\w+", text.lower()))
    return {drug for drug, names in DRUGS.items() if words & set(names)}


def test_counts(demo):
    ended, store = demo
    shown = {}
    for line in ended.stdout.splitlines()[2:]:
        drug, label, n = line.split()
        shown.setdefault(drug, {})[label] = int(n)
    assert shown == {drug: {"Adverse_Event": ae, "Not_AE": not_ae}
                     for drug, (ae, not_ae) in EXPECTED.items()}
    rows = query(store, "SELECT drug, label, n FROM drug_labels")
    assert {(row["drug"], row["label"]): int(row["n"]) for row in rows} == \
        {(drug, label): n for drug, labels in shown.items() for label, n in labels.items()}
    assert re.search(r"1000 lines, .* 5 dead", ended.stderr), ended.stderr


def test_every_post_is_somewhere(demo):
    """Counted from the file, without Vigil: each English post that names a drug is a post, or
    is counted on one; the withdrawn, the foreign and the rest are not there."""
    _, store = demo
    withdrawn = {record["id"] for record in records() if record.get("deleted")}
    wanted = {record["id"] for record in records()
              if record.get("lang") == "en" and named(record.get("text", ""))} - withdrawn
    posts = {row["key"].removeprefix("demo:"): row for row in
             query(store, "SELECT key, text, version, n_reposts, n_duplicates FROM posts")}
    assert posts and set(posts) <= wanted
    folded = sum(int(row["n_reposts"]) + int(row["n_duplicates"]) for row in posts.values())
    # What was folded into a post that was withdrawn later went with it.
    assert len(wanted) - 30 <= len(posts) + folded <= len(wanted) + 5
    assert not withdrawn & set(posts)
    newest = {}
    for record in records():
        if not record.get("deleted") and record.get("version", 1) >= newest.get(record["id"], (0,))[0]:
            newest[record["id"]] = (record.get("version", 1), record["text"])
    for key, row in posts.items():
        assert int(row["version"]) == newest[key][0]
        assert named(row["text"]), row["text"]
        assert "http://" not in row["text"] and "example.com" not in row["text"]


def test_labels_are_the_classifiers(demo):
    """The same texts through `vigil classify`."""
    _, store = demo
    rows = query(store, "SELECT key, text, label, band, author FROM classified ORDER BY key")
    lines = "".join(json.dumps({"id": row["key"], "text": row["text"]}) + "\n" for row in rows)
    out = subprocess.run([BIN / "vigil", "classify", "--device", "cpu"], input=lines,
                         capture_output=True, text=True, check=True).stdout
    labels = {answer["id"]: answer["label"] for answer in map(json.loads, out.splitlines())}
    assert labels == {row["key"]: row["label"] for row in rows}
    assert all((row["label"] == "Adverse_Event") == (row["band"] == "positive") for row in rows)
    assert all(re.fullmatch("[0-9a-f]{32}", row["author"]) for row in rows)


def test_two_at_once(demo):
    """The second one leaves the store of the first alone."""
    _, store = demo
    build = store.parent.parent
    before = store.read_bytes()
    with open(build / "run.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = subprocess.run([ROOT / "client/demo/run", "--build", build, "--port", "0", "--once"],
                               capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1 and "another make run" in ended.stderr, ended.stderr
    assert store.read_bytes() == before


def test_the_file_is_what_the_script_writes():
    script = ROOT / "client/demo/make_posts.py"
    out = subprocess.run(["/usr/bin/python3", script], capture_output=True, check=True).stdout
    assert out == POSTS.read_bytes()
