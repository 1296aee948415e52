"""curl, as in the vendor's documentation and as people use it."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.javascript import require
from tests.service import TOKEN, Index, Service, running

ACCOUNT = "0123456789abcdef0123456789abcdef"
NDJSON = "Content-Type: application/x-ndjson"

Curl = Callable[..., Any]


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    require(shutil.which("curl") is not None, "NOT TESTED: there is no curl here")
    with running() as service:
        service.apis[0].index("forms", ACCOUNT).create(2)
        yield service


@pytest.fixture
def forms(service: Service) -> Index:
    return service.apis[0].index("forms", ACCOUNT)


@pytest.fixture
def curl(service: Service) -> Curl:
    """``curl`` on a path below the account's indexes; returns status and body."""
    base = f"{service.apis[0].url}/client/v4/accounts/{ACCOUNT}/vectorize/v2/indexes"

    def run(path: str, *arguments: str, stdin: bytes = b"") -> tuple[int, Any]:
        sent = ["-H", f"Authorization: Bearer {TOKEN}", *arguments, "-w", "\n%{http_code}", f"{base}{path}"]
        command = ["curl", "-q", "--silent", "--show-error", "--noproxy", "*", "--max-time", "60", *sent]
        ran = subprocess.run(command, input=stdin, capture_output=True, check=False)
        assert ran.returncode == 0, ran
        body, _, status = ran.stdout.rpartition(b"\n")
        return int(status), json.loads(body)

    return run


def as_json(text: str) -> tuple[str, ...]:
    return ("-H", "Content-Type: application/json", "--data", text)


def result(answered: tuple[int, Any]) -> Any:
    status, envelope = answered
    assert status == 200 and envelope["success"] is True and envelope["errors"] == [], envelope
    return envelope["result"]


def test_from_create_to_delete(service: Service, curl: Curl, tmp_path: Path) -> None:
    index = service.apis[0].index("curled", ACCOUNT)
    created = curl("", *as_json('{"name":"curled","config":{"dimensions":2,"metric":"euclidean"}}'))
    assert result(created)["name"] == "curled"
    declared = curl("/curled/metadata_index/create", *as_json('{"propertyName":"on","indexType":"boolean"}'))
    index.visible(result(declared)["mutationId"])
    listed = result(curl("/curled/metadata_index/list"))
    assert listed == {"metadataIndexes": [{"propertyName": "on", "indexType": "boolean"}]}

    path = tmp_path / "vectors.ndjson"
    path.write_text(
        '{"id":"a","values":[3,4],"metadata":{"on":true}}\r\n{"id":"b","values":[0,1]}\r\n', "utf-8"
    )
    inserted = result(curl("/curled/insert", "-H", NDJSON, "--data-binary", f"@{path}"))
    assert index.visible(inserted["mutationId"])["counts"]["inserted"] == 2
    upserted = result(curl("/curled/upsert", "-F", f"vectors=@{path}"))
    # The status endpoint waits on our behalf.
    status = result(curl(f"/curled/mutations/{upserted['mutationId']}?wait=30"))
    assert status["state"] == "visible" and status["counts"]["replaced"] == 2
    assert result(curl("/curled/info"))["processedUpToMutation"] == upserted["mutationId"]

    found = result(
        curl("/curled/query", *as_json('{"vector":[0,0],"filter":{"on":true},"returnMetadata":"indexed"}'))
    )
    assert found == {"count": 1, "matches": [{"id": "a", "score": 5, "metadata": {"on": True}}]}
    first = result(curl("/curled/list?count=1"))
    assert first["count"] == 1 and first["totalCount"] == 2 and first["isTruncated"] is True
    rest = result(curl("/curled/list", "--get", "--data-urlencode", f"cursor={first['nextCursor']}"))
    assert rest["isTruncated"] is False and rest["nextCursor"] is None
    assert sorted(one["id"] for one in first["vectors"] + rest["vectors"]) == ["a", "b"]

    assert result(curl("/curled/get_by_ids", *as_json('{"ids":["b"]}'))) == [{"id": "b", "values": [0, 1]}]
    deleted = result(curl("/curled/delete_by_ids", *as_json('{"ids":["b"]}')))
    assert index.visible(deleted["mutationId"])["counts"]["deleted"] == 1
    undeclared = result(curl("/curled/metadata_index/delete", *as_json('{"propertyName":"on"}')))
    index.visible(undeclared["mutationId"])
    assert result(curl("/curled/metadata_index/list")) == {"metadataIndexes": []}
    assert result(curl("/curled", "-X", "DELETE")) is None
    assert curl("/curled")[0] == 410


LINES = b'{"id":"%s 1","values":[1,2]}\n{"id":"%s 2","values":[3,4]}\n'

FORMS: dict[str, tuple[str, ...]] = {
    "raw": ("-H", NDJSON, "--data-binary", "@FILE"),
    "raw, of no type": ("-H", "Content-Type:", "--data-binary", "@FILE"),
    "raw, of curl's own type": ("--data-binary", "@FILE"),
    "raw, as JSON": ("-H", "Content-Type: application/json", "--data-binary", "@FILE"),
    "raw, as octets": ("-H", "Content-Type: application/octet-stream", "--data-binary", "@FILE"),
    "raw, in chunks": ("-H", NDJSON, "-H", "Transfer-Encoding: chunked", "--data-binary", "@FILE"),
    "multipart": ("-F", "vectors=@FILE"),
    "multipart, body": ("-F", "body=@FILE"),
    "multipart, with a type": ("-F", "vectors=@FILE;type=application/x-ndjson"),
    "multipart, no file": ("-F", "vectors=<FILE"),
    "compressed": ("-H", NDJSON, "-H", "Content-Encoding: gzip", "--data-binary", "@FILE.gz"),
    "an upload": ("-X", "POST", "-H", NDJSON, "-T", "FILE"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_an_upload(forms: Index, curl: Curl, tmp_path: Path, form: str) -> None:
    path = tmp_path / "vectors.ndjson"
    name = form.encode()
    path.write_bytes(LINES % (name, name))
    Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes()))
    arguments = [argument.replace("FILE", str(path)) for argument in FORMS[form]]
    answer = result(curl("/forms/upsert", *arguments))
    assert forms.visible(answer["mutationId"])["counts"]["inserted"] == 2
    assert forms.fetch(f"{form} 2")[f"{form} 2"]["values"] == [3, 4]


def test_a_body_that_curl_asks_for_leave_to_send(forms: Index, curl: Curl) -> None:
    """Above 1 MiB curl sends ``Expect: 100-continue`` and holds the body back."""
    padding = b"x" * 250
    line = b'{"id":"large %d","values":[1,2],"metadata":{"padding":"%s"}}\n'
    lines = b"".join(line % (number, padding) for number in range(5_000))
    assert len(lines) > 1 << 20
    answer = result(curl("/forms/upsert", "-H", NDJSON, "--data-binary", "@-", stdin=lines))
    assert forms.visible(answer["mutationId"])["counts"]["inserted"] == 5_000


def test_lines_run_together_by_the_wrong_option_are_refused(forms: Index, curl: Curl, tmp_path: Path) -> None:
    """``-d @file`` takes the newlines out."""
    path = tmp_path / "vectors.ndjson"
    path.write_bytes(LINES % (b"joined", b"joined"))
    status, envelope = curl("/forms/upsert", "-H", NDJSON, "-d", f"@{path}")
    assert status == 400 and envelope["success"] is False and envelope["errors"][0]["code"] == 40023
    assert "line 1" in envelope["errors"][0]["message"]
    assert forms.fetch("joined 1") == {}
