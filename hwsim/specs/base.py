"""The base of every spec (frozen, unknown fields refused) and the types of its quantities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import PydanticCustomError, core_schema

from hwsim import units


class Spec(BaseModel):
    """A frozen description read from a file; the text under a field is its documentation."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True)
class Quantity:
    """Marks a float field as a quantity of `dimension` that files write as text with a unit, within a range."""

    dimension: str
    low: float
    high: float

    def read(self, value: Any) -> float:
        """A quantity as files write it, in SI; what is no such quantity, or out of range, is an error of the field."""
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            kind = "unit_type"
            msg = f"expected a quantity such as {units.EXAMPLES[self.dimension]}"
            raise PydanticCustomError(kind, "{reason}", {"reason": msg})
        try:
            number = units.parse(value if isinstance(value, str) else repr(value), self.dimension)
        except ValueError as error:
            kind = "unit"
            raise PydanticCustomError(kind, "{reason}", {"reason": str(error)}) from None
        if not self.low <= number <= self.high:
            kind = "unit_range"
            low, high = (units.show(edge, self.dimension) for edge in (self.low, self.high))
            raise PydanticCustomError(kind, "{reason}", {"reason": f"must be between {low} and {high}"})
        return number

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.read, serialization=core_schema.plain_serializer_function_ser_schema(float)
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"type": "string", "examples": [units.EXAMPLES[self.dimension]]}


Bytes = Annotated[float, Quantity("bytes", 0.0, 1e18)]
MemoryBytes = Annotated[float, Quantity("bytes", units.MIB, 1000 * units.TIB)]
BytesPerSecond = Annotated[float, Quantity("bytes_per_s", 1e6, 1e18)]
FlopsPerSecond = Annotated[float, Quantity("flops_per_s", 1e6, 1e21)]
Seconds = Annotated[float, Quantity("s", 0.0, 1e4)]
Watts = Annotated[float, Quantity("w", 0.0, 1e9)]
RatedWatts = Annotated[float, Quantity("w", 1.0, 1e7)]
Hertz = Annotated[float, Quantity("hz", 1e3, 1e12)]
Usd = Annotated[float, Quantity("usd", 0.0, 1e12)]
UsdPerSecond = Annotated[float, Quantity("usd_per_s", 0.0, 1e6)]
UsdPerJoule = Annotated[float, Quantity("usd_per_j", 0.0, 1.0)]
UsdPerWattSecond = Annotated[float, Quantity("usd_per_w_s", 0.0, 1.0)]
UsdPerByteSecond = Annotated[float, Quantity("usd_per_byte_s", 0.0, 1.0)]
Kilograms = Annotated[float, Quantity("kg", 0.0, 1e12)]
KilogramsPerJoule = Annotated[float, Quantity("kg_per_j", 0.0, 1e-3)]
KilogramsPerByte = Annotated[float, Quantity("kg_per_byte", 0.0, 1.0)]
Lifetime = Annotated[float, Quantity("lifetime", units.DAY_S, 100 * units.YEAR_S)]
Fraction = Annotated[float, Quantity("fraction", 1e-4, 1.0)]
Ratio = Annotated[float, Quantity("fraction", 0.0, 10.0)]

Count = Annotated[int, Field(ge=1, le=10**9, strict=True)]
NaturalCount = Annotated[int, Field(ge=0, le=10**9, strict=True)]
Name = Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]
Text = Annotated[str, Field(max_length=2000)]
