-- What a training was made from: commit and changes, packages, machine. Rows of earlier versions have an empty one.

ALTER TABLE jobs ADD COLUMN record jsonb NOT NULL DEFAULT '{}';
