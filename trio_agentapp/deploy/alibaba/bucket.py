"""A bucket of Object Storage Service, for code archives."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import trio

from ...errors import ConfigurationError, DeployError
from ..extras import needed
from .calls import Calls, Conflict, Missing
from .configs import REQUEST_TIMEOUT, OSSConfig, address_of

__all__ = ["Bucket", "Cancellable"]


class Cancellable(io.RawIOBase):
    """A file that a thread of Trio sends. When its task is cancelled, the next read ends the sending."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def fileno(self) -> int:
        return self._file.fileno()

    def readinto(self, buffer: Any) -> int:
        trio.from_thread.check_cancelled()
        found = self._file.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)


class Bucket:
    """One bucket. It is made, private, if it does not exist, with a tag by which the service may read it."""

    def __init__(self, config: OSSConfig, region: str, extra: str) -> None:
        """Configure the client. Nothing is sent.

        Raises:
            ConfigurationError: an access key or the name of the bucket is missing, or it is in another region than
                the service, or the extra is not installed.
        """
        config.ensure_valid()
        if config.region not in (None, region):
            raise ConfigurationError(
                f"the bucket is in {config.region} and the service in {region}, and it reads only buckets of "
                "its own region; set OSS_REGION and OSS_BUCKET_NAME to a bucket there"
            )
        oss = needed("alibabacloud_oss_v2", extra)
        settings = oss.config.load_default()
        settings.region = region
        settings.credentials_provider = oss.credentials.StaticCredentialsProvider(
            config.access_key_id, config.access_key_secret, config.security_token
        )
        where = config.endpoint or f"oss-{region}.aliyuncs.com"
        if config.endpoint is not None:
            protocol, host = address_of(config.endpoint)
            settings.endpoint = f"{protocol.lower()}://{host}"
        settings.retry_max_attempts = 1  # `Calls` repeats
        settings.connect_timeout = settings.readwrite_timeout = REQUEST_TIMEOUT
        self._oss = oss
        self._client = oss.Client(settings)
        self._call = Calls("OSS", where, "AliyunOSSFullAccess", config.secrets)
        self.name = str(config.bucket_name)
        self._tag = f"{extra}-deploy-access"

    async def upload(self, path: Path, report: Callable[[str], object]) -> str:
        """Put a file into the bucket under its name; returns its key. One that is there in this size is kept.

        Raises:
            DeployError: the bucket belongs to another account, or the service refuses or does not answer.
        """
        oss, client, key = self._oss, self._client, path.name
        size = (await trio.Path(path).stat()).st_size
        await self._make()
        try:
            found = await self._call(
                f"looking for {key}", lambda: client.head_object(oss.HeadObjectRequest(bucket=self.name, key=key))
            )
            if found.content_length == size:
                report(f"{key} is in the bucket {self.name} already")
                return key
        except Missing:
            pass  # as expected
        report(f"Uploading {key} ({size / 1e6:.1f} MB) to the bucket {self.name}")

        def put() -> None:
            with path.open("rb") as file:
                client.put_object(oss.PutObjectRequest(bucket=self.name, key=key, body=Cancellable(file)))

        await self._call(f"uploading {key}", put)
        return key

    async def _make(self) -> None:
        oss, client, name = self._oss, self._client, self.name
        if await self._call(f"looking for the bucket {name}", lambda: client.is_bucket_exist(bucket=name)):
            return
        try:
            await self._call(
                f"making the bucket {name}",
                lambda: client.put_bucket(oss.PutBucketRequest(bucket=name, acl="private")),
            )
        except Conflict:
            raise DeployError(
                f"the bucket {name} belongs to another account; choose another OSS_BUCKET_NAME"
            ) from None
        tags = oss.Tagging(tag_set=oss.TagSet(tags=[oss.Tag(key=self._tag, value="ReadAndAdd")]))
        await self._call(
            f"tagging the bucket {name}",
            lambda: client.put_bucket_tags(oss.PutBucketTagsRequest(bucket=name, tagging=tags)),
        )
