"""Text: vocabularies, files of it as ids, and what a model writes."""
