# SPDX-License-Identifier: Apache-2.0
"""The X source against a fake of X's API: messages, errors, rules, waits, gaps. Waits are not
slept through: they are a hundredth or a thousandth of X's, and the log has the real ones."""
import os
import pathlib
import time

import pytest
from sourcing import Source, secret, until

from fakes import x as fake
from fakes.wire import certificate
from fakes.x import FakeX

WATCH = """escitalopram: lexapro, cipralex, "es citalopram"
ibuprofen: advil, nurofen liquid
l-dopa: levodopa
"""


@pytest.fixture
def x(tmp_path):
    """x(server, **settings): the source against that server; both are stopped behind the test."""
    (tmp_path / "rules").write_text("# a comment\n(aspirin OR ibuprofen) lang:en -is:retweet\n")
    (tmp_path / "watch").write_text(WATCH.replace('"', ''))
    running = []

    def one(server, **settings):
        settings.setdefault("token_file", secret(tmp_path, "token", fake.TOKEN))
        if "watch_list" not in settings:
            settings.setdefault("rules_file", tmp_path / "rules")
        source = Source("x", settings.pop("target", server.url), allows_plain=True, **settings)
        running.append((server, source))
        return source

    one.folder = tmp_path
    yield one
    for server, source in running:
        source.kill()
        server.stop()
    for server, source in running:
        assert server.violations == []


def steps_within(waits, expected):
    """Each wait is its step and at most a tenth more (network waits never over 16 s)."""
    assert len(waits) >= len(expected), (waits, expected)
    for wait, step in zip(waits, expected):
        assert step <= wait <= step * 1.1 + 1e-6, (waits, expected)


# ---- messages ------------------------------------------------------------------------------

def test_posts_over_any_split(x):
    edits = ["11", "12"]
    server = FakeX([[
        ("split",), ("keepalive",), ("post", 10), ("keepalive",), ("keepalive",),
        ("post", 12, {"edit_history_tweet_ids": edits}),
        ("post", 13, {"note_tweet": {"text": "the whole of it"}}),
        ("line", {"data": {"text": "no id"}}),
        ("line", {"data": {"id": "14"}}),
        ("line", {"data": {"id": "15", "text": "RT", "referenced_tweets": [
            {"type": "retweeted", "id": "9"}]}, "includes": {"tweets": [
                {"id": "9", "text": "first", "author_id": "7"}]}}),
        ("line", {"delete": {"status": {"id_str": "10", "user_id_str": "42"}}}),
        ("line", {"data": {"delete": {"tweet": {"id": "12", "author_id": "42"}}}}),
        ("line", {"new": {"kind": "of message"}}), ("line", b"this is no JSON"),
        ("line", {"data": {"id": "16", "text": "x"}, "errors": [{"title": "Not Found Error"}]}),
        ("line", b'{"data":{"id":"17","text":"' + b"y" * (1 << 20) + b'"}}'),
        ("post", 18), ("until_gone",)]])
    source = x(server)
    lines = source.wait_lines(13)
    source.stop()
    posts = [line.get("post") for line in lines]
    assert [p and p["action"] for p in posts] == [
        "put", "put", "put", None, "put", "put", "delete", "delete", "nothing", None, "put", None,
        "put"]
    assert posts[0]["author"] == "42" and posts[0]["author_name"] == "somebody"
    assert posts[0]["place"] == "Austin, TX" and posts[0]["lang"] == "en"
    assert posts[0]["url"] == "https://x.com/i/web/status/10"
    assert posts[0]["posted_ns"] == 1767323045000000000
    assert (posts[1]["native_id"], posts[1]["version"]) == ("11", 2)
    assert posts[2]["text"] == "the whole of it"
    assert (posts[5]["relation"], posts[5]["original_id"], posts[5]["original_text"]) == (
        "repost", "9", "first")
    assert [posts[6]["native_id"], posts[7]["native_id"]] == ["10", "12"]
    assert lines[11]["cut"] and len(lines[11]["line"]) == 1 << 20
    # The cursor grows with every line, and begins with the newest id.
    cursors = [tuple(map(int, line["cursor"].split(":"))) for line in lines]
    assert cursors == sorted(set(cursors)) and cursors[-1][1] == 18
    assert [cursor[3] for cursor in cursors] == list(range(1, 14))


def test_the_connection_is_closed_in_order(x, tmp_path):
    for tls in (None, certificate(tmp_path)):
        server = FakeX([[("post", 1), ("until_gone",)]], tls=tls)
        source = x(server, ca_file=tls and tls[0])
        source.wait_lines(1)
        assert source.stop()["end"] == "cancelled"
        until(lambda: not any(c.is_open for c in server.connections), "open connections")
        assert all(c.ended_cleanly for c in server.connections)


def test_a_certificate_nobody_knows(x, tmp_path):
    server = FakeX(tls=certificate(tmp_path))
    end = x(server).finish(1)
    assert end["end"] == "invalid" and "certificate" in end["message"].lower(), end
    assert server.requests == []


def test_plain_http_is_for_loopback_alone(x):
    end = x(FakeX(), target="http://192.0.2.1:80").finish(1)
    assert end["end"] == "invalid" and "https" in end["message"]


# ---- who we are ----------------------------------------------------------------------------

def test_a_token_for_a_key(x, tmp_path):
    server = FakeX([[("post", 1), ("until_gone",)]])
    server.token_answers = [(503, {"errors": []})]
    key = secret(tmp_path, "key", f"{fake.KEY}:{fake.SECRET}")
    source = x(server, token_file=None, key_file=key, scale=0.001)
    source.wait_lines(1)
    source.stop()
    steps_within(source.waits(), [5])


@pytest.mark.parametrize("answer", [(403, {"errors": [{"code": 99}]}), (200, {"token_type": "mac"}),
                                    (200, {})])
def test_no_token(x, tmp_path, answer):
    server = FakeX()
    server.token_answers = [answer]
    key = secret(tmp_path, "key", f"{fake.KEY}:{fake.SECRET}")
    assert x(server, token_file=None, key_file=key).finish(1)["end"] == "invalid"


def test_a_wrong_token(x, tmp_path):
    server = FakeX()
    server.expected_401 = True
    token = secret(tmp_path, "wrong", "another-qzmark7731")
    end = x(server, token_file=token).finish(1)
    assert end["end"] == "invalid" and "401 Unauthorized" in end["message"]


def test_secrets_that_others_can_read(x, tmp_path):
    token = secret(tmp_path, "open", fake.TOKEN)
    token.chmod(0o644)
    assert "chmod 600" in x(FakeX(), token_file=token).finish(1)["message"]


# ---- rules ---------------------------------------------------------------------------------

def test_rules_are_reconciled(x, tmp_path):
    others = [{"value": f"cats {i}", "tag": "mine"} for i in range(25)]
    stale = {"value": "(old) -is:retweet", "tag": "vigil:0000000000000000"}
    for keeps in (True, False):
        server = FakeX(rules=[*others, stale], page=10)
        for n in range(2):
            source = x(server, watch_list=tmp_path / "watch", languages="en,es",
                       keeps_other_rules=keeps)
            source.wait(lambda: "streaming" in source.phase_names(), "streaming")
            source.stop()
        values = {rule["value"]: rule.get("tag") for rule in server.rules.values()}
        ours = [value for value, tag in values.items() if tag.startswith("vigil:")]
        assert len(ours) == 1 and stale["value"] not in values
        assert ours[0].startswith("(") and ours[0].endswith(") (lang:en OR lang:es) -is:retweet")
        for name in ("escitalopram", "lexapro", '"es citalopram"', '"nurofen liquid"', '"l-dopa"'):
            assert name in ours[0]
        assert (len(values) == 26) == keeps
        assert server.dry_runs == [1]  # the second start had nothing to change


def test_many_names_are_split_over_rules(x, tmp_path):
    (tmp_path / "many").write_text("".join(f"drug{i:05}\n" for i in range(500)))
    server = FakeX()
    source = x(server, watch_list=tmp_path / "many", max_rule_bytes=200)
    source.wait(lambda: "streaming" in source.phase_names(), "streaming")
    source.stop()
    found = [name for rule in server.rules.values() for name in
             rule["value"].partition(")")[0].strip("(").split(" OR ")]
    assert sorted(found) == [f"drug{i:05}" for i in range(500)]
    assert all(len(rule["value"]) <= 200 for rule in server.rules.values())


def test_rules_that_are_refused(x, tmp_path):
    kept = {"value": "(old) -is:retweet", "tag": "vigil:0000000000000000"}
    (tmp_path / "bad").write_text("refuse-me\n")
    server = FakeX(rules=[kept])
    end = x(server, rules_file=tmp_path / "bad").finish(1)
    assert end["end"] == "invalid" and "Rule is no good" in end["message"]
    assert list(server.rules.values()) == [kept]  # nothing was deleted
    (tmp_path / "worse").write_text("aspirin\na OR b lang:en\n")
    end = x(server, rules_file=tmp_path / "worse").finish(1)
    assert "worse:2" in end["message"] and "AND binds first" in end["message"]
    end = x(FakeX(rules=[{"value": "theirs", "tag": "t"}]), max_rules=1,
            keeps_other_rules=True).finish(1)
    assert end["end"] == "limit"


# ---- waits ---------------------------------------------------------------------------------

def waits_of(x, server, n, scale):
    source = x(server, scale=scale)
    source.wait(lambda: len(source.waits()) >= n, f"{n} waits")
    source.stop()
    gaps = [b - a for a, b in zip(server.connects, server.connects[1:])]
    for gap, wait in zip(gaps, source.waits()):
        assert gap >= wait * scale - 0.001, (gaps, source.waits())
    return source


def test_http_errors_double_to_320_s(x):
    codes = [500, 502, 503, 504, 500, 503, 503, 503, 503]
    server = FakeX([*[[("status", code)] for code in codes], [("until_gone",)]])
    source = waits_of(x, server, 9, 0.0005)
    steps_within(source.waits(), [5, 10, 20, 40, 80, 160, 320, 320, 320])


def test_network_errors_add_250_ms_to_16_s(x):
    server = FakeX([[("unanswered",)]])
    server.script = [[("rst",)]]
    server._play = lambda plan, connection: connection.reset()
    source = waits_of(x, server, 70, 0.0005)
    waits = source.waits()
    steps_within(waits[:63], [0.25 * (i + 1) for i in range(63)])
    assert all(wait == 16 for wait in waits[63:70]), waits[60:]


def test_429_doubles_from_60_s(x):
    server = FakeX([*[[("status", 429, fake.TOO_MANY_REQUESTS)]] * 6, [("until_gone",)]])
    source = waits_of(x, server, 6, 0.0002)
    steps_within(source.waits(), [60, 120, 240, 480, 900, 900])
    assert "too_many_connections" not in source.phase_names()


def test_429_waits_for_the_reset(x):
    reset = int(time.time()) + 300
    server = FakeX([[("status", 429, fake.TOO_MANY_REQUESTS, [("x-rate-limit-reset", reset)])],
                    [("status", 429, fake.TOO_MANY_REQUESTS, [("Retry-After", "250")])],
                    [("status", 503, {}, [("x-rate-limit-reset", reset)])], [("until_gone",)]])
    waits = waits_of(x, server, 3, 0.0005).waits()
    assert 290 <= waits[0] <= 330 and 250 <= waits[1] <= 275 and 5 <= waits[2] <= 5.5, waits


def test_too_many_connections_is_a_state_of_its_own(x):
    server = FakeX([[("status", 429, fake.TOO_MANY)], [("line", fake.TOO_MANY), ("silence",)],
                    [("line", {"errors": [fake.TOO_MANY]}), ("silence",)],
                    [("post", 1), ("until_gone",)]])
    source = x(server, scale=0.002)
    source.wait_lines(1)
    source.stop()
    steps_within(source.waits(), [60, 120, 240])
    many = [phase for phase in source.phases if phase["phase"] == "too_many_connections"]
    assert many and all(phase["wait_ms"] > 0 for phase in many)


def test_an_old_connection_that_still_counts(x):
    server = FakeX([[("post", 1), ("until_gone",)]], one_stream=True)
    first = x(server, scale=0.02)
    first.wait_lines(1)
    second = x(server, scale=0.02)
    second.wait(lambda: "too_many_connections" in second.phase_names(), "the state")
    assert first.stop()["end"] == "cancelled"
    second.wait_lines(1)
    second.stop()
    until(lambda: server.n_streams == 0, "an open stream")
    third = x(server, scale=0.02)  # after an orderly end there is no wait
    third.wait_lines(1)
    assert third.waits() == []
    assert server.n_at_once == 1


def test_a_steady_stream_is_asked_for_again_at_once(x):
    scale = 0.05  # steady after a second
    lasting = [("post", 1), *[("keepalive",), ("sleep", 0.1)] * 12, ("close",)]
    server = FakeX([lasting, [("close",)], [("close",)], [("until_gone",)]])
    source = x(server, scale=scale)
    source.wait(lambda: len(source.waits()) >= 3, "three waits")
    source.stop()
    waits = source.waits()
    assert waits[0] == 0
    steps_within(waits[1:], [0.25, 0.5])


def test_silence_is_found_out(x):
    scale = 0.02
    server = FakeX([[("post", 1), ("silence",)], [("post", 2), ("until_gone",)]])
    source = x(server, scale=scale)
    source.wait(lambda: len(source.lines) >= 2, "the second line", seconds=15)
    source.stop()
    waited = server.connects[1] - server.connects[0]
    assert waited >= 20 * scale, waited
    assert any("no byte for 20 s" in line for line in source.log)


def test_keep_alives_are_enough(x):
    server = FakeX([[*[("keepalive",), ("sleep", 0.4)] * 7, ("post", 1), ("until_gone",)]])
    source = x(server, scale=0.1)  # dead after 2.2 s of silence
    source.wait_lines(1)
    assert source.stop()["connects"] == 1


@pytest.mark.parametrize("kind", ["OperationalDisconnect", "UpstreamOperationalDisconnect",
                                  "ForceDisconnect", "UpstreamUncleanDisconnect", "SlowReader",
                                  "InternalError", "ClientApplicationStateDegraded",
                                  "InvalidRules"])
def test_operational_disconnects(x, kind):
    server = FakeX([[("post", 1), ("line", fake.disconnect(kind)), ("silence",)],
                    [("post", 2), ("until_gone",)]])
    source = x(server)
    lines = source.wait_lines(2)
    end = source.stop()
    assert [line["post"]["native_id"] for line in lines] == ["1", "2"]
    assert end["disconnects"] == 1 and end["errors"] == 1


def test_what_breaks_a_line_is_not_handed_out(x):
    server = FakeX([[("post", 1), ("cut", b'{"data":{"id":"2","text":"ha')],
                    [("post", 2), ("rst",)], [("line", {"errors": [{"title": "Odd"}]}),
                                              ("post", 3), ("until_gone",)]])
    source = x(server)
    lines = source.wait_lines(3)
    source.stop()
    assert [line["post"]["native_id"] for line in lines] == ["1", "2", "3"]


def test_half_open_servers(x):
    server = FakeX([[("unanswered",)], [("post", 1), ("until_gone",)]])
    source = x(server, scale=0.02)
    source.wait_lines(1)
    source.stop()
    steps_within(source.waits(), [0.25])


def test_refused_behind_a_good_start_is_tried_again(x):
    server = FakeX([[("post", 1), ("close",)], [("status", 401, {"title": "Unauthorized"})],
                    [("status", 403, {})], [("post", 2), ("until_gone",)]])
    source = x(server, scale=0.001)
    source.wait_lines(2)
    source.stop()
    steps_within(source.waits()[1:], [5, 10])


# ---- the usage guard -----------------------------------------------------------------------

def test_the_usage_guard(x):
    server = FakeX([[*[("post", i) for i in range(1, 9)], ("until_gone",)]])
    source = x(server, posts_a_day=3)
    source.wait(lambda: "paused" in source.phase_names(), "paused")
    end = source.stop()
    assert end["connects"] == 1
    until(lambda: server.n_streams == 0, "an open stream")
    paused = source.phases[-1]
    left = 86400 - time.time() % 86400
    assert abs(paused["wait_ms"] / 1000 - left) < 60
    # All that has been delivered was handed out, and a restart remembers the count.
    again = x(server, posts_a_day=3, cursor=source.lines[-1]["cursor"])
    again.wait(lambda: "paused" in again.phase_names(), "paused")
    again.stop()
    assert len(server.connects) == 1 and again.lines == []


def test_the_guard_ends_at_midnight_utc(x):
    """The clock on the wall is two seconds before midnight; a new day is a new quota, and what
    was missed meanwhile is not paid for."""
    libraries = sorted(pathlib.Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not libraries:
        pytest.skip("no libfaketime")
    server = FakeX([[("post", 5), ("post", 6), ("until_gone",)],
                    [("post", 7), ("until_gone",)]])
    source = x(server, posts_a_day=2, scale=0.1, environment={
        "LD_PRELOAD": str(libraries[0]), "FAKETIME": "@2026-03-01 23:59:58", "TZ": "UTC",
        "DONT_FAKE_MONOTONIC": "1", "ASAN_OPTIONS": "verify_asan_link_order=0"})
    lines = source.wait_lines(3)
    source.stop()
    days = [int(line["cursor"].split(":")[2]) for line in lines]
    counts = [int(line["cursor"].split(":")[3]) for line in lines]
    assert days[0] == days[1] == days[2] - 1 and counts == [1, 2, 1]
    assert "paused" in source.phase_names() and server.searches == []


# ---- gaps ----------------------------------------------------------------------------------

def test_backfill(x):
    now = fake.id_of(time.time())
    server = FakeX([[("post", now), ("close",)], [("post", now + 1), ("until_gone",)]])
    source = x(server, backfill_minutes=2)
    source.wait_lines(2)
    source.stop()
    asked = [r.query.get("backfill_minutes") for r in server.requests if r.path.endswith("/stream")]
    assert asked == [None, "2"] and server.searches == []
    # A longer gap is searched for.
    old = f"1:{fake.id_of(time.time() - 3600)}:1:1"
    server = FakeX([[("until_gone",)]])
    source = x(server, backfill_minutes=2, cursor=old, scale=0.05)
    until(lambda: server.searches, "a search")
    source.stop()


def test_what_was_missed_is_searched_for(x):
    begin = time.time() - 7200
    server = FakeX([[("post", fake.id_of(time.time())), ("until_gone",)]],
                   search_limits=[(429, [("x-rate-limit-reset", int(time.time()) + 1)]),
                                  *5 * [(503, [])]])  # however long that lasts
    for i in range(35):
        number = fake.id_of(begin + i * 60)
        server.history[number] = fake.post(number, referenced_tweets=[
            {"type": "quoted", "id": "9"}])
        server.history[number]["includes"]["tweets"] = [{"id": "9", "text": "it", "author_id": "7"}]
    since = fake.id_of(begin + 5 * 60)
    source = x(server, cursor=f"1:{since}:1:1", scale=0.02)
    lines = source.wait_lines(31)
    source.wait(lambda: any("searched for all" in line for line in source.log), "the end of it")
    time.sleep(0.1)
    source.stop()
    found = {int(line["post"]["native_id"]) for line in lines}
    assert {n for n in server.history if n >= since} <= found
    assert all(line["post"]["original_text"] == "it" for line in lines
               if int(line["post"]["native_id"]) in server.history)
    assert all(query["since_id"] < str(since) for query in server.searches)
    # Until the last page is in, a crash would begin the search again.
    assert {int(line["cursor"].split(":")[1]) for line in lines} == {since}


def test_a_search_that_is_not_allowed(x):
    server = FakeX([[("post", 5), ("until_gone",)]], search_limits=[(403, [])])
    source = x(server, cursor=f"1:{fake.id_of(time.time() - 3600)}:1:1", scale=0.05)
    source.wait(lambda: any("given up" in line for line in source.log), "giving up")
    source.wait_lines(1)
    source.stop()


def test_a_cursor_of_another_source(x):
    assert x(FakeX(), cursor="{}").finish(1)["end"] == "invalid"


@pytest.mark.parametrize("seed", range(4))
def test_mischief_loses_nothing(x, seed):
    """A server that misbehaves in every way, a source that is killed and goes on at the cursor
    of the last line it had handed out: every post is seen. VIGIL_TEST_POSTS: how many."""
    scale, n = 0.01, int(os.environ.get("VIGIL_TEST_POSTS", "400"))
    server = FakeX([[("live",)]], seed=seed)
    apart = min(5, 500000 / n)  # seconds; the search reaches back seven days
    begin, seen, cursor = time.time() - n * apart, set(), None
    source = x(server, scale=scale)
    source.wait(lambda: "streaming" in source.phase_names(), "streaming")
    rounds = n_taken = 0

    def take():
        nonlocal cursor, n_taken
        new = source.lines[n_taken:]
        n_taken += len(new)
        for line in new:
            if "post" in line and line["post"]["native_id"]:
                seen.add(int(line["post"]["native_id"]))
            cursor = line["cursor"]

    for i in range(n):
        number = fake.id_of(begin + i * apart)
        server.publish(number, fake.post(number))
        time.sleep(0.002)
        if i in (n // 3, 2 * n // 3) and source.lines:
            source.kill()
            take()
            source, n_taken = x(server, scale=scale, cursor=cursor), 0
            rounds += 1
    # One more that comes when all is well: the gap before it is closed.
    server.script = [[("until_gone",)]]
    for connection in list(server.connections):
        connection.is_open = False
    missing = set(server.history)

    def is_whole():
        take()
        return not missing - seen

    source.wait(is_whole, f"seed {seed}: all of {n}")
    assert source.stop()["end"] == "cancelled"
    waits = source.waits()
    assert all(wait <= 16 for wait in waits), waits
    assert rounds > 0
