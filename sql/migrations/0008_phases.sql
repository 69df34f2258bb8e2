-- Where nothing can be watched before rungs are encoded, one of them is made first. Of other films, and of those that
-- were planned before, all is `last`.
ALTER TABLE jobs ADD COLUMN phase TEXT NOT NULL DEFAULT 'last';
ALTER TABLE rungs ADD COLUMN phase TEXT NOT NULL DEFAULT 'last';
