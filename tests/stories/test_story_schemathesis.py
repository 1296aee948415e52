"""schemathesis against a running service: whatever it makes of the API description, the service keeps to it.

No request may end in a 500 or in a status, content type or body that the description does not name; what violates it must be
refused, and what keeps to it accepted. The quick run sends the same requests each time; the slow ones take new ones, and learn from
answers.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.service import ROOT, TOKEN, Service, running

CONFIGURATION = """\
hooks = "tests.stories.schemathesis_hooks"
headers = { Authorization = "Bearer TOKEN" }
request-timeout = 60.0
continue-on-failure = true
cache.enabled = false
generation.database = "none"

[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 410, 413]

[checks.positive_data_acceptance]
expected-statuses = ["2xx", 401, 403, 404, 410]

# It never ends; one event is enough, and where there is none, two seconds of silence.
[[operations]]
include-operation-id = "mutationEvents"
request-timeout = 2.0
max-stream-events = 1
generation.max-examples = 2
""".replace("TOKEN", TOKEN)

#: What was answered differs from run to run, and so would what is made of it.
LEARN_NOTHING = """
[phases]
examples.extra-data-sources.responses = false
coverage.extra-data-sources.responses = false
fuzzing.extra-data-sources.responses = false
fuzzing.error-feedback.enabled = false
"""

#: So that requests meet the indexes that those before them made.
IN_ONE_ACCOUNT = """
[parameters]
"path.account" = "default"
"""

#: Upstash's door and Milvus's have runs of their own.
WITHOUT = "^(upstash|milvus)"
#: There a body that is JSON, and says what cannot be, gets a 422; the schemas cannot say what fits the index.
OF_UPSTASH = (
    ("[400, 401, 403, 404, 405, 410, 413]", "[400, 401, 403, 404, 405, 410, 413, 422]"),
    ('["2xx", 401, 403, 404, 410]', '["2xx", 401, 403, 404, 410, 422]'),
)
#: It knows no token that it could revoke; tests/cli/test_cli_client.py does.
WANTS_A_TOKEN = {"POST /upwell/v1/tokens/revoke", "POST /upwell/v1/tokens/rotate"}
#: Nor is there any mutation that failed: tests/stories/test_story_poison.py has some.
WANTS_A_FAILURE = {
    "POST /client/v4/accounts/{account}/vectorize/v2/indexes/{index}/mutations/{mutation}/retry"
}
#: So that most requests meet an index that exists.
ON_INDEXES_THAT_EXIST = """
[dictionaries]
mutations = { values = ["MUTATION"] }

[parameters]
"path.account" = "default"
"path.index" = "docs"
"path.mutation" = { dictionary = "mutations", probability = 0.7 }
"path.webhook" = "WEBHOOK"
"query.after" = "MUTATION"
"header.Last-Event-ID" = "MUTATION"

[[operations]]
include-operation-id = "deleteIndex"
parameters = { "path.index" = "victim" }

[[operations]]
include-operation-id-regex = "ByHeaders$"
headers = { Host = "vector-search" }
parameters = { "header.Upwell-Account" = "default", "header.Upwell-Index" = "docs" }
# It would leave one of them out, and then put it in again.
checks = { missing_required_header = { enabled = false } }
"""


@dataclass(frozen=True)
class Report:
    """What schemathesis did: statuses by operation, and its own words."""

    failed: bool
    says: str
    statuses: dict[str, Counter[int]]


@pytest.fixture
def service() -> Iterator[Service]:
    with running(UPWELL_LOG_LEVEL="error", UPWELL_WEBHOOK_PRIVATE_ADDRESSES="true") as service:
        api = service.apis[0]
        for name in ("docs", "victim"):
            assert api.index(name).create(3).status == 200
        yield service


def sent_by_schemathesis(service: Service, folder: Path, configuration: str, *options: str) -> Report:
    """Run it to its end."""
    config, events = folder / "schemathesis.toml", folder / "events.ndjson"
    config.write_text(configuration)
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run"]
    told = ["--no-color", "--report", "ndjson", "--report-ndjson-path", str(events), *options]
    done = subprocess.run(
        [*command, f"{service.apis[0].url}/openapi.json", *told],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    statuses: dict[str, Counter[int]] = defaultdict(Counter)
    for line in events.read_text().splitlines():
        recorder = json.loads(line).get("ScenarioFinished", {}).get("recorder", {})
        for case, interaction in recorder.get("interactions", {}).items():
            value = recorder["cases"][case]["value"]
            if interaction.get("response") is not None:
                statuses[f"{value['method']} {value['path']}"][interaction["response"]["status_code"]] += 1
    return Report(done.returncode != 0, done.stdout, dict(statuses))


def described(service: Service, without: str) -> Iterator[str]:
    """The operations, as reports name them, but for those with such ids; it leaves out the description itself."""
    for path, methods in service.apis[0].call("GET", "/openapi.json").json["paths"].items():
        for method, says in methods.items():
            if not re.search(f"^openapi$|{without}", says["operationId"]):
                yield f"{method.upper()} {path}"


def each_kind_of_request(
    service: Service, folder: Path, configuration: str, *options: str, without: str
) -> None:
    docs = service.apis[0].index("docs")
    vectors = [{"id": "a", "values": [1, 0, 0]}, {"id": "b", "values": [0, 1, 0], "namespace": "n"}]
    mutation = docs.upsert(vectors)
    docs.visible(docs.upsert(vectors, "insert"))  # for the stream of events to tell what came after
    webhook = docs.post("webhooks", {"url": "http://127.0.0.1:1/hook"}).result["id"]
    where = ON_INDEXES_THAT_EXIST.replace("MUTATION", mutation).replace("WEBHOOK", webhook)
    phases = ("--phases", "examples,coverage,fuzzing", "--exclude-operation-id-regex", without)
    report = sent_by_schemathesis(service, folder, configuration + where, *phases, *options)
    assert not report.failed, report.says
    accepted = {operation for operation, statuses in report.statuses.items() if statuses[200]}
    assert set(described(service, without)) - accepted <= WANTS_A_TOKEN | WANTS_A_FAILURE, "never accepted"
    # The rest are the right way to refuse what it sends on purpose.
    answered = sum(report.statuses.values(), Counter[int]())
    assert answered[200] > 0.3 * answered.total(), answered
    assert answered[404] < 0.1 * answered.total(), answered
    assert answered[410] > 0, "nothing was asked of the deleted index"


@pytest.mark.timeout(240)
def test_every_kind_of_request(service: Service, tmp_path: Path) -> None:
    # Among the many are also the binding's operations, which are those of the door under other names, and inserts, which are as upserts.
    without = f"^binding|^insert|ByHeaders$|{WITHOUT}"
    options = ("--generation-deterministic", "--max-examples", "5")
    each_kind_of_request(service, tmp_path, CONFIGURATION + LEARN_NOTHING, *options, without=without)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_command_of_upstash(service: Service, tmp_path: Path) -> None:
    docs = service.apis[0].index("docs")
    mutation = docs.upsert([{"id": "a", "values": [1, 0, 0]}])
    docs.visible(mutation)
    # Any method will do.
    configuration = CONFIGURATION + LEARN_NOTHING + "[checks]\nunsupported_method.enabled = false\n"
    configuration += ON_INDEXES_THAT_EXIST.replace("MUTATION", mutation)
    for plain, there in OF_UPSTASH:
        assert plain in configuration
        configuration = configuration.replace(plain, there)
    phases = ("--phases", "examples,coverage,fuzzing", "--include-operation-id-regex", "^upstash")
    options = ("--generation-deterministic", "--max-examples", "10")
    report = sent_by_schemathesis(service, tmp_path, configuration, *phases, *options)
    assert not report.failed, report.says
    answered = sum(report.statuses.values(), Counter[int]())
    assert answered[200] > 0.2 * answered.total(), answered


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_command_of_milvus(service: Service, tmp_path: Path) -> None:
    # What is refused there has the status 200 and a code, and a method that is not meant is a route that is not there.
    configuration = CONFIGURATION + LEARN_NOTHING + "[checks]\nunsupported_method.enabled = false\n"
    said = "[checks.negative_data_rejection]\nexpected-statuses = [400, 401, 403, 404, 405, 410, 413]\n"
    assert said in configuration
    configuration = configuration.replace(said, "[checks.negative_data_rejection]\nenabled = false\n")
    phases = ("--phases", "examples,coverage,fuzzing", "--include-operation-id-regex", "^milvus")
    options = ("--generation-deterministic", "--max-examples", "10")
    report = sent_by_schemathesis(service, tmp_path, configuration, *phases, *options)
    assert not report.failed, report.says
    answered = sum(report.statuses.values(), Counter[int]())
    assert answered[200] > 0.8 * answered.total(), answered


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_many_requests_of_every_kind(service: Service, tmp_path: Path) -> None:
    each_kind_of_request(
        service, tmp_path, CONFIGURATION, "--max-examples", "300", without=f"^openapi$|{WITHOUT}"
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_requests_that_follow_from_one_another(service: Service, tmp_path: Path) -> None:
    # It stops when the same steps are answered otherwise, as they are by what keeps its state; so it is told to begin again.
    without = f"ByHeaders$|{WITHOUT}"
    options = ("--phases", "stateful", "--exclude-operation-id-regex", without, "--max-time", "60")
    report = sent_by_schemathesis(service, tmp_path, CONFIGURATION + IN_ONE_ACCOUNT, *options)
    assert not report.failed, report.says
    answered = sum(report.statuses.values(), Counter[int]())
    assert answered[200] > 0.2 * answered.total(), answered
