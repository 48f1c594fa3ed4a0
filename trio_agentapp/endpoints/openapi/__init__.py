"""The OpenAPI document of an app, and the page that shows it.

`bodies` has the classes that the built-in routes take and return, `components` the schemas of these and of events,
`routes` and `protocol_routes` the tables of these routes, written with what `operations` has, and `schemas` the
schemas of what users annotate. `document` joins them with the routes that an app has mounted; `page` serves both.
"""

from .page import docs_page, openapi_json

__all__ = ["docs_page", "openapi_json"]
