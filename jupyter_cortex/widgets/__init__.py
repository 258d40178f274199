"""What a notebook shows: pages (HTML, beside the same as text) and live widgets."""
