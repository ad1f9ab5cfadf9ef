"""Every metric of the worker, in one list. All names start with `callmood_`; labels have few values.

Several processes write them. prometheus_client's multiprocess mode adds them up: its files are in the folder
PROMETHEUS_MULTIPROC_DIR, which the supervisor sets before it starts the other processes.
"""

from prometheus_client import Counter, Gauge, Histogram

from callmood.schemas.common import DeadLetterReason

_LATENCY_S = (0.05, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30)

RECORDS = Counter("callmood_records", "Records of the audio topic that the worker has read.", ["topic"])
RECORD_BYTES = Counter(
    "callmood_record_bytes", "Size of the values of the records that the worker has read, in bytes.", ["topic"]
)
RECORDS_SKIPPED = Counter(
    "callmood_records_skipped",
    "Records that the worker ignored: duplicates, late records of ended calls, and records of calls that it gave up.",
    ["reason"],
)
RECORDS_LOST = Counter(
    "callmood_records_lost",
    "Records that Kafka deleted before the worker read them, or that the Kafka client cannot parse.",
)
DEAD_LETTERS = Counter(
    "callmood_dead_letter_records", "Records that the worker wrote to the dead-letter topic, by reason.", ["reason"]
)
DEAD_LETTERS.labels(DeadLetterReason.WORKER_ERROR.value)  # an alert sees no increase in a series that begins at 1
UTTERANCES = Counter(
    "callmood_utterances",
    "Utterances committed, by role and label; without a label, by the reason instead.",
    ["role", "label"],
)
DOUBTFUL_FORMAT = Counter(
    "callmood_doubtful_format",
    "Utterances that look as if the producer had declared a wrong encoding, by the likely encoding.",
    ["looks_like"],
)
ALERTS = Counter("callmood_alerts", "Alerts committed, by rule.", ["rule"])
CALLS_ENDED = Counter(
    "callmood_calls_ended", "Calls that ended, by reason: `end`, `idle`, `no_audio` or `given_up`.", ["reason"]
)
SPLIT_CALLS = Counter("callmood_split_calls", "Calls whose id appeared on two partitions of this worker.")
REBALANCES = Counter(
    "callmood_rebalances", "Rebalances of the consumer group that changed the partitions of an ingest process."
)
COMMITS = Counter("callmood_commits", "Commits: one per partition and atomic step.")
STORE_ERRORS = Counter(
    "callmood_store_errors",
    "Commits and restores that failed because Redis or Kafka was not available; the worker repeats them.",
)
STORE_LOST = Counter(
    "callmood_store_lost",
    "Keys of live calls that Redis has deleted: states (by partition), utterances and aggregates (by call); and stored "
    "states that cannot be read (by call).",
)
LATENCY = Histogram(
    "callmood_latency_seconds", "Time from the capture of an utterance's last sample to its commit.", buckets=_LATENCY_S
)
COMMIT_SECONDS = Histogram(
    "callmood_commit_seconds",
    "Duration of one round of commits, all partitions of an ingest process together.",
    buckets=_LATENCY_S,
)
VAD_FALLBACKS = Counter(
    "callmood_vad_restarts",
    "Channels that continued with a new voice detector, because another version of it wrote the stored state.",
)

LIVE_CALLS = Gauge(
    "callmood_live_calls", "Calls that have not ended, or whose end is not committed yet.", multiprocess_mode="livesum"
)
PARTITIONS = Gauge(
    "callmood_partitions",
    "Partitions of the audio topic that are assigned to this worker.",
    multiprocess_mode="livesum",
)
IN_FLIGHT = Gauge(
    "callmood_in_flight_utterances", "Utterances sent to the model and not answered yet.", multiprocess_mode="livesum"
)
PAUSED = Gauge(
    "callmood_paused",
    "1 while an ingest process has paused reading, because too many utterances are in flight, records of a backlog "
    "wait until the end of a call is stored, or the store is not available.",
    multiprocess_mode="livemax",
)
OPEN_RECORDS = Gauge(
    "callmood_watermark_lag_records",
    "Records that a new owner of a partition would have to read again; the largest number of any partition.",
    multiprocess_mode="livemax",
)
AUDIO_AGE = Gauge(
    "callmood_oldest_unprocessed_audio_seconds",
    "Age of the oldest audio that the worker has read and not yet stored as a result or state.",
    multiprocess_mode="livemax",
)
RECORD_LAG = Gauge(
    "callmood_unread_records",
    "Records on the assigned partitions that the worker has not read yet.",
    multiprocess_mode="livesum",
)
HELD_PARTITIONS = Gauge(
    "callmood_held_partitions",
    "Partitions that cannot be read further because a producer has an open transaction there.",
    multiprocess_mode="livesum",
)
PROJECTION_LAG = Gauge(
    "callmood_unprojected_records",
    "With output=both: records on the output topics that are not in Redis yet.",
    multiprocess_mode="livesum",
)
BATCH_PADDING = Gauge(
    "callmood_batch_padding_share",
    "Share of padding in recent batches, 0 to 1; 0 if batches are packed.",
    multiprocess_mode="livemax",
)
RECHECKED = Gauge(
    "callmood_rechecked_share",
    "Share of recent utterances, 0 to 1, that the model computed again in float32 because rounding could have "
    "changed their label.",
    multiprocess_mode="livemax",
)
