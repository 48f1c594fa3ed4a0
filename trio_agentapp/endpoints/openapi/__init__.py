"""The OpenAPI document of an app, and the page that shows it.

`models` and `routes` describe what is built in, by hand, as WIRE has it; `schemas` reads what users annotate;
`document` puts together what an app really serves; `page` shows it in a browser, without the network.
"""

from .document import document_of
from .page import docs_page, openapi_json
from .schemas import Schemas

__all__ = ["Schemas", "docs_page", "document_of", "openapi_json"]
