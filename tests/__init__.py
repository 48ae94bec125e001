"""Tests: real Valkey, SQL, uvicorn and worker processes; the only stand-in is the model."""
