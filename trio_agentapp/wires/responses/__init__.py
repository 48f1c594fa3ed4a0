"""OpenAI's Responses API over the runs of an app."""
