"""The only door to mlflow: imported late, kept quiet, bounded in time, its failures told without credentials."""

from __future__ import annotations

import logging
import os
import re
import secrets
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from kdbench.errors import StoreError

if TYPE_CHECKING:
    from mlflow import MlflowClient

SILENT = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
_BOUNDED = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
}
_LOCK_SECONDS = 60.0
_SQLITE = "sqlite:///"


def default_tracking_uri(out: Path) -> str:
    """The SQLite database beside the runs, as an absolute URI: MLflow resolves a relative one where it is started."""
    return f"{_SQLITE}{(out / 'mlflow.db').resolve()}"


def is_server(tracking_uri: str) -> bool:
    """Whether the URI is a tracking server's, not a database's.

    Raises:
        StoreError: it is no URI.
    """
    return _scheme(tracking_uri) in ("http", "https", "databricks")


def artifact_root(tracking_uri: str, out: Path = Path()) -> Path | None:
    """`mlartifacts` beside an SQLite database, or in `out` for another one; None for a server, which has its own."""
    if is_server(tracking_uri):
        return None
    database = _sqlite_file(tracking_uri)
    return (database.parent if database else out.resolve()) / "mlartifacts"


def masked(text: str, tracking_uri: str = "") -> str:
    """The text without passwords: neither those of URIs in it nor that of `tracking_uri`."""
    text = re.sub(r"((?!sqlite)\b\w[\w+.-]*://)\S*@", r"\1***@", text)
    text = re.sub(r"(?i)([?&][^=&\s]*(?:password|passwd|token|secret|key)[^=&\s]*=)[^&\s]+", r"\1***", text)
    password = _password(tracking_uri)
    for secret in {password, unquote(password)} - {""}:
        text = text.replace(secret, "***")
    return text


@contextmanager
def connected(tracking_uri: str) -> Iterator[MlflowClient]:
    """A client on a store that is there and, if it is an SQLite file, that no other kdbench writes meanwhile.

    Raises:
        StoreError: in a few words, whatever goes wrong inside: no server, no database, no permission.
    """
    with ExitStack() as stack:
        stack.enter_context(_environment({**SILENT, **_BOUNDED}))
        stack.enter_context(_quiet())
        stack.enter_context(_explained(tracking_uri))
        stack.enter_context(_alone(tracking_uri))
        _probe(tracking_uri)
        from mlflow import MlflowClient

        yield MlflowClient(tracking_uri)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _quiet() -> Iterator[None]:
    """MLflow sets its own loggers up when imported, so they are silenced through the root of all."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def _explained(tracking_uri: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise _unavailable(tracking_uri, error, "install what the tracking URI's scheme needs") from error
    except OSError as error:
        raise _unavailable(tracking_uri, error) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("mlflow", "sqlalchemy", "requests", "filelock", "alembic"):
            raise
        raise _unavailable(tracking_uri, error) from error


def _unavailable(tracking_uri: str, error: Exception, hint: str | None = None) -> StoreError:
    lines = [line.strip() for line in masked(str(error), tracking_uri).splitlines() if line.strip()]
    reason = (lines or [type(error).__name__])[0]
    reason = reason if len(reason) <= 200 else reason[:199] + "…"
    return StoreError(
        f"MLflow at {masked(tracking_uri)} cannot be used: {reason}",
        hint=hint or "nothing is lost: `kdbench sync RUN` writes it again from the records",
    )


@contextmanager
def _alone(tracking_uri: str) -> Iterator[None]:
    """One writer of an SQLite file at a time: two that create it at once break its schema migration."""
    database = _sqlite_file(tracking_uri)
    if database is None:
        yield
        return
    from filelock import FileLock

    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.lock", timeout=_LOCK_SECONDS):
        if not database.exists():
            _create(database)
        yield


def _create(database: Path) -> None:
    """Makes a fresh database appear with its whole schema: MLflow cannot finish a migration that was cut short."""
    from mlflow import MlflowClient

    draft = database.with_name(f"{database.name}.{secrets.token_hex(6)}")
    try:
        MlflowClient(f"{_SQLITE}{draft}").search_experiments(max_results=1)
        os.replace(draft, database)
    finally:
        for path in database.parent.glob(f"{draft.name}*"):
            path.unlink()


def _probe(tracking_uri: str) -> None:
    """Fails at once where a database cannot be read; MLflow itself would try for more than a minute."""
    from mlflow.store.db.db_types import DATABASE_ENGINES

    if _scheme(tracking_uri).partition("+")[0] not in DATABASE_ENGINES:
        return
    import sqlalchemy

    engine = sqlalchemy.create_engine(tracking_uri)
    try:
        sqlalchemy.inspect(engine).get_table_names()
    finally:
        engine.dispose()


def _sqlite_file(tracking_uri: str) -> Path | None:
    path = tracking_uri.removeprefix(_SQLITE)
    return Path(path).resolve() if path and path != tracking_uri and path != ":memory:" else None


def _scheme(tracking_uri: str) -> str:
    try:
        return urlsplit(tracking_uri).scheme
    except ValueError as error:
        raise StoreError(f"{masked(tracking_uri)} is no tracking URI: {error}") from error


def _password(tracking_uri: str) -> str:
    try:
        return urlsplit(tracking_uri).password or ""
    except ValueError:
        return ""
