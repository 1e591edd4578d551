"""Sightline, the service: workers that hold a model and an index, and the commands around them."""
