"""What Ray is asked to reserve for an actor: amounts and names that it takes.

Ray judges them when the actor is made, long after everything else has started:
https://docs.ray.io/en/latest/ray-core/scheduling/resources.html#fractional-resource-requirements
"""

from typing import Annotated, Final

from pydantic import AfterValidator, Field

from actors.settings.part import Number

_LEAST: Final = 0.0001
_OWN: Final = {
    "CPU": "num_cpus",
    "GPU": "num_gpus",
    "memory": "",
    "object_store_memory": "",
}
"""Names that Ray takes elsewhere only -> our setting for it, if there is one."""


def _amount(value: float) -> float:
    if 0 < value < _LEAST:
        raise ValueError(f"Ray counts no finer than {_LEAST}: give 0, or {_LEAST} or more")
    return value


def _units(value: float) -> float:
    if value > 1 and not value.is_integer():
        raise ValueError("Ray divides one GPU, not several: give a whole number, or less than 1")
    return value


def _named(resources: dict[str, float]) -> dict[str, float]:
    for name in resources:
        if name in _OWN:
            remedy = f"set {_OWN[name]} instead" if _OWN[name] else "take it out"
            raise ValueError(f"Ray does not take {name} here: {remedy}")
    return resources


Amount = Annotated[Number, Field(ge=0, le=10**12), AfterValidator(_amount)]
GpuAmount = Annotated[Amount, AfterValidator(_units)]
Resources = Annotated[dict[str, Amount], AfterValidator(_named)]
