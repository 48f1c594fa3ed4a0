"""`@app.endpoint` and native routes: arguments in, JSON and event streams out, and their OpenAPI document."""
