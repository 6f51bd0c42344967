"""The S3 server of the blob stores' tests."""

from tests.integration.storage.conftest import bucket, s3_server  # noqa: F401
