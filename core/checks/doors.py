"""What stands in each door, looked at without running it. Built-ins and a user's own are held to the same rules."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from common.mistake import Mistake
from common.nearest import nearest
from core.checks.function import definition, installed, python_function
from core.checks.signature import Signature
from core.config.other_names import value_hint
from core.config.schema import RunConfig
from core.doors import DOORS
from core.plugins import Door, split_function


def doors(config: RunConfig) -> Iterator[Mistake]:
    """Each door's name is known or names a function or class; that takes the door's arguments and the options."""
    for door in DOORS:
        section, _, key = door.key.partition(".")
        settings = getattr(config, section)
        options = getattr(settings, door.options_key.rpartition(".")[2]) if door.options_key else {}
        name = getattr(settings, key)
        if name is not None:
            yield from check_door(door, name, options, settings.model_dump())


def check_door(
    door: Door, name: str, options: Mapping[str, Any], settings: Mapping[str, Any] | None = None
) -> Iterator[Mistake]:
    """What is wrong with `name` in this door.

    Args:
        settings: the keys of the door's section, which parameters of their names get.
    """
    if name not in door.builtins and ":" not in name:
        suggestion = nearest(name, door.builtins)
        remedy = f"did you mean {suggestion}?" if suggestion else "correct the name, or give a function of your own"
        remedy = value_hint(door.key, name) or remedy
        yield Mistake(door.key, None, repr(name), door.choices, remedy)
        return
    if name in door.needs and not installed(door.needs[name]):
        package = door.needs[name]
        wanted = f"the package {package}, which {name} works with"
        yield Mistake(door.key, None, f"{name}, and no package {package}", wanted, f"pip install {package}")
    mistakes = list(python_function(door.key, door.place(name)))
    yield from mistakes
    found = None if mistakes else definition(door.place(name))
    if found is not None:
        yield from _misfits(door, name, Signature.of(found), options, settings or {})


def _misfits(
    door: Door, name: str, found: Signature, options: Mapping[str, Any], settings: Mapping[str, Any]
) -> Iterator[Mistake]:
    is_class = found.methods is not None
    if door.methods and not is_class:
        yield Mistake(door.key, None, f"the function {_where(door, name)}", door.wanted, "make it a class")
        return
    called = found.call if is_class else found
    bound = () if is_class else door.arguments  # of a function the first parameters are the door's own
    offers = () if is_class else door.offers
    takes = [one for one in found.names if one not in found.places[: len(bound)] and one not in offers]
    for option in options:
        if option not in takes and not found.any_name:
            listed = f"an option of {name}: {', '.join(takes)}" if takes else f"no options, as {name} takes none"
            yield Mistake(door.options_key or door.key, None, f"the option {option}", listed, "remove or correct it")
    missing = found.required - set(found.places[: len(bound)]) - set(options) - set(settings) - set(offers)
    if missing and not found.any_place:
        listed = ", ".join(sorted(missing))
        yield Mistake(door.options_key or door.key, None, f"no {listed}", f"all that {name} needs", f"add {listed}")
    if door.methods:
        yield from _missing_methods(door, name, found)
    elif called is None and not found.any_name:
        yield Mistake(
            door.key, None, f"the class {_where(door, name)} without __call__", door.wanted, "define __call__"
        )
    elif called is not None and not _takes(called, len(door.arguments), {*options, *settings, *door.offers}):
        taken = f"({', '.join(called.places)})"
        yield Mistake(door.key, None, f"{_where(door, name)} with {taken}", door.wanted, "correct its parameters")


def _missing_methods(door: Door, name: str, found: Signature) -> Iterator[Mistake]:
    missing = [method for method in door.methods if method not in (found.methods or ())]
    if missing and not found.any_name:
        listed = ", ".join(missing)
        yield Mistake(door.key, None, f"{_where(door, name)} without {listed}", door.wanted, "define what is missing")


def _takes(called: Signature, count: int, given: Collection[str]) -> bool:
    needed = [one for one in called.places if one in called.required and one not in given]
    return called.any_place or (len(called.places) >= count >= len(needed))


def _where(door: Door, name: str) -> str:
    place, function = split_function(door.place(name))
    return f"{function} of {place}"
