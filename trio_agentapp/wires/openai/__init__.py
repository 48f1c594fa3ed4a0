"""What the two protocols of OpenAI's clients share: errors, fields of requests, usage, and the turns of a run."""
