-- Trainings that wait in the queue of a cluster: their states there, and what they wait for.

ALTER TABLE jobs DROP CONSTRAINT jobs_state_check;
ALTER TABLE jobs ADD CONSTRAINT jobs_state_check CHECK (
    state IN ('queued', 'preparing', 'admitted', 'running', 'preempted', 'succeeded', 'failed', 'cancelled')
);
ALTER TABLE jobs ADD COLUMN note text;
