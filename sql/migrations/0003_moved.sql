-- At most one row: where the rows of this database have been carried to. Since then nothing is written here.
CREATE TABLE moved (
  place TEXT NOT NULL,
  at BIGINT NOT NULL
);
