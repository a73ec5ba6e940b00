"""An SMTP server that takes every mail and keeps none, for test tools in Python."""

import socketserver
import threading


class MailSink:
    """Listens on a free port of 127.0.0.1 from start to end."""

    def __init__(self) -> None:
        self._server = Server(("127.0.0.1", 0), Session)
        self.url = f"smtp://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "MailSink":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class Server(socketserver.ThreadingTCPServer):
    # Connections that are kept for the next mail must not hold the end up.
    daemon_threads = True
    block_on_close = False


class Session(socketserver.StreamRequestHandler):
    """One dialogue; every command but these is answered alike."""

    def handle(self) -> None:
        self._say("220 sink")
        for line in self.rfile:
            match line[:4].upper().rstrip():
                case b"QUIT":
                    return self._say("221 closing")
                case b"DATA":
                    self._say("354 go on")
                    self._skip_mail()
            self._say("250 ok")

    def _skip_mail(self) -> None:
        for line in self.rfile:
            if line == b".\r\n":
                return

    def _say(self, reply: str) -> None:
        self.wfile.write(f"{reply}\r\n".encode())
