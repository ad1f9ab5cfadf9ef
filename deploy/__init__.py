"""Deployment: the local servers, the image, and the generators of pages and of the chart's schema."""
