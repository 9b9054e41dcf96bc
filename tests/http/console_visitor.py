"""Somebody at the console: a client that keeps cookies and sends forms as a browser does."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from tests.http.four_eyes import People, running_people

_CSRF = re.compile(r'name="csrf" value="([^"]+)"')
_HIDDEN = re.compile(r'<input type="hidden" name="([^"]+)" value="([^"]*)">')
OWN_PAGE = {"sec-fetch-site": "same-origin"}


@dataclass
class Visitor:
    """One browser. `page` is the page that it shows."""

    client: httpx.Client
    page: httpx.Response

    def get(self, path: str) -> httpx.Response:
        self.page = self.client.get(f"/console{path}", follow_redirects=True)
        return self.page

    def post(self, path: str, **fields: str) -> httpx.Response:
        """Send a form with the token of the page that is shown."""
        token = _CSRF.search(self.page.text)
        csrf = {} if token is None else {"csrf": token[1]}
        return self.send(path, csrf | fields)

    def send(self, path: str, fields: dict[str, str], **headers: str) -> httpx.Response:
        self.page = self.client.post(
            f"/console{path}", data=fields, headers=OWN_PAGE | headers, follow_redirects=True
        )
        return self.page

    def upload(self, path: str, name: str, content: bytes, **fields: str) -> httpx.Response:
        """Send a form with a file and the token of the page that is shown."""
        token = _CSRF.search(self.page.text)
        csrf = {} if token is None else {"csrf": token[1]}
        self.page = self.client.post(
            f"/console{path}",
            data=csrf | fields,
            files={"file": (name, content)},
            headers=OWN_PAGE,
            follow_redirects=True,
        )
        return self.page

    def log_in(self, key: str | None, **fields: str) -> httpx.Response:
        return self.send("/login", {"api_key": key or ""} | fields)

    def fragment(self, path: str, **fields: str) -> httpx.Response:
        """Send a form as htmx does; the page that is shown stays."""
        return self.client.post(
            f"/console{path}", data={"csrf": self.csrf, **fields}, headers=OWN_PAGE | {"hx-request": "true"}
        )

    @property
    def csrf(self) -> str:
        """The token of the page that is shown."""
        token = _CSRF.search(self.page.text)
        assert token is not None
        return token[1]

    @property
    def hidden(self) -> dict[str, str]:
        """The hidden fields of the page that is shown."""
        return {name: html.unescape(value) for name, value in _HIDDEN.findall(self.page.text)}

    @property
    def text(self) -> str:
        """The page without tags, with single spaces."""
        return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", self.page.text)).split())


@contextmanager
def visiting(url: str, key: str | None = None) -> Iterator[Visitor]:
    """A browser at the console; with a key it has logged in."""
    with httpx.Client(base_url=url, timeout=30) as client:
        visitor = Visitor(client=client, page=client.get("/console", follow_redirects=True))
        if key is not None:
            reply = visitor.log_in(key)
            assert reply.status_code == 200, reply.text
        yield visitor


@contextmanager
def console_of_people() -> Iterator[People]:
    """A gateway that demands keys: namespace `default` needs two agreements, `one` one, others none."""
    with running_people() as people:
        yield people
