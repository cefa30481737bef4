"""The least of a reverse proxy: it puts a server below a path, passes on answers as they come, and keeps its own name."""

import http.client
import http.server
import threading
import urllib.parse


class Proxy:
    """Serves `target` below `prefix`, such as `/specfleet/`; whatever else is asked for is nothing of its own."""

    def __init__(self, target, prefix):
        upstream = urllib.parse.urlsplit(target)
        self.refused = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(handler):
                if not handler.path.startswith(prefix):
                    self.refused.append(handler.path)
                    return handler.send_error(404)
                connection = http.client.HTTPConnection(upstream.hostname, upstream.port, timeout=60)
                # As with `proxy_set_header Host $host`: the server behind sees the name that the browser asked for.
                headers = {"Host": handler.headers["Host"], "Accept": handler.headers.get("Accept", "*/*")}
                try:
                    connection.request("GET", "/" + handler.path[len(prefix):], headers=headers)
                    answer = connection.getresponse()
                    handler.send_response_only(answer.status)
                    for name, value in answer.getheaders():
                        if name.lower() not in ("transfer-encoding", "connection"):
                            handler.send_header(name, value)
                    handler.send_header("Connection", "close")
                    handler.end_headers()
                    while piece := answer.read1(65536):
                        handler.wfile.write(piece)
                        handler.wfile.flush()
                except OSError:
                    # The browser has left the page, or the server has ended.
                    pass
                finally:
                    connection.close()
                    handler.close_connection = True

            def log_message(handler, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.port = self.server.server_address[1]

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
