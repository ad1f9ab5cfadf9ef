-- History of callmood in PostgreSQL 12 or newer: call/1 and utterance/1 as jsonb, each once, without erased calls. Copy JSON lines into
-- `received`, then call `load`; see docs/history.md. This file may be run again. A test loads valid examples.
CREATE SCHEMA IF NOT EXISTS callmood;
CREATE TABLE IF NOT EXISTS callmood.received (line text NOT NULL);
CREATE TABLE IF NOT EXISTS callmood.calls (call_id text PRIMARY KEY, version bigint NOT NULL, record jsonb NOT NULL);
CREATE TABLE IF NOT EXISTS callmood.utterances (call_id text, number bigint, record jsonb NOT NULL, PRIMARY KEY (call_id, number));
CREATE TABLE IF NOT EXISTS callmood.erasures (call_id text PRIMARY KEY);

-- jsonb has no NUL: it becomes U+FFFD, as long as its backslash is not escaped itself.
CREATE OR REPLACE FUNCTION callmood.records(wanted text) RETURNS SETOF jsonb LANGUAGE sql AS $$
  SELECT record
  FROM callmood.received, LATERAL (SELECT regexp_replace(line, '(?<!\\)((?:\\\\)*)\\u0000', '\1\\ufffd', 'g')::jsonb) AS read(record)
  WHERE record->>'schema' = wanted
$$;

CREATE OR REPLACE PROCEDURE callmood.load() LANGUAGE sql AS $$
  LOCK TABLE callmood.received IN SHARE ROW EXCLUSIVE MODE;
  INSERT INTO callmood.erasures SELECT DISTINCT r->>'call_id' FROM callmood.records('callmood.erasure/1') AS r ON CONFLICT DO NOTHING;
  INSERT INTO callmood.calls AS known
  SELECT DISTINCT ON (1) r->>'call_id', (r->>'version')::bigint, r FROM callmood.records('callmood.call/1') AS r ORDER BY 1, 2 DESC
  ON CONFLICT (call_id) DO UPDATE SET version = excluded.version, record = excluded.record WHERE excluded.version >= known.version;
  INSERT INTO callmood.utterances
  SELECT DISTINCT ON (1, 2) r->>'call_id', (r->>'number')::bigint, r FROM callmood.records('callmood.utterance/1') AS r
  ON CONFLICT (call_id, number) DO UPDATE SET record = excluded.record;
  DELETE FROM callmood.calls USING callmood.erasures WHERE calls.call_id = erasures.call_id;
  DELETE FROM callmood.utterances USING callmood.erasures WHERE utterances.call_id = erasures.call_id;
  DELETE FROM callmood.received;
$$;
