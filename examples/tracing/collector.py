"""Prints the spans that it receives: a collector for OTLP over HTTP, to see what a real one gets.

python examples/tracing/collector.py        listens on 127.0.0.1:4318; PORT sets another port
"""

import os
import sys
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

MAX_BODY = 16 * 1024 * 1024
"""Bytes of one batch of spans."""


def value_of(value):
    kind = value.WhichOneof("value")
    return None if kind is None else getattr(value, kind)


def line_of(service, span):
    """Return one line for a span: its trace, its own id and that of its parent, name, duration and attributes."""
    milliseconds = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6
    parent = span.parent_span_id.hex() or "-" * 16
    facts = [f"{each.key}={value_of(each.value)}" for each in span.attributes]
    facts += [f"link={link.span_id.hex()}" for link in span.links]
    if span.status.code == span.status.STATUS_CODE_ERROR:
        facts.append(f"failed={span.status.message}")
    ids = f"{span.trace_id.hex()} {span.span_id.hex()} {parent}"
    return f"{ids} {service}: {span.name} {milliseconds:.1f} ms {' '.join(facts)}".rstrip()


class Collector(BaseHTTPRequestHandler):
    def do_POST(self):
        size = int(self.headers.get("Content-Length", 0))
        if self.path != "/v1/traces" or not 0 < size <= MAX_BODY:
            self.send_error(404)
            return
        request = ExportTraceServiceRequest.FromString(self.rfile.read(size))
        for resource in request.resource_spans:
            names = {each.key: value_of(each.value) for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    print(line_of(names.get("service.name", "?"), span), flush=True)
        body = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """The spans are the only output."""


if __name__ == "__main__":
    with ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "4318"))), Collector) as server:
        print(f"collects on http://127.0.0.1:{server.server_port}", file=sys.stderr, flush=True)
        with suppress(KeyboardInterrupt):
            server.serve_forever()
