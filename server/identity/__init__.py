"""Who makes a request: API keys, browser sessions, rate limits, open streams."""
