"""What every estimate and simulation returns: named values, as attributes and as JSON."""

from __future__ import annotations

from typing import Any


class Answer:
    """Values by name; a subclass is a dataclass that holds them."""

    values: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The JSON that the command of the same name prints with ``--json``."""
        return dict(self.values)

    def __getattr__(self, name: str) -> Any:
        values = self.__dict__.get("values", {})
        if name in values:
            return values[name]
        raise AttributeError(name)
