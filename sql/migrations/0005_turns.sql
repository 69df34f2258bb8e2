-- Encodes are claimed by turns: each chunk of a user's films stands behind the one before it by the time that one
-- may take, so that who has one short film does not wait for who has many long ones.
ALTER TABLE jobs ADD COLUMN turn_at BIGINT NOT NULL DEFAULT 0;
UPDATE jobs SET turn_at = run_at;
CREATE INDEX jobs_in_turn ON jobs (state, kind, turn_at, id) WHERE state = 'queued' AND kind = 'encode';
