"""The site of a page: whose pages are alike in more than their subject."""

from urllib.parse import urlsplit


def site(url: str | None) -> str:
    """The host of a url, in lower case, without `www.`, port or user; empty where there is none.

    Example:
        >>> site("HTTPS://user@www.OpenStax.org:443/books/1")
        'openstax.org'
    """
    try:
        host = urlsplit(url or "").hostname or ""
    except ValueError:
        # Such as `http://[`: no url, but what a row may hold.
        return ""
    return host.removeprefix("www.").rstrip(".")
