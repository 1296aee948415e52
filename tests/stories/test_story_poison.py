"""A mutation that breaks whoever applies it: it fails by itself, its neighbours do not, and it can be tried again once it is mended."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.receiver import receiving
from tests.service import ROOT, TOKEN, Index, Service, running, until
from upwell.failpoint import VARIABLE, arm


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return tmp_path / "plan"


@pytest.fixture
def service(plan: Path) -> Iterator[Service]:
    settings = {VARIABLE: str(plan), "UPWELL_LEASE_TTL_S": "1", "UPWELL_SWEEP_INTERVAL_S": "0.3"}
    with running(apis=1, workers=0, UPWELL_WEBHOOK_PRIVATE_ADDRESSES="true", **settings) as service:
        yield service


def together(index: Index, names: list[str]) -> list[str]:
    """Mutations that come at once, so that most of them share log entries."""
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda name: index.upsert([{"id": name, "values": [1, 2]}]), names))


def command(service: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"UPWELL_URL": service.apis[0].url, "UPWELL_TOKEN": TOKEN}
    return subprocess.run(
        [sys.executable, "-c", "from ingest.cli import main; main()", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def retry(index: Index, mutation: str) -> str:
    return str(index.post(f"mutations/{mutation}/retry", b"").result["mutationId"])


def test_a_bug_fails_its_own_mutations_and_no_others(service: Service, plan: Path) -> None:
    arm(plan, "apply.mutation=bad-1 bug", "apply.mutation=bad-2 bug")
    index = service.apis[0].index("bugs")
    index.create(2)
    names = [f"v{n}" for n in range(30)]
    names[7], names[22] = "bad-1", "bad-2"
    mutations = together(index, names)
    service.start_worker()
    last = index.upsert([{"id": "last", "values": [1, 2]}])
    index.visible(last, wait_s=60)
    for name, mutation in zip(names, mutations, strict=True):
        status = index.status(mutation)
        assert status["state"] == ("failed" if name.startswith("bad") else "visible")
        assert not name.startswith("bad") or "BugError" in status["error"]
    assert len(index.fetch(*names, "last")) == 29

    # Shown, by the command line and over HTTP.
    bad = mutations[7]
    shown = command(service, "mutation", "show", bad, "--index", "bugs")
    assert json.loads(shown.stdout) == {"id": "bad-1", "values": [1.0, 2.0]}, shown.stderr
    assert "failed" in shown.stderr and "BugError" in shown.stderr
    # A HEAD is answered without a body, which would be taken for the next answer on its connection.
    connection = http.client.HTTPConnection(urlsplit(service.apis[0].url).netloc, timeout=20)
    for method, body in (("HEAD", b""), ("GET", shown.stdout.encode())):
        path = index.path(f"/mutations/{bad}/changeset")
        connection.request(method, path, headers={"Authorization": f"Bearer {TOKEN}"})
        answer = connection.getresponse()
        assert answer.status == 200 and answer.headers["X-Upwell-Rows"] == "1"
        assert [json.loads(line) for line in answer.read().splitlines()] == [
            json.loads(line) for line in body.splitlines()
        ]
    connection.close()
    listed = command(service, "mutation", "list", "--index", "bugs", "--state", "failed")
    assert listed.stdout.count("BugError") == 2 or listed.stdout.count("failed") == 2

    # Tried again while it is as bad as before, it fails as before; mended, it goes in, behind all others.
    again = retry(index, bad)
    for _ in until(60):
        if index.status(again, wait_s=5)["state"] == "failed":
            break
    arm(plan)
    tried = command(service, "mutation", "retry", bad, "--index", "bugs")
    fresh = tried.stdout.split()[-1]
    assert tried.returncode == 0 and fresh not in (bad, again)
    assert index.visible(fresh)["position"] > index.status(last)["position"]
    assert set(index.fetch("bad-1")) == {"bad-1"}
    # However often it is asked for, it is applied once more and not twice.
    assert retry(index, bad) == fresh and retry(index, again) == fresh
    assert index.status(bad)["state"] == "failed"
    refused = index.post(f"mutations/{fresh}/retry", b"")
    assert refused.error[0] == 400 and "did not" in refused.error[2]


def test_a_mutation_that_kills_workers_is_found_and_fails(service: Service, plan: Path) -> None:
    # Who looks for the culprit begins anew when its lease is lost: it must be one that a busy machine keeps.
    service.settings["UPWELL_LEASE_TTL_S"] = "2"
    arm(plan, "apply.mutation=deadly kill")
    index = service.apis[0].index("deadly")
    index.create(2)
    with receiving() as receiver:
        index.post("webhooks", {"url": receiver.url, "events": ["failed"]})
        names = ["a", "b", "deadly", "c", "d"]
        mutations = together(index, names)
        worker = service.start_worker()
        deaths = 0
        for _ in until(90, every_s=0.1):
            if worker.poll() is not None:
                assert worker.returncode == -signal.SIGKILL
                deaths += 1
                worker = service.start_worker()
            if index.status(mutations[2])["state"] == "failed":
                break
        assert 1 <= deaths <= 5
        assert "died" in index.status(mutations[2])["error"]
        for name, mutation in zip(names, mutations, strict=True):
            assert name == "deadly" or index.visible(mutation)
        assert set(index.fetch(*names)) == {"a", "b", "c", "d"}
        for _ in until(60):
            if receiver.received:
                break
        told = json.loads(receiver.received[0].body)
        assert told["type"] == "mutation.failed" and told["data"]["mutationId"] == mutations[2]
    assert worker.poll() is None


def test_a_damaged_log_entry_is_said_and_holds_nobody_up(service: Service) -> None:
    index = service.apis[0].index("damaged")
    index.create(2)
    mutations = [index.upsert([{"id": f"v{n}", "values": [n, 1]}]) for n in range(3)]
    entry = sorted(service.data.glob("store/index/*/log/*"))[1]
    whole = bytearray(entry.read_bytes())
    whole[len(whole) // 3] ^= 0xFF
    entry.chmod(0o644)
    entry.write_bytes(bytes(whole))
    service.start_worker()
    index.visible(mutations[2])
    status = index.status(mutations[1])
    assert status["state"] == "failed" and status["error"]
    assert set(index.fetch("v0", "v1", "v2")) == {"v0", "v2"}
    refused = index.post(f"mutations/{mutations[1]}/retry", b"")
    assert refused.status == 500 and refused.json["success"] is False
