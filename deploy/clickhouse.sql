-- History of callmood in ClickHouse. Load call/1, utterance/1 and erasure/1 as JSONEachRow into the three tables `received_...`; read the
-- views `calls` and `utterances`: each record once, without the calls that are erased, also if one of their records arrives later.
-- To delete the rows of erased calls, run the two statements of docs/history.md every day. A test loads valid examples.
-- This file may be run again, also that of a later version: it keeps the tables and replaces the views.
-- Unknown fields: input_format_skip_unknown_fields = 1, input_format_json_ignore_unknown_keys_in_named_tuple = 1;
-- null and missing ones: input_format_null_as_default = 1, input_format_json_defaults_for_missing_elements_in_named_tuple = 1.
CREATE DATABASE IF NOT EXISTS callmood;

CREATE TABLE IF NOT EXISTS callmood.received_utterances
(
  call_id String, number UInt32, role LowCardinality(String), channel UInt8, stream String, start_ms UInt64, end_ms UInt64,
  spoken_at_ms Nullable(Int64), attributes Map(LowCardinality(String), String), kind LowCardinality(String) DEFAULT 'speech',
  echo Bool, background Bool,
  emotion Tuple(label LowCardinality(Nullable(String)),
                probabilities Tuple(anger Nullable(Float32), happiness Nullable(Float32), neutral Nullable(Float32), sadness Nullable(Float32)),
                abstained Bool, reason LowCardinality(Nullable(String))),
  withheld LowCardinality(Nullable(String)),
  acoustics Tuple(rms_dbfs Float32, snr_db Float32, clipping Float32, bandwidth_hz UInt32),
  quality Tuple(missing_ms UInt32, overlap_ms UInt32, cut LowCardinality(String), looks_like LowCardinality(Nullable(String))),
  model Tuple(id LowCardinality(String), version LowCardinality(String), digest LowCardinality(String)),
  latency_ms Tuple(total Nullable(Float32)),
  committed_at DateTime64(3) DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree PARTITION BY toYYYYMM(committed_at) ORDER BY (call_id, number)
TTL toDateTime(committed_at) + INTERVAL 25 MONTH;

CREATE TABLE IF NOT EXISTS callmood.received_calls
(
  call_id String, version UInt32, status LowCardinality(String), end_reason LowCardinality(Nullable(String)),
  started_at_ms Int64, updated_at_ms Int64, duration_ms UInt64, utterances UInt32, doubtful_format UInt32,
  missing_ms UInt64, redacted_ms UInt64, talk_ms UInt64, non_talk_ms UInt64, longest_silence_ms UInt64, overlap_ms UInt64, hold_ms UInt64,
  silences Tuple(threshold_ms UInt32, count UInt32, total_ms UInt64, longest_ms UInt64),
  overlaps Tuple(threshold_ms UInt32, count UInt32, total_ms UInt64, longest_ms UInt64),
  roles Map(LowCardinality(String), Tuple(utterances UInt32, talk_ms UInt64, talk_share Float32,
    loudness Tuple(mean_dbfs Nullable(Float32), max_dbfs Nullable(Float32)), interruptions Tuple(count UInt32, total_ms UInt64),
    emotion Tuple(utterances UInt32, abstained UInt32,
      counts Tuple(anger UInt32, happiness UInt32, neutral UInt32, sadness UInt32),
      durations_ms Tuple(anger UInt64, happiness UInt64, neutral UInt64, sadness UInt64),
      quarter_scores Tuple(q1 Nullable(Float32), q2 Nullable(Float32), q3 Nullable(Float32), q4 Nullable(Float32)),
      overall_score Nullable(Float32), trend Tuple(direction LowCardinality(Nullable(String)), slope_per_min Nullable(Float32))))),
  attributes Map(LowCardinality(String), String), notice LowCardinality(Nullable(String)),
  model Tuple(id LowCardinality(String), version LowCardinality(String), digest LowCardinality(String)),
  risk Nullable(Float32), need LowCardinality(Nullable(String)),
  signs Array(Tuple(name LowCardinality(String), role LowCardinality(Nullable(String)), value Float32, text String)),
  alerts Array(Tuple(alert_id String, rule LowCardinality(String), severity LowCardinality(String), state LowCardinality(String),
    since_ms UInt64, raised_ms UInt64, over_ms Nullable(UInt64))),
  spans Array(Tuple(kind LowCardinality(String), start_ms UInt64, end_ms UInt64)),
  committed_at DateTime64(3) DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(version) PARTITION BY toYYYYMM(committed_at) ORDER BY call_id
TTL toDateTime(committed_at) + INTERVAL 25 MONTH;

CREATE TABLE IF NOT EXISTS callmood.received_erasures
(
  call_id String, erasure_id String, erased_at_ms Int64,
  committed_at DateTime64(3) DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree PARTITION BY tuple() ORDER BY erasure_id
TTL toDateTime(committed_at) + INTERVAL 25 MONTH;

CREATE OR REPLACE VIEW callmood.utterances AS
SELECT * FROM callmood.received_utterances FINAL WHERE call_id NOT IN (SELECT call_id FROM callmood.received_erasures);

CREATE OR REPLACE VIEW callmood.calls AS
SELECT * FROM callmood.received_calls FINAL WHERE call_id NOT IN (SELECT call_id FROM callmood.received_erasures);

-- Trends by hour and queue. A change of the model starts a row of its own: figures of two models do not compare.
CREATE OR REPLACE VIEW callmood.hourly AS
SELECT toStartOfHour(fromUnixTimestamp64Milli(assumeNotNull(spoken_at_ms))) AS hour, attributes['queue'] AS queue, model.digest AS digest,
       count() AS utterances, countIf(emotion.abstained) AS uncertain,
       countIf(emotion.label = 'anger' AND NOT emotion.abstained) AS angry,
       countIf(emotion.label = 'sadness' AND NOT emotion.abstained) AS sad
FROM callmood.utterances
WHERE role = 'customer' AND kind = 'speech' AND spoken_at_ms IS NOT NULL
GROUP BY hour, queue, digest;
