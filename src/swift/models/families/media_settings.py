"""Settings of media that a user gives, in `--model_kwargs` or the environment, by the names of the 2.5 release."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import BaseImageProcessor

from swift.core.did_you_mean import suggestion
from swift.core.errors import SwiftError, first_line
from swift.models.families.base import Family
from swift.plan.unread import say_unread_variables

RATES = ("fps",)
"""Those that need not be whole numbers."""
PAIRS = ("min_pixels", "max_pixels"), ("video_min_pixels", "video_max_pixels"), ("fps_min_frames", "fps_max_frames")
"""The least and the most of something."""
FLAG = "--model_kwargs"


def given_settings(family: type[Family], processor: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `kwargs` and the environment; a flag goes before a variable.

    Raises SwiftError for a name that neither the family nor its processor has, and for a value that is none.
    """
    own = processor.to_dict()
    known = list(dict.fromkeys((*family.settings, *family.video_settings)))
    for name, value in kwargs.items():
        if name not in known and name not in own:
            raise SwiftError(
                f"{FLAG} names {name}, which neither the model nor its image processor has",
                where=FLAG,
                next=suggestion(name, [*known, *own]) or f"leave {name} out",
            )
        if name == "do_resize" and not value:
            raise SwiftError("images are resized as the model was trained, whatever do_resize says", where=FLAG)
        if name in known:
            _check(name, value, f"{name} of {FLAG}", FLAG)
    values = {**_environment(known), **kwargs}
    for pair in PAIRS:
        if set(pair) <= values.keys() and values[pair[0]] > values[pair[1]]:
            raise _at_odds(pair, values, kwargs, "nothing is within both")
    if {"fps", "nframes"} <= values.keys():
        raise _at_odds(("fps", "nframes"), values, kwargs, "each says how many frames are shown")
    return values


def _at_odds(pair: tuple[str, str], values: Mapping[str, Any], kwargs: Mapping[str, Any], why: str) -> SwiftError:
    first, second = pair
    where = " and ".join(dict.fromkeys(FLAG if name in kwargs else name.upper() for name in pair))
    what = f"{first} is {values[first]}, and {second} is {values[second]}"
    return SwiftError(what, why=why, where=where, next="leave one of them out")


def _check(name: str, value: Any, said: str, where: str) -> None:
    kinds, wanted = ((int, float), "a number") if name in RATES else (int, "a whole number")
    if not isinstance(value, kinds) or isinstance(value, bool) or value <= 0:
        raise SwiftError(f"{said} is {value!r}", where=where, why=f"it must be {wanted} above 0")


def _environment(known: Sequence[str]) -> dict[str, float]:
    values: dict[str, float] = {}
    for name in known:
        text = os.environ.get(name.upper())
        if text is None:
            continue
        try:
            values[name] = float(text) if name in RATES else int(text)
        except ValueError as error:
            raise SwiftError(f"{name.upper()} is {text!r}", where=name.upper(), why="it must be a number") from error
        _check(name, values[name], name.upper(), name.upper())
    say_unread_variables(known)
    return values


def tried(family: type[Family], folder: Path, settings: Mapping[str, Any]) -> Any:
    """The processor in `folder` with `settings` by its own names. Raises SwiftError where it makes nothing of an image
    with them."""
    try:
        processor = family.load_processor(folder, **settings)
        if issubclass(type(processor), BaseImageProcessor):
            processor(Image.new("RGB", (224, 224)), return_tensors="pt")
    except Exception as error:  # whatever its code meets in a value of another kind
        raise SwiftError(
            f"the image processor cannot work with {', '.join(settings)} as given", where=FLAG, why=first_line(error)
        ) from error
    return processor
