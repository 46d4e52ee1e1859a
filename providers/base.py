"""What a provider of e-mail or push messages is, and how its settings are read.

Input: a message. Output: an `Outcome`. A provider raises for bugs only: whatever the network or the other side does is
an outcome.
"""

from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm

from notifications.outcome import Misconfigured, Outcome, Refused

Message = TypeVar("Message", contravariant=True)
Setting = TypeVar("Setting")


class Provider(Protocol[Message]):
    """Sends messages of one kind.

    Attributes:
        name: The name in logs, metrics and settings: `sendgrid`, `aws-ses`, `mailgun`, `smtp`, `fcm`, `apns`,
            `web-push`.
        may_repeat: Whether the provider may deliver a message twice if it gets it twice with the same key.
    """

    name: str
    may_repeat: bool

    async def send(self, message: Message) -> Outcome:
        """Send a message; return within the client's time-out."""

    async def close(self) -> None:
        """Close connections."""


class ProviderSettingsError(ValueError):
    """The settings of a provider are wrong. The message names the setting, and contains nothing of keys."""


# What libraries raise for an invalid key, a key with a password, or an unknown kind of key.
NOT_A_KEY: Final = (ValueError, TypeError, UnsupportedAlgorithm)


class MissingSettingError(Exception):
    """A setting is missing; the check of the settings reports it."""


def without_asking(outcome: Refused | Misconfigured) -> Outcome:
    """Return an outcome that was known before the provider was asked."""
    return replace(outcome, was_asked=False) if isinstance(outcome, Refused) else outcome


def required(value: Setting | None) -> Setting:
    """Return the value of a setting.

    Raises:
        MissingSettingError: It is `None`.
    """
    if value is None:
        raise MissingSettingError
    return value


def read_key_file(path: Path, setting: str) -> str:
    """Return the text of a key file.

    Raises:
        ProviderSettingsError: The file can't be read, or is not text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ProviderSettingsError(f"{setting}: {path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ProviderSettingsError(f"{setting}: {path} is no text") from None
