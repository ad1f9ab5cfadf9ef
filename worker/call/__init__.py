"""One call: groups of utterances, the fold into its aggregate, its scores and alerts."""
