"""The one place where errors of databases and drivers become ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import exc

from orchestrator.errors import Conflict, EvertrainError, Refused, Unavailable

_ONE_VALUE = (exc.DataError, OverflowError, UnicodeError)


def translate(error: Exception, where: str) -> Exception:
    """`where` names the database for people, without credentials. What is no database's error stays what it is."""
    if isinstance(error, EvertrainError):
        return error
    if isinstance(error, exc.IntegrityError):
        return Conflict(f"{where}: exists already, or belongs to something that does not: {_first_line(error)}")
    if isinstance(error, _ONE_VALUE):
        return Refused(f"{where}: a value cannot be stored: {_first_line(error)}")
    if isinstance(error, exc.SQLAlchemyError):
        return Unavailable(f"{where}: the database did not answer: {_first_line(error)}; try again")
    return error


def concerns_one_call(error: Exception) -> bool:
    """True: only the call that raised it is wrong. False: the connection or the whole transaction is in doubt."""
    return not isinstance(error, exc.SQLAlchemyError) or isinstance(error, (exc.IntegrityError, exc.DataError))


@contextmanager
def translated(where: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        ours = translate(error, where)
        if ours is error:
            raise
        raise ours from error


def _first_line(error: Exception) -> str:
    cause = error.orig if isinstance(error, exc.DBAPIError) and error.orig is not None else error
    return (str(cause).strip() or type(cause).__name__).splitlines()[0]
