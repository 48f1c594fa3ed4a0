"""Computes the signatures of requests from the published rules, to compare them with those that the SDKs send.

Rules: "Request structure and signature" of Alibaba Cloud's OpenAPI (ACS3-HMAC-SHA256), and "Signature version 4"
of OSS.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, urlsplit


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def fields(authorization: str) -> dict[str, str]:
    """`Credential`, `SignedHeaders` and `Signature`."""
    return dict(part.split("=", 1) for part in authorization.partition(" ")[2].replace(", ", ",").split(","))


def acs3(method: str, path: str, headers: Mapping[str, str], body: bytes, secret: str) -> str:
    names = fields(headers["authorization"])["SignedHeaders"]
    canonical = "".join(f"{name}:{headers[name].strip()}\n" for name in names.split(";"))
    pairs = sorted(parse_qsl(urlsplit(path).query, keep_blank_values=True))
    query = "&".join(f"{quote(k, safe='-_.~')}={quote(v, safe='-_.~')}" for k, v in pairs)
    request = "\n".join([method, urlsplit(path).path, query, canonical, names, sha256(body)])
    return _hmac(secret.encode(), f"ACS3-HMAC-SHA256\n{sha256(request.encode())}").hex()


def oss4(method: str, path: str, headers: Mapping[str, str], secret: str) -> str:
    signed = sorted(
        name for name in headers if name in ("content-type", "content-md5") or name.startswith("x-oss-")
    )
    canonical = "".join(f"{name}:{headers[name].strip()}\n" for name in signed)
    pairs = sorted(parse_qsl(urlsplit(path).query, keep_blank_values=True))
    query = "&".join(quote(k, safe="-_.~") + (f"={quote(v, safe='-_.~')}" if v else "") for k, v in pairs)
    payload = headers["x-oss-content-sha256"]
    request = "\n".join([method, urlsplit(path).path, query, canonical, "", payload])
    _, scope = fields(headers["authorization"])["Credential"].split("/", 1)
    text = f"OSS4-HMAC-SHA256\n{headers['x-oss-date']}\n{scope}\n{sha256(request.encode())}"
    key = f"aliyun_v4{secret}".encode()
    for part in scope.split("/"):
        key = _hmac(key, part)
    return _hmac(key, text).hex()


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()
