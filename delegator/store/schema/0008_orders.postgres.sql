-- Orders that belong to a customer, devices in stock, and imports that let a running delegator write.

-- Everything with this order number belongs to this customer, unless a device's own row names its customer.
CREATE TABLE orders (
    order_number TEXT PRIMARY KEY,
    customer TEXT NOT NULL REFERENCES customers (name),
    delegate TEXT REFERENCES delegates (name)
);
CREATE INDEX orders_of_customer ON orders (customer);
CREATE INDEX orders_of_delegate ON orders (delegate) WHERE delegate IS NOT NULL;

-- `customer` may be missing (then the order says it; else the device is in stock), MAC addresses stand in the row in the
-- order in which they were said, and every identifier is found in one place.
ALTER TABLE devices ALTER COLUMN customer DROP NOT NULL;
ALTER TABLE devices ADD CHECK (customer IS NOT NULL OR delegate IS NULL);
ALTER TABLE devices ADD COLUMN mac_addresses TEXT;
UPDATE devices SET mac_addresses = found.macs
FROM (SELECT device_id, string_agg(mac, ',' ORDER BY mac) AS macs FROM device_macs GROUP BY device_id) AS found
WHERE found.device_id = devices.device_id;

-- Identifiers, each with a letter before it: T a service tag, S a serial number, M a MAC address without colons. An
-- identifier leads to one device at most. Byte order, whatever the database's: imports come sorted like that.
CREATE TABLE device_names (
    name TEXT COLLATE "C" PRIMARY KEY,
    device_id BIGINT NOT NULL
);
INSERT INTO device_names
SELECT 'T' || service_tag, device_id FROM devices WHERE service_tag IS NOT NULL
UNION ALL SELECT 'S' || serial_number, device_id FROM devices WHERE serial_number IS NOT NULL
UNION ALL SELECT 'M' || replace(mac, ':', ''), device_id FROM device_macs;

DROP TABLE device_macs;
ALTER TABLE devices DROP CONSTRAINT devices_service_tag_key;
ALTER TABLE devices DROP CONSTRAINT devices_serial_number_key;
ALTER TABLE devices ALTER COLUMN device_id DROP IDENTITY;
CREATE INDEX devices_of_order ON devices (order_number) WHERE order_number IS NOT NULL;

-- The next device's number. Imports take a block of them at once.
CREATE TABLE device_numbers (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    next_id BIGINT NOT NULL
);
INSERT INTO device_numbers SELECT 1, COALESCE(MAX(device_id), 0) + 1 FROM devices;

-- The import under way, if there is one. While it is 'open' nothing of it is seen: neither devices with numbers from
-- `first_id` to before `past_id` nor device_changes. One change to 'done' shows all of it at once. 'dropped' is taken
-- back, 'done' is tidied up, both in small steps by whoever comes along; then the row goes. Who has not said for long
-- that it is alive has died.
CREATE TABLE imports (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    import_id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'dropped', 'done')),
    first_id BIGINT NOT NULL,
    past_id BIGINT NOT NULL,
    alive_until BIGINT NOT NULL
);

-- What devices that were there before become with the import under way.
CREATE TABLE device_changes (
    device_id BIGINT PRIMARY KEY REFERENCES devices (device_id),
    customer TEXT REFERENCES customers (name),
    service_tag TEXT,
    serial_number TEXT,
    mac_addresses TEXT,
    model TEXT,
    order_number TEXT,
    delegate TEXT REFERENCES delegates (name),
    CHECK (customer IS NOT NULL OR delegate IS NULL)
);
CREATE INDEX device_changes_of_customer ON device_changes (customer);
CREATE INDEX device_changes_of_delegate ON device_changes (delegate) WHERE delegate IS NOT NULL;

-- Devices as they count now. Whoever reads devices reads them here.
CREATE VIEW current_devices AS
SELECT d.device_id,
       CASE WHEN c.device_id IS NULL THEN d.customer ELSE c.customer END AS customer,
       COALESCE(c.service_tag, d.service_tag) AS service_tag,
       CASE WHEN c.device_id IS NULL THEN d.serial_number ELSE c.serial_number END AS serial_number,
       CASE WHEN c.device_id IS NULL THEN d.mac_addresses ELSE c.mac_addresses END AS mac_addresses,
       CASE WHEN c.device_id IS NULL THEN d.model ELSE c.model END AS model,
       CASE WHEN c.device_id IS NULL THEN d.order_number ELSE c.order_number END AS order_number,
       CASE WHEN c.device_id IS NULL THEN d.delegate ELSE c.delegate END AS delegate
FROM devices d
LEFT JOIN device_changes c ON c.device_id = d.device_id AND EXISTS (SELECT 1 FROM imports WHERE state = 'done')
WHERE NOT EXISTS (SELECT 1 FROM imports i
                  WHERE i.state <> 'done' AND d.device_id >= i.first_id AND d.device_id < i.past_id);

-- And whose they are: `customer` is what a device's own row says, `owner` whose it is, NULL for what is in stock.
CREATE VIEW registrations AS
SELECT device_id, service_tag, serial_number, mac_addresses, model, order_number, customer,
       CASE WHEN customer IS NULL THEN (SELECT o.customer FROM orders o WHERE o.order_number = d.order_number)
            ELSE customer END AS owner,
       CASE WHEN customer IS NULL THEN (SELECT o.delegate FROM orders o WHERE o.order_number = d.order_number)
            ELSE delegate END AS delegate
FROM current_devices d;

-- Row-level security, see 0001_start. A device is a customer's by its own row or by its order; a change under way
-- is the new owner's. The views see what whoever asks may see, not what their owner may.
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
ALTER TABLE device_names ENABLE ROW LEVEL SECURITY;
ALTER TABLE device_numbers ENABLE ROW LEVEL SECURITY;
ALTER TABLE imports ENABLE ROW LEVEL SECURITY;
ALTER TABLE device_changes ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_customer ON orders FOR SELECT USING (customer = current_setting('delegator.customer', true));
DROP POLICY of_customer ON devices;
CREATE POLICY of_customer ON devices FOR SELECT USING (
    customer = current_setting('delegator.customer', true)
    OR (customer IS NULL AND order_number IN (SELECT order_number FROM orders)));
CREATE POLICY of_customer ON device_names FOR SELECT USING (device_id IN (SELECT device_id FROM devices));
CREATE POLICY of_customer ON device_changes FOR SELECT USING (customer = current_setting('delegator.customer', true));
CREATE POLICY of_customer ON imports FOR SELECT USING (true);
ALTER VIEW current_devices SET (security_invoker = true);
ALTER VIEW registrations SET (security_invoker = true);
