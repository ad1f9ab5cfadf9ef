"""Whatever arrives whenever: the batcher keeps its promises."""

from hypothesis import given
from hypothesis import strategies as st

from callmood.worker.engine.batch import MAX_PADDING, Batcher

BUDGET_S = 30.0
WAIT_S = 0.02

ARRIVALS = st.lists(
    st.tuples(
        st.floats(0.0, 0.05),  # time since the one before
        st.floats(0.025, 40.0),  # length
        st.booleans(),  # whether the engine asks after it
    ),
    max_size=80,
)


def run(arrivals):
    """Play arrivals; gives lengths and arrival times by key, and (time, batch) for each batch until nothing waits."""
    batcher = Batcher(batch_seconds=BUDGET_S, max_wait_s=WAIT_S)
    lengths_s, arrived_s, batches = {}, {}, []
    now_s = 0.0
    for key, (pause_s, length_s, asks) in enumerate(arrivals):
        now_s += pause_s
        lengths_s[key], arrived_s[key] = length_s, now_s
        batcher.add(key, length_s, now_s)
        if asks:
            batches.append((now_s, batcher.due(now_s)))
    while (due_s := batcher.due_s()) is not None:
        now_s = max(now_s, due_s)
        batches.append((now_s, batcher.due(now_s)))
    return lengths_s, arrived_s, batches


@given(ARRIVALS)
def test_every_utterance_is_in_exactly_one_batch(arrivals):
    """Nothing is lost, and nothing is there twice."""
    lengths_s, _, batches = run(arrivals)
    taken = [key for _, batch in batches if batch for key in batch]
    assert sorted(taken) == sorted(lengths_s)


@given(ARRIVALS)
def test_batches_keep_to_the_budget_and_to_similar_lengths(arrivals):
    """Padded seconds stay within the budget, and padding within its share, unless an utterance is alone."""
    lengths_s, _, batches = run(arrivals)
    for batch in (batch for _, batch in batches if batch and len(batch) > 1):
        in_batch_s = [lengths_s[key] for key in batch]
        padded_s = max(in_batch_s) * len(batch)
        assert padded_s <= BUDGET_S
        assert padded_s - sum(in_batch_s) <= MAX_PADDING * padded_s + 1e-9
        assert in_batch_s == sorted(in_batch_s)


@given(ARRIVALS)
def test_nobody_waits_for_company_beyond_the_deadline(arrivals):
    """An engine that asks gets a batch if anyone has waited long enough, and the longest waiting is in it."""
    _, arrived_s, batches = run(arrivals)
    waiting = dict(arrived_s)
    for now_s, batch in batches:
        present = [key for key in waiting if arrived_s[key] <= now_s]
        oldest = min(present)
        if batch is None:
            assert now_s - arrived_s[oldest] < WAIT_S
        else:
            assert oldest in batch
            for key in batch:
                del waiting[key]


@given(ARRIVALS)
def test_when_it_says_it_is_due_it_is(arrivals):
    """`due_s` and `due` agree: the loop that sleeps until then gets a batch."""
    _, _, batches = run([(pause_s, length_s, False) for pause_s, length_s, _ in arrivals])
    assert all(batch for _, batch in batches)
