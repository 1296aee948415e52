"""Where ids are integers of 64 bits, every form of a body is held to that, and one integer is written in one way only."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.body import Rules, fast, parse_upload
from ingest.body.rules import INT64_EXPECTED
from upwell.changeset import Changeset, Operation
from upwell.errors import InvalidLine, Reason
from upwell.schema import IdType

RULES = Rules(dimensions=2, vectors_max=50, bytes_max=1 << 20, ids=IdType.INT64)
GOOD = ("0", "1", "-1", "10", str((1 << 63) - 1), str(-(1 << 63)))
BAD = ("a", "-0", "+1", "01", "-01", "1.0", "1e3", " 1", "1 ", "1_0", "٣", "0x1", "-", str(1 << 63), str(-(1 << 63) - 1))  # fmt: skip


def ndjson(ids: list[object]) -> tuple[bytes, str | None]:
    return b"\n".join(orjson.dumps({"id": one, "values": [1, 2]}) for one in ids), None


def document(ids: list[object]) -> tuple[bytes, str | None]:
    return orjson.dumps({"vectors": [{"id": one, "values": [1, 2]} for one in ids]}), None


def array(ids: list[object]) -> tuple[bytes, str | None]:
    return orjson.dumps([{"id": one, "values": [1, 2]} for one in ids]), None


def multipart(ids: list[object]) -> tuple[bytes, str | None]:
    head = b'--x\r\nContent-Disposition: form-data; name="vectors"\r\n\r\n'
    return head + ndjson(ids)[0] + b"\r\n--x--\r\n", "multipart/form-data; boundary=x"


def arrow(ids: list[object]) -> tuple[bytes, str | None]:
    values = pa.array([[1, 2]] * len(ids), pa.list_(pa.float32()))
    table = pa.table({"id": pa.array([str(one) for one in ids]), "values": values})
    out = BytesIO()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue(), "application/vnd.apache.arrow.stream"


FORMS = (ndjson, document, array, multipart, arrow)


def parse(form: object, ids: list[object], rules: Rules = RULES) -> Changeset:
    assert callable(form)
    body, content_type = form(ids)
    return parse_upload(
        body, content_type=content_type, content_encoding=None, operation=Operation.UPSERT, rules=rules
    )


@pytest.fixture(params=[True, False])
def quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With simdjson, and without."""
    if not request.param:
        monkeypatch.setattr(fast, "simdjson", None)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("form", FORMS)
def test_integers_are_their_digits(form: object) -> None:
    numbers = [int(one) for one in GOOD]
    assert parse(form, list(GOOD)).ids.to_pylist() == list(GOOD)
    assert parse(form, list(numbers)).ids.to_pylist() == list(GOOD)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bad", BAD)
def test_anything_else_is_named_or_left_out(form: object, bad: str) -> None:
    with pytest.raises(InvalidLine) as caught:
        parse(form, ["7", bad, "8"])
    problem = caught.value.problem
    assert (problem.line, problem.field, problem.reason) == (2, "id", Reason.ID_MISSING)
    assert problem.detail == INT64_EXPECTED
    left = parse(form, ["7", bad, "8"], replace(RULES, discard=True))
    assert left.ids.to_pylist() == ["7", "8"] and left.discarded_count == 1
    # Where ids are texts it is one.
    assert parse(form, [bad], replace(RULES, ids=IdType.TEXT)).ids.to_pylist() == [bad]


@given(st.integers(-(1 << 64), 1 << 64))
def test_an_integer_is_an_id_if_64_bits_hold_it(number: int) -> None:
    assert IdType.INT64.takes(str(number)) is (-(1 << 63) <= number < 1 << 63)


@given(st.text(st.sampled_from("0123456789-+. e_٣"), max_size=22))
def test_a_text_is_an_id_if_it_is_how_an_integer_is_written(text: str) -> None:
    try:
        canonical = str(int(text)) == text and -(1 << 63) <= int(text) < 1 << 63
    except ValueError:
        canonical = False
    assert IdType.INT64.takes(text) is canonical
