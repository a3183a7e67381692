"""Building blocks of the configuration models: a frozen, strict section and constrained numbers."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """One table of a configuration file: unknown keys, wrong types, NaN and infinity are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Fraction = Annotated[float, Field(gt=0.0, le=1.0)]
SmallRelative = Annotated[float, Field(ge=0.0, le=0.5)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
RoomName = Annotated[str, Field(pattern=r"^[A-Za-z0-9]{1,8}$")]
Text = Annotated[str, Field(min_length=1, max_length=400)]
Pair = tuple[float, float]


def tuples(value: Any) -> Any:
    """Arrays as tuples, all the way down: the models are frozen and strict."""
    if isinstance(value, dict):
        return {key: tuples(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(tuples(item) for item in value)
    return value
