"""A source of your own. A recipe names it: `sources: {sums: {format: "own_source:Sums", path: sums.txt}}`."""

import hashlib
from pathlib import Path

import sailvit


class Sums(sailvit.Source):
    """A text file with one sum per line, such as `2 + 3 = 5`; made with `path` and the recipe's `options`."""

    def __init__(self, path, limit=None):
        self.lines = Path(path).read_text().splitlines()[:limit]

    def __len__(self):
        return len(self.lines)

    def __getitem__(self, position):
        # Any ValueError marks this record as bad: it is left out and reported.
        question, answer = self.lines[position].split(" = ")
        turns = sailvit.Turn("user", question), sailvit.Turn("assistant", answer)
        return sailvit.Record(str(position), turns)

    @property
    def fingerprint(self):
        """Changes when the data change, so that they are measured anew."""
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()[:16]
