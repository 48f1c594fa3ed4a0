"""Serves `@app.endpoint` and other routes of the app: binds arguments, makes responses, and describes both."""
