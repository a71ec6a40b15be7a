-- Trainings: what was asked for, how far it is, what came out.

CREATE TABLE experiments (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL UNIQUE,
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE jobs (
    id                text PRIMARY KEY,
    experiment_id     bigint NOT NULL REFERENCES experiments (id),
    state             text NOT NULL DEFAULT 'queued'
                      CHECK (state IN ('queued', 'preparing', 'running', 'succeeded', 'failed', 'cancelled')),
    -- NULL: the built-in trainer
    command           text,
    config            jsonb NOT NULL DEFAULT '{}',
    -- The number of the try that may write; an older try finds another number here and stops.
    attempt           integer NOT NULL DEFAULT 0,
    epochs            integer,
    error             text,
    last_lines        text,
    val_accuracy      double precision,
    heldout_accuracy  double precision,
    -- Keys as bucket/key
    weights           text,
    report            text,
    -- By backend: run id and address
    tracking          jsonb NOT NULL DEFAULT '{}',
    created_at        timestamptz NOT NULL DEFAULT now(),
    started_at        timestamptz,
    finished_at       timestamptz
);

CREATE INDEX jobs_newest ON jobs (created_at DESC);

CREATE TABLE metrics (
    job_id  text NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    epoch   integer NOT NULL,
    name    text NOT NULL,
    value   double precision NOT NULL,
    at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job_id, epoch, name)
);
