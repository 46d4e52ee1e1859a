"""The ports of one platform, from settings or free ones, for Docker and native servers alike."""

from __future__ import annotations

import dataclasses
import random
import socket
from collections.abc import Mapping
from difflib import get_close_matches

# Above 32768 the system hands ports to outgoing connections, so a server may find its own taken.
_LOWEST, _HIGHEST = 20_000, 32_000


@dataclasses.dataclass(frozen=True)
class Ports:
    """Where each server of a platform listens on 127.0.0.1. The defaults are those of the development platform."""

    kafka: int = 19092
    kafka_controller: int = 19093
    mongo: int = 27117
    postgres: int = 15432
    redis: int = 16379
    smtp: int = 16025
    inbox: int = 16026
    prometheus: int = 19090
    worker: int = 16066

    @staticmethod
    def setting(server: str) -> str:
        """The environment variable that sets a server's port, for example ``INKSTREAM_STACK_KAFKA_PORT``."""
        return f"INKSTREAM_STACK_{server.upper()}_PORT"

    @property
    def environment(self) -> dict[str, str]:
        """The worker's setting, where its port was moved; else INKSTREAM_WEB_PORT stays as it is."""
        return {} if self.worker == type(self).worker else {"INKSTREAM_WEB_PORT": str(self.worker)}

    @classmethod
    def from_environment(cls, environment: Mapping[str, str | None]) -> Ports:
        """The defaults, with each port that the environment sets. Raises `ValueError` naming a bad setting."""
        known = {cls.setting(field.name) for field in dataclasses.fields(cls)}
        for name in sorted(environment):
            if name.startswith("INKSTREAM_STACK_") and name not in known:
                near = get_close_matches(name, sorted(known), n=1)
                raise ValueError(f"{name} is no setting; {f'did you mean {near[0]}?' if near else 'see `make help`'}")
        chosen: dict[str, int] = {}
        for field in dataclasses.fields(cls):
            value = environment.get(cls.setting(field.name))
            if not value:
                continue
            if not value.isdecimal() or not 0 < int(value) < 65_536:
                raise ValueError(f"{cls.setting(field.name)} is {value!r}; it must be a port from 1 to 65535")
            chosen[field.name] = int(value)
        return cls(**chosen)

    @classmethod
    def free(cls) -> Ports:
        """Ports that nothing listens on at this moment, for a platform beside the development one."""
        count = len(dataclasses.fields(cls))
        candidates = random.sample(range(_LOWEST, _HIGHEST), _HIGHEST - _LOWEST)
        found: list[int] = []
        for port in candidates:
            if is_free(port):
                found.append(port)
            if len(found) == count:
                return cls(*found)
        raise OSError(f"no {count} free ports between {_LOWEST} and {_HIGHEST}")


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: ignores TIME_WAIT
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
