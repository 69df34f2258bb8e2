-- Uploads that may be interrupted and gone on with. Their bytes are in pieces: attempts of kind `upload`, each with one
-- object, which count once they are committed.
CREATE TABLE uploads (
  id TEXT PRIMARY KEY,
  video_id TEXT NOT NULL REFERENCES videos (id),
  kind TEXT NOT NULL CHECK (kind IN ('whole', 'partial', 'final')),
  state TEXT NOT NULL CHECK (state IN ('open', 'complete', 'terminated', 'expired')),
  -- NULL where the client says it later.
  length_bytes BIGINT CHECK (length_bytes >= 0),
  -- What is durable; it only rises.
  offset_bytes BIGINT NOT NULL CHECK (offset_bytes >= 0),
  -- Headers, as they are told to whoever asks.
  metadata TEXT NOT NULL,
  concat TEXT,
  filename TEXT,
  -- The fence: whoever takes hold of the upload raises it, and every write of a holder carries the value it was held
  -- under.
  token BIGINT NOT NULL CHECK (token >= 0),
  -- asked: somebody else wants it. heard: its holder knows, and is about to let go.
  hold TEXT NOT NULL CHECK (hold IN ('free', 'held', 'asked', 'heard')),
  -- How often the holder has shown since then that it lives.
  signs BIGINT NOT NULL CHECK (signs >= 0),
  expires_at BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  -- When its pieces stopped counting. Those of a complete partial count until a final has them.
  ended_at BIGINT,
  CHECK (offset_bytes <= length_bytes),
  CHECK (hold = 'free' OR state = 'open'),
  CHECK (state <> 'open' OR ended_at IS NULL),
  CHECK (state NOT IN ('terminated', 'expired') OR ended_at IS NOT NULL)
);
CREATE INDEX uploads_video ON uploads (video_id);
CREATE INDEX uploads_expiry ON uploads (expires_at) WHERE ended_at IS NULL;
CREATE INDEX uploads_full ON uploads (expires_at) WHERE state = 'open' AND offset_bytes = length_bytes;
CREATE INDEX uploads_ended ON uploads (ended_at) WHERE ended_at IS NOT NULL;

-- Of a piece; `token` is then that of the upload. As with jobs, the row referred to may go first.
ALTER TABLE attempts ADD COLUMN upload_id TEXT;
-- Its place among the pieces that count.
ALTER TABLE attempts ADD COLUMN piece_number BIGINT;
CREATE INDEX attempts_upload ON attempts (upload_id, piece_number) WHERE upload_id IS NOT NULL;
