"""Connections to web servers: kept, shared by threads, and by way of the proxies that are named.

The proxies are those of HTTPS_PROXY, HTTP_PROXY and NO_PROXY, as other programs have them.
"""

import threading
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

from imnetprep.messages import ImnetprepError

_OPTIONS: dict[str, Any] = {
    "maxsize": 64, "timeout": urllib3.Timeout(connect=5, read=10), "retries": False,
}  # fmt: skip


class Connections:
    """Connections that stay open from one request to the next."""

    def __init__(self) -> None:
        self._lock, self._proxies = threading.Lock(), dict[str, urllib3.ProxyManager]()
        self._direct = urllib3.PoolManager(**_OPTIONS)

    def get(self, url: str, headers: dict[str, str]) -> Any:
        """The answer of `url`, its body not yet read, and as the server has it.

        Raises HTTPError of urllib3, ImnetprepError on a proxy that is none.
        """
        # Ranges are of the bytes that the server has, whatever it calls their coding.
        return self._manager(url).request(
            "GET", url, headers=headers, redirect=False, preload_content=False,
            decode_content=False,
        )  # fmt: skip

    def close(self) -> None:
        """Close those that no answer is read from."""
        for each in (self._direct, *self._proxies.values()):
            each.clear()

    def _manager(self, url: str) -> urllib3.PoolManager:
        parts = urlsplit(url)
        proxy = getproxies().get(parts.scheme, "")
        if not proxy or proxy_bypass(parts.hostname or ""):
            return self._direct
        with self._lock:
            if proxy not in self._proxies:
                self._proxies[proxy] = _proxy_manager(proxy)
            return self._proxies[proxy]


def _proxy_manager(proxy: str) -> urllib3.ProxyManager:
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        user, _, host = parts.netloc.rpartition("@")
        headers = urllib3.make_headers(proxy_basic_auth=unquote(user)) if user else None
        url = urlunsplit(parts._replace(netloc=host))
        return urllib3.ProxyManager(url, proxy_headers=headers, **_OPTIONS)
    except (ValueError, urllib3.exceptions.HTTPError) as error:  # whose words may have a password
        raise ImnetprepError(
            "a proxy that the environment names is no http:// or https:// address",
            hint="HTTPS_PROXY=http://HOST:PORT, or leave it out",
        ) from error
