"""Pre-training of encoders on speech without labels: HuBERT's masked prediction of clusters (arXiv 2106.07447)."""
