-- Since when a job has been waiting for what it needs: a disturbance does not count as an attempt, so it is
-- bounded by time.
ALTER TABLE jobs ADD COLUMN postponed_since BIGINT;
