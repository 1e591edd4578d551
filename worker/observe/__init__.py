"""What is told of this process to those who watch over it. Knows what is done only by worker.core.observing."""
