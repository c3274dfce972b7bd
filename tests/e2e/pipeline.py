# SPDX-License-Identifier: Apache-2.0
"""Stores that were filled as people fill them, for the tests of the programs over the store.

    bring_in(folder, [post(1), post(2)])     # vigil stream into folder/vigil.db
    settle(folder)                           # a result for each, without a server
    query(folder, "SELECT * FROM cases")     # vigil query, as a list of objects
    vigil(folder, "erase", "--post", "a:1")  # any program: what it wrote on both outputs

Programs that go on running are test_stream.Stream and test_enrich.Worker.
"""
import contextlib
import gzip
import json
import os
import pathlib
import sqlite3
import subprocess

from serving import BIN, PATIENCE, check_log
from test_stream import jsonl, lock, post  # noqa: F401

SHA256 = "5e" * 32  # of the model that settle stands for


def environment(**more):
    """Without options of whoever runs the tests."""
    return {**{k: v for k, v in os.environ.items() if not k.startswith("VIGIL_")}, **more}


def vigil(folder, program, *arguments, code=0, **more):
    """Runs a program in the folder; (standard output, standard error)."""
    more.setdefault("stdin", subprocess.DEVNULL if "input" not in more else None)
    if more["stdin"] is None:
        del more["stdin"]
    done = subprocess.run([str(BIN / f"vigil-{program}"), *map(str, arguments)], cwd=folder,
                          env=environment(), stdout=more.pop("stdout", subprocess.PIPE),
                          stderr=subprocess.PIPE, timeout=2 * PATIENCE, check=False, **more)
    err = done.stderr.decode("utf-8", "replace")
    assert done.returncode == code, f"{program} {arguments}: {done.returncode}: {err}"
    if "show" not in arguments:
        check_log(err)
    return (done.stdout or b"").decode("utf-8", "surrogateescape"), err


def bring_in(folder, posts, *flags, name="a", store="vigil.db"):
    """Posts, or lines as they are; returns what vigil stream counted."""
    lines = "".join(p if isinstance(p, str) else jsonl([p]) for p in posts)
    path = pathlib.Path(folder) / f"{name}.in.jsonl"
    path.write_text(lines, "utf-8")
    out, _ = vigil(folder, "stream", "--json", "--quiet", "--from-start", "--name", name,
                   "--store", store, *flags, path)
    path.unlink()
    return json.loads(out)


@contextlib.contextmanager
def writing(folder):
    """A connection to the store, held as its programs hold it."""
    held = lock(pathlib.Path(folder) / "vigil.db-lock")
    try:
        with contextlib.closing(sqlite3.connect(pathlib.Path(folder) / "vigil.db",
                                                timeout=PATIENCE)) as db:
            db.execute("PRAGMA foreign_keys = 1")
            with db:
                yield db
    finally:
        os.close(held)


RESULT = f"""INSERT INTO results SELECT p.id, p.version, '{SHA256}', 'm', 'int8',
  CASE p.id % 3 WHEN 0 THEN 'Not_AE' ELSE 'Adverse_Event' END, 0.9,
  CASE p.id % 3 WHEN 0 THEN 0.1 ELSE 0.9 END, 0.6,
  CASE p.id % 3 WHEN 0 THEN 'negative' ELSE 'positive' END, 9, 1, 0, p.received_ns + 1
  FROM posts p WHERE NOT EXISTS (SELECT 1 FROM results r WHERE r.post_id = p.id AND
  r.version = p.version) AND p.source LIKE '%'"""
MENTION = f"""INSERT INTO mentions SELECT r.post_id, r.version, '{SHA256}', 0, 'WATCH', 'zoloft',
  'sertraline', 0, 6, 1.0 FROM results r WHERE NOT EXISTS (SELECT 1 FROM mentions m WHERE
  m.post_id = r.post_id AND m.version = r.version)"""
SETTLE = (RESULT, MENTION, "DELETE FROM queue WHERE post_id IN (SELECT post_id FROM results)")


def settle(folder, source="%"):
    """A result for the present version of each post of a source, where there is none yet."""
    with writing(folder) as db:
        for statement in SETTLE:
            db.execute(statement.replace("source LIKE '%'", f"source LIKE '{source}'"))


def query(folder, sql, *flags):
    return json.loads(vigil(folder, "query", "--format", "json", *flags, sql)[0])


def lake_rows(folder):
    """Every line of every file below: (path, object)."""
    for path in sorted(pathlib.Path(folder).glob("dt=*/source=*/*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                yield path, json.loads(line)


def files_with(folder, *needles):
    """The files below the folder that hold one of these, gzip looked into."""
    found = []
    for path in sorted(pathlib.Path(folder).rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        if path.name.endswith(".gz"):
            data += gzip.decompress(data)
        found += [(path, needle) for needle in needles if needle.encode() in data]
    return found
