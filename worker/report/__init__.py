"""An exam as one HTML page that needs nothing else: no network, no script, pictures and plots within it."""
