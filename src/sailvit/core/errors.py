"""Errors a user can act on: each message says what was found, what was expected and what to do."""

LONGEST_REASON = 500
"""Characters of a reason that is kept or shown beside others."""


def one_line(text: object, longest: int = LONGEST_REASON) -> str:
    """Foreign text for a message: blanks and line breaks as one space, its middle left out where
    it is longer than `longest` characters, and nothing that UTF-8 cannot hold.
    """
    line = " ".join(str(text).split()).encode(errors="backslashreplace").decode()
    if len(line) <= longest:
        return line
    # The end is kept too: messages of libraries often name the file or the cause last.
    end = longest // 4
    return f"{line[: longest - end - 5]} ... {line[-end:]}"


class SailvitError(Exception):
    """Base of every error that is the input's fault, not the program's; the CLI prints it
    without a traceback.
    """

    together = False
    """Whether every process raises it at the same place, so that they can still act together."""


class RecipeError(SailvitError):
    """A recipe that cannot be read or does not hold together."""


class DataError(SailvitError):
    """A source, a record or an image that cannot be used as it is."""

    def __init__(self, message: str, *, kind: str = "record") -> None:
        super().__init__(message)
        self.kind = kind
        """What is damaged, in a word or two that counts can be kept by: `image`, `crc`,
        `missing file`, ..."""


class ModelError(SailvitError):
    """A tower, connector or language that cannot be loaded or combined."""


class ProofError(SailvitError):
    """Training did something other than the recipe planned; raised by the proof of training."""


class RunError(SailvitError):
    """A run folder that is missing, incomplete or does not belong to the recipe."""


class TakenOverError(RunError):
    """The run folder belongs to another process now, so nothing more is written there."""


class InterruptedRunError(SailvitError):
    """Training stopped by a signal, or by a callback, after its state was saved; the message
    says how to resume.
    """

    def __init__(self, message: str, *, preempted: bool = False) -> None:
        super().__init__(message)
        self.preempted = preempted
        """Whether a scheduler sent the signal, which may start the same command again; False: a
        person or a callback stopped it."""
