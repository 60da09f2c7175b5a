"""POST /alerts: what Alertmanager's webhook sends. It wants a bearer token that may act in the project of each alert.

An alert's project is its label `project`, else the token's. Alertmanager sends a request again when it is answered with 5xx
and never when with 4xx: so what cannot be done with one alert is said in the answer, and only a store that does not answer
makes the whole request fail.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from orchestrator.api.auth import EVERY_PROJECT, Caller, allows, bearer
from orchestrator.api.parts import Parts
from orchestrator.control.alerts import Alerts
from orchestrator.core.alerts import Alert, Outcome
from orchestrator.core.records import Role
from orchestrator.errors import Denied, EvertrainError, InvalidSpec, TooLarge, Unauthenticated

log = logging.getLogger(__name__)

LARGEST_BYTES = 4 * 2**20
MOST_WAITING = 32  # requests; more of them are told to come again

_Words = Annotated[dict[str, str], Field(default_factory=dict)]


class _Told(BaseModel):
    model_config = ConfigDict(extra="ignore")

    status: Literal["firing", "resolved"]
    labels: _Words
    annotations: _Words
    startsAt: AwareDatetime
    fingerprint: Annotated[str, Field(pattern="^[0-9a-f]{1,64}$")]


class _Group(BaseModel):
    """Version 4 of the webhook's payload; what it has beside this is not needed."""

    model_config = ConfigDict(extra="ignore")

    version: Literal["4"]
    alerts: list[_Told]
    truncatedAlerts: int = 0


class AlertIntake:
    def __init__(self, parts: Parts, alerts: Alerts) -> None:
        self._parts, self._alerts = parts, alerts
        self._turn = asyncio.Semaphore()
        self._waiting = 0

    async def post(self, request: Request) -> Response:
        try:
            caller = await self._parts.blocking(self._caller, request.headers.get("authorization"))
            group = _Group.model_validate_json(await _body(request))
        except Unauthenticated as error:
            return PlainTextResponse(f"{error}\n", status_code=401, headers={"www-authenticate": "Bearer"})
        except Denied as error:
            return PlainTextResponse(f"{error}\n", status_code=403)
        except TooLarge as error:
            return self._turned_away(str(error), 413)
        except ValidationError as error:
            return self._turned_away(f"not what Alertmanager's webhook sends: {error.errors()[0]['msg']}", 400)
        except EvertrainError as error:
            return _later(str(error))
        return await self._take(group, caller)

    async def _take(self, group: _Group, caller: Caller) -> Response:
        if group.truncatedAlerts:
            log.warning("alerts: %d were left out of one request: raise max_alerts", group.truncatedAlerts)
        if self._waiting >= MOST_WAITING:
            return _later(f"{self._waiting} requests are waiting")
        self._waiting += 1
        try:
            async with self._turn:
                answers = await self._parts.blocking(self._act, group, caller)
        except EvertrainError as error:
            return _later(str(error))
        finally:
            self._waiting -= 1
        return JSONResponse({"alerts": answers})

    def _act(self, group: _Group, caller: Caller) -> list[dict[str, str]]:
        taken: list[Alert] = []
        answers: list[dict[str, str]] = []
        for told in group.alerts:
            try:
                taken.append(_alert(told, caller))
            except (Denied, InvalidSpec) as error:
                answers.append(_answer(told.fingerprint, Outcome.REFUSED, str(error)))
                log.warning("alert %s refused: %s", told.labels.get("alertname"), error)
        self._alerts.refused(len(answers))
        done = self._alerts.take(taken, by=caller.name)
        return answers + [_answer(each.fingerprint, *what) for each, what in zip(taken, done, strict=True)]

    def _caller(self, authorization: str | None) -> Caller:
        caller = self._parts.authenticator.authenticate(bearer(authorization))
        if not allows(Role.USER, caller.token.role):
            raise Denied(f"/alerts may pause and start runs: token {caller.name!r} must be a user's or an admin's")
        return caller

    def _turned_away(self, words: str, status: int) -> Response:
        self._alerts.refused(1)
        log.warning("alerts: a request was turned away: %s", words)
        return PlainTextResponse(f"{words}\n", status_code=status)


def _alert(told: _Told, caller: Caller) -> Alert:
    """Raises Denied, and InvalidSpec for what cannot be a project's name."""
    project = caller.target(told.labels.get("project", ""))
    # Without that label an alert means every project, but never one that the token may not act in.
    everywhere = caller.token.project == EVERY_PROJECT
    return Alert(
        project=project,
        name=told.labels.get("alertname", ""),
        fingerprint=told.fingerprint,
        starts_at=told.startsAt.timestamp(),
        firing=told.status == "firing",
        labels=told.labels if everywhere else {**told.labels, "project": project},
        words=told.annotations.get("summary", ""),
    )


async def _body(request: Request) -> bytes:
    """Raises TooLarge before more than the limit was read."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > LARGEST_BYTES:
            raise TooLarge(f"more than {LARGEST_BYTES} bytes of alerts in one request: lower max_alerts")
    return bytes(data)


def _answer(fingerprint: str, outcome: Outcome, reason: str) -> dict[str, str]:
    return {"fingerprint": fingerprint, "outcome": outcome.value, "reason": reason}


def _later(words: str) -> Response:
    log.warning("alerts: a request is to be sent again: %s", words)
    return PlainTextResponse("not now, send it again\n", status_code=503)
