"""The site file, and what the cluster says of itself."""
