"""The worker: call audio in, one emotion per utterance and one live aggregate per call out.

The stages, in the order of the data: `consume` reads Kafka records; `decode` makes chunks of them; `order` puts a
stream's chunks in sequence; `segment` cuts each channel into utterances; `submit` asks the inference process (`batch`,
`infer`, `model`) what they sound like; `aggregate` folds the answers into the call and `alert` watches it; `publish`
commits results, call states and the watermark of `ledger` in one atomic step. No stage knows another: `stream` and
`calls` compose them for one call, `partition` for one partition, `ingest` runs the loop, `supervise` the processes.
"""
