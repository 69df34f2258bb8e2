-- Rungs are settings and have more names than three, so the tables no longer list them: SQLite can take a rule from a
-- table only by making the table anew.
CREATE TABLE rungs_anew (
  video_id TEXT NOT NULL REFERENCES videos (id),
  name TEXT NOT NULL,
  position BIGINT NOT NULL,
  width BIGINT NOT NULL,
  height BIGINT NOT NULL,
  PRIMARY KEY (video_id, name)
);
INSERT INTO rungs_anew (video_id, name, position, width, height)
  SELECT video_id, name, position, width, height FROM rungs;
DROP TABLE rungs;
ALTER TABLE rungs_anew RENAME TO rungs;

CREATE TABLE renditions_anew (
  publication_id TEXT NOT NULL REFERENCES publications (id),
  name TEXT NOT NULL,
  attempt_id TEXT NOT NULL REFERENCES attempts (id),
  width BIGINT NOT NULL,
  height BIGINT NOT NULL,
  frame_rate DOUBLE PRECISION NOT NULL,
  frames BIGINT NOT NULL,
  duration_s DOUBLE PRECISION NOT NULL,
  size_bytes BIGINT NOT NULL,
  bitrate_bps BIGINT NOT NULL,
  codecs TEXT NOT NULL,
  engine TEXT NOT NULL,
  PRIMARY KEY (publication_id, name)
);
INSERT INTO renditions_anew (publication_id, name, attempt_id, width, height, frame_rate, frames, duration_s,
                             size_bytes, bitrate_bps, codecs, engine)
  SELECT publication_id, name, attempt_id, width, height, frame_rate, frames, duration_s,
         size_bytes, bitrate_bps, codecs, engine FROM renditions;
DROP TABLE renditions;
ALTER TABLE renditions_anew RENAME TO renditions;
CREATE INDEX renditions_attempt ON renditions (attempt_id);
