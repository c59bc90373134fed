-- A user of the database for what customers look at. Run once by an administrator of the server, in the delegator's
-- database and after the delegator has made its tables:
--   psql --dbname delegator --file reader.sql
-- It reads, and of each table only rows of the customer that its session names: SET delegator.customer = 'acme'.
-- Columns that hold what is sealed, what claims are bound to, who of the maker did something, and numbers that count for
-- all customers, it cannot read at all. Run it again after an upgrade. How it logs in is up to you:
--   ALTER ROLE delegator_reader LOGIN; and a line in pg_hba.conf

DO $$ BEGIN
    CREATE ROLE delegator_reader NOLOGIN NOBYPASSRLS;
EXCEPTION WHEN duplicate_object THEN
    NULL;
END $$;
ALTER ROLE delegator_reader SET default_transaction_read_only = on;
ALTER ROLE delegator_reader SET statement_timeout = '5s';
-- Who reads and then sits in its transaction would hold up the next upgrade of the tables.
ALTER ROLE delegator_reader SET idle_in_transaction_session_timeout = '5s';

REVOKE ALL ON ALL TABLES IN SCHEMA public FROM delegator_reader;
GRANT USAGE ON SCHEMA public TO delegator_reader;
GRANT SELECT ON
    customers, policies, approvals, rules, devices, device_names, device_changes, import_shown, import_hides,
    import_hides_own, orders, current_devices, registrations, places, paces, delegate_health, outbox_queues,
    message_queues, transfers, contested, customer_plans, plans, statement_lines
TO delegator_reader;
GRANT SELECT (name, customer, kind, settings, url, trust_anchor, policy, enabled, priority, weight)
    ON delegates TO delegator_reader;
GRANT SELECT (
    claim_id, service_tag, customer, delegate, state, identity, attempt, peer, asked_at, busy_until, lease_until,
    issued_at, ended_at, failed_at, result, detail, notified, callback
) ON claims TO delegator_reader;
GRANT SELECT (at, until_at, act, actor, outcome, service_tag, customer, delegate, claim_id, peer, repeated, reasons)
    ON audit TO delegator_reader;
GRANT SELECT (month, zone, from_at, until_at, closed_at) ON statements TO delegator_reader;
GRANT SELECT (
    claim_id, kind, customer, delegate, delegator, service_tag, peer, claimed_address, created_at, give_up_at,
    attempts, state, last_error, ended_at, notice, day, identity
) ON outbox TO delegator_reader;
GRANT SELECT (
    message_id, event, recipient, carrier, subject, body, customer, created_at, give_up_at, attempts, state, last_error,
    ended_at
) ON messages TO delegator_reader;
GRANT SELECT (serial, service_tag, claim_id, issued_at, not_after, used_at, revoked_at, reason, forgotten_at)
    ON enrolled TO delegator_reader;
