"""Links of notifications, which must lead to the site, parsed as browsers and mail readers do.

Input: a link as a service wrote it. Output: the same in the one form of the URL Standard (https://url.spec.whatwg.org),
by a parser of that standard. A link to another host is refused, in any notation.
"""

from collections.abc import Collection

from ada_url import URL

_SCHEMES = ("http", "https")
_PROTOCOLS = ("http:", "https:")


class ForeignLink(ValueError):  # noqa: N818  # what a link is, not a fault of ours
    """A link that does not lead to the site; the message says what is expected, and contains nothing of the link."""


class Site:
    """The hosts that links may lead to.

    Args:
        url: The site's address, `https://blog.example`, where paths begin.
        hosts: Others that are the site's as well, `help.blog.example`, with a port where that is not the usual one.
    """

    def __init__(self, url: str, hosts: Collection[str] = ()) -> None:
        self._base = url.rstrip("/") + "/"
        others = (f"{scheme}://{host}/" for host in hosts for scheme in _SCHEMES)
        self._hosts = {URL(whole).host for whole in (self._base, *others)}

    def absolute(self, link: str) -> str:
        """Return a link as a whole URL.

        Raises:
            ForeignLink: It is not a link to the site by HTTP or HTTPS.
        """
        url = _parsed(link, self._base)
        # What is whole by itself is read so wherever there is no base, as in a mail: `https:evil.example`, say.
        alone = _parsed(link) or url
        if url is None or alone is None:
            raise ForeignLink("should be a path of the site or a URL")
        if not (self._is_own(url) and self._is_own(alone)):
            raise ForeignLink("should be a path of the site, like /posts/hello, or a URL with one of its hosts")
        # Behind a question mark the standard leaves it, and not everything that reads links goes by the standard.
        return str(url.href).replace("\\", "%5C")

    def stored(self, link: str) -> str:
        """Return a link for storage: a path of the site if it came as one, otherwise a whole URL.

        Raises:
            ForeignLink: As above.
        """
        whole = self.absolute(link)
        url = URL(whole)
        path = f"{url.pathname}{url.search}{url.hash}"
        # A path that begins with two slashes would lead to a host.
        is_path = _parsed(link) is None and not path.startswith("//") and url.host == URL(self._base).host
        return path if is_path else whole

    def _is_own(self, url: URL) -> bool:
        return url.protocol in _PROTOCOLS and url.host in self._hosts and not (url.username or url.password)


def picture(link: str) -> str | None:
    """Return the URL of a picture in the form of the URL Standard; `None` if no browser would load it.

    People's pictures are kept by others as well, so any host will do, by HTTP or HTTPS. A path stays one of the site.
    """
    url = _parsed(link, "https://site.invalid/")
    if url is None or url.protocol not in _PROTOCOLS or url.username or url.password:
        return None
    if url.host != "site.invalid":
        return str(url.href)
    path = f"{url.pathname}{url.search}{url.hash}"
    return None if path.startswith("//") or _parsed(link) is not None else path


def _parsed(link: str, base: str | None = None) -> URL | None:
    try:
        return URL(link, base)
    except ValueError:  # also for what UTF-8 does not have
        return None


DEVELOPMENT_SITE = Site("http://127.0.0.1:3000")
"""The default site, for development."""
