"""From words to values: what `8`, `true`, `a,b`, `None` and `{"x": 1}` mean for a flag."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from swift.core.did_you_mean import suggestion
from swift.core.environment import FALSE, TRUE
from swift.params.flag import Flag, Json, Kind, Named, OneOf, Range, Text
from swift.params.flag_synonyms import CHOICES, ELSEWHERE
from swift.params.frozen import Frozen

NOTHING = frozenset({"None", "null", "NULL", "Null"})

_NOUNS: dict[Kind, str] = {"bool": "true or false", "int": "a whole number", "float": "a number", "str": "a text"}


class BadValue(Exception):
    """A value that the flag does not take: `what` follows the flag's name in the message."""

    def __init__(self, what: str, next: str | None = None):
        super().__init__(what)
        self.what = what
        self.next = next


class Plain(Frozen):
    """An unquoted scalar of a file, still as text."""

    text: str


def from_words(flag: Flag, words: Sequence[str]) -> Any:
    """The value of a flag followed by `words` on the command line. Raises BadValue."""
    if flag.many:
        return _items(flag, [_Word(word, True) for word in words])
    if not words:
        raise BadValue(f"needs {_wanted(flag)}", next=f"--{flag.name} VALUE")
    if len(words) > 1:
        raise BadValue(f"takes one value, and `{words[1]}` follows it", next="quote a text that holds blanks")
    return _scalar(flag, words[0], plain=True)


def from_file(flag: Flag, raw: Any) -> Any:
    """The value of a flag in a file, from Plain, str (quoted), None, a list of these, or a dict. Raises BadValue."""
    if raw is None:
        return _nothing(flag)
    if isinstance(raw, dict) and flag.marker(Named) is not None:
        return _named(flag, raw)
    if isinstance(raw, dict):
        if flag.marker(Json) is None:
            raise BadValue(f"takes {_wanted(flag)}, not a mapping")
        return raw
    if isinstance(raw, list):
        if not flag.many:
            raise BadValue(f"takes {_wanted(flag)}, not a list")
        if any(isinstance(item, list | dict) for item in raw):
            named = flag.marker(OneOf)
            rows = named is not None and named.registry == "datasets"
            raise BadValue(
                "takes names and files" if rows else "takes a flat list",
                next="write the rows into a JSONL file, a row a line, and name it" if rows else None,
            )
        return _items(flag, [_word(item) for item in raw], split=False)
    word = _word(raw)
    return _items(flag, [word]) if flag.many else _scalar(flag, word.text, plain=word.plain)


def _named(flag: Flag, mapping: dict[Any, Any]) -> tuple[str, ...]:
    """NAME=VALUE of each item of a mapping."""
    for name, value in mapping.items():
        if not (isinstance(name, str) and isinstance(value, str)):
            raise BadValue(f"takes a mapping of names to texts, not {name!r}: {value!r}", next='"NAME": "VALUE"')
    return tuple(f"{name}={value}" for name, value in mapping.items())


class _Word(Frozen):
    text: str
    plain: bool


def _word(raw: Any) -> _Word:
    if raw is None:
        return _Word("None", True)
    return _Word(raw.text, True) if isinstance(raw, Plain) else _Word(raw, False)


def _items(flag: Flag, words: list[_Word], *, split: bool = True) -> Any:
    if not words and split:
        raise BadValue("needs at least one value", next=f"--{flag.name} None for an empty list")
    if len(words) == 1 and split:
        only = words[0]
        if only.plain and only.text in NOTHING:
            return _nothing(flag)
        if only.text.startswith("[") and (listed := _json_list(only.text)) is not None:
            words, split = listed, False
    parts = [part for word in words for part in (_split(flag, word) if split else [word])]
    return tuple(_item(flag, part) for part in parts)


def _json_list(text: str) -> list[_Word] | None:
    import json

    from swift.core.strict_json import read_json

    try:
        items = read_json(text)
    except ValueError:
        return None
    quoted = [isinstance(item, str) for item in items]
    return [_Word(item if text else json.dumps(item), not text) for item, text in zip(items, quoted, strict=True)]


def _split(flag: Flag, word: _Word) -> list[_Word]:
    """Part a word at its commas; a text may hold commas of its own, which a blank follows or which stand alone."""
    if flag.marker(Text) is not None:
        parts = re.split(r",(?!\s)", word.text)
        return [_Word(part, word.plain) for part in parts] if all(parts) else [word]
    parts = [part.strip() for part in word.text.split(",")]
    return [_Word(part, word.plain) for part in parts if part]


def _item(flag: Flag, word: _Word) -> Any:
    if word.plain and word.text in NOTHING:
        if flag.empty_items:
            return None
        raise BadValue(f"takes {_wanted(flag)}, not None")
    return _check(flag, _read(flag, word.text))


def _nothing(flag: Flag) -> Any:
    if flag.optional:
        return None
    if flag.many:
        return ()
    raise BadValue(f"takes {_wanted(flag)}, not None")


def _scalar(flag: Flag, text: str, *, plain: bool) -> Any:
    if plain and text in NOTHING:
        return _nothing(flag)
    if plain and flag.optional and text.lower() == "none" and "str" not in flag.kinds:
        return None
    return _check(flag, _read(flag, text))


def _read(flag: Flag, text: str) -> Any:
    if flag.choices:
        return _choice(flag, text)
    if len(flag.kinds) > 1 and "bool" in flag.kinds and text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind, reader in _READERS.items():
        if kind in flag.kinds and (value := reader(text)) is not None:
            return value
    if "int" in flag.kinds and re.fullmatch(r"[+-]?\d+", text):
        raise BadValue(f"takes no number of {len(text)} digits")
    raise BadValue(f"takes {_wanted(flag)}, not `{text}`", next=_mend(flag, text))


def _choice(flag: Flag, text: str) -> Any:
    for choice in flag.choices:
        if str(choice) == text:
            return choice
    for choice in flag.choices:
        if str(choice).lower() == text.lower():
            return choice
    names = [str(choice) for choice in flag.choices]
    synonym = CHOICES.get(text.lower())
    raise BadValue(
        f"does not take `{text}`, but {', '.join(names[:-1])} or {names[-1]}",
        next=ELSEWHERE.get(text.lower()) or suggestion(synonym if synonym in names else text, names, "`{}`"),
    )


def _bool(text: str) -> bool | None:
    word = text.lower()
    return True if word in TRUE else False if word in FALSE else None


def _int(text: str) -> int | None:
    """A whole number that 64 bits hold."""
    return int(text) if re.fullmatch(r"[+-]?\d{1,18}", text) else None


def _float(text: str) -> float | None:
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


_READERS: dict[Kind, Callable[[str], Any]] = {"int": _int, "float": _float, "str": str, "bool": _bool}
"""In this order, so that a flag of several kinds takes the narrowest one."""


def _mend(flag: Flag, text: str) -> str | None:
    """How a number that is written in another way would be written here."""
    number = _float(text.replace("_", "").replace(",", ""))
    if number is None or "int" not in flag.kinds or number != int(number):
        return None
    return f"write {int(number)}"


def _check(flag: Flag, value: Any) -> Any:
    limits = flag.marker(Range)
    if limits is not None and isinstance(value, int | float) and not isinstance(value, bool) and value not in limits:
        raise BadValue(f"must be {limits}, not {value}")
    if flag.marker(Json) is not None and isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        import json

        from swift.core.strict_json import RepeatedKey, read_json

        try:
            read_json(value)
        except RepeatedKey as error:
            raise BadValue(f"is JSON in which {error}", next="keep one of the two") from error
        except json.JSONDecodeError as error:
            raise BadValue(
                f"is not valid JSON: {error.msg} at character {error.pos + 1}",
                next="quote the whole text in ' ' so that the shell leaves it alone",
            ) from error
        except ValueError as error:
            raise BadValue(f"is no JSON that can be read: {error}") from error
    return value


def _wanted(flag: Flag) -> str:
    if flag.choices:
        return "one of " + ", ".join(str(choice) for choice in flag.choices)
    nouns = [_NOUNS[kind] for kind in flag.kinds if not (kind == "int" and "float" in flag.kinds)]
    if flag.marker(Json) is not None:
        nouns = ["JSON text or a JSON file"]
    text = " or ".join(nouns)
    return f"{text} each" if flag.many else text


def shown(value: Any) -> str:
    """A value as it is typed on a command line."""
    if isinstance(value, tuple | list):
        return " ".join(map(shown, value)) or "None"
    return str(value).lower() if isinstance(value, bool) else str(value)
