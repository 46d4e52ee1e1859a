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
"""How far a provider's clock may be from ours, its queue included."""

_MOMENT: TypeAdapter[datetime] = TypeAdapter(Moment)

ReadT = TypeVar("ReadT")

PayloadT = TypeVar("PayloadT", bound="Payload")


class Unverified(Exception):  # noqa: N818  # what a request is, not a fault of ours
    """A request that is not known to come from the provider; the message says why, and holds no secret."""


class Unreadable(ValueError):  # noqa: N818  # what a body is, not a fault of ours
    """A body that is not what the provider documents, in whole or in part; the message holds no value that came.

    Attributes:
        receipts: What could be read of it all the same: the rest is not lost for one event that is none.
    """

    def __init__(self, message: str, receipts: Iterable["Receipt"] = ()) -> None:
        super().__init__(message)
        self.receipts = tuple(receipts)


Text = Annotated[str | None, BeforeValidator(text_of)]
"""A text that is of use and no more: a number counts as its digits, anything else as not there."""

Names = Annotated[dict[str, Any], BeforeValidator(lambda value: value if isinstance(value, dict) else {})]
"""What was given along with a message, by name; anything but an object counts as nothing."""


class Payload(BaseModel):
    """A part of what a provider posts. Providers add fields as they like."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Detail(Payload):
    """A part that an event can do without: whatever comes in its place counts as an empty one."""

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
    """Return a list as it is, and anything else as an empty one."""
    return value if isinstance(value, list) else []


When = Annotated[datetime | None, BeforeValidator(_moment)]
"""A moment that an event can do without, as another says nearly the same; anything else counts as not there."""

Flag = Annotated[bool, BeforeValidator(_flag)]
"""Whether something is said to be so; anything but a yes is a no."""


def parsed(expected: TypeAdapter[ReadT], body: bytes | str) -> ReadT:
    """Read JSON.

    Raises:
        Unreadable: It is none, or not what is expected.
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
    """Read a value that came as JSON.

    Raises:
        Unreadable: It is not what is expected.
    """
    try:
        return expected.model_validate(value)
    except ValidationError as error:
        raise Unreadable(_complaint(error)) from None


def require_fresh(signed_at: str | None, now: datetime, max_age: timedelta) -> None:
    """Check a signed moment.

    Args:
        signed_at: Whole seconds since 1970.
        now: The present moment, with a zone.
        max_age: How long ago it may be, or how far ahead.

    Raises:
        Unverified: It is none, too long ago or too far ahead.
    """
    if signed_at is None or not re.fullmatch(r"[0-9]{1,11}", signed_at):
        raise Unverified("its timestamp is no number of seconds")
    require_recent(datetime.fromtimestamp(int(signed_at), UTC), now, max_age)


def require_recent(signed_at: datetime, now: datetime, max_age: timedelta) -> None:
    """Check a signed moment that is read already; see `require_fresh`."""
    if abs(now - signed_at) > max_age:
        raise Unverified(f"it was signed at {signed_at:%Y-%m-%dT%H:%M:%SZ}, further from now than {max_age}")


def _with_whole_characters(body: bytes | str) -> bytes:
    """Return JSON with a question mark for each half of a character: who cuts a text short may cut through an emoji.

    Raises:
        ValueError: It is no JSON.
        RecursionError: It is nested too deep.
    """
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    return json.dumps(json.loads(text), ensure_ascii=False).encode("utf-8", "replace")


def _complaint(error: ValidationError) -> str:
    """Say what is wrong, without any value that came: the error itself would hold them."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, detail['loc'])) or 'the body'}: {detail['msg']}" for detail in details[:5])
