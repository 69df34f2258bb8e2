-- What a user may have, where it differs from the settings. NULL: as the settings say; 0: any.
ALTER TABLE users ADD COLUMN quota_bytes_max BIGINT;
ALTER TABLE users ADD COLUMN quota_videos_max BIGINT;
ALTER TABLE users ADD COLUMN quota_uploads_max BIGINT;

-- Of an upload in one request: what its head said (NULL: nothing), and what had come when it last moved its lease.
-- The rest is promised to it, as it is to a resumable one by its row in `uploads`.
ALTER TABLE attempts ADD COLUMN length_bytes BIGINT;
ALTER TABLE attempts ADD COLUMN received_bytes BIGINT;

CREATE INDEX videos_author_awaiting ON videos (author_id) WHERE state IN ('awaiting_upload', 'uploading');
CREATE INDEX attempts_receiving ON attempts (lease_until) WHERE state = 'open' AND kind = 'upload' AND upload_id IS NULL;
