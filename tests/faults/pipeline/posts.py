# SPDX-License-Identifier: Apache-2.0
"""Numbered posts, what happens to them by a seed, and what must be left of them in the end.

A text names its post and its edit (`tok12e3x`), so that whatever the store holds can be told
apart, in whichever mode and under whichever key it lies there.
"""
import json
import random
import re
import time

from fakes import jetstream, mastodon, x

TOKEN = re.compile(r"tok(\d+)e(\d+)x")


def text(n, edit=1):
    """Kept by the watch list; no two have nearly the same words."""
    return f"zoloft gave me a rash tok{n}e{edit}x " + \
        " ".join(f"w{n * 31 + k}y{edit}x{n}" for k in range(8))


class Ledger:
    """What must be in the store when all has settled."""

    def __init__(self):
        self.alive = {}      # number: newest edit
        self.gone = set()    # numbers of posts that were withdrawn
        self.folds = {}      # number: reposts of it
        self.n_dead = 0      # dead letters of stage "parse"

    @property
    def n_posts(self):
        return len(self.alive) + len(self.gone)


class Story:
    """Actions, one after the other: ("create", n, 1), ("edit", n, edit), ("delete", n, edit),
    ("repost", n, number of the repost). What happens later mostly happens to what is new:
    so an edit or a withdrawal may overtake its post on a stream that is not in order."""

    def __init__(self, seed, edits=0.05, deletes=0.03, reposts=0.05, deletes_edited=True):
        self.chance = random.Random(seed)
        self.shares = (edits, deletes, reposts)
        self.deletes_edited = deletes_edited
        self.ledger = Ledger()
        self.recent = []
        self.n = self.n_reposts = 0

    def next(self):
        ledger, (edits, deletes, reposts) = self.ledger, self.shares
        dice = self.chance.random()
        if self.recent and dice < edits + deletes + reposts:
            reach = self.chance.choice((3, 50))
            n = self.recent[-1 - self.chance.randrange(min(reach, len(self.recent)))]
            if dice < edits:
                ledger.alive[n] += 1
                return "edit", n, ledger.alive[n]
            if dice < edits + deletes and (self.deletes_edited or ledger.alive[n] == 1):
                self.recent.remove(n)
                edit = ledger.alive.pop(n)
                ledger.gone.add(n)
                ledger.folds.pop(n, None)
                return "delete", n, edit
            if dice >= edits + deletes:
                ledger.folds[n] = ledger.folds.get(n, 0) + 1
                self.n_reposts += 1
                return "repost", n, self.n_reposts
        n, self.n = self.n, self.n + 1
        ledger.alive[n] = 1
        self.recent.append(n)
        del self.recent[:-100]
        return "create", n, 1


class ToJetstream:
    """The story as events of a fake Jetstream. Reposts are not in what it is asked for. Behind
    a break a client goes back three seconds: connections have to last longer than that many
    events, or it would never get on."""

    def __init__(self, server, seed, step_us=20_000, **shares):
        self.server = server
        self.story = Story(seed, reposts=0, **shares)
        self.step_us = step_us
        self.now_us = time.time_ns() // 1000 - 24 * 3600 * 10 ** 6

    def make(self):
        what, n, edit = self.story.next()
        self.now_us += self.step_us
        # A sortable key of its own for each post, by one of many accounts.
        operation = {"create": "create", "edit": "update", "delete": "delete"}[what]
        record = None if what == "delete" else {
            "$type": jetstream.COLLECTION, "text": text(n, edit), "langs": ["en"],
            "createdAt": "2026-01-02T03:04:05Z"}
        return jetstream.event(f"did:plc:{n % 97:024d}", self.now_us, operation,
                               jetstream.tid((1 << 62) + n), jetstream.tid(self.now_us << 10), record)

    def publish(self, count=1):
        self.server.add(*[self.make() for _ in range(count)])


class ToX:
    """… as posts of a fake X. Ids are times: the search reaches back seven days. X tells of an
    edited post under other ids, so only posts without edits are withdrawn."""

    def __init__(self, server, seed, step_s=2.0, **shares):
        self.server = server
        self.story = Story(seed, deletes_edited=False, **shares)
        self.at, self.step_s = time.time() - 130000, step_s
        self.ids = {}      # number: ids of its history

    def whole(self, n, edit):
        return x.post(self.ids[n][edit - 1], text=text(n, edit),
                      edit_history_tweet_ids=[str(i) for i in self.ids[n][:edit]])

    def publish(self, count=1):
        for _ in range(count):
            self.publish_one()

    def publish_one(self):
        what, n, edit = self.story.next()
        self.at += self.step_s
        number = x.id_of(self.at)
        if what in ("create", "edit"):
            self.ids.setdefault(n, []).append(number)
            self.server.publish(number, self.whole(n, edit))
        elif what == "delete":
            with self.server.lock:
                self.server.history.pop(self.ids[n][0], None)
            self.withdraw(self.ids[n][0])
        else:
            original = self.whole(n, self.story.ledger.alive[n])
            again = x.post(number, text="RT @somebody: " + original["data"]["text"][:80],
                           referenced_tweets=[{"type": "retweeted", "id": original["data"]["id"]}])
            again["includes"]["tweets"] = [original["data"]]
            self.server.publish(number, again)

    def withdraw(self, number):
        """The search does not tell of it: only who listens hears it. X may tell it twice."""
        with self.server.lock:
            self.server.live.append((0, {"delete": {"tweet": {"id": str(number)}}}))


class ToMastodon:
    def __init__(self, server, seed, **shares):
        self.server = server
        self.story = Story(seed, **shares)

    def status(self, n, edit):
        edited = f"2026-02-01T00:{edit // 60:02d}:{edit % 60:02d}.000Z" if edit > 1 else None
        return mastodon.status(10 ** 6 + n, edited_at=edited, content=f"<p>{text(n, edit)}</p>")

    def publish(self, count=1):
        for _ in range(count):
            what, n, edit = self.story.next()
            if what == "create":
                event = ("update", self.status(n, edit))
            elif what == "edit":
                event = ("status.update", self.status(n, edit))
            elif what == "delete":
                event = ("delete", str(10 ** 6 + n))
            else:
                original = self.status(n, self.story.ledger.alive[n])
                event = ("update", mastodon.status(2 * 10 ** 9 + edit, content=original["content"],
                                                   reblog=original))
            with self.server.lock:
                self.server.published.append(event)


class ToRecords:
    """… as generic records: lines of a file, bodies of a push."""

    def __init__(self, seed, **shares):
        self.story = Story(seed, **shares)

    def make(self):
        what, n, edit = self.story.next()
        if what == "delete":
            return {"id": str(n), "deleted": True}
        if what == "repost":
            return {"id": f"r{edit}", "repost_of": str(n), "text": "RT", "lang": "en",
                    "original": {"text": text(n, self.story.ledger.alive[n])}}
        return {"id": str(n), "text": text(n, edit), "version": edit, "lang": "en"}

    def line(self):
        return json.dumps(self.make()) + "\n"
