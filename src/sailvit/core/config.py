"""Base of every configuration value."""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A frozen value that refuses unknown keys; the docstring under a field is its description."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
