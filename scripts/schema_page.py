"""Draws docs/schema.md and docs/schema-postgres.md from databases that are made from nothing: `make docs`.

What stands in the pages is what the engines say of themselves, after every schema file was applied; who writes a table
is looked up in the code. Only what a table holds is written by hand, in HOLDS, and what refers to what without a key
that the database checks, in BY_VALUE. PostgreSQL's page is drawn where its programs are installed, else left as it is.
The invariant: only what stands between two marks is written; the words around it are people's.
"""

from __future__ import annotations

import re
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from delegator.store.migrate import MADE_FIRST, schema_files
from delegator.store.resealing import SEALED

ROOT = Path(__file__).parents[1]
PAGE, PAGE_OF_POSTGRES = ROOT / "docs" / "schema.md", ROOT / "docs" / "schema-postgres.md"
END = "<!-- end -->\n"

HOLDS = {
    "approvals": "Which service tags the approved list of a policy names.",
    "audit": "Who did what, when, from where, how it ended and why; each row is chained to the one before it.",
    "audit_checkpoints": "Up to where a chain of the audit was pruned.",
    "audit_keys": "The sealed key of the audit's hashes.",
    "audit_marks": "How far a chain had come when it was last marked, so that an end that was cut off is missed.",
    "boards": "Keys of devices whose main board was replaced: refused, approved, or any new one once.",
    "claims": "Each time a device asked for a credential: of whom, by which delegate, bound to what, how it ended.",
    "contested": "Who asked for a tag that another holds: a row for a tag, a day and a kind of identity.",
    "customer_keys": "Public keys with which customers sign what they offer and accept.",
    "customer_plans": "Which plan a customer has from a month on.",
    "customers": "Customers, and the policy that each has.",
    "delegate_health": "What servers last saw of a delegate's circuit breaker.",
    "delegates": "Customers' delegates: how each is called, what is sealed for it, its policy.",
    "device_changes": "What devices that were there before become with the import under way.",
    "device_names": "Every identifier of a device (T a service tag, S a serial number, M a MAC address), each once.",
    "device_numbers": "The next device's number.",
    "devices": "Registered devices, and what a device's own row says of whose it is.",
    "enrolled": "Certificates that were issued to devices that came with the shared one.",
    "imports": "The import under way, if there is one, and which numbers its devices have.",
    "orders": "Orders that belong to a customer, and with them what was sold in them.",
    "messages": "What somebody is still to be told of an event, by one carrier, and what was told lately.",
    "message_queues": "For each carrier and recipient with something waiting: when it may be worked on next.",
    "outbox": "As `messages`, of programs of the release before, until this one moves it there.",
    "outbox_queues": "As `message_queues`, of the release before.",
    "paces": "How many claims were opened in which minute, by holder, where a policy limits them by the hour.",
    "places": "How many devices hold a live claim, by holder: customer/NAME and delegate/NAME.",
    "plans": "Versions of what is charged.",
    "policies": "Policies, as JSON.",
    "pulse": "What readiness changes to see whether a change is durable.",
    "revision": "A number that is raised with every change of a small table, so that servers know when a copy is old.",
    "rules": "What leads a device that belongs to nobody to a delegate, or to another delegator.",
    "schema_files": "The files that this database was made from, and which programs can live with each.",
    "statement_lines": "What was billed to whom in a month that is closed.",
    "statements": "Months that are closed.",
    "transfers": "Devices that one customer offered to another, and what became of that.",
    "current_devices": "Devices as they count now, with what an import has shown and without what it has not.",
    "registrations": "Current devices and whose they are, by their own row or by their order.",
    "import_hides": "Numbers of devices that the import under way has not shown; for whoever sees all rows.",
    "import_hides_own": "The same, as far as it is about the customer who looks.",
    "import_shown": "Whether an import was shown whose changes are not in the table of devices yet.",
}
BY_VALUE = {
    "approvals.service_tag": "devices", "audit.claim_id": "claims", "boards.service_tag": "devices",
    "claims.customer": "customers", "claims.delegate": "delegates", "contested.claim_id": "claims",
    "customer_plans.customer": "customers", "customer_plans.plan": "plans", "delegate_health.delegate": "delegates",
    "device_names.device_id": "devices", "devices.order_number": "orders", "enrolled.claim_id": "claims",
    "messages.subject": "claims", "message_queues.recipient": "delegates", "outbox.claim_id": "claims",
    "outbox_queues.delegate": "delegates", "statement_lines.customer": "customers",
    "transfers.offered_by": "customers", "transfers.offered_to": "customers",
}
"""What refers to a row by its name or number without a key that is checked: it may outlive that row, or come before."""
_WRITES = re.compile(r"\b(?:INSERT INTO|UPDATE|DELETE FROM|insert\(f?\")\s*(\w+)")
_BY_NOUN = ("customers", "delegates", "policies", "rules")
"""Tables from which a row is removed by a statement with a hole for the table's name, in store/registry."""


# --- SQLite -------------------------------------------------------------------------------------------------------


def sqlite() -> sqlite3.Connection:
    """A database in memory, from nothing."""
    connection = sqlite3.connect(":memory:")
    connection.execute(MADE_FIRST)
    for file in schema_files("sqlite"):
        connection.executescript(file.sql)
    return connection


def names(connection: sqlite3.Connection, kind: str) -> list[str]:
    return [str(row[0]) for row in connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = ? AND name NOT LIKE 'sqlite_%' ORDER BY name", (kind,))]


def _sqlite_table(connection: sqlite3.Connection, table: str) -> Iterator[str]:
    columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
    key = [str(row[1]) for row in sorted(columns, key=lambda row: int(row[5])) if row[5]]
    for _, name, kind, filled, default, _ in columns:
        yield _column(name, kind, filled, default)
    yield f"primary key ({', '.join(key)})"
    for row in sorted(connection.execute(f"PRAGMA foreign_key_list({table})").fetchall(), key=lambda row: str(row[3])):
        gone = "" if row[6] == "NO ACTION" else f" on delete {str(row[6]).lower()}"
        yield f"{row[3]} refers to {row[2]} ({row[4]}){gone}"
    for _, name, unique, origin, partial in connection.execute(f"PRAGMA index_list({table})").fetchall():
        if origin != "pk":
            yield _sqlite_index(connection, str(name), bool(unique), bool(partial))
    for name, text in connection.execute(
            "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ? ORDER BY name", (table,)):
        yield f"trigger {name}: {_when(text)}"


def _sqlite_index(connection: sqlite3.Connection, name: str, unique: bool, partial: bool) -> str:
    what = "unique" if unique else "index"
    text = connection.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (name,)).fetchone()[0]
    if text is None:
        columns = [str(row[2]) for row in connection.execute(f"PRAGMA index_info({name})")]
        return f"{what} ({', '.join(columns)})"
    said = re.sub(r"\s+", " ", text)
    return f"{what} {name} {said[said.index('('):]}" if partial or "(" in said else f"{what} {name}"


def _when(text: str) -> str:
    found = re.search(r"\b(BEFORE|AFTER) (UPDATE|DELETE|INSERT)", text)
    return "" if found is None else found[0].lower()


def _column(name: str, kind: str, filled: object, default: object) -> str:
    said = f"{name:<16} {kind:<8}{' not null' if filled else ''}{'' if default is None else f' default {default}'}"
    return said.rstrip()


# --- PostgreSQL ---------------------------------------------------------------------------------------------------

Ask = Callable[[str], list[list[str]]]
_COLUMNS = ("SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid), "
            "a.attidentity <> '' FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid "
            "AND d.adnum = a.attnum WHERE a.attrelid = '{0}'::regclass AND a.attnum > 0 AND NOT a.attisdropped "
            "ORDER BY a.attnum")
_KEYS = ("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = '{0}'::regclass AND contype IN "
         "('p', 'u', 'f', 'c') ORDER BY position(contype::text IN 'pufc'), conname")
_INDEXES = ("SELECT indexrelid::regclass, pg_get_indexdef(indexrelid), indisunique FROM pg_index WHERE indrelid = "
            "'{0}'::regclass AND indexrelid NOT IN (SELECT conindid FROM pg_constraint) "
            "ORDER BY indexrelid::regclass::text")
_TRIGGERS = ("SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = '{0}'::regclass "
             "AND NOT tgisinternal ORDER BY tgname")
_POLICY = "SELECT pg_get_expr(polqual, polrelid) FROM pg_policy WHERE polrelid = '{0}'::regclass"
_TABLES = ("SELECT relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = 'public' AND "
           "relkind = '{0}' ORDER BY relname")


def _postgres_table(ask: Ask, table: str) -> Iterator[str]:
    for name, kind, filled, default, identity in ask(_COLUMNS.format(table)):
        yield _column(name, kind, filled == "t", default or ("the next number" if identity == "t" else None))
    for (text,) in ask(_KEYS.format(table)):
        yield re.sub(r"^(\w+) KEY", lambda found: found[0].lower(), text).replace("REFERENCES", "refers to")
    for name, text, unique in ask(_INDEXES.format(table)):
        said = text.partition(" USING btree ")[2]
        yield f"{'unique' if unique == 't' else 'index'} {name} {said}"
    for name, text in ask(_TRIGGERS.format(table)):
        yield f"trigger {name}: {_when(text)}"
    seen = [text for (text,) in ask(_POLICY.format(table))]
    yield "a customer sees: " + (re.sub(r"\s+", " ", seen[0]) if seen else "nothing")


def asking(cluster: object, database: str) -> Ask:
    """A superuser's questions by psql, each value as text."""
    def ask(question: str) -> list[list[str]]:
        said = cluster.sql(f"COPY ({question}) TO STDOUT", database)  # type: ignore[attr-defined]
        return [[{"\\N": ""}.get(value, value.replace("\\n", "\n").replace("\\\\", "\\")) for value in line.split("\t")]
                for line in said.splitlines()]
    return ask


# --- the pages ----------------------------------------------------------------------------------------------------


def writers() -> dict[str, list[str]]:
    """The modules that write each table, as the code stands."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "delegator").rglob("*.py")):
        if path.parent.name == "delegate":  # which has a database of its own
            continue
        module = str(path.relative_to(ROOT / "delegator").with_suffix(""))
        for table in _WRITES.findall(path.read_text(encoding="utf-8")):
            found.setdefault(table, set()).add(module)
    for table in _BY_NOUN:
        found.setdefault(table, set()).add("store/registry")
    for column in SEALED:
        found.setdefault(column.table, set()).add("store/resealing")
    found.setdefault("schema_files", set()).add("store/migrate")
    return {table: sorted(modules) for table, modules in found.items() if table in HOLDS}


def contents(tables: Sequence[str], views: Sequence[str]) -> str:
    """What each holds, and who writes it."""
    by = writers()
    rows = [f"| `{name}` | {HOLDS[name]} | {', '.join(by.get(name, ['(a view)']))} |" for name in (*tables, *views)]
    return "\n".join(["| | holds | written by |", "|---|---|---|", *rows])


def diagram(connection: sqlite3.Connection) -> str:
    """Tables that refer to each other: a full line where the database checks it, a dotted one where it does not."""
    lines = [f"    {row[2]} ||--o{{ {table} : {row[3]}" for table in names(connection, "table")
             for row in sorted(connection.execute(f"PRAGMA foreign_key_list({table})"), key=lambda row: str(row[3]))]
    loose = [f"    {there} ||..o{{ {table} : {column}" for (table, column), there in
             ((place.split("."), there) for place, there in sorted(BY_VALUE.items()))]
    return "\n".join(["```mermaid", "erDiagram", *lines, *loose, "```"])


def _block(table: str, lines: Iterator[str]) -> str:
    return "\n".join([f"### {table}", "", "```text", *lines, "```"])


def drawn(page: str) -> str:
    """docs/schema.md anew. Raises ValueError when it has no place for it."""
    with closing(sqlite()) as connection:
        tables = names(connection, "table")
        views = names(connection, "view")
        parts = {
            "from the code and scripts/schema_page.py": contents(tables, views) + "\n\n" + diagram(connection),
            "from SQLite": "\n\n".join(_block(table, _sqlite_table(connection, table)) for table in tables)}
    return _placed(page, parts)


def drawn_of_postgres(page: str, ask: Ask) -> str:
    """docs/schema-postgres.md anew. Raises ValueError when it has no place for it."""
    tables, views = ([name for (name,) in ask(_TABLES.format(kind))] for kind in "rv")
    only = [view for view in views if view.startswith("import_")]
    parts = {"from PostgreSQL": "\n\n".join([contents((), only), *(
        _block(table, _postgres_table(ask, table)) for table in tables)])}
    return _placed(page, parts)


def _placed(page: str, parts: dict[str, str]) -> str:
    for source, text in parts.items():
        mark = f"<!-- {source}: make docs -->\n"
        before, found, rest = page.partition(mark)
        _, ended, after = rest.partition(END)
        if not (found and ended):
            raise ValueError(f"the page has no lines {mark.strip()!a} and {END.strip()!a}")
        page = f"{before}{mark}\n{text}\n\n{END}{after}"
    return page


def main() -> None:
    PAGE.write_text(drawn(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    from tests.postgres import IN_NO_DANGER, program, running_cluster
    try:
        program("initdb")
    except AssertionError:
        sys.stderr.write(f"{PAGE_OF_POSTGRES.name} is left as it is: PostgreSQL is not installed here\n")
        return
    with running_cluster(**IN_NO_DANGER) as cluster:
        cluster.with_schema()
        page = PAGE_OF_POSTGRES.read_text(encoding="utf-8")
        PAGE_OF_POSTGRES.write_text(drawn_of_postgres(page, asking(cluster, "template_delegator")), encoding="utf-8")


if __name__ == "__main__":
    main()
