"""What sends bytes: listening, the HTTP and WebSocket protocols, bodies, streams, slow readers."""
