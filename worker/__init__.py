"""The worker: call audio in, one emotion per utterance and one live aggregate per call out.

The stages, in the order of the data: `consume` reads Kafka records; `decode` turns them into chunks; `order` puts a
stream's chunks in sequence; `segment` cuts each channel into utterances; `submit` sends them to the inference process;
`aggregate` folds its answers into the call, and `alert` evaluates the rules; `publish_redis` and `publish_kafka` commit
results, call states and the watermark of `ledger` in one atomic step. No stage imports another: `stream` and `call`
compose them for one call, `partition` for one partition; `ingest` runs the loop, `supervise` the processes.
"""
