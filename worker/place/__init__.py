"""From neighbours to an answer, or to an honest no."""
