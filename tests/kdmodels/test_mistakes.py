"""`kdmodels.mistakes`: what pydantic finds is said in one sentence that names the place."""

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kdmodels.mistakes import describe_mistake

Whole = Annotated[int, Field(strict=True)]


class Wheel(BaseModel):
    model_config = ConfigDict(extra="forbid")
    spokes: Whole = 32
    make: Literal["wood", "steel"] = "wood"


class Cart(BaseModel):
    model_config = ConfigDict(extra="forbid")
    wheels: Annotated[tuple[Wheel, ...], Field(min_length=1)]
    spare: Wheel | None = None
    loads: dict[str, Whole | Annotated[float, Field(strict=True)]] = {}


@pytest.mark.parametrize("changes, sentence", [
    ({"wheel": 1}, "the key 'wheel' is unknown; the nearest valid one is 'wheels'"),
    ({"wheels": None}, "the key 'wheels' is missing"),
    ({"wheels": None, "weels": []}, "the key 'weels' is unknown; the nearest valid one is 'wheels'"),
    ({"wheels": [{}, {"spoke": 2}]}, "the key 'wheels.2.spoke' is unknown; the nearest valid one is 'spokes'"),
    ({"spare": {"mak": "wood"}}, "the key 'spare.mak' is unknown; the nearest valid one is 'make'"),
    ({"wheels": [{"spokes": "3e1"}]}, "YAML reads wheels.1.spokes '3e1' as text, not as a number; a number "
                                      "with an exponent needs a point, such as 1.0e-3"),
    ({"loads": {"hay": "1e2"}}, "YAML reads loads.hay '1e2' as text, not as a number; a number "
                                "with an exponent needs a point, such as 1.0e-3"),
    ({"wheels": [{"spokes": 2.5}]}, "wheels.1.spokes is 2.5: input should be a valid integer"),
    ({"wheels": [{"make": "iron"}]}, "wheels.1.make is 'iron', which is unknown; there are: 'wood', 'steel'"),
    ({"wheels": []}, "wheels needs 1 entries or more"),
    ({"wheels": 3}, "wheels must be a list"),
    ({"wheels": [3]}, "wheels.1 must hold keys and values"),
    ({"loads": [3]}, "loads must hold keys and values"),
])  # fmt: skip
def test_a_mistake_is_named_with_its_place(changes, sentence):
    content = {
        key: value for key, value in ({"wheels": [{}]} | changes).items() if value is not None
    }
    with pytest.raises(ValidationError) as caught:
        Cart(**content)
    assert describe_mistake(caught.value, Cart) == sentence
