-- What a customer may read (see 0001_start), found by keys, and nothing of others or of the maker's people in it.
-- Programs from schema 11 on work with this.

-- `IN (SELECT ...)` made a table of all that a customer has for each question, 211 ms where it has 196 000 devices; EXISTS
-- looks the one row up. What is a customer's by its tag is found by the device's name, as tags have no index of their own.
DROP POLICY of_customer ON rules;
CREATE POLICY of_customer ON rules FOR SELECT USING (EXISTS (SELECT 1 FROM delegates d WHERE d.name = rules.delegate));
DROP POLICY of_customer ON delegate_health;
CREATE POLICY of_customer ON delegate_health FOR SELECT USING (
    EXISTS (SELECT 1 FROM delegates d WHERE d.name = delegate_health.delegate));
DROP POLICY of_customer ON outbox_queues;
CREATE POLICY of_customer ON outbox_queues FOR SELECT USING (
    EXISTS (SELECT 1 FROM delegates d WHERE d.name = outbox_queues.delegate));
DROP POLICY of_customer ON places;
CREATE POLICY of_customer ON places FOR SELECT USING (
    holder = 'customer/' || current_setting('delegator.customer', true)
    OR (starts_with(holder, 'delegate/') AND EXISTS (
        SELECT 1 FROM delegates d WHERE d.name = substr(places.holder, length('delegate/') + 1))));
DROP POLICY of_customer ON paces;
CREATE POLICY of_customer ON paces FOR SELECT USING (
    holder = 'customer/' || current_setting('delegator.customer', true)
    OR (starts_with(holder, 'delegate/') AND EXISTS (
        SELECT 1 FROM delegates d WHERE d.name = substr(paces.holder, length('delegate/') + 1))));
DROP POLICY of_customer ON policies;
CREATE POLICY of_customer ON policies FOR SELECT USING (
    EXISTS (SELECT 1 FROM customers c WHERE c.policy = policies.name)
    OR EXISTS (SELECT 1 FROM delegates d WHERE d.policy = policies.name));
CREATE INDEX delegates_of_customer ON delegates (customer);
DROP POLICY of_customer ON plans;
CREATE POLICY of_customer ON plans FOR SELECT USING (
    EXISTS (SELECT 1 FROM customer_plans c WHERE c.plan = plans.name));
DROP POLICY of_customer ON statements;
CREATE POLICY of_customer ON statements FOR SELECT USING (
    EXISTS (SELECT 1 FROM statement_lines l WHERE l.month = statements.month));
DROP POLICY of_customer ON enrolled;
CREATE POLICY of_customer ON enrolled FOR SELECT USING (
    EXISTS (SELECT 1 FROM claims c WHERE c.claim_id = enrolled.claim_id));
DROP POLICY of_customer ON device_names;
CREATE POLICY of_customer ON device_names FOR SELECT USING (
    EXISTS (SELECT 1 FROM devices d WHERE d.device_id = device_names.device_id));
DROP POLICY of_customer ON approvals;
CREATE POLICY of_customer ON approvals FOR SELECT USING (EXISTS (
    SELECT 1 FROM device_names n JOIN devices d ON d.device_id = n.device_id
    WHERE n.name = ('T' || approvals.service_tag) COLLATE "C" AND d.service_tag = approvals.service_tag));
DROP POLICY of_customer ON boards;
CREATE POLICY of_customer ON boards FOR SELECT USING (EXISTS (
    SELECT 1 FROM device_names n JOIN devices d ON d.device_id = n.device_id
    WHERE n.name = ('T' || boards.service_tag) COLLATE "C" AND d.service_tag = boards.service_tag));

-- The import under way told everybody how many devices it brings, of whomever. Now it has no policy, and what the views of
-- devices must know of it they are told by these, which have their owner's rights: whoever sees all rows the whole, a
-- customer what is about its own devices. None can be written through: each is made of more than one table.
CREATE VIEW import_hides AS
SELECT i.first_id, i.past_id FROM imports i, (VALUES (1)) AS one
WHERE i.state <> 'done' AND NOT row_security_active('imports'::regclass);
CREATE VIEW import_shown AS
SELECT 1 AS only_row FROM imports i, (VALUES (1)) AS one
WHERE i.state = 'done' AND (NOT row_security_active('imports'::regclass) OR EXISTS (
    SELECT 1 FROM device_changes c WHERE c.customer = current_setting('delegator.customer', true)));
CREATE VIEW import_hides_own WITH (security_barrier = true) AS
SELECT d.device_id FROM imports i JOIN devices d ON d.device_id >= i.first_id AND d.device_id < i.past_id
WHERE i.state <> 'done' AND (
    d.customer = current_setting('delegator.customer', true)
    OR (d.customer IS NULL AND EXISTS (
        SELECT 1 FROM orders o
        WHERE o.order_number = d.order_number AND o.customer = current_setting('delegator.customer', true))));
CREATE OR REPLACE VIEW current_devices WITH (security_invoker = true) AS
SELECT d.device_id,
       CASE WHEN c.device_id IS NULL THEN d.customer ELSE c.customer END AS customer,
       COALESCE(c.service_tag, d.service_tag) AS service_tag,
       CASE WHEN c.device_id IS NULL THEN d.serial_number ELSE c.serial_number END AS serial_number,
       CASE WHEN c.device_id IS NULL THEN d.mac_addresses ELSE c.mac_addresses END AS mac_addresses,
       CASE WHEN c.device_id IS NULL THEN d.model ELSE c.model END AS model,
       CASE WHEN c.device_id IS NULL THEN d.order_number ELSE c.order_number END AS order_number,
       CASE WHEN c.device_id IS NULL THEN d.delegate ELSE c.delegate END AS delegate
FROM devices d
LEFT JOIN device_changes c ON c.device_id = d.device_id AND EXISTS (SELECT 1 FROM import_shown)
WHERE NOT EXISTS (SELECT 1 FROM import_hides i WHERE d.device_id >= i.first_id AND d.device_id < i.past_id);
DROP POLICY of_customer ON imports;
DROP POLICY of_customer ON devices;
CREATE POLICY of_customer ON devices FOR SELECT USING (
    (customer = current_setting('delegator.customer', true)
     OR (customer IS NULL AND EXISTS (SELECT 1 FROM orders o WHERE o.order_number = devices.order_number)))
    AND NOT EXISTS (SELECT 1 FROM import_hides_own h WHERE h.device_id = devices.device_id));

-- What operators did stands in the audit under their names.
DROP POLICY of_customer ON audit;
CREATE POLICY of_customer ON audit FOR SELECT USING (
    customer = current_setting('delegator.customer', true) AND actor IN ('device', 'delegator'));

-- The role of deploy/postgres/reader.sql, where it could read in this database before: as it is made today.
DO $$ BEGIN
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'delegator_reader'
               AND has_table_privilege(oid, 'imports', 'SELECT')) THEN
        REVOKE ALL ON imports, audit, statements, outbox FROM delegator_reader;
        GRANT SELECT ON import_shown, import_hides, import_hides_own TO delegator_reader;
        GRANT SELECT (at, until_at, act, actor, outcome, service_tag, customer, delegate, claim_id, peer, repeated, reasons)
            ON audit TO delegator_reader;
        GRANT SELECT (month, zone, from_at, until_at, closed_at) ON statements TO delegator_reader;
        GRANT SELECT (
            claim_id, kind, customer, delegate, delegator, service_tag, peer, claimed_address, created_at, give_up_at,
            attempts, state, last_error, ended_at, notice, day, identity
        ) ON outbox TO delegator_reader;
    END IF;
END $$;
