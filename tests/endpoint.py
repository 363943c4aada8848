"""A small server that speaks OpenAI's chat protocol and answers from the request: for what needs no real model."""

import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def answer(payload):
    """Copies the passage as evidence, answers with its first words, and asks about them; votes the same."""
    content = payload["messages"][-1]["content"]
    schema = payload.get("response_format", {}).get("json_schema", {}).get("schema")
    if schema is None:
        return "Cats purr when they are content, and when they are not."
    wanted = schema["properties"]
    if "verdict" in wanted:
        return json.dumps({"verdict": "SUPPORTED"})
    if "question" not in wanted:
        subject = re.search(r"Question: What does (.*?) do\?", content)
        page = content.split("\n", 1)[1].split("\n</page")[0]
        sentence = next(s for s in re.split(r"(?<=\.)\s+", page) if subject and subject[1] in s)
        return json.dumps({"answer": " ".join(sentence.rstrip(".").split()[2:])})
    passage = re.search(r'"(.*)"', content.split("</page", 1)[1], re.DOTALL)[1]
    words = passage.rstrip(".").split()
    found = {
        "evidence": passage,
        "answer": " ".join(words[2:]),
        "question": f"What does {' '.join(words[:2])} do?",
    }
    return json.dumps({key: found[key] for key in wanted})


@contextmanager
def endpoint(answer=answer, fail=lambda number: None, key=None):
    """URL of a running server, and the list of payloads that it saw; `fail(n)` may give a status for request n."""
    seen = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(404 if self.path == "/health" else self.allowed())
            self.send_header("Content-Length", "0")
            self.end_headers()

        def allowed(self):
            return 200 if key is None or self.headers["Authorization"] == f"Bearer {key}" else 401

        def do_POST(self):
            payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                seen.append(payload)
                status = fail(len(seen)) or self.allowed()
            try:
                text = answer(payload) if status == 200 else "no"
            except Exception:
                # A rule that does not fit the request must end the test at once, not after retries.
                status, text = 400, "no"
            finish = "stop"
            if isinstance(text, tuple):
                text, finish = text
            body = json.dumps(
                {
                    "choices": [{"message": {"content": text}, "text": text, "finish_reason": finish}],
                    "usage": {"prompt_tokens": 10, "completion_tokens": 5},
                }
            ).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
