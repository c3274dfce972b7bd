# SPDX-License-Identifier: Apache-2.0
"""The shapes of other services: SageMaker, Text Embeddings Inference, Hugging Face."""
import json
import math

import pytest

from serving import AE, NOT_AE, check_failed_item

SAGEMAKER = ["/invocations", "/endpoints/ade/invocations", "/endpoints/A-1/invocations"]


@pytest.fixture(scope="module")
def probs(server):
    """{text: [p0, p1]} by /v1/classify, which the other routes have to agree with."""
    return {text: list(server.classify(text)[0]["probs"].values()) for text in (AE, NOT_AE)}


# --- SageMaker ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SAGEMAKER)
def test_invocations_json(server, probs, path):
    assert server.post(path, AE).ok() == probs[AE]
    assert server.post(path, {"inputs": AE}).ok() == probs[AE]
    assert server.post(path, [AE]).ok() == [probs[AE]]
    assert server.post(path, [AE, NOT_AE]).ok() == [probs[AE], probs[NOT_AE]]
    assert server.post(path, {"inputs": [AE, NOT_AE]}).ok() == [probs[AE], probs[NOT_AE]]
    for content_type in (None, "application/octet-stream", "application/json; charset=utf-8"):
        assert server.post(path, AE, content_type).ok() == probs[AE]


@pytest.mark.parametrize("path", SAGEMAKER)
def test_invocations_plain_text(server, probs, path):
    assert server.post(path, AE.encode(), "text/plain").ok() == probs[AE]
    assert server.post(path, AE.encode(), "text/plain; charset=utf-8").ok() == probs[AE]
    # What looks like JSON is text here.
    quoted = server.post(path, json.dumps(AE).encode(), "text/plain").ok()
    assert quoted == list(server.classify(json.dumps(AE))[0]["probs"].values())
    server.post(path, b"", "text/plain").error(422, "unusable")
    server.post(path, b"x" * 65537, "text/plain").error(422)
    bad = server.post(path, b"rash \xff", "text/plain")
    assert bad.code in (400, 422)
    bad.error(bad.code)


@pytest.mark.parametrize("content_type", ["application/jsonlines", "application/x-ndjson"])
def test_invocations_lines(server, probs, content_type):
    lines = [json.dumps(AE), json.dumps({"inputs": NOT_AE}), json.dumps({"text": AE})]
    for body in ("\n".join(lines), "\n".join(lines) + "\n", "\r\n".join(lines) + "\r\n"):
        answer = server.post("/invocations", body.encode(), content_type)
        assert answer.code == 200, answer
        assert answer.headers["content-type"].startswith("application/jsonlines")
        assert [json.loads(line) for line in answer.body.decode().splitlines()] == \
            [probs[AE], probs[NOT_AE], probs[AE]]


def test_invocations_bad_items(server, probs):
    answer = server.post("/invocations", [AE, "", "x" * 65537]).ok()
    assert answer[0] == probs[AE]
    check_failed_item(answer[1], "unusable")
    check_failed_item(answer[2], "too_large")
    body = "\n".join([json.dumps(AE), '""', "{", "3", '{"text": 1}', json.dumps(NOT_AE)]).encode()
    answer = server.post("/invocations", body, "application/jsonlines")
    assert answer.code == 200, answer
    lines = [json.loads(line) for line in answer.body.decode().splitlines()]
    assert lines[0] == probs[AE] and lines[5] == probs[NOT_AE] and len(lines) == 6
    for line in lines[1:5]:
        check_failed_item(line, "unusable", "malformed")


@pytest.mark.parametrize("body", ["", [], [1], [None], {}, {"inputs": []}, {"inputs": ""}, None, 1, True,
                                  {"input": AE}, {"inputs": AE, "x": 1}, [[AE]], "x" * 65537,
                                  {"inputs": [[AE]]}], ids=lambda body: json.dumps(body)[:40])
def test_invocations_unusable(server, body):
    server.post("/invocations", body).error(422, "unusable")


# --- Text Embeddings Inference ------------------------------------------------------------------


def check_scores(scores, n=2):
    assert len(scores) == n
    assert all(set(score) == {"label", "score"} for score in scores)
    values = [score["score"] for score in scores]
    assert values == sorted(values, reverse=True)


def test_predict(server, probs):
    for text in (AE, NOT_AE):
        scores = server.post("/predict", {"inputs": text}).ok()
        check_scores(scores)
        by_label = {score["label"]: score["score"] for score in scores}
        assert [by_label["Not_AE"], by_label["Adverse_Event"]] == probs[text]
    batch = server.post("/predict", {"inputs": [[AE], [NOT_AE]]}).ok()
    assert batch == [server.post("/predict", {"inputs": text}).ok() for text in (AE, NOT_AE)]
    assert batch[0][0]["label"] == "Adverse_Event" and batch[1][0]["label"] == "Not_AE"
    assert server.post("/predict", {"inputs": AE, "truncate": True, "truncation_direction": "Right",
                                    "raw_scores": False}).ok() == batch[0]


def test_predict_raw_scores(server):
    logits = server.post("/predict", {"inputs": AE, "raw_scores": True}).ok()
    scores = server.post("/predict", {"inputs": AE}).ok()
    check_scores(logits)
    total = sum(math.exp(each["score"]) for each in logits)
    for logit, score in zip(logits, scores):
        assert logit["label"] == score["label"]
        assert abs(math.exp(logit["score"]) / total - score["score"]) < 1e-5


def test_predict_bad_items(server):
    answer = server.post("/predict", {"inputs": [[AE], [""], ["x" * 65537]]}).ok()
    check_scores(answer[0])
    check_failed_item(answer[1], "unusable")
    check_failed_item(answer[2], "too_large")


@pytest.mark.parametrize("body", [{"inputs": [AE, NOT_AE]}, {"inputs": [[AE, NOT_AE]]}, {"inputs": []},
                                  {"inputs": [[]]}, {"inputs": [[1]]}, {"inputs": 1}, {}, [], AE,
                                  {"inputs": AE, "truncation_direction": "Left"}, {"inputs": ""},
                                  {"inputs": AE, "raw_scores": 1}, {"inputs": AE, "truncate": "yes"},
                                  {"inputs": AE, "x": 1}, {"inputs": [[AE], AE]}],
                         ids=lambda body: json.dumps(body)[:60])
def test_predict_unusable(server, body):
    server.post("/predict", body).error(422, "unusable")


def test_tokenize(server):
    text = "Zoloft gave me naUSÉa 😀!"
    for inputs in (text, [text]):
        tokens, = server.post("/tokenize", {"inputs": inputs}).ok()
        assert all(set(token) == {"id", "text", "special", "start", "stop"} for token in tokens)
        assert [tokens[0]["id"], tokens[-1]["id"]] == [101, 102]
        for token in (tokens[0], tokens[-1]):
            assert token["special"] and token["start"] is None and token["stop"] is None
        inner = tokens[1:-1]
        assert not any(token["special"] for token in inner)
        assert all(0 <= token["start"] < token["stop"] <= len(text) for token in inner)
        assert text[inner[-1]["start"]:inner[-1]["stop"]] == "!"
        assert "".join(text[token["start"]:token["stop"]] for token in inner) == \
            text.replace(" ", "")
    bare, = server.post("/tokenize", {"inputs": text, "add_special_tokens": False}).ok()
    assert bare == inner
    assert server.classify(text)[0]["tokens"] == len(tokens)


def test_tokenize_does_not_cut(server):
    tokens, = server.post("/tokenize", {"inputs": "rash " * 3000}).ok()
    assert len(tokens) == 3002
    assert [token["start"] for token in tokens[1:-1]] == list(range(0, 15000, 5))


def test_tokenize_list(server):
    answer = server.post("/tokenize", {"inputs": [AE, "", NOT_AE]}).ok()
    assert answer[0] == server.post("/tokenize", {"inputs": AE}).ok()[0]
    check_failed_item(answer[1], "unusable")
    assert answer[2] == server.post("/tokenize", {"inputs": NOT_AE}).ok()[0]


@pytest.mark.parametrize("body", [{}, {"inputs": []}, {"inputs": ""}, {"inputs": 1}, {"inputs": [1]},
                                  {"inputs": AE, "add_special_tokens": 1}, {"inputs": AE, "x": 1}, AE],
                         ids=lambda body: json.dumps(body)[:60])
def test_tokenize_unusable(server, body):
    server.post("/tokenize", body).error(422, "unusable")


# --- Hugging Face -------------------------------------------------------------------------------


def test_hugging_face(server):
    expected = server.post("/predict", {"inputs": AE}).ok()
    for body in ({"inputs": AE}, {"inputs": [AE]}, {"inputs": AE, "parameters": {}},
                 {"inputs": AE, "parameters": {"top_k": 5}, "options": {"wait_for_model": True}},
                 {"inputs": AE, "parameters": {"function_to_apply": "softmax"}}):
        assert server.post("/", body).ok() == [expected]
    assert server.post("/", {"inputs": AE, "parameters": {"top_k": 1}}).ok() == [expected[:1]]
    both = server.post("/", {"inputs": [AE, NOT_AE]}).ok()
    assert both[0] == expected and both[1][0]["label"] == "Not_AE"


def test_hugging_face_functions(server):
    logits = server.post("/predict", {"inputs": AE, "raw_scores": True}).ok()
    none = server.post("/", {"inputs": AE, "parameters": {"function_to_apply": "none"}}).ok()
    assert none == [logits]
    sigmoid, = server.post("/", {"inputs": AE, "parameters": {"function_to_apply": "sigmoid"}}).ok()
    for one, logit in zip(sigmoid, logits):
        assert one["label"] == logit["label"]
        assert abs(one["score"] - 1 / (1 + math.exp(-logit["score"]))) < 1e-5


def test_hugging_face_bad_items(server):
    answer = server.post("/", {"inputs": [AE, ""]}).ok()
    check_scores(answer[0])
    check_failed_item(answer[1], "unusable")


@pytest.mark.parametrize("body", [{}, [], AE, {"inputs": []}, {"inputs": ""}, {"inputs": [[AE]]},
                                  {"inputs": AE, "parameters": {"top_k": 0}},
                                  {"inputs": AE, "parameters": {"top_k": 1.5}},
                                  {"inputs": AE, "parameters": {"top_k": "1"}},
                                  {"inputs": AE, "parameters": {"x": 1}},
                                  {"inputs": AE, "parameters": []}, {"inputs": AE, "options": 1},
                                  {"inputs": AE, "parameters": {"function_to_apply": "tanh"}},
                                  {"inputs": AE, "x": 1}], ids=lambda body: json.dumps(body)[:60])
def test_hugging_face_unusable(server, body):
    server.post("/", body).error(422, "unusable")
