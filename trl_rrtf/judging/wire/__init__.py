"""What both processes of a verdict share: messages, values and the socket. Standard library and msgpack alone."""
