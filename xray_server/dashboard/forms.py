"""The parameters of a page's address: a form that was sent has every field, the empty ones too."""

from __future__ import annotations

from typing import TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from xray_server.dashboard.rendering import given_parameters

_Model = TypeVar("_Model", bound=BaseModel)


def read(model: type[_Model], request: Request, *, without: tuple[str, ...] = ()) -> _Model:
    """The parameters of a request as a model of them; an empty one counts as left out.

    Args:
        model: What the page takes.
        request: The request.
        without: Parameters of the page's own, which the model does not have.

    Raises:
        RequestValidationError: A value is none that the parameter can have.
        SchemaError: There is no such parameter.
    """
    given = {name: value for name, value in given_parameters(request).items() if value != "" and name not in without}
    try:
        return model.model_validate(given)
    except ValidationError as error:
        problems = [{**problem, "loc": ("query", *problem["loc"])} for problem in error.errors()]
        raise RequestValidationError(problems) from None
