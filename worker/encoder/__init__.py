"""Bytes to pixels to unit vectors. The only room that imports torch and open_clip."""
