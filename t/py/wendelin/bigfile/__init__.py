"""See file_zodb."""
