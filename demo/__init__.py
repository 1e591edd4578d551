"""What the demo shows: sample photos, drawn by us."""
