"""What an unknown flag was probably meant to be."""

from __future__ import annotations

from swift.core.did_you_mean import closest
from swift.core.errors import SwiftError
from swift.params.commands import COMMANDS, TRAINING, Command
from swift.params.flag_synonyms import BY_ITSELF, FOREIGN, MEDIA_SETTINGS


def unknown_flag(command: Command, name: str) -> SwiftError:
    """The error for a flag the command does not have: what it is elsewhere, or what it looks like."""
    if name in ("config", "config_file", "config_path", "args_file"):
        return SwiftError(
            f"--{name} is not a flag: the file stands right after the command",
            next=f"swift {command.name} FILE.yaml …",
        )
    if (setting := name.lower().removeprefix("image_")) in MEDIA_SETTINGS and "model_kwargs" in command.flags:
        fewer = "; --rescale_image makes images smaller for every model" if setting == "max_pixels" else ""
        return SwiftError(
            f"--{name} is not a flag of `swift {command.name}`: it is a setting of the models that have it",
            next=f"--model_kwargs '{{\"{setting}\": …}}'{fewer}",
        )
    if (instead := BY_ITSELF.get(name.lower())) is not None and command.name in TRAINING:
        return SwiftError(f"--{name} is not a flag of `swift {command.name}`", next=instead)
    owners = [other.name for other in COMMANDS.values() if name in other.flags]
    meant = _meant(command, name.lower())
    what = f"--{name} is not a flag of `swift {command.name}`"
    if owners and meant is None:
        return SwiftError(what, next=f"that flag belongs to {_listed(owners)}")
    if meant is None and (near := _near(command, name)):
        meant, other = near[0], near[1:]
        return SwiftError(what, next="did you mean " + " or ".join(f"--{n}" for n in (meant, *other)) + "?")
    if meant is None:
        return SwiftError(what, next=_elsewhere(name) or f"swift {command.name} --help-all lists them all")
    also = f" (that flag belongs to {_listed(owners)})" if owners else ""
    return SwiftError(what, next=f"did you mean --{meant}?{also}")


def _elsewhere(name: str) -> str | None:
    """A flag of other commands that looks like `name`."""
    flags = {flag: command.name for command in COMMANDS.values() for flag in command.flags}
    near = closest(name, flags)
    return f"did you mean --{near[0]}? That flag belongs to `{flags[near[0]]}`" if near else None


def _listed(owners: list[str]) -> str:
    return ", ".join(f"`{owner}`" for owner in owners[:3]) + (" and others" if len(owners) > 3 else "")


def _meant(command: Command, name: str) -> str | None:
    """The flag that other tools call `name`."""
    return next((flag for flag in FOREIGN.get(name, "").split() if flag in command.flags), None)


def _near(command: Command, name: str) -> list[str]:
    """The flags most like `name`; an alias stands for the flag it means."""
    near_flags = (command.flags[near] for near in closest(name, command.flags, limit=4, margin=0.03))
    return list(dict.fromkeys(flag.alias_of or flag.name for flag in near_flags))[:3]
