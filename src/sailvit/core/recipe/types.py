"""Names of the parts, of connectors, and the kinds of numbers that settings are."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

Part = Literal["tower", "connector", "language"]
PARTS: tuple[Part, ...] = ("tower", "connector", "language")
Precision = Literal["auto", "bf16", "fp32"]
FeatureJoin = Literal["concat", "mean"]
ConnectorKind = Literal["merge_mlp", "mlp", "swiglu", "norm_merge_mlp"]

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Token = Annotated[str, Field(pattern=r"^\S+$")]
