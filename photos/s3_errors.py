"""What the clients of S3 raise: the server's code in it, and what to do about it."""

from __future__ import annotations

import re
from xml.etree.ElementTree import ParseError

import urllib3
from minio.error import MinioException, S3Error
from obstore.exceptions import BaseError

from photos.s3_client import Called

FAILURES = (MinioException, urllib3.exceptions.HTTPError, BaseError, OSError, ValueError, ParseError)
REFUSED = frozenset({"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"})
_CODE = re.compile(r"<Code>(\w{1,100})</Code>")


def answer_of(error: Exception) -> str:
    """The code that the server answered with; empty if it did not answer so."""
    if isinstance(error, S3Error):
        return error.code or ""
    if isinstance(error, (BaseError, OSError)) and (found := _CODE.search(str(error))):
        return found[1]
    return ""


def advice(error: Exception, code: str, called: Called) -> str:
    """What an operator looks at, after an error with this code."""
    if code in REFUSED:
        return (
            f"the server refused us ({code}); check {called.variable('access_key')} and "
            f"{called.variable('secret_key')}, and that the key may {called.rights} there"
        )
    if code == "NoSuchBucket":
        return "it is gone; create it again or restore it"
    if code or isinstance(error, S3Error):
        return f"the server answered {code}; try again, and look at the server if it stays so"
    if isinstance(error, urllib3.exceptions.HTTPError | OSError | BaseError):
        return (
            f"the server does not answer; check {called.uri}, {called.setting('secure')} (https or not), "
            "its certificate and that it runs"
        )
    return f"{type(error).__name__} from the server's answer; check that {called.uri} is an S3 endpoint"
