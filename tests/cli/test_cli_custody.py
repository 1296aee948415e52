"""The commands that look after a store, beside a running service: fsck, backup, restore, recover, export."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ingest.cli import app
from tests.service import TOKEN, Service, running, until

ROWS = 400


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running() as service:
        index = service.apis[0].index("shelf")
        index.create(2, "euclidean").result  # noqa: B018
        index.visible(index.upsert({"id": f"v{n}", "values": [n, 0.1]} for n in range(ROWS)))
        yield service


@pytest.fixture
def upwell(service: Service) -> CliRunner:
    client = {"UPWELL_URL": service.apis[0].url, "UPWELL_TOKEN": TOKEN}
    store = {"UPWELL_DATA": str(service.data), "UPWELL_REDIS": service.valkey.url}
    return CliRunner(env=client | store | {"COLUMNS": "200"})


def ran(result: Result, code: int = 0) -> str:
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout


def test_a_store_in_use_is_clean(upwell: CliRunner) -> None:
    says = ran(upwell.invoke(app, ["fsck"]))
    assert "clean" in says and f"1 indexes, {ROWS} vectors" in says and "MB/s" in says
    found = json.loads(ran(upwell.invoke(app, ["fsck", "--json", "--quick", "--index", "shelf"])))
    assert found["clean"] is True and found["indexes"] == 1 and found["vectors"] == ROWS


def test_a_check_and_a_backup_change_nothing_of_a_store(
    upwell: CliRunner, service: Service, tmp_path: Path
) -> None:
    """So they serve a snapshot that is mounted read-only."""
    copy = tmp_path / "store"
    shutil.copytree(service.data / "store", copy, ignore=shutil.ignore_patterns(".*"))
    before = sorted((path, path.stat().st_mtime_ns) for path in [copy, *copy.rglob("*")])
    address = f"file://{copy}"
    ran(upwell.invoke(app, ["fsck", "--store", address]))
    ran(upwell.invoke(app, ["backup", "shelf", "--to", str(tmp_path / "b.upwell"), "--store", address]))
    assert sorted((path, path.stat().st_mtime_ns) for path in [copy, *copy.rglob("*")]) == before


def test_what_is_damaged_is_named_and_told_by_the_exit_code(upwell: CliRunner, service: Service) -> None:
    token = service.data / "store" / "token"
    ran(upwell.invoke(app, ["token", "create", "--access", "read"]))
    (path,) = token.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] if len(whole) % 64 else whole[:70])
    says = ran(upwell.invoke(app, ["fsck"]), 1)
    assert f"error token/{path.name}" in says and "make another token" in says and "1 errors" in says
    found = json.loads(ran(upwell.invoke(app, ["fsck", "--json"]), 1))
    assert [each["severity"] for each in found["findings"] if each["severity"] != "note"] == ["error"]
    path.write_bytes(whole)
    ran(upwell.invoke(app, ["fsck"]))


def test_what_cannot_be_checked_is_told_so_and_no_store_is_made(upwell: CliRunner, tmp_path: Path) -> None:
    for options in (
        ["--data", str(tmp_path / "nowhere")],
        ["--store", f"file://{tmp_path}/nowhere"],
        ["--index", "nobody"],
        ["--backup", str(tmp_path / "nothing.upwell")],
    ):
        result = upwell.invoke(app, ["fsck", *options])
        assert result.exit_code == 2 and "there is no" in result.stderr, result.output
    assert list(tmp_path.iterdir()) == []


def test_a_backup_is_taken_checked_and_restored_beside_the_service(
    upwell: CliRunner, service: Service, tmp_path: Path
) -> None:
    says = ran(upwell.invoke(app, ["backup", "shelf", "--to", str(tmp_path)]))
    (file,) = tmp_path.iterdir()
    assert str(file) in says and f"{ROWS} vectors" in says
    assert f"1 indexes, {ROWS} vectors" in ran(upwell.invoke(app, ["fsck", "--backup", str(file)]))
    says = ran(upwell.invoke(app, ["restore", str(file), "--as", "shelf-2"]))
    assert f"default/shelf-2: {ROWS} vectors" in says
    again = service.apis[0].index("shelf-2")
    assert again.fetch("v7") == service.apis[0].index("shelf").fetch("v7") != {}
    # It goes on like any other.
    again.visible(again.upsert([{"id": "new", "values": [1, 2]}]))
    assert again.get("/info").result["vectorCount"] == ROWS + 1
    assert isinstance(upwell.invoke(app, ["restore", str(file), "--as", "shelf-2"]).exception, Exception)
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 3] ^= 1
    file.write_bytes(damaged)
    assert "errors" in ran(upwell.invoke(app, ["fsck", "--backup", str(file)]), 1)
    refused = upwell.invoke(app, ["restore", str(file), "--as", "third"])
    assert "nothing of it was restored" in str(refused.exception)
    assert service.apis[0].index("third").get("/info").error[0] == 404


def test_an_export_is_counted_and_uploads_again(upwell: CliRunner, service: Service, tmp_path: Path) -> None:
    file = tmp_path / "shelf.ndjson"
    told = upwell.invoke(app, ["export", "shelf", "--output", str(file)])
    ran(told)
    assert f"{ROWS} vectors of version" in told.stderr
    assert len(file.read_text().splitlines()) == ROWS
    assert list(tmp_path.iterdir()) == [file]
    assert "there is such a file already" in str(
        upwell.invoke(app, ["export", "shelf", "--output", str(file)]).exception
    )
    ran(upwell.invoke(app, ["index", "create", "copy", "--dimensions", "2", "--metric", "euclidean"]))
    ran(upwell.invoke(app, ["upload", str(file), "--index", "copy"]))
    out = ran(upwell.invoke(app, ["export", "copy"]))
    assert sorted(out.splitlines()) == sorted(file.read_text().splitlines())
    assert ran(upwell.invoke(app, ["export", "copy", "--namespace", "none"])) == ""
    assert "404" in str(upwell.invoke(app, ["export", "nobody"]).exception)
    assert list(tmp_path.iterdir()) == [file]


def test_redis_is_made_anew_from_the_store(upwell: CliRunner, service: Service) -> None:
    """With no worker there, and Redis wiped: what waits is said and rung for; the first worker that comes has a job."""
    for worker in service.workers:
        worker.terminate()
        worker.wait(30)
    service.workers.clear()
    index = service.apis[0].index("shelf")
    mutation = index.upsert([{"id": "late", "values": [1, 2]}])
    said = ran(upwell.invoke(app, ["recover", "--reset"], input="y\n"))
    assert "keys deleted" in said and "default/shelf" in said
    assert "1 with mutations waiting, 1 rung for" in said
    assert "0 keys deleted" not in said
    # A bell that hangs already is not rung twice by the protocol; another generation's is.
    assert "1 rung for" in ran(upwell.invoke(app, ["recover"]))
    assert upwell.invoke(app, ["recover", "--reset"], input="n\n").exit_code == 1
    service.start_worker()
    index.visible(mutation)
    for _ in until(60):
        if "0 with mutations waiting, 0 rung for" in ran(upwell.invoke(app, ["recover", "--reset", "--yes"])):
            break


def test_recovery_says_what_it_lacks(upwell: CliRunner) -> None:
    away = upwell.invoke(app, ["recover", "--redis", "redis://127.0.0.1:1/0"])
    assert "Redis does not answer" in str(away.exception)


def test_help_names_them_all() -> None:
    says = CliRunner().invoke(app, ["--help"]).stdout
    assert all(command in says for command in ("fsck", "backup", "restore", "recover", "export"))
