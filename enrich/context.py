"""What an enrichment needs besides the event: the key that hides addresses, and the map from addresses to places.

It is made once, at start; nothing in it changes afterwards.
"""

from dataclasses import dataclass, field

from enrich.geo import GeoDatabase


@dataclass(frozen=True, slots=True)
class Context:
    """What every enrichment function is given beside its event.

    Attributes:
        ip_hash_key: The secret under which IP addresses are hashed.
        geo: Where addresses are looked up; `None` leaves `geo` out of every document.
    """

    ip_hash_key: bytes = field(repr=False)
    geo: GeoDatabase | None
