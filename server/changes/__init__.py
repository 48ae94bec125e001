"""Change feeds: the changes of an account and its answers' events, as one resumable stream."""
