"""What is wrong with a file that a user wrote, in words, from what pydantic says of it."""

import difflib
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError


def describe_mistake(error: ValidationError, model: type[BaseModel]) -> str:
    """The first mistake, without a full stop; `model`: what the file was read as."""
    # A key misspelt is also one that is missing, and what it was meant to be says more.
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    place, kind, found = first["loc"], first["type"], first["input"]
    if kind in ("int_type", "float_type") and place[-1] in ("int", "float"):
        place = place[:-1]  # which of several types it was taken for
    where = ".".join(str(p + 1) if isinstance(p, int) else str(p) for p in place)
    if kind == "extra_forbidden":
        known = _model_at(model, place[:-1]).model_fields
        near = difflib.get_close_matches(str(place[-1]), known, n=1, cutoff=0.0)[0]
        return f"the key '{where}' is unknown; the nearest valid one is '{near}'"
    if kind == "missing":
        return f"the key '{where}' is missing"
    if kind in ("int_type", "float_type") and isinstance(found, str):
        return (
            f"YAML reads {where} '{found}' as text, not as a number; a number with an exponent "
            "needs a point, such as 1.0e-3"
        )
    if kind == "literal_error":
        known = first["ctx"]["expected"].replace(" or ", ", ")
        return f"{where} is '{found}', which is unknown; there are: {known}"
    if kind == "value_error":
        said = str(first["ctx"]["error"])
        return f"{where}: {said}" if place[-1:] == ("colour",) else said
    if kind == "too_short":
        return f"{where} needs {first['ctx']['min_length']} entries or more"
    if kind == "tuple_type":
        return f"{where} must be a list"
    if kind in ("model_type", "dict_type"):
        return f"{where} must hold keys and values"
    if kind == "string_pattern_mismatch":
        return f"{where} is '{found}'; write small letters, digits and underscores, a letter first"
    return f"{where} is {found!r}: {first['msg'][0].lower()}{first['msg'][1:]}"


def _model_at(model: type[BaseModel], place: tuple[Any, ...]) -> type[BaseModel]:
    """The model whose keys stand at a place in a file."""
    for step in place:
        if step in model.model_fields:
            model = next(_models_in(model.model_fields[step].annotation), model)
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)
