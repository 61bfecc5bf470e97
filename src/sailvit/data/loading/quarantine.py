"""Quarantine: counts records that could not be read, and stops the run when there are too
many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sailvit.core.bad_records import QuarantinedRecord
from sailvit.core.errors import DataError
from sailvit.core.formatting import percent
from sailvit.core.recipe import QuarantineConfig

_SHOWN = 3
"""Bad records that an error names."""
_ENOUGH = 4
"""Records after which a run stops if every one so far was bad."""


@dataclass
class _Account:
    """What was read of one source."""

    read: int = 0
    """Records drawn, the bad ones included."""
    kinds: Counter[str] = field(default_factory=Counter)
    """Bad ones by kind."""
    first: list[QuarantinedRecord] = field(default_factory=list)
    """The first few of them."""

    @property
    def bad(self) -> int:
        """Records that could not be read."""
        return self.kinds.total()


class Quarantine:
    """Counts the records read on this rank; DataError once a source has more bad ones than the
    config allows.
    """

    def __init__(
        self, config: QuarantineConfig, report: Callable[[QuarantinedRecord], None]
    ) -> None:
        self._config = config
        self._report = report
        self._accounts: dict[str, _Account] = {}

    def take(self, read: Mapping[str, int], bad: Sequence[QuarantinedRecord]) -> None:
        """Count the records drawn per source and the bad ones, and report each bad one."""
        for source, count in read.items():
            self._accounts.setdefault(source, _Account()).read += count
        for record in bad:
            account = self._accounts[record.source]
            account.kinds[record.kind] += 1
            if len(account.first) < _SHOWN:
                account.first.append(record)
            self._report(record)

    def check(self) -> None:
        """DataError when a source is over its limits, or no record could be read so far; to be
        called after each step.
        """
        self._check(_ENOUGH)

    def close(self) -> None:
        """DataError when no record at all could be read; to be called when the loader ends."""
        self._check(1)

    def _check(self, enough: int) -> None:
        over = {
            name: account for name, account in self._accounts.items() if self._too_many(account)
        }
        read, bad = (
            sum(getattr(account, name) for account in self._accounts.values())
            for name in ("read", "bad")
        )
        if over or (bad == read >= enough):
            worst = max(
                over or self._accounts,
                key=lambda name: self._accounts[name].bad / self._accounts[name].read,
            )
            raise DataError(_message(worst, self._accounts[worst], self._config), kind="quarantine")

    def _too_many(self, account: _Account) -> bool:
        # Both: by its share alone, the first bad record would stop a run that has just begun.
        return account.bad > self._config.allow and account.bad > self._config.share * account.read


def _message(source: str, account: _Account, config: QuarantineConfig) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in account.kinds.most_common())
    shown = "\n".join(f"  {record}" for record in account.first)
    return (
        f"{account.bad} of {account.read} records of source {source} could not be read"
        f" ({kinds}); at most {config.allow}, or {percent(config.share, 2)}, are left out."
        f" Repair or remove them, or raise `quarantine` in the recipe. The first:\n{shown}"
    )
