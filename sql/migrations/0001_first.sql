-- The schema in the subset that SQLite and PostgreSQL share: ids and JSON are TEXT, instants are BIGINT
-- milliseconds since the epoch, there is no boolean. Words of state are repeated from `domain` as CHECKs.

CREATE TABLE users (
  id TEXT PRIMARY KEY,
  username TEXT NOT NULL UNIQUE,
  email TEXT UNIQUE,
  password_hash TEXT NOT NULL,
  role TEXT NOT NULL CHECK (role IN ('user', 'admin', 'service')),
  display_name TEXT NOT NULL,
  bio TEXT NOT NULL,
  phone TEXT,
  date_of_birth TEXT,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL
);
CREATE INDEX users_role ON users (role);

CREATE TABLE sessions (
  id TEXT PRIMARY KEY,
  user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  created_at BIGINT NOT NULL,
  expires_at BIGINT NOT NULL,
  revoked_at BIGINT
);
CREATE INDEX sessions_user ON sessions (user_id);
CREATE INDEX sessions_expiry ON sessions (expires_at);

-- No reference to users: a video outlives its author until it is purged.
CREATE TABLE videos (
  id TEXT PRIMARY KEY,
  author_id TEXT NOT NULL,
  title TEXT NOT NULL,
  description TEXT NOT NULL,
  -- A JSON array in the author's order; `video_tags` is its index.
  tags TEXT NOT NULL,
  visibility TEXT NOT NULL CHECK (visibility IN ('public', 'unlisted', 'private')),
  state TEXT NOT NULL CHECK (state IN ('awaiting_upload', 'uploading', 'expired', 'uploaded', 'processing',
    'rejected', 'failed', 'playable', 'ready', 'deleted')),
  -- The tombstone. From this instant on the video is gone for everyone; it may lie in the future.
  gone_at BIGINT,
  progress DOUBLE PRECISION NOT NULL CHECK (progress >= 0 AND progress <= 1),
  problem TEXT,
  problem_detail TEXT,
  source_attempt TEXT,
  source_bytes BIGINT,
  source_crc64nvme BIGINT,
  source_sha256 TEXT,
  source_filename TEXT,
  container TEXT,
  video_codec TEXT,
  audio_codec TEXT,
  width BIGINT,
  height BIGINT,
  frame_rate DOUBLE PRECISION,
  duration_s DOUBLE PRECISION,
  warnings TEXT NOT NULL,
  -- The encode plan as JSON, from `ingest` on.
  plan TEXT,
  cover_at_s DOUBLE PRECISION,
  cover_attempt TEXT,
  cover_width_max BIGINT,
  thumbhash TEXT,
  -- The one publication that is live.
  publication_id TEXT,
  published_at BIGINT,
  comments_count BIGINT NOT NULL CHECK (comments_count >= 0),
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  uploaded_at BIGINT,
  CHECK (state NOT IN ('playable', 'ready') OR publication_id IS NOT NULL),
  CHECK (state NOT IN ('uploaded', 'processing', 'playable', 'ready') OR source_attempt IS NOT NULL),
  CHECK (state <> 'rejected' OR problem IS NOT NULL)
);
CREATE INDEX videos_author ON videos (author_id, id);
CREATE INDEX videos_public ON videos (visibility, state, id);
CREATE INDEX videos_awaiting ON videos (created_at) WHERE state IN ('awaiting_upload', 'uploading');

CREATE TABLE video_tags (
  tag TEXT NOT NULL,
  video_id TEXT NOT NULL REFERENCES videos (id),
  PRIMARY KEY (tag, video_id)
);
CREATE INDEX video_tags_video ON video_tags (video_id);

-- Renditions that are planned, so that they can be shown as pending.
CREATE TABLE rungs (
  video_id TEXT NOT NULL REFERENCES videos (id),
  name TEXT NOT NULL CHECK (name IN ('original', 'medium', 'low')),
  position BIGINT NOT NULL,
  width BIGINT NOT NULL,
  height BIGINT NOT NULL,
  PRIMARY KEY (video_id, name)
);

-- One try at writing objects. The row is there before the first byte, so every object is explained.
CREATE TABLE attempts (
  id TEXT PRIMARY KEY,
  video_id TEXT NOT NULL REFERENCES videos (id),
  kind TEXT NOT NULL CHECK (kind IN ('upload', 'job')),
  -- open: may write. committed: its objects count. lost, retired: its objects are to be removed.
  state TEXT NOT NULL CHECK (state IN ('open', 'committed', 'lost', 'retired')),
  job_id TEXT,
  token BIGINT,
  -- Of an upload; a job's attempt lives as long as the job's lease.
  lease_until BIGINT,
  created_at BIGINT NOT NULL,
  -- When it stopped being allowed to write or to be read.
  ended_at BIGINT,
  CHECK (kind <> 'job' OR (job_id IS NOT NULL AND token IS NOT NULL)),
  CHECK (kind <> 'upload' OR lease_until IS NOT NULL),
  CHECK ((state = 'open') = (ended_at IS NULL))
);
CREATE INDEX attempts_video ON attempts (video_id);
CREATE INDEX attempts_job ON attempts (job_id);
CREATE INDEX attempts_open ON attempts (created_at) WHERE state = 'open';
CREATE INDEX attempts_swept ON attempts (ended_at) WHERE state IN ('lost', 'retired');

-- What is durable and committed.
CREATE TABLE objects (
  path TEXT PRIMARY KEY,
  video_id TEXT NOT NULL REFERENCES videos (id),
  attempt_id TEXT NOT NULL REFERENCES attempts (id),
  class TEXT NOT NULL,
  bytes BIGINT NOT NULL CHECK (bytes >= 0),
  crc64nvme BIGINT,
  created_at BIGINT NOT NULL
);
CREATE INDEX objects_video ON objects (video_id, class);
CREATE INDEX objects_attempt ON objects (attempt_id);

-- A publication never changes; a video points at one of its own.
CREATE TABLE publications (
  id TEXT PRIMARY KEY,
  video_id TEXT NOT NULL REFERENCES videos (id),
  source_attempt TEXT NOT NULL,
  created_at BIGINT NOT NULL
);
CREATE INDEX publications_video ON publications (video_id);

CREATE TABLE renditions (
  publication_id TEXT NOT NULL REFERENCES publications (id),
  name TEXT NOT NULL CHECK (name IN ('original', 'medium', 'low')),
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
CREATE INDEX renditions_attempt ON renditions (attempt_id);

CREATE TABLE jobs (
  id TEXT PRIMARY KEY,
  kind TEXT NOT NULL CHECK (kind IN ('ingest', 'encode', 'assemble', 'cover', 'purge')),
  state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'dead', 'cancelled')),
  video_id TEXT NOT NULL REFERENCES videos (id),
  payload TEXT NOT NULL,
  run_at BIGINT NOT NULL,
  -- Raised before a run, so that a file that kills its worker cannot loop.
  attempts BIGINT NOT NULL CHECK (attempts >= 0),
  -- The fence: it only rises, and every write of a run carries the value it was claimed under.
  token BIGINT NOT NULL CHECK (token >= 0),
  worker TEXT,
  -- Stays in a cancelled row: until then its worker may still be writing.
  lease_until BIGINT,
  progress DOUBLE PRECISION NOT NULL CHECK (progress >= 0 AND progress <= 1),
  error TEXT,
  created_at BIGINT NOT NULL,
  started_at BIGINT,
  finished_at BIGINT,
  CHECK (state <> 'running' OR (worker IS NOT NULL AND lease_until IS NOT NULL))
);
CREATE INDEX jobs_queued ON jobs (kind, run_at, id) WHERE state = 'queued';
CREATE INDEX jobs_running ON jobs (kind, lease_until) WHERE state = 'running';
CREATE INDEX jobs_video ON jobs (video_id, kind);
CREATE INDEX jobs_listed ON jobs (state, kind, id);

-- No reference to videos: this row, with its receipt, is all that stays of one.
CREATE TABLE deletions (
  id TEXT PRIMARY KEY,
  video_id TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('scheduled', 'running', 'done', 'cancelled', 'failed')),
  requested_by TEXT NOT NULL,
  due_at BIGINT NOT NULL,
  started_at BIGINT,
  finished_at BIGINT,
  attempts BIGINT NOT NULL,
  objects_deleted BIGINT,
  bytes_freed BIGINT,
  swept_at BIGINT,
  created_at BIGINT NOT NULL,
  CHECK (state <> 'done' OR (objects_deleted IS NOT NULL AND bytes_freed IS NOT NULL AND swept_at IS NOT NULL))
);
CREATE INDEX deletions_state ON deletions (state, id);
CREATE INDEX deletions_video ON deletions (video_id);
-- At most one deletion of a video is under way.
CREATE UNIQUE INDEX deletions_live ON deletions (video_id) WHERE state IN ('scheduled', 'running', 'failed');

CREATE TABLE comments (
  id TEXT PRIMARY KEY,
  video_id TEXT NOT NULL REFERENCES videos (id),
  author_id TEXT NOT NULL REFERENCES users (id),
  content TEXT NOT NULL,
  created_at BIGINT NOT NULL
);
CREATE INDEX comments_video ON comments (video_id, id);
CREATE INDEX comments_author ON comments (author_id);
