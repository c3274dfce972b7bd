# SPDX-License-Identifier: Apache-2.0
"""The Mastodon source against a fake instance: events, errors, waits (see test_x.py)."""
import pytest
from sourcing import Source, secret, until

from fakes import mastodon as fake
from fakes.mastodon import FakeMastodon, status
from fakes.wire import certificate


@pytest.fixture
def mastodon(tmp_path):
    """mastodon(server, **settings): the source against that instance."""
    running = []

    def one(server, **settings):
        settings.setdefault("token_file", secret(tmp_path, "token", fake.TOKEN))
        source = Source("mastodon", settings.pop("target", server.url), allows_plain=True,
                        **settings)
        running.append((server, source))
        return source

    yield one
    for server, source in running:
        source.kill()
        server.stop()
    for server, source in running:
        assert server.violations == []


def steps_within(waits, expected):
    assert len(waits) >= len(expected), (waits, expected)
    for wait, step in zip(waits, expected):
        assert step <= wait <= step * 1.1 + 1e-6, (waits, expected)


def test_events_over_any_split(mastodon):
    link = ('<p>see <a href="https://a.example/long"><span class="invisible">https://</span>'
            '<span class="ellipsis">a.example/lo</span><span class="invisible">ng</span></a></p>')
    server = FakeMastodon([[
        ("split",), ("thump",),
        ("event", "update", status(1, content="<p>a &lt;b&gt; &amp; c&#39;s<br>d</p><p>e</p>")),
        ("event", "update", status(2, content=link, spoiler_text="careful", account={
            "acct": "bob", "url": "https://m.example/@bob", "fields": [
                {"name": "Location", "value": "<b>Austin</b>, TX"}]})),
        ("event", "status.update", status(1, edited_at="2026-01-02T04:00:00.000Z",
                                          content="<p>edited</p>")),
        ("event", "delete", "2"),
        ("event", "update", status(3, reblog=status(4), content="<p>x</p>")),
        ("event", "update", status(5, quote={"state": "accepted", "quoted_status": status(6)},
                                   content='<p class="quote-inline">RE: http://x</p><p>mine</p>')),
        ("event", "update", status(7, visibility="private")),
        ("event", "notification", {"id": "1"}), ("event", "filters_changed", ""),
        ("event", "announcement.delete", "3"), ("event", "never_heard_of", "?"),
        ("event", "update", {"id": "8"}), ("event", "update", {"no": "id"}),
        ("event", "update", "nonsense"), ("raw", b"data: unnamed\n\n"),
        ("raw", b'event: update\r\ndata: {"id":\r\ndata: "9", "content": "two lines"}\r\n\r\n'),
        ("event", "update", status(10, content="y" * (1 << 20))),
        ("raw", b"event: nothing\n\n"), ("event", "update", status(11)), ("until_gone",)]])
    source = mastodon(server)
    lines = source.wait_lines(18)
    assert source.stop()["end"] == "cancelled"
    posts = [line.get("post") for line in lines]
    assert [p and p["action"] for p in posts] == [
        "put", "put", "put", "delete", "put", "put", "nothing", "nothing", "nothing", "nothing",
        "nothing", "put", None, None, "nothing", "put", None, "put"]
    assert posts[0]["text"] == "a <b> & c's\nd\n\ne"
    assert (posts[0]["native_id"], posts[0]["version"], posts[0]["lang"]) == ("1", 1, "en")
    assert posts[0]["author"] == "https://m.example/@ann"
    assert posts[0]["author_name"] == "ann@m.example"
    assert posts[0]["posted_ns"] == 1767323045678000000
    assert posts[1]["text"] == "careful\nsee https://a.example/long"
    assert posts[1]["place"] == "Austin, TX"
    assert (posts[2]["native_id"], posts[2]["version"]) == ("1", 1767326400000)
    assert posts[3]["native_id"] == "2"
    assert (posts[4]["relation"], posts[4]["original_id"]) == ("repost", "4")
    assert (posts[5]["relation"], posts[5]["original_text"]) == ("quote", "hello 6")
    assert posts[5]["text"] == "mine"
    assert posts[15]["text"] == "two lines" and lines[16]["cut"]
    assert [line["cursor"].rpartition(":")[0] for line in lines] == [
        f"2:{i}" for i in range(1, 19)]
    assert lines[0]["cursor"] == "2:1:1" and lines[17]["cursor"] == "2:18:11"
    again = mastodon(server, cursor="1:18")  # of an earlier version
    assert again.wait_lines(1)[0]["cursor"] == "2:19:1"
    assert server.pages == []  # it knows no id: nothing was missed
    for bad in ("1:", "2:1", "2:1:", "2:1:x", "3:1:1", "1:1:1", ""):
        if bad:
            assert mastodon(server, cursor=bad).finish(1)["end"] == "invalid"


def dated(second, n=0):
    """An id as Mastodon makes them."""
    return (1767323000 + second) * 1000 << 16 | n


def test_what_was_missed_is_asked_for(mastodon):
    """While the stream was down, and between two runs; a page at a time, waits obeyed."""
    server = FakeMastodon([[("event", "update", status(dated(100))), ("rst",)],
                           [("event", "update", status(dated(300))), ("until_gone",)],
                           [("until_gone",)]])
    server.statuses = [status(dated(k)) for k in (10, 30, 50, 100)]
    server.statuses += [status(dated(200, k)) for k in range(100)]
    server.statuses += [status(dated(300))]
    server.timeline_answers = [503, 429]
    source = mastodon(server, scale=0.002)
    expected = {str(dated(k)) for k in (50, 100, 300)} | {str(dated(200, k)) for k in range(100)}
    source.wait(lambda: {p["native_id"] for p in source.posts()} == expected, "all of them")
    source.wait(lambda: len(server.pages) == 6, "the last page")
    # A minute before the last one, then behind what each page had.
    assert server.pages[2] == f"public?limit=40&min_id={dated(40)}"
    assert server.pages[-1] == f"public?limit=40&min_id={dated(300)}"
    # Until all are in, the position is before them.
    by_id = {line["post"]["native_id"]: line["cursor"].split(":")[2] for line in source.lines}
    assert by_id[str(dated(200, 0))] == by_id[str(dated(200, 99))] == str(dated(100))
    assert source.stop()["gaps"] == 0
    server.statuses += [status(dated(400))]
    again = mastodon(server, cursor=f"2:7:{dated(300)}", scale=0.002)
    again.wait(lambda: str(dated(400)) in {p["native_id"] for p in again.posts()}, "the last")
    assert again.wait_lines(2)[-1]["cursor"] == f"2:9:{dated(300)}"  # a page may follow


def test_each_stream_has_its_timeline(mastodon):
    names = {"public": "public?", "public:local": "public?local=true&",
             "public:remote": "public?remote=true&", "hashtag:drug safety": "tag/drug%20safety?",
             "list:12": "list/12?", "hashtag:local:#ADE": "tag/ADE?local=true&"}
    server = FakeMastodon([[("until_gone",)]])
    source = mastodon(server, streams=", ".join(names), cursor="2:1:5", scale=0.01)
    source.wait(lambda: len(server.pages) == len(names), "pages")
    source.stop()
    assert sorted(server.pages) == sorted(path + "limit=40&min_id=5" for path in names.values())


@pytest.mark.parametrize("answers", [[403], [503] * 4])
def test_a_timeline_that_is_not_given(mastodon, answers):
    """It is a gap, and the stream goes on."""
    server = FakeMastodon([[("event", "update", status(9)), ("until_gone",)]])
    server.timeline_answers = list(answers)
    source = mastodon(server, cursor="2:1:5", scale=0.01)
    source.wait(lambda: any("mastodon_gap" in line for line in source.log), "the warning")
    source.wait_lines(1)
    assert source.stop()["gaps"] == 1
    assert len(server.pages) == len(answers)


def test_streams_are_asked_for_by_name(mastodon):
    names = {"public": "public", "public:local": "public/local", "public:remote": "public/remote",
             "hashtag:drug safety": "hashtag?tag=drug%20safety", "list:12": "list?list=12",
             "hashtag:local:#ADE": "hashtag/local?tag=ADE"}
    paths = {path.split("?")[0] for path in names.values()}
    numbers = iter(range(100))
    server = FakeMastodon({path: [[("event", "update", status(next(numbers))), ("until_gone",)]]
                           for path in paths})
    source = mastodon(server, streams=", ".join(names))
    source.wait_lines(len(names))
    end = source.stop()
    assert sorted(path for _, path in server.connects) == sorted(names.values())
    assert end["connects"] == len(names)
    until(lambda: not any(c.is_open for c in server.connections), "open connections")
    assert all(c.ended_cleanly for c in server.connections)
    for bad in ("user", "hashtag:", "public:x", "direct", ",", "hashtag:" + "a" * 600,
                ",".join(["public"] * 9)):
        assert mastodon(server, streams=bad).finish(1)["end"] in ("invalid", "limit")


def test_tls_and_where_the_streams_are(mastodon, tmp_path):
    tls = certificate(tmp_path)
    streams = FakeMastodon([[("event", "update", status(1)), ("until_gone",)]], tls=tls)
    where = {"configuration": {"urls": {"streaming": streams.url.replace("https", "wss") + "/"}}}
    instance = FakeMastodon(tls=tls, instance=where)
    source = mastodon(instance, ca_file=tls[0])
    source.wait_lines(1)
    source.stop()
    assert instance.connects == [] and len(streams.connects) == 1
    assert mastodon(instance).finish(1)["end"] == "invalid"  # a certificate nobody knows
    streams.stop()


@pytest.mark.parametrize("instance", [{}, b"no JSON", {"configuration": {"urls": {}}},
                                      {"configuration": {"urls": {"streaming": "gopher://x"}}}])
def test_an_instance_that_does_not_say(mastodon, instance):
    server = FakeMastodon([[("event", "update", status(1)), ("until_gone",)]], instance=instance)
    source = mastodon(server)
    source.wait_lines(1)
    source.stop()


def test_an_instance_that_is_busy(mastodon):
    server = FakeMastodon([[("event", "update", status(1)), ("until_gone",)]],
                          instance_answers=[503, 500])
    source = mastodon(server, scale=0.001)
    source.wait_lines(1)
    source.stop()
    steps_within(source.waits(), [5, 10])
    old = FakeMastodon([[("event", "update", status(1)), ("until_gone",)]], instance_answers=[404])
    mastodon(old).wait_lines(1)


def test_no_token(mastodon, tmp_path):
    end = mastodon(FakeMastodon(), token_file=secret(tmp_path, "wrong", "qzmark7731")).finish(1)
    assert end["end"] == "invalid" and "401" in end["message"]


def test_waits(mastodon):
    server = FakeMastodon([[("event", "update", status(1)), ("rst",)], [("status", 503)],
                           [("status", 500)], [("status", 429)], [("unanswered",)],
                           [("event", "update", status(2)), ("silence",)],
                           [("event", "update", status(3)), ("until_gone",)]])
    source = mastodon(server, scale=0.002)
    lines = source.wait_lines(3)
    end = source.stop()
    assert [line["post"]["native_id"] for line in lines] == ["1", "2", "3"]
    steps_within(source.waits(), [0.25, 5, 10, 60, 0.5, 0.75])
    assert end["disconnects"] == 2 and end["connects"] == 3
    assert "waiting" in source.phase_names()


@pytest.mark.parametrize("seed", range(3))
def test_mischief_loses_nothing(mastodon, seed):
    n = 200
    server = FakeMastodon([[("live", 25)]], seed=seed)
    server.published = [status(i) for i in range(n)]
    source = mastodon(server, scale=0.05)
    source.wait(lambda: {int(p["native_id"]) for p in source.posts()} == set(range(n)),
                f"seed {seed}: all of {n}")
    source.stop()
    assert all(wait <= 16 for wait in source.waits())
