"""What we claim, as commands that print JSON."""
