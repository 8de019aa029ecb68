"""What a training read, and what a test shares with it."""
