"""Words and laws: values, ports, vectors, distances. Standard library and numpy, no I/O."""
