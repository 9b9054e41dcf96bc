"""A visit: one request for a page, with its session, its principal, and what it may call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec
from litestar import Request, Response
from litestar.di import NamedDependency
from litestar.enums import MediaType
from litestar.params import SkipValidation
from litestar.status_codes import HTTP_303_SEE_OTHER

from serac_gateway.auth.authenticator import Authenticator
from serac_gateway.auth.principals import EVERY_NAMESPACE, Principal, Role
from serac_gateway.console.cookies import chosen_language, header, session_cookie, session_cookie_name
from serac_gateway.console.form_checks import CSRF_FIELD, check_own_page, form_fields, is_of_session
from serac_gateway.console.languages import Texts
from serac_gateway.console.pages import rendered
from serac_gateway.console.planes import PlanesClient, current_planes
from serac_gateway.console.sessions import MAX_KEPT_CHARS, KeptForm, Notice, Session, Sessions
from serac_gateway.console.uploads import Upload, drain, is_upload, read_upload
from serac_gateway.domain.edits import DEFAULT_NAMESPACE
from serac_gateway.domain.headers import Headers
from serac_gateway.errors import AuthenticationError

AnyRequest = Request[Any, Any, Any]
_NEVER_KEPT = (CSRF_FIELD, "api_key", "upstream_key")


class LoginNeededError(Exception):
    """The request has no session that counts; with what was typed into its form, to be kept.

    Attributes:
        kept: None: there was no form, or nothing in it.
        why: A key of the catalogue; None: there never was a session.
    """

    def __init__(self, kept: KeptForm | None, why: str | None) -> None:
        super().__init__("a login is needed")
        self.kept = kept
        self.why = why


class OldFormError(Exception):
    """The form was rendered in an earlier session; what was typed is kept in the present one."""

    def __init__(self, path: str) -> None:
        super().__init__("the form is of an earlier session")
        self.path = path


class Visit(msgspec.Struct, kw_only=True):
    """One request for a page of somebody who has logged in."""

    request: AnyRequest
    session: Session
    principal: Principal
    namespace: str
    client: PlanesClient
    texts: Texts
    fields: Mapping[str, str]
    """Of the form, if one was sent, without its token."""
    reachable: tuple[str, ...]
    """The namespaces that the key or login is for, in whatever role."""
    upload: Upload | None = None
    """The file that came with it."""
    started: str | None = None
    """The id of the session, if it began with this request."""

    @property
    def is_fragment(self) -> bool:
        """Whether htmx wants a part of the page rather than all of it."""
        return self.request.headers.get("hx-request") == "true"

    @property
    def typed(self) -> Mapping[str, str] | None:
        """What was typed into the page's form before the session ended; None: nothing was. Only once."""
        return self.session.take_kept(self.request.url.path)

    def page(self, template: str, *, status: int = 200, **values: object) -> Response[str]:
        """The page of `template`, in the frame that all pages have."""
        content = rendered(
            template,
            t=self.texts,
            visit=self,
            namespace=self.namespace,
            namespaces=self._listed_namespaces(),
            path=self.request.url.path,
            csrf_token=self.session.csrf_token,
            notices=[] if self.is_fragment else self.session.take_notices(),
            **values,
        )
        cookies = []
        if self.started is not None:
            host = header(cast("Headers", self.request.scope["headers"]), b"host")
            cookies = [session_cookie(self.started, host=host)]
        return Response(content, status_code=status, media_type=MediaType.HTML, cookies=cookies)

    def redirect(self, path: str, notice: Notice | None = None) -> Response[None]:
        """Send the browser to another page after a form, which then says `notice`."""
        if notice is not None:
            self.session.notify(notice)
        return Response(None, status_code=HTTP_303_SEE_OTHER, headers={"location": path})

    def may(self, role: str) -> bool:
        """Whether to offer what needs that role; the API refuses it to others in any case."""
        return self.principal.role.allows(Role(role))

    def _listed_namespaces(self) -> list[str]:
        """Those the key or login is for; of one for all, the one that is looked at."""
        names = self.reachable
        return [self.namespace] if EVERY_NAMESPACE in names else sorted({*names, self.namespace})


Visiting = NamedDependency[SkipValidation[Visit]]
"""Annotates the handlers' parameter `visit`."""


class Doorkeeper:
    """Gives each request its visit, or sends it to the login."""

    def __init__(
        self, sessions: Sessions, authenticator: Authenticator, client_secret: str | None = None
    ) -> None:
        """`client_secret`: of the client as which the identity provider logs people in, if it has one."""
        self.sessions = sessions
        self.authenticator = authenticator
        self.client_secret = client_secret

    async def provide_visit(self, request: AnyRequest) -> Visit:
        """The visit of a request.

        Raises:
            LoginNeededError: There is no session, it is over, or its key no longer counts.
            OldFormError: Its form has another session's token.
            ForeignOriginError: Its form was sent by a page of another site.
            PermissionDeniedError: The namespace is not the key's.
        """
        headers = cast("Headers", request.scope["headers"])
        is_form = request.method not in ("GET", "HEAD")
        if is_form:
            check_own_page(headers)
        content_type = header(headers, b"content-type")
        has_file, upload = is_form and is_upload(content_type), None
        # A file is read when it is clear who sends it.
        fields = form_fields(await request.body(), content_type) if is_form and not has_file else {}
        kept = kept_form(request.url.path, fields) if fields else None
        host = header(headers, b"host")
        session_id = request.cookies.get(session_cookie_name(host=host))
        planes = current_planes()
        session = self.sessions.resume(session_id, planes.config.console)
        started = None
        if session is None:
            if has_file:
                await drain(request)
            if is_form or session_id is not None or self.authenticator.required:
                raise LoginNeededError(kept, None if session_id is None and not is_form else "login.over")
            # Whoever reaches a gateway without keys may do everything, by the API too.
            started, session = self.sessions.start(None)
        wanted = request.path_params.get("namespace")
        try:
            if session.claims is not None:
                principal = self.authenticator.authenticate_holder(session.claims, wanted)
            else:
                principal = await self.authenticator.authenticate_again(session.key_id)
        except AuthenticationError as error:
            self.sessions.end(session_id)
            raise LoginNeededError(kept, "login.key_ended") from error
        if has_file:
            fields, upload = await read_upload(request)
        if is_form and not is_of_session(fields, session.csrf_token):
            session.kept = kept
            raise OldFormError(request.url.path)
        namespace = principal.namespace(wanted or default_namespace(principal))
        tokens = self.authenticator.tokens if principal.holder is not None else None
        return Visit(
            request=request,
            session=session,
            principal=principal,
            namespace=namespace,
            client=PlanesClient(planes, request.scope, request.receive, principal, namespace),
            texts=texts_of(request),
            fields={name: value for name, value in fields.items() if name != CSRF_FIELD},
            reachable=principal.namespaces if tokens is None else tokens.reachable(principal),
            upload=upload,
            started=started,
        )


def kept_form(path: str, fields: Mapping[str, str]) -> KeptForm | None:
    """What was typed, without tokens and keys; None if that is nothing, or too much to be kept."""
    typed = {name: value for name, value in fields.items() if name not in _NEVER_KEPT}
    chars = sum(map(len, typed.values()))
    return KeptForm(path=path, fields=typed) if 0 < chars <= MAX_KEPT_CHARS else None


def default_namespace(principal: Principal) -> str:
    """Where the console begins: with the default one, or the first of the key's own."""
    names = principal.namespaces
    return DEFAULT_NAMESPACE if {EVERY_NAMESPACE, DEFAULT_NAMESPACE} & {*names} else names[0]


def texts_of(request: AnyRequest) -> Texts:
    """The texts in the language of the request."""
    return Texts(chosen_language(dict(request.cookies), request.headers.get("accept-language", "")))
