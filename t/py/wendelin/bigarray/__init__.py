"""See array_zodb."""
