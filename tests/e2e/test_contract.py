# SPDX-License-Identifier: Apache-2.0
"""POST /v1/classify and what holds for every route: shapes, limits and errors of docs/API.md."""
import hashlib
import json
import re

import pytest

from serving import AE, MARK, MODEL, NOT_AE, check_failed_item

LABELS = ["Not_AE", "Adverse_Event"]
POSTS = ["/v1/classify", "/invocations", "/endpoints/ade/invocations", "/predict", "/tokenize",
         "/"]
GETS = ["/", "/ping", "/health", "/ready", "/info", "/metrics", "/openapi.json"]
# What a route takes for one text.
ONE = {path: {"inputs": AE} for path in POSTS}


def check_result(result, *, item_id=None, entities=False):
    expected = {"label", "score", "probs", "tokens", "windows", "truncated"}
    expected |= {"id"} if item_id is not None else set()
    expected |= {"entities"} if entities else set()
    assert set(result) == expected, result
    assert result.get("id") == item_id
    assert list(result["probs"]) == LABELS
    assert abs(sum(result["probs"].values()) - 1) < 1e-5
    assert result["score"] == result["probs"][result["label"]]
    assert result["tokens"] >= 2 and result["windows"] >= 1
    assert isinstance(result["truncated"], bool)


# --- The answer ---------------------------------------------------------------------------------


def test_one_text(server):
    answer = server.post("/v1/classify", {"inputs": AE}).ok()
    assert set(answer) == {"model", "results"}
    model = answer["model"]
    assert set(model) == {"name", "sha256", "dtype", "max_tokens"}
    weights = hashlib.sha256((MODEL / "model.safetensors").read_bytes()).hexdigest()
    assert model["sha256"] == weights
    assert model["name"] == "ade" and model["max_tokens"] == 512
    assert len(answer["results"]) == 1
    check_result(answer["results"][0])
    assert answer["results"][0]["label"] == "Adverse_Event"


def test_labels(server):
    results = server.classify([AE, NOT_AE])
    assert [result["label"] for result in results] == ["Adverse_Event", "Not_AE"]
    for result in results:
        check_result(result)


def test_a_batch_is_the_same_as_its_texts(server):
    texts = [f"{word} {AE} {'very ' * n}sick" for n, word in
             enumerate(["Zoloft", "aspirin", "", "I", "😀", "ü"] * 5)]
    together = server.classify(texts, entities=True)
    for text, result in zip(texts, together):
        assert server.classify(text, entities=True) == [result]


@pytest.mark.parametrize("item_id", ["a", "", "ü😀", "x" * 200, 0, -1, 2**53 + 1, 2**63 - 1, "1",
                                     'quote " and \\ and \n', "nul \0 in it"])
def test_ids_come_back(server, item_id):
    item = {"id": item_id, "text": NOT_AE}
    for inputs in (item, [item], [item, NOT_AE, {"text": AE}]):
        results = server.classify(inputs)
        assert results[0]["id"] == item_id and type(results[0]["id"]) is type(item_id)
        check_result(results[0], item_id=item_id)
        for result in results[1:]:
            check_result(result)


def test_the_same_id_twice(server):
    results = server.classify([{"id": "x", "text": AE}, {"id": "x", "text": NOT_AE}])
    assert [result["label"] for result in results] == ["Adverse_Event", "Not_AE"]


def test_threshold(server):
    p = server.classify(AE)[0]["probs"]["Adverse_Event"]
    for threshold, label in ((0, "Adverse_Event"), (p, "Adverse_Event"), (p - 1e-6, "Adverse_Event"),
                             (min(1, p + 1e-6), "Not_AE"), (1, "Not_AE")):
        result = server.classify(AE, threshold=threshold)[0]
        assert result["label"] == label, (threshold, result)
        check_result(result)
    assert server.classify(NOT_AE, threshold=0)[0]["label"] == "Adverse_Event"
    # The threshold says which label, never which probabilities.
    assert server.classify(AE, threshold=1)[0]["probs"]["Adverse_Event"] == p


# --- Evidence -----------------------------------------------------------------------------------

PREFIXES = ["", " ", "😀 ", "👩‍👩‍👧‍👦🏽 ", "e\u0301e\u0301 é ", "한국어 각 ", "中文字 ", "\u0000\u0000 ", "ﷺ İ ß ",
            "\u200d\u200e\u202e ", "\ufeff", "𠀀𠀁 ", "\t\r\n\u2028 ", "\ufffd\uffff ", "a\u0300" * 200 + " "]


@pytest.mark.parametrize("prefix", PREFIXES, ids=lambda prefix: ascii(prefix)[:24])
def test_entities_point_into_the_text(server, prefix):
    text = f"{prefix}Zoloft gave me a terrible rash 😀 and nausea"
    result = server.classify(text, entities=True)[0]
    check_result(result, entities=True)
    for entity in result["entities"]:
        assert set(entity) == {"type", "text", "begin", "end", "score"}
        assert 0 <= entity["begin"] < entity["end"] <= len(text)
        assert text[entity["begin"]:entity["end"]] == entity["text"]
        assert 0 <= entity["score"] <= 1
    begins = [entity["begin"] for entity in result["entities"]]
    assert begins == sorted(begins)
    found = {(entity["type"], entity["text"]) for entity in result["entities"]}
    if len(prefix) < 20:
        assert ("DRUG", "Zoloft") in found, found
        assert any(kind == "ADE" and "rash" in words for kind, words in found), found


def test_entities_in_windows(server):
    """Spans of every window, with offsets into the whole text, none of them twice."""
    text = " ".join(["Zoloft gave me a rash. I went home and slept."] * 120)
    result = server.classify(text, entities=True)[0]
    assert result["windows"] > 1
    spans = [(entity["begin"], entity["end"]) for entity in result["entities"]]
    assert len(spans) == len(set(spans)) and spans == sorted(spans)
    assert all(text[e["begin"]:e["end"]] == e["text"] for e in result["entities"])
    assert any(begin > 0.9 * len(text) for begin, _ in spans), "none at the end"
    assert any(begin < 0.1 * len(text) for begin, _ in spans), "none at the start"


def test_entities_only_when_asked(server):
    assert "entities" not in server.classify(AE)[0]
    assert "entities" not in server.classify(AE, entities=False)[0]
    assert server.classify(AE, entities=True)[0]["probs"] == server.classify(AE)[0]["probs"]


# --- Text ---------------------------------------------------------------------------------------


def test_nul_is_cleaned_away(server):
    plain = server.classify("this drug gave me a rash")[0]
    assert server.classify("this dr\0ug gave me a\0 rash\0")[0] == plain
    raw = server.post("/v1/classify", rb'{"inputs": "this drug gave me a\u0000 rash"}')
    assert raw.ok()["results"][0] == plain


@pytest.mark.parametrize("text", [rb'"\ud800"', rb'"\udc00"', rb'"a\udc00\ud800b"', rb'"\ud83d"',
                                  rb'"\ud83d\u0041"', rb'"x\uDFFF"'])
@pytest.mark.parametrize("path", ["/v1/classify", "/predict", "/tokenize", "/", "/invocations"])
def test_lone_surrogates(server, path, text):
    server.post(path, b'{"inputs": ' + text + b"}").error(422, "unusable")


def test_surrogate_pairs(server):
    assert server.post("/v1/classify", rb'{"inputs": "\ud83d\ude00 rash"}').ok()["results"] == \
        server.classify("😀 rash")


@pytest.mark.parametrize("text", ["\u0000", " ", "\n", "\u200b", "\ufffd", "!" * 3000, "a" * 65536,
                                  "😀" * 16384, "\u0390" * 20000, "\u0130" * 30000, "각" * 20000,
                                  "a\u0315\u0300\u05ae\u0300\u0062" * 6000, "\ufdfa" * 20000,
                                  "中" * 4000, " " * 65536, "\u202e" * 20000, "a\u0301" * 20000],
                         ids=lambda text: f"{ascii(text[:4])}x{len(text)}")
def test_strange_texts(server, text):
    result = server.classify(text, entities=True)[0]
    check_result(result, entities=True)
    assert all(text[e["begin"]:e["end"]] == e["text"] for e in result["entities"])


@pytest.mark.parametrize("body", [b'"\xff"', b'"\xc0\xaf"', b'"\xe0\x80\xaf"', b'"\xed\xa0\x80"',
                                  b'"\xf4\x90\x80\x80"', b'"\xe2\x82"', b'"\xf8\x88\x80\x80\x80"'])
def test_not_utf8(server, body):
    server.post("/v1/classify", b'{"inputs": ' + body + b"}").error(400, "malformed")


def test_windows(server):
    fits = server.classify("a " * 510)[0]
    assert (fits["tokens"], fits["windows"], fits["truncated"]) == (512, 1, False)
    over = server.classify("a " * 511)[0]
    assert (over["tokens"], over["windows"], over["truncated"]) == (513, 2, False)
    cut = server.classify("a " * 511, truncate=True)[0]
    assert (cut["windows"], cut["truncated"]) == (1, True)
    assert cut["probs"] == fits["probs"]
    assert server.classify("a " * 510, truncate=True)[0] == fits


def test_the_worst_window_decides(server):
    """Windows of 510 words (and two special tokens) that overlap by 128; the last one ends with
    the text. The answer is that of the window with the most of the positive label."""
    plain = "our committee met on tuesday and the train to the city was late".split()
    event = "this drug gave me a terrible rash and nausea".split()
    for place in (0, 400, 600, 1190):
        words = (plain * 100)[:1200]
        words[place:place + len(event) * 8] = event * 8
        words = words[:1200]
        alone = [server.classify(" ".join(words[begin:begin + 510]))[0] for begin in (0, 382, 690)]
        assert {result["tokens"] for result in alone} == {512}
        whole = server.classify(" ".join(words))[0]
        worst = max(alone, key=lambda result: result["probs"]["Adverse_Event"])
        assert (whole["tokens"], whole["windows"]) == (1202, 3)
        assert whole["probs"] == worst["probs"] and whole["label"] == worst["label"]
        cut = server.classify(" ".join(words), truncate=True)[0]
        assert cut["truncated"] and cut["windows"] == 1 and cut["probs"] == alone[0]["probs"]


def test_null_is_the_same_as_absent(server):
    expected = server.classify(AE)
    assert server.classify(AE, threshold=None, entities=None, truncate=None) == expected
    assert server.classify({"id": None, "text": AE}) == expected


# --- Bad items, bad requests -------------------------------------------------------------------


def test_a_bad_item_fails_alone(server):
    results = server.classify([AE, "", "x" * 65537, {"id": 7, "text": ""},
                               {"id": "long", "text": "é" * 32769}, {"id": "fine", "text": NOT_AE}],
                              entities=True)
    check_result(results[0], entities=True)
    check_failed_item(results[1], "unusable")
    check_failed_item(results[2], "too_large")
    check_failed_item(results[3], "unusable", item_id=7)
    check_failed_item(results[4], "too_large", item_id="long")
    check_result(results[5], item_id="fine", entities=True)
    assert results[0] == server.classify(AE, entities=True)[0]


def test_only_bad_items(server):
    for result in server.classify(["", ""]):
        check_failed_item(result, "unusable")


UNUSABLE = [
    {}, [], "text", 1, None, True, {"input": AE}, {"inputs": None}, {"inputs": 1}, {"inputs": True},
    {"inputs": {}}, {"inputs": []}, {"inputs": ""}, {"inputs": "x" * 65537}, {"inputs": [1]},
    {"inputs": [None]}, {"inputs": [AE, []]}, {"inputs": [[AE]]}, {"inputs": {"id": "a"}},
    {"inputs": {"text": 1}}, {"inputs": {"text": ""}}, {"inputs": [{"text": AE, "label": 1}]},
    {"inputs": [{"id": 1.5, "text": AE}]}, {"inputs": [{"id": "x" * 2000, "text": AE}]},
    {"inputs": [{"id": True, "text": AE}]}, {"inputs": [{"id": [], "text": AE}]},
    {"inputs": [{"id": "a"}]}, {"inputs": AE, "threshold": "0.5"}, {"inputs": AE, "threshold": 1.01},
    {"inputs": AE, "threshold": -0.01}, {"inputs": AE, "threshold": [0.5]},
    {"inputs": AE, "threshold": True}, {"inputs": AE, "entities": 1},
    {"inputs": AE, "entities": "true"}, {"inputs": AE, "truncate": {}},
    {"inputs": AE, "treshold": 0.5}, {"inputs": AE, MARK: 1}, {"inputs": AE, "": 1},
]


@pytest.mark.parametrize("body", UNUSABLE, ids=lambda body: json.dumps(body)[:50])
def test_unusable(server, body):
    server.post("/v1/classify", body).error(422, "unusable")


MALFORMED = [
    b"", b" ", b"{", b"}", b'{"inputs": "' + MARK.encode(), b"{'inputs': 'a'}", b"nothing", b"[1,]",
    b'{"inputs": "a",}', b'{"inputs": "a"} x', b'{"inputs": "a"}{}', b'{"inputs": "a\nb"}',
    b'{"inputs": "a\x00b"}', rb'{"inputs": "\x"}', rb'{"inputs": "\u12g4"}', b'{"inputs": NaN}',
    b'{"inputs": "a", "threshold": Infinity}', b'{"inputs": "a", "threshold": .5}',
    b'{"inputs": "a", "threshold": 00.5}', b'{"inputs": "a", "inputs": "b"}',
    b'// c\n{"inputs": "a"}', b'{"inputs": "a"}\x00', b'\xff\xfe{\x00}\x00',
    b'{"inputs": "a", "threshold": 0.5e}', b"\xef\xbb\xbf{}x",
]


@pytest.mark.parametrize("body", MALFORMED, ids=lambda body: ascii(body)[:50])
@pytest.mark.parametrize("path", POSTS)
def test_malformed(server, path, body):
    server.post(path, body).error(400, "malformed")


def test_numbers_beyond_reason(server):
    for number in (b"1e999", b"-1e999", b"9" * 400, b"1" + b"0" * 5000):
        answer = server.post("/v1/classify", b'{"inputs": "a", "threshold": ' + number + b"}")
        assert answer.code in (400, 413, 422)
        answer.error(answer.code)


# --- Limits -------------------------------------------------------------------------------------


def test_number_of_inputs(server):
    results = server.classify(["a rash"] * 512)
    assert len(results) == 512 and all(result == results[0] for result in results)
    for path in ("/v1/classify", "/invocations", "/", "/tokenize"):
        server.post(path, {"inputs": ["a"] * 513}).error(413, "too_large")
    server.post("/predict", {"inputs": [["a"]] * 513}).error(413, "too_large")
    server.post("/invocations", b'"a"\n' * 513, "application/jsonlines").error(413, "too_large")
    items = [{"id": n, "text": "a rash"} for n in range(512)]
    assert [result["id"] for result in server.classify(items)] == list(range(512))


def test_size_of_a_text(server):
    assert server.classify("a" * 65536)[0]["tokens"] == 3
    assert server.classify("é" * 32768)[0]["tokens"] == 3
    server.post("/v1/classify", {"inputs": "a" * 65537}).error(422)
    server.post("/v1/classify", {"inputs": "é" * 32768 + "a"}).error(422)
    # The bytes of the text count, not those of its JSON.
    assert server.post("/v1/classify", b'{"inputs": "' + rb"\u0061" * 65536 + b'"}').code == 200


def test_size_of_a_body(server):
    filling = {"inputs": ["x" * 60000] * 90}
    assert len(server.post("/v1/classify", {**filling, "truncate": True}).ok()["results"]) == 90
    for path in POSTS:
        answer = server.post(path, b'{"inputs": "' + b"x" * (6 * 1024 * 1024) + b'"}')
        answer.error(413, "too_large")


@pytest.mark.parametrize("path", POSTS)
def test_depth_and_values(server, path):
    server.post(path, b"[" * 33 + b"]" * 33).error(413, "too_large")
    server.post(path, b"[" * 100000).error(413, "too_large")
    server.post(path, b'{"a":' * 100000).error(413, "too_large")
    server.post(path, b'{"inputs": [' + b"1," * 1000000 + b"1]}").error(413, "too_large")
    server.post(path, b"[" + b"{}," * 500000 + b"{}]").error(413, "too_large")


def test_a_depth_that_is_allowed(server):
    deep = b"[" * 30 + b"]" * 30
    assert server.post("/", b'{"inputs": "a", "options": {"x": ' + deep + b"}}").code == 200


# --- What holds for every route ----------------------------------------------------------------


@pytest.mark.parametrize("path", POSTS)
def test_content_types(server, path):
    body = json.dumps(ONE[path]).encode()
    for good in ("application/json", "application/json; charset=utf-8", "Application/JSON",
                 "application/json;charset=UTF-8", 'application/json; charset="utf-8"', None):
        assert server.post(path, body, good).code == 200, good
    for bad in ("application/xml", "multipart/form-data; boundary=x", "application/json2",
                "application/x-www-form-urlencoded", "application/json; charset=latin1", "json",
                "image/png", "text/html", "application/jsonx; charset=utf-8"):
        server.post(path, body, bad).error(415, "unsupported_media_type")
    if "invocations" not in path:
        for bad in ("text/plain", "application/jsonlines", "application/octet-stream"):
            server.post(path, body, bad).error(415, "unsupported_media_type")


@pytest.mark.parametrize("path", ["/x", "/v1", "/v1/", "/v1/classify/", "/v1/classifyx", "/V1/classify",
                                  "//", "/ping/", "/%70ing/", "/endpoints/ade", "/endpoints//invocations",
                                  "/endpoints/a/b/invocations", "/endpoints/ade/invocations/",
                                  "/endpoints/-ade/invocations", "/endpoints/a%00b/invocations",
                                  "/endpoints/a.b/invocations", f"/endpoints/{'a' * 64}/invocations",
                                  "/..", "/../etc/passwd", "/ping%00", "/%2e%2e/", f"/{MARK}", "/*"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_not_found(server, method, path):
    body = b"{}" if method == "POST" else None
    server.request(method, path, body).error(404, "not_found")


@pytest.mark.parametrize("path", sorted({*POSTS, *GETS}))
def test_methods(server, path):
    allowed = ({"POST"} if path in POSTS else set()) | ({"GET", "HEAD"} if path in GETS else set())
    for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO", "get"):
        if method in allowed:
            continue
        answer = server.request(method, path, b"{}" if method in ("POST", "PUT", "PATCH") else None)
        answer.error(405, "method_not_allowed")
        assert set(re.split(r", *", answer.headers["allow"])) == allowed
    if "GET" not in allowed:
        head = server.request("HEAD", path)
        assert head.code == 405 and head.body == b""


def test_a_query_is_no_part_of_the_path(server):
    assert server.get("/ready?x=1").code == 200
    assert server.post("/v1/classify?a=b&c", {"inputs": AE}).code == 200


@pytest.mark.parametrize("path", GETS)
def test_head(server, path):
    get, head = server.request("GET", path), server.request("HEAD", path)
    assert get.code == head.code == 200 and head.body == b""
    assert head.headers.get("content-type") == get.headers.get("content-type")
    if path != "/metrics":
        assert head.headers["content-length"] == get.headers["content-length"]


def test_request_ids(server):
    for good in ("a", "0123-4567_89.x", "A" * 64):
        answer = server.post("/v1/classify", {"inputs": AE}, headers={"X-Request-Id": good})
        assert answer.headers["x-request-id"] == good
        assert server.get("/nothing", X_Request_Id=good).headers["x-request-id"] == good
    for bad in ("", " ", "A" * 65, "a b", "a;b", "é", "a\tb", '"', "<x>", "\x1b[31m".replace("\x1b", "%1b")):
        answer = server.get("/ready", X_Request_Id=bad.encode("latin-1"))
        assert answer.headers["x-request-id"] not in (bad, "")
    ids = {server.get("/ready").headers["x-request-id"] for _ in range(50)}
    assert len(ids) == 50


def test_headers_of_answers(server):
    for path in POSTS:
        answer = server.post(path, ONE[path])
        timing = answer.headers["server-timing"]
        assert re.fullmatch(r"parse;dur=[\d.]+, queue;dur=[\d.]+, compute;dur=[\d.]+", timing), timing
        assert answer.headers["content-type"].startswith("application/json")
        assert int(answer.headers["content-length"]) == len(answer.body)
        json.loads(answer.body.decode("utf-8"))


# --- GET routes ---------------------------------------------------------------------------------


def test_get_routes(server):
    for path in ("/ping", "/health"):
        answer = server.get(path)
        assert answer.code == 200 and answer.body == b""
    assert server.get("/ready").ok() == {"status": "ready"}
    service = server.get("/").ok()
    assert service["service"] == "vigil" and service["version"]
    assert set(service["routes"]) == {f"POST {path.replace('/ade/', '/{name}/')}" for path in POSTS} | \
        {f"GET {path}" for path in GETS}


def test_info(server):
    info = server.get("/info").ok()
    model = server.post("/v1/classify", {"inputs": AE}).ok()["model"]
    assert {key: info["model"][key] for key in model} == model
    assert info["version"] == server.get("/").ok()["version"]
    assert info["limits"] and info["engine"]


def test_openapi_describes_every_route(server):
    document = server.get("/openapi.json").ok()
    assert document["openapi"].startswith("3.")
    described = {(method.upper(), path) for path, methods in document["paths"].items()
                 for method in methods}
    expected = {("POST", path.replace("/ade/", "/{name}/")) for path in POSTS}
    expected |= {("GET", path) for path in GETS}
    assert described == expected
    refs = set(re.findall(r'"#/([^"]+)"', json.dumps(document)))
    for ref in refs:
        node = document
        for part in ref.split("/"):
            node = node[part]


def test_metrics_count(server):
    def count(code, route):
        text = server.get("/metrics").body.decode()
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
                   if line.startswith("vigil_requests_total{") and f'code="{code}"' in line
                   and f'route="{route}"' in line)
    before = count(200, "/v1/classify"), count(422, "/v1/classify")
    for _ in range(3):
        server.classify(AE)
    server.post("/v1/classify", {}).error(422)
    assert count(200, "/v1/classify") == before[0] + 3
    assert count(422, "/v1/classify") == before[1] + 1
