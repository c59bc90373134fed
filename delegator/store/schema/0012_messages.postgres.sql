-- The outbox takes messages of any event to anybody, see the file for SQLite beside this one. Here the columns of the
-- first two events stay for one release: a delegator of the release before may still be at work on this database.
ALTER TABLE outbox ADD COLUMN message_id TEXT, ADD COLUMN subject TEXT, ADD COLUMN body TEXT,
    ALTER COLUMN claim_id DROP NOT NULL, ALTER COLUMN customer DROP NOT NULL,
    ALTER COLUMN delegator DROP NOT NULL, ALTER COLUMN service_tag DROP NOT NULL;

-- What the release before writes becomes a message, unless it was told already; of what is written as a message, it
-- finds what it reads.
CREATE FUNCTION outbox_of_both_releases() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.body IS NULL THEN
        NEW.message_id := NEW.claim_id || CASE NEW.notice WHEN 'provisioned' THEN '.provisioned.' ELSE
            to_char(to_timestamp(NEW.created_at / 1000) AT TIME ZONE 'UTC', '".contested-"YYYYMMDD"."') END || NEW.kind;
        NEW.subject := NEW.claim_id;
        NEW.body := json_strip_nulls(json_build_object('claimed_address', NEW.claimed_address, 'delegator',
            NEW.delegator, 'identity', NEW.identity, 'peer', NEW.peer, 'service_tag', NEW.service_tag))::TEXT;
        IF TG_OP = 'INSERT' AND EXISTS (SELECT 1 FROM outbox WHERE message_id = NEW.message_id) THEN
            RETURN NULL;
        END IF;
    ELSIF NEW.notice IN ('provisioned', 'second claimant') THEN
        NEW.claim_id := NEW.subject;
        NEW.claimed_address := NEW.body::JSON ->> 'claimed_address';
        NEW.delegator := NEW.body::JSON ->> 'delegator';
        NEW.identity := NEW.body::JSON ->> 'identity';
        NEW.peer := NEW.body::JSON ->> 'peer';
        NEW.service_tag := NEW.body::JSON ->> 'service_tag';
        NEW.day := CASE NEW.notice WHEN 'provisioned' THEN 0 ELSE NEW.created_at / 86400000 END;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER outbox_of_both_releases BEFORE INSERT OR UPDATE OF body ON outbox FOR EACH ROW
    EXECUTE FUNCTION outbox_of_both_releases();
UPDATE outbox SET body = NULL;
ALTER TABLE outbox ALTER COLUMN message_id SET NOT NULL, ALTER COLUMN subject SET NOT NULL,
    ALTER COLUMN body SET NOT NULL, ADD UNIQUE (message_id);
CREATE INDEX outbox_subject ON outbox (subject);
CREATE INDEX outbox_told_lately ON outbox (delegate, kind, created_at) WHERE notice = 'second claimant';
