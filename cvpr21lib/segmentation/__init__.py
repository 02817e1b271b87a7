"""Semantic segmentation: what the chapters on it share."""
