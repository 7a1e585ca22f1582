"""The field types that messages share, each with its bounds. Lengths of text count characters, those of bytes bytes."""

from typing import Annotated, Final

from msgspec import Meta

from interfiles.geometry import BLOCK_BYTES, MAX_CONTENT_BYTES, MAX_PIECE_BYTES, MAX_PIECES

# `\Z`, not `$`: that would let a newline in at the end.
HOST_ID_PATTERN: Final = r"^[0-9a-f]{32}\Z"
HOST_NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z"
ZONE_PATTERN: Final = r"^[A-Za-z0-9._-]{0,63}\Z"
ADDRESS_PATTERN: Final = r"^(([A-Za-z0-9._-]{1,254}|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5})?\Z"
PEM_PATTERN: Final = r"^[\n -~]{1,8192}\Z"
MAX_ADDRESS_LENGTH: Final = 260
MAX_REPLICAS: Final = 1000
MAX_TEXT_LENGTH: Final = 1000

FileIdBytes = Annotated[bytes, Meta(min_length=32, max_length=32, description="BLAKE3 of the manifest")]
HostIdText = Annotated[str, Meta(pattern=HOST_ID_PATTERN, max_length=32, description="32 hex digits")]
HostName = Annotated[str, Meta(pattern=HOST_NAME_PATTERN, max_length=63, description="letters, digits, . _ -")]
HostNameOrNone = Annotated[
    str,
    Meta(
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,62})?\Z",
        max_length=63,
        description="letters, digits, . _ -; empty: none",
    ),
]
ZoneName = Annotated[str, Meta(pattern=ZONE_PATTERN, max_length=63, description="letters, digits, . _ -; empty: none")]
AddressText = Annotated[
    str,
    Meta(pattern=ADDRESS_PATTERN, max_length=MAX_ADDRESS_LENGTH, description="HOST:PORT or [IPv6]:PORT; empty: none"),
]
Port = Annotated[int, Meta(ge=0, le=65535, description="TCP port")]
FileName = Annotated[str, Meta(min_length=1, max_length=255, description="the manifest's name")]
Text = Annotated[str, Meta(max_length=MAX_TEXT_LENGTH, description="for a person")]
Query = Annotated[str, Meta(max_length=255, description="id, unambiguous id prefix or name")]
Pem = Annotated[str, Meta(pattern=PEM_PATTERN, max_length=8192, description="certificates, PEM")]
SigningRequest = Annotated[bytes, Meta(min_length=1, max_length=1024, description="PKCS#10 in DER")]
Code = Annotated[str, Meta(max_length=64, description="an error's code word")]
Path = Annotated[bytes, Meta(min_length=1, max_length=4096, description="absolute, as the file system has it")]
RequestNumber = Annotated[int, Meta(ge=0, le=2**32 - 1, description="chosen by the asker, repeated in the answer")]
Count = Annotated[int, Meta(ge=0, le=2**53, description="a count")]
Bytes = Annotated[int, Meta(ge=0, le=2**63 - 1, description="bytes")]
ContentBytes = Annotated[int, Meta(ge=0, le=MAX_CONTENT_BYTES, description="bytes")]
BytesPerSecond = Annotated[int, Meta(ge=0, le=2**53, description="bytes a second")]
UnixSeconds = Annotated[int, Meta(ge=0, le=2**40, description="seconds since 1970, UTC")]
Seconds = Annotated[float, Meta(ge=0, le=1e9, description="seconds")]
Milliseconds = Annotated[int, Meta(ge=0, le=600_000, description="milliseconds")]
PieceNumber = Annotated[int, Meta(ge=0, le=MAX_PIECES - 1, description="index of a piece")]
PieceCount = Annotated[int, Meta(ge=0, le=MAX_PIECES, description="pieces")]
PieceBytes = Annotated[int, Meta(ge=0, le=MAX_PIECE_BYTES, description="bytes")]
BlockBytes = Annotated[int, Meta(ge=1, le=BLOCK_BYTES, description="bytes")]
Replicas = Annotated[int, Meta(ge=1, le=MAX_REPLICAS, description="copies")]
