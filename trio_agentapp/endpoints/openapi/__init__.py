"""The OpenAPI document of an app, and the page that shows it.

`bodies` has the classes that the built-in routes take and return, and `components` has the schemas of these and of
events. `routes` and `protocol_routes` are the tables of the built-in routes, made with the parts in `operations`.
`schemas` makes the schemas of types that users annotate. `document` joins all of them for the routes that an app
has mounted, and `page` serves the document and its page.
"""

from .page import docs_page, openapi_json

__all__ = ["docs_page", "openapi_json"]
