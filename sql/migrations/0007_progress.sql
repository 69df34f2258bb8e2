-- How long a job is likely to take, in seconds, as guessed when it was queued: the progress of a film weighs it by that.
ALTER TABLE jobs ADD COLUMN estimate_s DOUBLE PRECISION NOT NULL DEFAULT 1.0;
-- Whoever ran it to its last end. What failed there is left to others for a while.
ALTER TABLE jobs ADD COLUMN last_worker TEXT;
-- How far a planned rendition is, 0 to 1. It only rises.
ALTER TABLE rungs ADD COLUMN progress DOUBLE PRECISION NOT NULL DEFAULT 0.0;
