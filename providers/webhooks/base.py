"""The parsing that all webhooks share: tolerant field types, signature times, and errors without payload values.

Input: the body of a request. Output: models of the parts that Inkstream reads. Nothing here fetches, waits or reads a
clock.
"""

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, TypeAdapter, ValidationError, model_validator

from notifications.receipts.receipt import Receipt, text_of
from schemas.event import Moment

MARGIN: Final = timedelta(minutes=15)
"""The tolerated difference between a provider's clock and ours, its queue included."""

_MOMENT: TypeAdapter[datetime] = TypeAdapter(Moment)

ReadT = TypeVar("ReadT")

PayloadT = TypeVar("PayloadT", bound="Payload")


class Unverified(Exception):  # noqa: N818  # what a request is, not a fault of ours
    """A request that can't be verified to come from the provider; the message says why, and contains no secret."""


class Unreadable(ValueError):  # noqa: N818  # what a body is, not a fault of ours
    """A body that differs from the provider's documentation; the message contains no value of it.

    Attributes:
        receipts: The valid receipts in it, which are not lost because of an invalid one.
    """

    def __init__(self, message: str, receipts: Iterable["Receipt"] = ()) -> None:
        super().__init__(message)
        self.receipts = tuple(receipts)


Text = Annotated[str | None, BeforeValidator(text_of)]
"""An optional text: a number counts as its digits, anything else as missing."""

Names = Annotated[dict[str, Any], BeforeValidator(lambda value: value if isinstance(value, dict) else {})]
"""The metadata of a message, by name; anything but an object counts as empty."""


class Payload(BaseModel):
    """A part of a provider's payload. Unknown fields are ignored, as providers add new ones."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Detail(Payload):
    """An optional part: any other type in its place counts as empty."""

    @model_validator(mode="before")
    @classmethod
    def _nothing_of_another_shape(cls, value: object) -> object:
        return value if isinstance(value, dict) else {}


def _moment(value: object) -> datetime | None:
    try:
        return _MOMENT.validate_python(value)
    except ValidationError:
        return None


def _flag(value: object) -> bool:
    return value is True or value == 1 or (isinstance(value, str) and value.lower() in ("true", "1", "yes"))


def listed(value: object) -> list[object]:
    """Return a list unchanged, and anything else as an empty list."""
    return value if isinstance(value, list) else []


When = Annotated[datetime | None, BeforeValidator(_moment)]
"""An optional time, of which the event has a similar one; anything else counts as missing."""

Flag = Annotated[bool, BeforeValidator(_flag)]
"""A flag: anything but a yes is `False`."""


def parsed(expected: TypeAdapter[ReadT], body: bytes | str) -> ReadT:
    """Read JSON.

    Raises:
        Unreadable: It is not JSON, or not of the expected shape.
    """
    try:
        return expected.validate_json(body)
    except ValidationError as error:
        complaint = _complaint(error)
    try:
        return expected.validate_json(_with_whole_characters(body))
    except (ValueError, RecursionError):
        raise Unreadable(complaint) from None


def shaped(expected: type[PayloadT], value: object) -> PayloadT:
    """Read a value of parsed JSON.

    Raises:
        Unreadable: It is not of the expected shape.
    """
    try:
        return expected.model_validate(value)
    except ValidationError as error:
        raise Unreadable(_complaint(error)) from None


def require_fresh(signed_at: str | None, now: datetime, max_age: timedelta) -> None:
    """Check the time of a signature.

    Args:
        signed_at: Whole seconds since 1970.
        now: The current time, with a zone.
        max_age: The longest time before or after now.

    Raises:
        Unverified: It is not a time, too long ago, or too far ahead.
    """
    if signed_at is None or not re.fullmatch(r"[0-9]{1,11}", signed_at):
        raise Unverified("its timestamp is not a number of seconds")
    require_recent(datetime.fromtimestamp(int(signed_at), UTC), now, max_age)


def require_recent(signed_at: datetime, now: datetime, max_age: timedelta) -> None:
    """Check the time of a signature that is parsed already; see `require_fresh`."""
    if abs(now - signed_at) > max_age:
        raise Unverified(f"it was signed at {signed_at:%Y-%m-%dT%H:%M:%SZ}, further from now than {max_age}")


def _with_whole_characters(body: bytes | str) -> bytes:
    """Return JSON with a question mark for each half of a character, as a text may have been cut within an emoji.

    Raises:
        ValueError: It is not JSON.
        RecursionError: It is nested too deep.
    """
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    return json.dumps(json.loads(text), ensure_ascii=False).encode("utf-8", "replace")


def _complaint(error: ValidationError) -> str:
    """Describe the error without values of the payload, which the error itself would contain."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, detail['loc'])) or 'the body'}: {detail['msg']}" for detail in details[:5])
