# SPDX-License-Identifier: Apache-2.0
"""The statements of `vigil export --statements`: DuckDB runs its own over a real export, sqlglot
reads those of Athena and Trino in their dialects."""
import json

import duckdb
import pytest
import sqlglot

from pipeline import bring_in, post, vigil

REFERENCE = ["id", "text", "pred_label", "pred_prob", "user_id", "timestamp", "user_city", "user_state",
             "user_location", "drug_mentions", "ae_type", "icd_codes"]
TEXTS = ["zoloft gave me a terrible rash", "picked up my prozac today, it's fine", "xanax makes me so dizzy"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, server):
    where = tmp_path_factory.mktemp("it's a lake")
    for name in ("a", "b-c"):
        bring_in(where, [post(n, text=TEXTS[n % 3], author=f"u{n}", time=f"2026-11-0{1 + n % 3}T10:00:00Z")
                         for n in range(40)], "--no-fold", name=name)
    vigil(where, "enrich", "--once", "--quiet", "--server", f"http://127.0.0.1:{server.port}")
    vigil(where, "export", "--quiet", "--max-rows", "10", "lake")
    vigil(where, "erase", "--post", "a:7")
    return where


def rows(folder, sql):
    return [tuple(row.values()) for row in
            json.loads(vigil(folder, "query", "--format", "json", sql)[0])]


def statements(folder, engine, *flags):
    return vigil(folder, "export", "--statements", engine, *flags, "lake")[0]


@pytest.fixture(scope="module")
def lake(folder):
    db = duckdb.connect()
    db.execute(statements(folder, "duckdb"))
    return db


def test_duckdb_has_the_columns(lake):
    columns = lake.execute("DESCRIBE vigil_events").fetchall()
    assert [column[0] for column in columns][:12] == REFERENCE
    types = {column[0]: column[1] for column in columns}
    assert types["pred_prob"] == "DOUBLE" and types["icd_codes"] == "VARCHAR[]"
    assert types["dt"] == "DATE" and types["source"] == "VARCHAR" and types["version"] == "BIGINT"
    assert types["mentions"].startswith("STRUCT(") and types["mentions"].endswith("[]")


@pytest.mark.parametrize("ours, theirs", [
    ("SELECT count(*) AS n FROM classified", "SELECT count(*) FROM vigil_events"),
    ("SELECT label, count(*) AS n FROM classified GROUP BY label ORDER BY label",
     "SELECT pred_label, count(*) FROM vigil_events GROUP BY 1 ORDER BY 1"),
    ("SELECT drug, label, n FROM drug_labels ORDER BY drug, label",
     "SELECT drug_mentions, pred_label, count(*) FROM vigil_events GROUP BY 1, 2 ORDER BY 1, 2"),
    ("SELECT source, date(posted_ns / 1000000000, 'unixepoch') AS dt, count(*) AS n FROM classified "
     "GROUP BY 1, 2 ORDER BY 1, 2",
     "SELECT source, dt::VARCHAR, count(*) FROM vigil_events GROUP BY 1, 2 ORDER BY 1, 2"),
    ("SELECT key, text, author, version FROM classified ORDER BY key",
     "SELECT key, text, user_id, version FROM vigil_events ORDER BY key"),
    ("SELECT type, count(*) AS n FROM mentions GROUP BY type ORDER BY type",
     "SELECT m.type, count(*) FROM (SELECT unnest(mentions) AS m FROM vigil_events) GROUP BY 1 ORDER BY 1"),
    ("SELECT band, count(*) AS n FROM cases GROUP BY band ORDER BY band",
     "SELECT band, count(*) FROM vigil_events WHERE pred_prob >= 0.4 GROUP BY band ORDER BY band"),
])
def test_duckdb_counts_as_vigil_query(folder, lake, ours, theirs):
    found = lake.execute(theirs).fetchall()
    assert found == rows(folder, ours) and found


def test_duckdb_reads_one_partition_alone(lake):
    plan = lake.execute("EXPLAIN SELECT text FROM vigil_events WHERE source = 'a' AND dt = '2026-11-02'").fetchall()
    assert "Scanning Files" in plan[0][1] or "File Filters" in plan[0][1], plan[0][1]


@pytest.mark.parametrize("engine, dialect", [("athena", "athena"), ("trino", "trino"), ("duckdb", "duckdb"),
                                             ("clickhouse", "clickhouse")])
def test_statements_are_of_their_dialect(folder, engine, dialect):
    said = statements(folder, engine, "--location", "s3://safety/it's/events/")
    parsed = [one for one in sqlglot.parse(said, dialect=dialect) if one]
    assert parsed and "vigil_events" in parsed[0].sql(dialect)
    if engine in ("athena", "trino"):
        create = parsed[0]
        assert isinstance(create, sqlglot.exp.Create) and create.kind == "TABLE"
        names = [column.name for column in create.find(sqlglot.exp.Schema).find_all(sqlglot.exp.ColumnDef)]
        assert names[:12] == REFERENCE and "mentions" in names
        types = {column.name: column.args["kind"].sql(dialect) for column in create.find_all(sqlglot.exp.ColumnDef)}
        assert types["icd_codes"].upper().startswith("ARRAY") and types["pred_prob"].upper() == "DOUBLE"
