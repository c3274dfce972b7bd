#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes posts.jsonl: a thousand made-up posts for `make run` and the tests.

usage: client/demo/make_posts.py > client/demo/posts.jsonl

Nobody wrote these: sentences of our own, put together by a fixed seed. They hold what a real
stream holds: adverse events in lay words, posts that name a drug and report nothing, negations,
other people's reposts and copies, other languages, names that are no drugs, edits, deletions,
and lines that are broken.
"""
import datetime
import json
import random
import sys

N_LINES = 1000
START = datetime.datetime(2026, 11, 2, 6, 0, 0)

DRUGS = {
    "sertraline": ["Zoloft", "zoloft", "sertraline", "setraline"],
    "escitalopram": ["Lexapro", "lexapro", "escitalopram"],
    "ibuprofen": ["Advil", "ibuprofen", "Motrin"],
    "metformin": ["metformin", "Glucophage"],
    "atorvastatin": ["Lipitor", "atorvastatin"],
    "semaglutide": ["Ozempic", "Wegovy", "semaglutide"],
    "lisinopril": ["lisinopril", "Zestril"],
    "amoxicillin": ["amoxicillin", "Amoxil"],
}
EVENTS = {
    "sertraline": ["terrible insomnia", "night sweats", "constant nausea", "a splitting headache", "brain zaps"],
    "escitalopram": ["awful nausea", "heart palpitations", "severe dizziness", "horrible headaches"],
    "ibuprofen": ["bad stomach pain", "a bleeding ulcer", "hives all over my arms", "heartburn all night"],
    "metformin": ["nonstop diarrhea", "terrible stomach cramps", "vomiting every morning"],
    "atorvastatin": ["severe muscle pain", "leg cramps every night", "memory loss and confusion"],
    "semaglutide": ["vomiting all day", "severe constipation", "horrible nausea", "hair loss"],
    "lisinopril": ["a dry cough that never stops", "a swollen tongue and lips", "fainting when I stand up"],
    "amoxicillin": ["an itchy rash on my chest", "hives on my face", "bloody diarrhea"],
}
REPORTS = [
    "{drug} gave me {event}, I had to stop taking it",
    "Day {n} on {drug} and I have {event}. This is awful",
    "started {drug} last week and now I have {event}",
    "my doctor switched me off {drug} because it caused {event}",
    "I ended up in the ER with {event} after taking {drug}",
    "since I began {drug} I get {event} and it is getting worse",
    "is anyone else getting {event} from {drug}? I cannot take this anymore",
    "never again {drug}. It gave me {event} within {n} days",
]
PLAIN = [
    "picked up my {drug} at the pharmacy today",
    "reminder to myself: order {drug} before the weekend",
    "how much does {drug} cost at your pharmacy?",
    "new article about the price of {drug} in the news today",
    "my insurance finally covers {drug}, took only {n} phone calls",
    "the {drug} ad came on again during the game",
    "does anyone know if the pharmacy on Main Street has {drug} in stock",
]
NEGATED = [
    "{n} weeks on {drug} and no side effects at all, feeling great",
    "{drug} works well for me, I have had no problems with it",
    "happy to say {drug} is going fine, nothing to report",
]
NO_DRUG = [
    "good morning everyone, coffee first", "the bus was late again this morning",
    "I have a headache from this meeting", "who is watching the game tonight?",
    "new shoes gave me blisters, send help", "my cat slept on the keyboard again",
    "the advilla hotel was lovely", "rain all week, at least the garden is happy",
]
FOREIGN = [
    ("es", "empecé con {drug} la semana pasada y ahora tengo náuseas horribles"),
    ("de", "seit ich {drug} nehme, habe ich jeden Tag starke Kopfschmerzen"),
    ("fr", "depuis que je prends {drug} j'ai des vertiges terribles"),
    ("pt", "comecei a tomar {drug} e estou com muita dor de estômago"),
]
PLACES = ["Austin, TX", "NYC", "Chicago, Illinois", "Seattle", "somewhere in Ohio", "Boston, MA", "London, UK",
          "Toronto", "California", "", "", "on the internet"]
OPENINGS = ["", "", "", "ugh. ", "ok so ", "update: ", "honestly, ", "PSA: "]
ENDINGS = ["", "", "", ".", " :(", " #health", "...", " fyi"]


class Maker:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.lines, self.cases, self.texts = [], [], set()
        self.now, self.n_ids = START, 0

    def text(self, templates, drug):
        """A sentence that was not said before."""
        while True:
            text = self.random.choice(templates).format(
                drug=self.random.choice(DRUGS[drug]), event=self.random.choice(EVENTS[drug]),
                n=self.random.randint(2, 60))
            text = self.random.choice(OPENINGS) + text + self.random.choice(ENDINGS)
            if text not in self.texts:
                self.texts.add(text)
                return text

    def put(self, text, **more):
        self.now += datetime.timedelta(seconds=self.random.randint(20, 900))
        self.n_ids += 1
        record = {"id": f"demo-{self.n_ids:04d}", "text": text,
                  "author": f"author-{self.random.randint(1, 400):03d}", "lang": "en",
                  "time": self.now.strftime("%Y-%m-%dT%H:%M:%SZ"), "place": self.random.choice(PLACES)}
        record.update(more)
        self.lines.append(json.dumps({k: v for k, v in record.items() if v != ""}, ensure_ascii=False))
        return record

    def drug(self):
        return self.random.choice(list(DRUGS))

    def post(self, kind):
        if kind == "report":
            self.cases.append(self.put(self.text(REPORTS, self.drug())))
        elif kind == "plain":
            self.cases.append(self.put(self.text(PLAIN, self.drug())))
        elif kind == "negated":
            self.put(self.text(NEGATED, self.drug()))
        elif kind == "none":
            self.put(self.random.choice(NO_DRUG))
        elif kind == "foreign":
            lang, text = self.random.choice(FOREIGN)
            self.put(text.format(drug=self.random.choice(DRUGS[self.drug()])), lang=lang)
        elif kind == "repost":
            original = self.random.choice(self.cases)
            self.put(f"RT @{original['author']}: {original['text']}", repost_of=original["id"])
        elif kind == "copy":  # the same words, another link and another handle
            original = self.random.choice(self.cases)
            self.put(f"{original['text']} https://example.com/{self.random.randint(100, 999)}")
        elif kind == "edit":
            original = self.random.choice(self.cases[-20:])
            self.put(original["text"] + " (edited)", id=original["id"], version=2, author=original["author"])
        elif kind == "delete":
            original = self.cases.pop(self.random.randrange(max(0, len(self.cases) - 50), len(self.cases)))
            self.lines.append(json.dumps({"id": original["id"], "deleted": True}))
        elif kind == "broken":
            self.lines.append(self.random.choice(
                ['{"id": "demo-broken", "text": "cut off in the mid', '{"text": 17}', 'not JSON at all']))


def main():
    maker = Maker(20261102)
    kinds = {"report": 300, "plain": 230, "negated": 90, "none": 150, "foreign": 60, "repost": 90,
             "copy": 50, "edit": 15, "delete": 10, "broken": 5}
    assert sum(kinds.values()) == N_LINES
    order = [kind for kind, n in kinds.items() for _ in range(n)]
    maker.random.shuffle(order)
    # Something has to be there before it can be copied, edited or withdrawn.
    late = [kind for kind in order[:60] if kind in ("repost", "copy", "edit", "delete")]
    order = [kind for kind in order[:60] if kind not in late] + order[60:] + late
    for kind in order:
        maker.post(kind)
    sys.stdout.write("\n".join(maker.lines) + "\n")


if __name__ == "__main__":
    main()
