"""Patients that an experiment lists by id appear under pseudonyms in all that a run writes.

A listed pseudonym reads ``pseudonym:3f0a91c2d4e5``. It is accepted wherever an id is, so that the
``experiment.yaml`` of a run directory can be run again by whoever has the salt that made it.
"""

import re
import shlex
from collections.abc import Iterable
from functools import partial
from typing import Any

import yaml

from physfed_ray.data.patient import PSEUDONYM_BYTES, pseudonym, user_salt
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import HELD_PATIENTS, Experiment
from physfed_ray.experiment.file import parse_yaml, set_key

MARK = "pseudonym:"
LISTS = ("patients", "held_out_patients", *HELD_PATIENTS)
"""Keys that may list patients by id."""

_LISTED = re.compile(rf"{MARK}[0-9a-f]{{{2 * PSEUDONYM_BYTES}}}")


def listed_pseudonym(patient: str, salt: bytes) -> str:
    """Return what stands for a patient in a list; a pseudonym stays as it is."""
    return patient if _LISTED.fullmatch(patient) else MARK + pseudonym(patient, salt)


def pseudonymous(experiment: Experiment) -> Experiment:
    """Return the experiment as a run may write it: listed patients under their pseudonyms."""
    if not any(True for _ in experiment.listed_patients()):
        return experiment
    return experiment.with_patients(partial(listed_pseudonym, salt=user_salt()))


def identified(experiment: Experiment, patients: Iterable[str]) -> Experiment:
    """Return the experiment with the ids of those patients that it lists by pseudonym.

    Args:
        experiment: May list ids and pseudonyms.
        patients: Ids of all patients that there are.

    Raises:
        PhysFedError: A pseudonym is none of theirs.
    """
    if not any(_LISTED.fullmatch(listed) for listed in experiment.listed_patients()):
        return experiment
    salt = user_salt()
    known = {MARK + pseudonym(patient, salt): patient for patient in patients}

    def identify(listed: str) -> str:
        if _LISTED.fullmatch(listed) and listed not in known:
            raise PhysFedError(
                f"the experiment lists '{listed}', but no patient in the data has that pseudonym "
                "on this machine: give the patient's id, or set PHYSFED_SALT to the salt that made "
                "the pseudonym"
            )
        return known.get(listed, listed)

    return experiment.with_patients(identify)


def pseudonymous_keys(content: Any) -> Any:
    """Return the keys of a file, of whatever kind, with pseudonyms where patients are listed.

    Args:
        content: Nested groups and lists; of a key with dots, such as
            ``data.test_patients``, the last part counts.
    """
    if isinstance(content, list | tuple):
        return [pseudonymous_keys(entry) for entry in content]
    if not isinstance(content, dict):
        return content
    return {
        key: (_hidden_list if str(key).rpartition(".")[2] in LISTS else pseudonymous_keys)(value)
        for key, value in content.items()
    }


def _hidden_list(value: Any) -> Any:
    if isinstance(value, list | tuple):
        salt = user_salt()
        return [listed_pseudonym(v, salt) if isinstance(v, str) else v for v in value]
    if isinstance(value, dict):  # of --set data.test_patients.0=ID
        return dict(zip(value, _hidden_list(list(value.values())), strict=True))
    return value


def pseudonymous_override(override: str) -> str:
    """Return a ``key.path=value`` entry with pseudonyms where its value lists patients."""
    key, equals, text = override.partition("=")
    path = key.strip().split(".")
    content: dict[str, Any] = {}
    try:
        set_key(content, path, parse_yaml(text, key), key)
    except PhysFedError:
        return override
    hidden = pseudonymous_keys(content)
    if not equals or hidden == content:
        return override
    for part in path:
        hidden = hidden[part]
    shown = yaml.safe_dump(hidden, default_flow_style=True, allow_unicode=True, width=1 << 20)
    return f"{key}=" + shown.removesuffix("\n").removesuffix("\n...")


def pseudonymous_command(command: str) -> str:
    """Return a command line with pseudonyms where an override lists patients."""
    try:
        words = shlex.split(command)
    except ValueError:
        return command
    hidden = [_hidden_word(word) for word in words]
    return command if hidden == words else shlex.join(hidden)


def _hidden_word(word: str) -> str:
    option, equals, rest = word.partition("=")
    if option.startswith("--") and equals:  # --set=KEY=VALUE
        return f"{option}={pseudonymous_override(rest)}"
    return pseudonymous_override(word)
