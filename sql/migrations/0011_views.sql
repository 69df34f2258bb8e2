-- How often a video was watched, and the bytes of film that took. A table of its own: it is written every few seconds,
-- and the row of a video is long.
CREATE TABLE watching (
  video_id TEXT PRIMARY KEY REFERENCES videos (id),
  views_count BIGINT NOT NULL,
  served_bytes BIGINT NOT NULL
);

-- Who was counted lately, as a keyed hash; kept while they are not counted again.
CREATE TABLE views (
  video_id TEXT NOT NULL REFERENCES videos (id),
  viewer TEXT NOT NULL,
  counted_at BIGINT NOT NULL,
  PRIMARY KEY (video_id, viewer)
);
CREATE INDEX views_age ON views (counted_at);
