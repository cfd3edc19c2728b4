"""Storage of Optuna's studies: a file beside the driver, or a PostgreSQL database that only drivers open."""

import os
import re

from glioflow.cluster.logins import without_password
from glioflow.errors import UserError, first_line

STUDIES = "GLIOFLOW_STUDIES_URI"
_CONNECT_S = 5


def studies_uri() -> str | None:
    """Return the address of the database of studies, as SQLAlchemy takes it; None where each study has a file.

    Raises:
        UserError: If it is not PostgreSQL's.
    """
    named = os.environ.get(STUDIES)
    if not named:
        return None
    kind = re.match(r"postgres(ql)?(\+\w+)?://", named)
    if kind is None:
        hint = "give postgresql://USER@HOST/DATABASE, or unset it to keep each study in a file of its own"
        raise UserError(f"{STUDIES} must name a PostgreSQL database", without_password(named), hint=hint)
    return f"postgresql+psycopg://{named[kind.end() :]}"


def check_studies() -> None:
    """Refuse a database of studies that does not answer, that lacks its schema, or that has another program's tables.

    Raises:
        UserError: Without its password.
    """
    uri = studies_uri()
    if uri is None:
        return
    import sqlalchemy

    try:
        engine = sqlalchemy.create_engine(uri, connect_args={"connect_timeout": _CONNECT_S})
    except (ValueError, sqlalchemy.exc.ArgumentError):  # its text may contain a part of the password
        hint = "give postgresql://USER@HOST/DATABASE, with %XX for special characters of a password"
        raise UserError(f"{STUDIES} must name a PostgreSQL database", without_password(uri), hint=hint) from None
    try:
        with engine.connect() as connection:
            schema = connection.scalar(sqlalchemy.text("SELECT current_schema()"))
            tables = set(sqlalchemy.inspect(connection).get_table_names())
    except sqlalchemy.exc.SQLAlchemyError as error:
        reason = first_line(getattr(error, "orig", None) or error)
        hint = "start that database, or check its address, user and password"
        raise UserError(
            f"{STUDIES} must name a reachable database", f"{without_password(uri)!r}: {reason}", hint=hint
        ) from None
    finally:
        engine.dispose()
    if schema is None:
        hint = "create it with CREATE SCHEMA"
        raise UserError(f"{STUDIES} must name a schema that exists", without_password(uri), hint=hint)
    # MLflow's database has a table `alembic_version` too, and each would take the other's version for its own.
    if "alembic_version" in tables and "studies" not in tables:
        rule = f"{STUDIES} must name a database or schema of its own, not one with the tables of another program"
        hint = "create one (CREATE DATABASE, or CREATE SCHEMA and ?options=-csearch_path%3DSCHEMA in the address)"
        raise UserError(rule, without_password(uri), hint=hint)
