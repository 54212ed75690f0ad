"""A server that behaves like ClickHouse's HTTP interface, and is killed at random moments.

    clickhouse.py PORT FOLDER

`POST /?query=INSERT INTO fills FORMAT JSONEachRow` adds its rows to FOLDER as one part, all or none, each with the
request's idempotency key, before it answers. Without FOLDER the table does not exist: 404. The key is "secret": 403.
A row that is not a fill: 400, and no row of the request is kept. Repeats are kept, for the test to see.
"""

import gzip
import json
import os
import sys
import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PORT, FOLDER = int(sys.argv[1]), sys.argv[2]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status, text = self.insert(body)
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def insert(self, body):
        query = parse_qs(urlsplit(self.path).query)["query"][0]
        if query != "INSERT INTO fills FORMAT JSONEachRow":
            return 400, b"Code: 62. DB::Exception: Syntax error"
        if self.headers["X-ClickHouse-Key"] != "secret":
            return 403, b"Code: 516. DB::Exception: Authentication failed"
        if not os.path.exists(FOLDER):
            return 404, b"Code: 60. DB::Exception: Table default.fills does not exist"
        rows = []
        for line in gzip.decompress(body).splitlines():
            row = json.loads(line)
            try:
                fill = json.loads(row["text"])
                rows.append({"key": self.headers["Idempotency-Key"], "seq": row["seq"], "n": fill["n"]})
            except ValueError:
                return 400, b"Code: 27. DB::Exception: Cannot parse input"
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        # A write can be cut short by a kill, a rename cannot.
        with tempfile.NamedTemporaryFile(dir=FOLDER, suffix=".tmp", delete=False) as part:
            part.write(data)
        os.rename(part.name, part.name.removesuffix(".tmp"))
        return 200, b""

    def log_message(self, *_):
        pass


ThreadingHTTPServer.daemon_threads = True
ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
