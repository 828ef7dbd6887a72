"""Names in experiments and what they stand for: the project's own, and other packages'."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from physfed_ray.errors import PhysFedError

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """Name -> object, imported when it is first asked for.

    A package adds names through an entry-point group; those of the project cannot be overridden.

    Args:
        noun: What the names are of, in messages: "method".
        own: ``module:object`` of each of the project's own names, in the order of lists.

    Attributes:
        group: The entry-point group, such as ``physfed_ray.methods``.
    """

    def __init__(self, noun: str, own: Mapping[str, str]) -> None:
        self.noun, self.group = noun, f"physfed_ray.{noun.replace(' ', '_')}s"
        self._own = own

    @cached_property
    def _entries(self) -> dict[str, EntryPoint]:
        own = {name: EntryPoint(name, value, self.group) for name, value in self._own.items()}
        return own | {e.name: e for e in entry_points(group=self.group) if e.name not in own}

    def __getitem__(self, name: str) -> T:
        loaded: T = self._entries[name].load()
        return loaded

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        """Say whether there is such a name, without importing what it stands for."""
        return name in self._own or name in self._entries

    def find(self, name: str) -> T:
        """Return what a name stands for.

        Raises:
            PhysFedError: There is no such name; the message lists those that there are.
        """
        if name not in self._entries:
            close: list[Any] = get_close_matches(name, self, n=1)
            hint = f" (did you mean '{close[0]}'?)" if close else ""
            raise PhysFedError(
                f"unknown {self.noun} '{name}'{hint}; there are: {', '.join(self) or 'none'}"
            )
        return self[name]
