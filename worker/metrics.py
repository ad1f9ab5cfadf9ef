"""Every metric of the worker, in one list. All names start with `callmood_`; labels are few and bounded.

Several processes write them: prometheus_client's multiprocess mode (files under PROMETHEUS_MULTIPROC_DIR, set by the
supervisor before it starts the others) adds them up.
"""

from prometheus_client import Counter, Gauge, Histogram

_LATENCY_S = (0.05, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30)

RECORDS = Counter("callmood_records", "Kafka records read.", ["topic"])
RECORD_BYTES = Counter("callmood_record_bytes", "Bytes of record values read.", ["topic"])
RECORDS_SKIPPED = Counter(
    "callmood_records_skipped",
    "Records ignored, by reason: duplicates, late records of ended calls.",
    ["why"],
)
RECORDS_LOST = Counter(
    "callmood_records_lost", "Records that were deleted before they were read, or that the Kafka client cannot parse."
)
DEAD_LETTERS = Counter("callmood_dead_letters", "Records sent to the dead-letter topic, by reason code.", ["reason"])
UTTERANCES = Counter(
    "callmood_utterances",
    "Utterances committed, by role and by label, or by the reason for having none.",
    ["role", "label"],
)
ALERTS = Counter("callmood_alerts", "Alerts committed, by rule.", ["rule"])
CALLS_ENDED = Counter("callmood_calls_ended", "Calls that ended, by reason.", ["reason"])
SPLIT_CALLS = Counter("callmood_split_calls", "Calls whose id is on two partitions of this worker.")
REBALANCES = Counter("callmood_rebalances", "Rebalances that changed this worker's partitions.")
COMMITS = Counter("callmood_commits", "Atomic commits, one per partition.")
STORE_ERRORS = Counter(
    "callmood_store_errors", "Commits and restores that failed because the store was not available; they are retried."
)
STORE_LOST = Counter(
    "callmood_store_lost",
    "Keys of live calls that Redis has deleted: states (by partition), utterances and aggregates (by call).",
)
LATENCY = Histogram(
    "callmood_latency_seconds", "Time from the capture of an utterance's last sample to its commit.", buckets=_LATENCY_S
)
COMMIT_SECONDS = Histogram(
    "callmood_commit_seconds", "Duration of one commit, all partitions of the process together.", buckets=_LATENCY_S
)
VAD_FALLBACKS = Counter(
    "callmood_vad_restarts",
    "Channels that resumed with a fresh VAD because their stored VAD state came from another build.",
)

LIVE_CALLS = Gauge("callmood_live_calls", "Calls that have not ended.", multiprocess_mode="livesum")
PARTITIONS = Gauge("callmood_partitions", "Partitions assigned.", multiprocess_mode="livesum")
IN_FLIGHT = Gauge(
    "callmood_in_flight_utterances", "Utterances sent to the model and not yet answered.", multiprocess_mode="livesum"
)
PAUSED = Gauge(
    "callmood_paused",
    "1 while reading is paused because the model or the store is slow.",
    multiprocess_mode="livemax",
)
OPEN_RECORDS = Gauge(
    "callmood_watermark_lag_records",
    "Records read that a new owner would have to read again.",
    multiprocess_mode="livemax",
)
AUDIO_AGE = Gauge(
    "callmood_oldest_unprocessed_audio_seconds",
    "Age of the oldest audio that was read and is not yet in a stored result or state.",
    multiprocess_mode="livemax",
)
RECORD_LAG = Gauge(
    "callmood_unread_records", "Records on the assigned partitions that are not read yet.", multiprocess_mode="livesum"
)
HELD_PARTITIONS = Gauge(
    "callmood_held_partitions",
    "Partitions that an open transaction of a producer holds back.",
    multiprocess_mode="livesum",
)
PROJECTION_LAG = Gauge(
    "callmood_unprojected_records",
    "Records on the output topics that are not yet in Redis.",
    multiprocess_mode="livesum",
)
BATCH_PADDING = Gauge(
    "callmood_batch_padding_share",
    "Share of padding in recent batches; 0 if batches are packed.",
    multiprocess_mode="livemax",
)
RECHECKED = Gauge(
    "callmood_rechecked_share",
    "Share of recent utterances computed again in float32 because rounding might have decided their label.",
    multiprocess_mode="livemax",
)
