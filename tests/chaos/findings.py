"""The findings of a verifier: the number of checked items, and the errors in them."""

from collections import Counter


class Findings:
    """What was looked at, and what was wrong: per property."""

    def __init__(self) -> None:
        self._wrong: dict[str, list[str]] = {}
        self._seen: Counter[str] = Counter()

    def look_at(self, name: str, count: int = 1, wrong: list[str] | None = None) -> None:
        """Count what a property was tested on, and what broke it."""
        self._seen[name] += count
        self._wrong.setdefault(name, []).extend(wrong or [])

    def lines(self) -> list[str]:
        """The table."""
        width = max(map(len, self._wrong))
        rows = []
        for name, wrong in self._wrong.items():
            rows.append(f"{name:{width}}  {len(wrong):6} of {self._seen[name]}")
            rows += [f"    {text}"[:400] for text in wrong[:3]]
        return rows

    def counts(self) -> dict[str, int]:
        """How often each property is broken."""
        return {name: len(wrong) for name, wrong in self._wrong.items()}

    @property
    def is_clean(self) -> bool:
        """Whether every property holds, and something was looked at at all."""
        return not any(self._wrong.values()) and sum(self._seen.values()) > 0
