"""The table between Homeward's errors and gRPC statuses, which embedding workers share."""

from homeward.status import (
    CODES,
    DETAILS_KEY,
    DOMAIN,
    code_of,
    error_from_rpc,
    error_from_status,
    status_code,
    status_of,
    trailing_metadata,
)

__all__ = [
    "CODES",
    "DETAILS_KEY",
    "DOMAIN",
    "code_of",
    "error_from_rpc",
    "error_from_status",
    "status_code",
    "status_of",
    "trailing_metadata",
]
