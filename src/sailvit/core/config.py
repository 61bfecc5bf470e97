"""Base of every configuration value."""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A frozen value that refuses unknown keys; the docstring under a field is its description."""

    # A misspelt key must not leave its setting at the default without a word.
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
