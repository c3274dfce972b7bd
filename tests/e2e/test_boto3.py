# SPDX-License-Identifier: Apache-2.0
"""AWS's own client, unchanged but for the address: the pipeline that Vigil takes the place of."""
import json

import pytest

from serving import AE, NOT_AE

boto3 = pytest.importorskip("boto3")
from botocore.config import Config  # noqa: E402
from botocore.exceptions import ClientError  # noqa: E402


def client(server, **config):
    return boto3.client(
        "sagemaker-runtime", endpoint_url=f"http://127.0.0.1:{server.port}", region_name="us-east-1",
        aws_access_key_id="none", aws_secret_access_key="none",
        config=Config(retries={"max_attempts": 0}, proxies={}, **config))


def invoke(server, body, content_type="application/json", **arguments):
    answer = client(server).invoke_endpoint(EndpointName="ade-endpoint", Body=body,
                                            ContentType=content_type, **arguments)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    return answer, answer["Body"].read()


def test_as_the_lambda_does(server):
    """The reference pipeline sends a JSON string and compares the second number."""
    for text, is_event in ((AE, True), (NOT_AE, False)):
        answer, body = invoke(server, json.dumps(text))
        p_not_ae, p_ae = json.loads(body)
        assert abs(p_not_ae + p_ae - 1) < 1e-5 and (p_ae > 0.6) == is_event
        assert answer["ContentType"].startswith("application/json")


def test_lists_lines_text(server):
    one = json.loads(invoke(server, json.dumps(AE))[1])
    assert json.loads(invoke(server, json.dumps([AE, NOT_AE]))[1])[0] == one
    assert json.loads(invoke(server, json.dumps({"inputs": [AE]}))[1]) == [one]
    assert json.loads(invoke(server, AE.encode(), "text/plain")[1]) == one
    lines = invoke(server, json.dumps(AE) + "\n" + json.dumps({"inputs": AE}) + "\n",
                   "application/jsonlines", Accept="application/jsonlines")[1]
    assert [json.loads(line) for line in lines.splitlines()] == [one, one]


def test_optional_arguments(server):
    one = json.loads(invoke(server, json.dumps(AE))[1])
    assert json.loads(invoke(server, json.dumps(AE), Accept="application/json", CustomAttributes="trace=1",
                             TargetVariant="v1", InferenceId="i-1")[1]) == one
    # boto3 names no type when it is not told one.
    answer = client(server).invoke_endpoint(EndpointName="e", Body=json.dumps(AE).encode())
    assert json.load(answer["Body"]) == one


def test_large(server):
    body = json.dumps(["rash " * 10] * 500)
    assert len(json.loads(invoke(server, body)[1])) == 500


@pytest.mark.parametrize("body,code", [("{", 400), ("{}", 422), (json.dumps(""), 422)])
def test_errors_reach_the_caller(server, body, code):
    with pytest.raises(ClientError) as caught:
        invoke(server, body)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == code


def test_as_awscli_sends(server):
    """`aws sagemaker-runtime invoke-endpoint --body fileb://…`: signed, no type, Expect."""
    headers = {
        "Authorization": "AWS4-HMAC-SHA256 Credential=AKID/20260101/us-east-1/sagemaker/aws4_request, "
                         "SignedHeaders=accept;host;x-amz-date, Signature=" + "0" * 64,
        "X-Amz-Date": "20260101T000000Z", "X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD",
        "User-Agent": "aws-cli/2.15.0 Python/3.11.6 Linux/6.1 exe/x86_64 prompt/off "
                      "command/sagemaker-runtime.invoke-endpoint",
        "amz-sdk-invocation-id": "6a0a3a4e-0000-0000-0000-000000000000",
        "amz-sdk-request": "attempt=1", "Accept-Encoding": "identity", "Accept": "*/*",
    }
    for content_type in (None, "application/json", "application/octet-stream"):
        probs = server.post("/endpoints/ade/invocations", AE, content_type, headers).ok()
        assert len(probs) == 2 and probs[1] > 0.6
