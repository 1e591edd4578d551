"""Strangers' bytes are decoded in processes of their own that can do nothing else."""
