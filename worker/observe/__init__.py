"""What is told of this process, and of the service as a whole, to those who watch over it. Knows what is done only by
worker.core.observing. Alone imports prometheus_client and opentelemetry."""
