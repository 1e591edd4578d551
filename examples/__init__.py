"""Recipes for a backend: copy one, with answers.py, and make it yours. The tests run them as they are."""
