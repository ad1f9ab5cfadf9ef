"""Encoders and heads as training needs them: front ends, adapters, freezing."""
