"""What a study needs around training; nothing else of the package imports it."""
