-- The databases beside `platform`. Can be run again: what is there stays as it is.
-- Temporal's own two are made here as well, so that its first start finds them.
SELECT format('CREATE DATABASE %I', name)
FROM unnest(ARRAY['users', 'labeler', 'temporal', 'temporal_visibility']) AS name
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = name)
\gexec
