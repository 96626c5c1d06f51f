"""What happens on the login node before the queue."""
