# SPDX-License-Identifier: Apache-2.0
"""Clients as people have them: huggingface_hub, requests."""
import asyncio

import pytest
import requests
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from conftest import KEY
from serving import AE, NOT_AE


def check(elements, label):
    assert [element.label for element in elements][0] == label
    assert {element.label for element in elements} == {"Adverse_Event", "Not_AE"}
    assert abs(sum(element.score for element in elements) - 1) < 1e-5
    assert elements[0].score > elements[1].score


@pytest.mark.parametrize("name", ["model", "base_url"])
def test_inference_client(url, name):
    client = InferenceClient(**{name: url})
    check(client.text_classification(AE), "Adverse_Event")
    check(client.text_classification(NOT_AE), "Not_AE")
    best = client.text_classification(AE, top_k=1, function_to_apply="sigmoid")
    assert [element.label for element in best] == ["Adverse_Event"] and best[0].score > 0.5


def test_async_inference_client(url):
    async def ask():
        client = AsyncInferenceClient(model=url)
        return await asyncio.gather(*(client.text_classification(AE) for _ in range(8)))
    for answer in asyncio.run(ask()):
        check(answer, "Adverse_Event")


def test_inference_client_errors(url, locked_url):
    with pytest.raises(HfHubHTTPError) as caught:
        InferenceClient(model=url).text_classification("")
    assert caught.value.response.status_code == 422
    with pytest.raises(HfHubHTTPError) as caught:
        InferenceClient(model=locked_url, token="hf_wrong").text_classification(AE)
    assert caught.value.response.status_code == 401
    check(InferenceClient(model=locked_url, token=KEY).text_classification(AE), "Adverse_Event")


def test_requests_as_a_client_of_tei(url):
    """The calls of text-embeddings-inference's own documentation."""
    session = requests.Session()
    one = session.post(f"{url}/predict", json={"inputs": AE}).json()
    assert one[0]["label"] == "Adverse_Event"
    two = session.post(f"{url}/predict", json={"inputs": [[AE], [NOT_AE]], "raw_scores": False,
                                               "truncate": False, "truncation_direction": "Right"}).json()
    assert two[0] == one and two[1][0]["label"] == "Not_AE"
    tokens = session.post(f"{url}/tokenize", json={"inputs": AE, "add_special_tokens": True,
                                                   "prompt_name": None}).json()
    assert tokens[0][0]["text"] == "[CLS]"
    info = session.get(f"{url}/info").json()
    assert info["version"] and session.get(f"{url}/health").status_code == 200


def test_requests_sees_what_it_did_wrong(url, locked_url):
    """An answer, and never a broken connection, also to a large body."""
    large = b"x" * 5_000_000
    for _ in range(5):
        assert requests.post(f"{locked_url}/v1/classify", data=large).status_code == 401
        assert requests.post(f"{url}/nothing", data=large).status_code == 404
        assert requests.post(f"{url}/v1/classify", data=large + large).status_code == 413
        assert requests.post(f"{url}/v1/classify", data=large, headers={"Content-Type": "a/b"}).status_code == 415
    answer = requests.post(f"{url}/v1/classify", data=iter([b'{"inputs": ', b'"a"}']))
    assert answer.status_code == 411 and answer.json()["error_type"] == "length_required"
