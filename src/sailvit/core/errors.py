"""Errors a user can act on: each message says what was found, what was expected and what to do."""


class SailvitError(Exception):
    """Base of every error that is the input's fault, not the program's; the CLI prints it without a traceback."""


class RecipeError(SailvitError):
    """A recipe that cannot be read or does not hold together."""


class DataError(SailvitError):
    """A source, a record or an image that cannot be used as it is."""

    def __init__(self, message: str, *, kind: str = "record") -> None:
        super().__init__(message)
        self.kind = kind
        """What is damaged, in a word or two that counts can be kept by: `image`, `crc`, `missing file`, ..."""


class ModelError(SailvitError):
    """A tower, connector or language that cannot be loaded or combined."""


class ProofError(SailvitError):
    """Training that did something else than the recipe planned; raised by the proof of training."""


class RunError(SailvitError):
    """A run folder that is missing, incomplete or does not belong to the recipe."""


class InterruptedRunError(SailvitError):
    """Training stopped by a signal after its state was saved; the message says how to resume."""

    def __init__(self, message: str, *, preempted: bool = False) -> None:
        super().__init__(message)
        self.preempted = preempted
        """Whether a scheduler asked for it, and may start the same command again, rather than a person."""
