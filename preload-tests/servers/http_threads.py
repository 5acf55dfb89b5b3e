"""A server for preload-tests/servers/run: http.server's ThreadingHTTPServer, a thread for each connection. Answers a GET
with as many bytes as the path says, computed from it, and a POST with the digest of what came; ends on SIGTERM when
all are answered. The port is the argument; prints how many it answered."""

import hashlib
import http.server
import random
import signal
import sys
import threading

count, lock = 0, threading.Lock()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body):
        global count
        with lock:
            count += 1
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if not self.path[1:].isdigit():
            return self.answer(404, b"nothing")
        self.answer(200, random.Random(self.path).randbytes(int(self.path[1:])))

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, hashlib.sha256(body).hexdigest().encode())

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 512


server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
server.server_close()
print(f"answered {count}")
