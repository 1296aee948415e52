"""Functions of a schema: Milvus's BM25, which makes a collection's sparse vectors of the texts of one field.

Others that Milvus has are refused by name. All checks are Milvus's, in its words and its order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ingest.doors.milvus.errors import Code, MilvusError, invalid
from ingest.doors.milvus.fields import ANALYZED, enables
from ingest.doors.milvus.schema_bodies import FieldAsked, FunctionAsked
from ingest.doors.milvus.vectors import SPARSE
from upwell.schema import FieldType, FullText

BM25: Final = "BM25"
#: Those of Milvus's that are known there and not here.
FOREIGN: Final = ("TextEmbedding", "Rerank", "MinHash")


def full_text_of(functions: Sequence[FunctionAsked], fields: Sequence[FieldAsked]) -> FullText | None:
    """The function of a collection with these fields, of which it is known that they can be; None if none is asked for.

    Raises MilvusError. There is one at most, since a second one would have the same output.
    """
    for function in functions:
        _check_type(function)
    by_name = {one.field_name: one for one in fields}
    names: set[str] = set()
    made: set[str] = set()
    for function in functions:
        _check_names(function)
        if function.name in names:
            raise invalid(f"duplicate function name: {function.name}")
        names.add(function.name)
        _check_input(function, [_known(by_name, "input", name) for name in function.input_field_names])
        outputs = [_known(by_name, "output", name) for name in function.output_field_names]
        for output in outputs:
            _check_made(function, output)
            if output.field_name in made:
                raise invalid(
                    f"duplicate function output field: function {function.name}, field {output.field_name}"
                )
            made.add(output.field_name)
        _check_output(outputs)
    return next(
        (
            FullText(name=one.name, description=one.description, field=one.input_field_names[0])
            for one in functions
        ),
        None,
    )


def _check_type(function: FunctionAsked) -> None:
    if function.type in FOREIGN:
        raise invalid(
            f"functions of type {function.type} are not supported here, {BM25} is; send vectors, or use an index that embeds "
            "texts through another door"
        )
    if function.type != BM25:
        given = function.type[:64]
        raise invalid(f"Unsupported function type: {given}", "FunctionType", given)


def _check_names(function: FunctionAsked) -> None:
    if not function.name:
        raise _lacking("function name cannot be empty")
    inputs, outputs = function.input_field_names, function.output_field_names
    for which, fields in (("input", inputs), ("output", outputs)):
        if not fields:
            raise _lacking(f"function {which} field names cannot be empty, function: {function.name}")
        for name in fields:
            if not name:
                raise _lacking(
                    f"function {which} field name cannot be empty string, function: {function.name}"
                )
            if fields.count(name) > 1:
                raise invalid(
                    f"each function {which} field should be used exactly once in the same function, function: {function.name}, "
                    f"{which} field: {name}"
                )
    for name in outputs:
        if name in inputs:
            raise invalid(
                f"a single field cannot be both input and output in the same function, function: {function.name}, field: {name}"
            )
    if function.params:
        raise invalid("BM25 function accepts no params")


def _known(fields: dict[str, FieldAsked], which: str, name: str) -> FieldAsked:
    field = fields.get(name)
    if field is None:
        raise invalid(f"function {which} field not found: {name}")
    return field


def _check_input(function: FunctionAsked, inputs: Sequence[FieldAsked]) -> None:
    field = inputs[0]
    if len(inputs) != 1 or field.data_type != FieldType.VARCHAR:
        raise invalid(
            f"BM25 function input field must be a VARCHAR field, got {len(inputs)} field with type {field.data_type}"
        )
    if not enables(field.told, ANALYZED):
        raise invalid("BM25 function input field must set enable_analyzer to true")
    if field.is_primary:
        raise invalid(
            f"function input field cannot be primary key here: function {function.name}, field {field.field_name}"
        )


def _check_made(function: FunctionAsked, field: FieldAsked) -> None:
    problem = ""
    if field.is_primary:
        problem = "primary key"
    elif field.is_partition_key or field.is_clustering_key:
        problem = "partition key or clustering key"
    elif field.nullable:
        problem = "nullable"
    if problem:
        raise invalid(
            f"function output field cannot be {problem}: function {function.name}, field {field.field_name}"
        )


def _check_output(outputs: Sequence[FieldAsked]) -> None:
    if len(outputs) != 1:
        raise invalid(f"BM25 function only need 1 output field, but got {len(outputs)}")
    if outputs[0].data_type != SPARSE:
        raise invalid(
            f"BM25 function output field must be a SparseFloatVector field, but got {outputs[0].data_type}"
        )


def _lacking(what: str) -> MilvusError:
    return MilvusError(Code.PARAMETER_MISSING, f"{what}: missing parameter")
