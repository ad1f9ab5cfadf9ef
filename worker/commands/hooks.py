"""Webhooks: the alerts of each hook, and the signed request (Standard Webhooks). Pure, except `send`."""

import base64
import binascii
import hashlib
import hmac
import html
import json
import tomllib
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from callmood.worker.errors import ConfigurationError

_PREFIX: Final = "whsec_"
_MIN_SECRET_BYTES: Final = 24
_TIMEOUT_S: Final = 10.0
EVENT: Final = "callmood.alert.raised"


def _is_an_address(address: str) -> str:
    """Refuses what no request can be sent to; a password would be in its error messages."""
    parts = urlsplit(address)
    if "@" in parts.netloc:
        raise ValueError("leave out user and password: the signature shows who sends the request")
    try:
        is_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_host = False
    if not is_host:
        raise ValueError("the address has no host, or a port that is not a number")
    return address


Address = Annotated[str, Field(pattern=r"^https?://[!-~]+$"), AfterValidator(_is_an_address)]
"""Printable ASCII; write other characters as %C3%A4, and a host as xn--...."""


class Hook(BaseModel):
    """Where alerts go. `queues` and `rules` None: of all queues, of all rules."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    url: Address
    secret: Annotated[str, Field(repr=False)]
    """`whsec_` and at least 24 bytes as base64."""
    queues: frozenset[str] | None = None
    rules: frozenset[str] | None = None
    format: Literal["callmood", "slack", "teams"] = "callmood"
    link: Address | None = None
    """Address of a call's page, with `{call}`."""

    @field_validator("secret")
    @classmethod
    def _is_long_enough(cls, secret: str) -> str:
        if len(_bytes_of(secret)) < _MIN_SECRET_BYTES:
            raise ValueError(f"use a secret of `{_PREFIX}` and at least {_MIN_SECRET_BYTES} bytes as base64")
        return secret

    def wants(self, alert: Mapping[str, Any]) -> bool:
        """Whether an alert/1 goes there."""
        queue = alert.get("attributes", {}).get("queue", "")
        return (self.queues is None or queue in self.queues) and (self.rules is None or alert["rule"] in self.rules)

    def request(self, alert: Mapping[str, Any], now_s: float) -> urllib.request.Request:
        """The signed request for an alert/1. Its id is the same on every try, so that a receiver can drop a copy."""
        body, name, stamp = self._body(alert, now_s), message_id(alert["alert_id"]), str(int(now_s))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "callmood",
            "webhook-id": name,
            "webhook-timestamp": stamp,
            "webhook-signature": signature(self.secret, name, stamp, body),
        }
        return urllib.request.Request(self.url, data=body, headers=headers, method="POST")  # noqa: S310 - http or https

    def _body(self, alert: Mapping[str, Any], now_s: float) -> bytes:
        link = self.link and self.link.replace("{call}", quote(alert["call_id"], safe=""))
        if self.format == "slack":
            queue = alert.get("attributes", {}).get("queue")
            named = html.escape(alert["call_id"], quote=False)
            where = f"<{link}|{named.replace('|', ' ')}>" if link else named
            about = html.escape(f"{alert['severity']}: {alert['message']}", quote=False)
            more = f" ({html.escape(queue, quote=False)})" if queue else ""
            return json.dumps({"text": f"{about}{more}, call {where}"}).encode()
        if self.format == "teams":
            return json.dumps(_card(alert, link)).encode()
        data, sent_at = {"alert": alert, "link": link}, datetime.fromtimestamp(now_s, UTC).isoformat()
        return json.dumps({"type": EVENT, "timestamp": sent_at, "data": data}).encode()


def _card(alert: Mapping[str, Any], link: str | None) -> dict[str, Any]:
    """An adaptive card for a Teams workflow. A text run, unlike a text block, shows markup as it is."""
    queue = alert.get("attributes", {}).get("queue")
    lines = (
        f"{alert['severity']}: {alert['message']}",
        f"call {alert['call_id']}" + (f", queue {queue}" if queue else ""),
    )
    card = {
        "type": "AdaptiveCard",
        "version": "1.2",
        "body": [{"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": line}]} for line in lines],
        "actions": [{"type": "Action.OpenUrl", "title": "Open the call", "url": link}] if link else [],
    }
    content = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return {"type": "message", "attachments": [content]}


def parse_hooks(text: str) -> tuple[Hook, ...]:
    """Hooks from TOML: a `[name]` table each.

    Raises:
        ConfigurationError: it is no such file; the message names the hook and the field, and no secret.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"webhooks: {error}") from error
    hooks = []
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigurationError(f"webhooks: put {name} into the table of a hook")
        try:
            hooks.append(Hook(**{**table, "name": name}))
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            raise ConfigurationError(f"webhooks: [{name}] {field}: {first['msg']}") from error
    if not hooks:
        raise ConfigurationError("webhooks: the file names no hook")
    return tuple(hooks)


def message_id(alert_id: str) -> str:
    """Id of an alert's message: plain ASCII, and without the call id."""
    return f"msg_{hashlib.sha256(alert_id.encode()).hexdigest()[:32]}"


def signature(secret: str, name: str, stamp: str, body: bytes) -> str:
    """`webhook-signature` of Standard Webhooks."""
    signed = b".".join((name.encode(), stamp.encode(), body))
    return "v1," + base64.b64encode(hmac.new(_bytes_of(secret), signed, hashlib.sha256).digest()).decode()


def send(request: urllib.request.Request) -> str:
    """Send it once; returns what is wrong, or nothing. A redirect is an error: the secret's owner is at the address."""
    try:
        with urllib.request.build_opener(_Stay).open(request, timeout=_TIMEOUT_S):
            return ""  # any status but 2xx is an HTTPError
    except urllib.error.HTTPError as error:
        error.close()
        return f"status {error.code}"
    except (OSError, ValueError, HTTPException) as error:  # ValueError: an address that no connection can have
        return type(error).__name__ if not str(error) else f"{type(error).__name__}: {error}"


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _bytes_of(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return b""
