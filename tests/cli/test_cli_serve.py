"""``upwell serve``: one ready line, every part restarted when it dies, and nothing left behind however it ends."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import pytest

from tests.service import ROOT, TOKEN, Api, Index, until

UPWELL = [sys.executable, "-c", "from ingest.cli import main; main()"]


@dataclass
class Serving:
    """A running ``upwell serve``."""

    process: subprocess.Popen[str]
    lines: list[str]

    @property
    def url(self) -> str:
        return self.lines[0].removeprefix("upwell ready on ")

    def index(self, name: str) -> Index:
        """An index of the service."""
        return Api(self.process, self.url).index(name)

    def parts(self) -> dict[str, list[int]]:
        """Process ids of the children, by what they are."""
        return children_of(self.process.pid)

    def all_parts(self, workers: int = 1) -> dict[str, list[int]]:
        """The same, once all are there. A worker may still be starting when the front end is ready; its title is its own to set."""
        expected = {"upwell api": 1, "upwell worker": workers, "valkey": 1}
        for _ in until(60):
            parts = self.parts()
            if {name: len(pids) for name, pids in parts.items()} == expected:
                return parts
        raise AssertionError("until() fails before")


def children_of(parent: int) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] != "Z":
            name = "valkey" if "valkey-server" in title else title
            found.setdefault(name, []).append(int(entry.name))
    return found


def alive(pids: list[int]) -> list[int]:
    """Those of ``pids`` that still run."""
    running = []
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":
            running.append(pid)
    return running


@contextmanager
def serve(data: Path, *options: str, token: str | None = None, lines: int = 1) -> Iterator[Serving]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("UPWELL_")}
    environment |= {"UPWELL_TOKEN": token} if token else {}
    process = subprocess.Popen(
        [*UPWELL, "serve", "--port", "0", "--data", str(data), *options],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield Serving(process, [process.stdout.readline().rstrip("\n") for _ in range(lines)])
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(30)
        process.stdout.close()


def test_the_ready_line_the_token_and_the_titles(tmp_path: Path) -> None:
    with serve(tmp_path / "data", "--workers", "2", lines=2) as serving:
        assert serving.lines[0] == f"upwell ready on {serving.url}"
        kept = tmp_path / "data" / "admin-token"
        assert serving.lines[1] == f"token: {kept.read_text().strip()}"
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        parts = serving.all_parts(workers=2)
        info = serving.index("nothing").get("", token=kept.read_text().strip())
        assert info.error[:2] == (404, 3000)
        everyone = [pid for pids in parts.values() for pid in pids]
        serving.process.send_signal(signal.SIGINT)
        assert serving.process.wait(30) == 0
        assert alive(everyone) == []
        assert serving.process.stdout is not None
        assert serving.process.stdout.read().count("\n") == 1, "no more than the hint follows the token"


def test_a_token_that_was_given_is_not_printed(tmp_path: Path) -> None:
    with serve(tmp_path / "data", token=TOKEN) as serving:
        serving.process.terminate()
        assert serving.process.wait(30) == 0
        assert serving.process.stdout is not None
        assert serving.process.stdout.read() == ""
        assert not (tmp_path / "data" / "admin-token").exists()


def test_whatever_dies_is_started_again_at_the_same_address(tmp_path: Path) -> None:
    with serve(tmp_path / "data", token=TOKEN) as serving:
        index = serving.index("survivor")
        assert index.create(2).status == 200
        for name in ("upwell worker", "valkey", "upwell api"):
            (victim,) = serving.all_parts()[name]
            os.kill(victim, signal.SIGKILL)
            for _ in until(60):
                if serving.parts().get(name, [victim]) != [victim]:
                    break
            assert index.visible(upsert_when_it_listens(index))["counts"]["received"] == 1, name


def upsert_when_it_listens(index: Index) -> str:
    """A front end that was just started again takes a moment until it listens."""
    for _ in until(60):
        try:
            return index.upsert([{"id": "a", "values": [1, 2]}])
        except (URLError, ConnectionError):
            continue
    raise AssertionError("unreachable")


def test_killed_outright_it_leaves_no_child(tmp_path: Path) -> None:
    with serve(tmp_path / "data", token=TOKEN) as serving:
        everyone = [pid for pids in serving.all_parts().values() for pid in pids]
        assert len(everyone) == 3
        serving.process.kill()
        serving.process.wait(10)
        for _ in until(60):
            if not alive(everyone):
                break


def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run("serve", "--port", port, "--data", str(tmp_path / "data"))
        assert done.returncode == 1
        assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout == ""


def test_a_second_service_on_the_same_data_is_refused(tmp_path: Path) -> None:
    with serve(tmp_path / "data", token=TOKEN):
        done = run("serve", "--port", "0", "--data", str(tmp_path / "data"))
        assert (done.returncode, done.stdout) == (1, "")
        assert "another upwell serve uses this data directory" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["serve", "--workers", "0"], "workers: Input should be greater than or equal to 1"),
        (["serve", "--redis", "http://127.0.0.1"], "redis"),
        (["api", "--store", "ftp://x"], "file:///"),
        (["worker", "--store", "file://relative"], "file:///"),
    ],
)
def test_bad_options_are_one_clear_line(tmp_path: Path, arguments: list[str], says: str) -> None:
    done = run(*arguments, "--data", str(tmp_path / "data"))
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("UPWELL_")}
    return subprocess.run(
        [*UPWELL, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
