"""What an author has on disk: the files that travel, the bundle, .env."""
