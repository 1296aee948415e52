"""What ``analyzer_params`` say: a tokenizer, and filters in the order in which they are applied.

The refusals are Milvus's, in its words and with its spelling, as far as it has any.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeGuard

from upwell.errors import Invalid
from upwell.text.filters import PLAIN, STEMMERS, Decompounder, Filter, at_most, lowercase, stemming, stopping
from upwell.text.stop_words import ELSEWHERE, ENGLISH, LISTS
from upwell.text.tokenizers import Tokenizer, standard, whitespace

#: Of parameters as canonical JSON, so of all that they say.
CHARACTERS_MAX: Final = 32_768
FILTERS_MAX: Final = 32
#: Of a word of a decompounder's list, in characters.
PART_CHARACTERS_MAX: Final = 64
#: Of what a refusal quotes.
_QUOTED: Final = 64

Params = Mapping[str, Any]


def canonical(params: Params) -> str:
    """Parameters as a text: the same for the same ones. Raises Invalid for more than there may be."""
    try:
        text = json.dumps(params, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    except RecursionError:
        raise Invalid("analyzer params are nested too deeply") from None
    if len(text) > CHARACTERS_MAX:
        raise Invalid(f"analyzer params have {len(text)} characters; at most {CHARACTERS_MAX} are allowed")
    return text


def read(params: Params) -> tuple[Tokenizer, list[Filter]]:
    """What these parameters describe. Raises Invalid."""
    if not params:
        return standard, [lowercase]
    if "type" in params:
        return standard, _built_in(params)
    tokenizer = _tokenizer(params.get("tokenizer"))
    _demand_known(params, "tokenizer", "filter", what="analyzer option")
    return tokenizer, _filters(params.get("filter", []))


def _built_in(params: Params) -> list[Filter]:
    """The filters of an analyzer that has a name; all of them have the standard tokenizer."""
    name = params["type"]
    if not isinstance(name, str):
        raise Invalid("analyzer type shoud be string")
    if name not in ("standard", "english"):
        known = "is not supported here" if name == "chinese" else "does not exist"
        raise Invalid(
            f"unknown build-in analyzer type: {name[:_QUOTED]}: it {known}; there are standard and english"
        )
    _demand_known(params, "type", "stop_words", what=f"option of the {name} analyzer")
    filters: list[Filter] = [lowercase]
    if name == "english":
        # In this order: Milvus looks for stop words among stems.
        filters += [stemming("english"), stopping(ENGLISH)]
    stop_words = _stop_words(params["stop_words"], "filter stop_words") if "stop_words" in params else []
    return [*filters, stopping(stop_words)] if stop_words else filters


_TOKENIZERS: Final[Mapping[str, Tokenizer]] = {"standard": standard, "whitespace": whitespace}


def _tokenizer(told: object) -> Tokenizer:
    if told is None:
        raise Invalid("tokenizer name or type must be set")
    if isinstance(told, str):
        told = {"type": told}
    if not _is_object(told):
        raise Invalid("tokenizer name should be string or dict")
    if "type" not in told:
        raise Invalid("costum tokenizer must set type")
    name = told["type"]
    if not isinstance(name, str):
        raise Invalid("tokenizer type should be string")
    if name not in _TOKENIZERS:
        raise Invalid(f"unsupported tokenizer: {name[:_QUOTED]}; there are {_names(_TOKENIZERS)}")
    if name == "standard" and "uax29" in told:
        if not isinstance(told["uax29"], bool):
            raise Invalid("standard tokenizer uax29 must be a boolean")
        if told["uax29"]:
            raise Invalid("standard tokenizer uax29 is not supported here")
        told = {key: value for key, value in told.items() if key != "uax29"}
    _demand_known(told, "type", what=f"option of the {name} tokenizer")
    return _TOKENIZERS[name]


def _filters(told: object) -> list[Filter]:
    if not isinstance(told, list):
        raise Invalid("filter params should be array")
    if len(told) > FILTERS_MAX:
        raise Invalid(f"there are {len(told)} filters; at most {FILTERS_MAX} are allowed")
    return [_filter(one) for one in told]


def _filter(told: object) -> Filter:
    if isinstance(told, str):
        if told in PLAIN:
            return PLAIN[told]
        raise Invalid(f"build analyzer failed, filter not found :{told[:_QUOTED]}; there are {_names(PLAIN)}")
    if not _is_object(told):
        raise Invalid("filter should be string or dict")
    if "type" not in told:
        raise Invalid("no type field in filter params")
    name = told["type"]
    if not isinstance(name, str):
        raise Invalid("filter type should be string")
    if name not in _MADE:
        raise Invalid(f"unsupport filter type: {name[:_QUOTED]}; there are {_names(_MADE)}")
    option, made = _MADE[name]
    if f"{option}_file" in told:
        raise Invalid(f"{option}_file is not supported here, there are no file resources; give {option}")
    _demand_known(told, "type", option, what=f"option of the {name} filter")
    return made(told.get(option))


def _stop(told: object) -> Filter:
    return stopping(_stop_words(told, "stop_words"))


def _length(told: object) -> Filter:
    if not isinstance(told, int) or isinstance(told, bool) or told < 0:
        raise Invalid("lenth max param was none or not uint")
    return at_most(told)


def _stemmer(told: object) -> Filter:
    if not isinstance(told, str):
        raise Invalid("stemmer language field should be string")
    language = told.lower()
    if language not in STEMMERS:
        raise Invalid(
            f"create stemmer failed : unsupport language: {language[:_QUOTED]}; there are {_names(STEMMERS)}"
        )
    return stemming(language)


def _decompounder(told: object) -> Filter:
    words = _strings(
        told, "decompounder word list should be array", "decompounder word list item should be string"
    )
    if not words:
        raise Invalid("decompounder word list is empty")
    if any(not 0 < len(word) <= PART_CHARACTERS_MAX for word in words):
        raise Invalid(f"decompounder word list items should have 1 to {PART_CHARACTERS_MAX} characters")
    return Decompounder(words)


#: The filters that are told something: by what option, and how they are made of it.
_MADE: Final[Mapping[str, tuple[str, Callable[[object], Filter]]]] = {
    "stop": ("stop_words", _stop),
    "length": ("max", _length),
    "stemmer": ("language", _stemmer),
    "decompounder": ("word_list", _decompounder),
}


def _stop_words(told: object, label: str) -> list[str]:
    """Words, those of the lists that are named among them. Raises Invalid."""
    words = []
    for word in _strings(told, f"{label} should be array", f"{label} list item should be string"):
        if word in ELSEWHERE:
            raise Invalid(f"the stop words {word} are not supported here; there are {_names(LISTS)}")
        words.extend(sorted(LISTS.get(word, [word])))
    return words


def _strings(told: object, no_array: str, no_string: str) -> list[str]:
    if not isinstance(told, list):
        raise Invalid(no_array)
    if not all(isinstance(word, str) for word in told):
        raise Invalid(no_string)
    return told


def _demand_known(told: Params, *known: str, what: str) -> None:
    unknown = next((key for key in told if key not in known), None)
    if unknown is not None:
        raise Invalid(f"unknown {what} key: {unknown[:_QUOTED]}")


def _is_object(told: object) -> TypeGuard[Params]:
    return isinstance(told, dict)


def _names(there: Mapping[str, object]) -> str:
    return ", ".join(sorted(there))
