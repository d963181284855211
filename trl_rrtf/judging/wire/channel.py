"""Frames over a socket: four bytes of length, then a message of `protocol.py` as a MessagePack list."""

from __future__ import annotations

import socket
import time
from typing import Any

import msgpack

from trl_rrtf.judging.wire.protocol import ProtocolError, from_parts

MAX_FRAME_BYTES = 64 * 2**20
"""Largest frame that is read; what is longer is refused before memory is spent on it."""

_READ_AHEAD = 4096
_LARGEST_READ = 2**20


class ChannelClosedError(Exception):
    """The other side is gone, or sent what no honest process sends."""


class Channel:
    """One end of a socket pair.

    Args:
        end: A connected stream socket.
        exact: Whether another process may go on reading from the socket, or descriptors come over it: then nothing is read
            beyond a frame, which takes one call more.
    """

    def __init__(self, end: socket.socket, *, exact: bool = False) -> None:
        self.socket = end
        self._exact = exact
        self._buffer = b""
        self._packer = msgpack.Packer(unicode_errors="surrogatepass", buf_size=4096)

    def send(self, message: Any) -> None:
        """Sends a message.

        Args:
            message: A named tuple of `protocol.py`.

        Raises:
            ChannelClosedError: Nobody reads any more.
        """
        data = self._packer.pack([type(message).__name__, *message])
        try:
            self.socket.sendall(len(data).to_bytes(4, "big") + data)
        except (BrokenPipeError, ConnectionError) as error:
            raise ChannelClosedError(str(error)) from None

    def receive(self, *kinds: type, deadline: float | None = None) -> Any:
        """Waits for a message.

        Args:
            kinds: The classes of messages that may come.
            deadline: On the monotonic clock, in seconds, or None to wait for ever.

        Returns:
            An instance of one of them.

        Raises:
            ChannelClosedError: The other side is gone, or the message is malformed, too long or none of those.
            TimeoutError: Nothing whole came before the deadline.
        """
        length = int.from_bytes(self._exactly(4, deadline), "big")
        if length > MAX_FRAME_BYTES:
            raise ChannelClosedError(f"a message of {length} bytes, more than {MAX_FRAME_BYTES}")
        data = self._exactly(length, deadline)
        try:
            return from_parts(msgpack.unpackb(data, unicode_errors="surrogatepass"), kinds)
        except ProtocolError as error:
            raise ChannelClosedError(str(error)) from None
        except Exception as error:
            raise ChannelClosedError(f"a malformed message ({type(error).__name__})") from None

    def _exactly(self, count: int, deadline: float | None) -> bytes:
        parts, missing = [self._buffer[:count]], count - len(self._buffer)
        self._buffer = self._buffer[count:]
        while missing > 0:
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                self.socket.settimeout(left)
            try:
                part = self.socket.recv(min(max(missing, 0 if self._exact else _READ_AHEAD), _LARGEST_READ))
            except ConnectionError as error:
                raise ChannelClosedError(str(error)) from None
            if not part:
                raise ChannelClosedError("the other side has ended")
            parts.append(part[:missing])
            self._buffer = part[missing:]
            missing -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Closes this end."""
        self.socket.close()
