"""The server process: its loop, workers and connections, on Hypercorn and quart-trio."""
