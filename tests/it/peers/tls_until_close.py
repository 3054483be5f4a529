"""A TLS server whose answers end with their connection: with a goodbye (`well`) or without (`cut`)."""
import socket
import ssl
import sys

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(16)
print(listener.getsockname()[1], flush=True)
while True:
    accepted, _ = listener.accept()
    try:
        sock = context.wrap_socket(accepted, server_side=True)
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\nhello")
        if sys.argv[3] == "well":
            sock.unwrap().close()
        else:
            sock.close()
    except OSError:
        pass
