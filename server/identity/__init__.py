"""Who is asking: keys, browser sessions, rate limits, and whether they still may."""
