"""The process: its server loop, workers and connections, on Hypercorn and quart-trio."""
