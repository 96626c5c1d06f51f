"""A run as one HTML page that opens offline: read from its directory alone, without torch."""
