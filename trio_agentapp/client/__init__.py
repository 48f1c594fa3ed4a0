"""A client for Trio programs. It loads no web server. Read it in this order:

agent_client          what users call             event_stream          one run's events, over several connections
http_api              single HTTP requests        run_opener            starts a run at most once, or attaches
nodes                 the base URLs               retries               how often and how long to try again
subscription          buffer of one run's events  transport             contract of the two transports:
sse_transport         by HTTP                     websocket_transport   by WebSocket
sse_parser            bytes to events             websocket_connection  one socket and its runs
request_body          JSON of requests            websocket_connector   opens sockets
responses             answers and problems        failures              failed connections
"""

from .agent_client import AgentClient
from .event_stream import EventStream
from .retries import Retries

__all__ = ["AgentClient", "EventStream", "Retries"]
