"""Vectors to neighbours: generations on disk and the live index. The only room that imports faiss."""
