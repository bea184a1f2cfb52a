"""A YAML language server, as editors run it, on the files of conf/: it completes, explains and underlines."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

pytestmark = pytest.mark.editor


class Server:
    """yaml-language-server over stdin and stdout, in the Language Server Protocol."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            ["yaml-language-server", "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
        )
        self.ids, self.diagnostics = iter(range(1000)), dict[str, Any]()
        self.request("initialize", {"processId": None, "rootUri": ROOT.as_uri(), "capabilities": {}})
        # The server would look for the addresses of schemas in the network.
        offline = {"yaml": {"schemaStore": {"enable": False}, "completion": True, "hover": True, "validate": True}}
        self.send("initialized", {})
        self.send("workspace/didChangeConfiguration", {"settings": offline})

    def send(self, method: str, params: Any, **more: Any) -> None:
        content = json.dumps({"jsonrpc": "2.0", "method": method, "params": params, **more}).encode()
        self._write(content)

    def _write(self, content: bytes) -> None:
        assert self.process.stdin
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(content), content))
        self.process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        """The next message; what the server asks is answered with nothing."""
        assert self.process.stdout
        length = 0
        while line := self.process.stdout.readline().strip():
            if line.lower().startswith(b"content-length"):
                length = int(line.split(b":")[1])
        assert length, "the server has ended"
        message: dict[str, Any] = json.loads(self.process.stdout.read(length))
        if message.get("method") == "textDocument/publishDiagnostics":
            self.diagnostics[message["params"]["uri"]] = message["params"]["diagnostics"]
        elif "id" in message and "method" in message:
            items = message["params"].get("items", []) if message.get("params") else []
            answer = {"jsonrpc": "2.0", "id": message["id"], "result": [None for _ in items]}
            self._write(json.dumps(answer).encode())
        return message

    def request(self, method: str, params: Any) -> Any:
        number = next(self.ids)
        self.send(method, params, id=number)
        while (message := self.receive()).get("id") != number or "method" in message:
            pass
        assert "error" not in message, message
        return message["result"]

    def open(self, path: str, text: str) -> str:
        """Open a file of conf/ with another text; the address that later questions name it by."""
        uri = f"{(ROOT / 'conf' / path).as_uri()}?{next(self.ids)}"
        item = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
        self.send("textDocument/didOpen", {"textDocument": item})
        return uri

    def said(self, path: str, text: str) -> list[tuple[int, str]]:
        """What is underlined: the number of the line, from 0, and why."""
        uri = self.open(path, text)
        while uri not in self.diagnostics:
            self.receive()
        return [(said["range"]["start"]["line"], said["message"]) for said in self.diagnostics[uri]]

    def at_end(self, path: str, text: str, method: str, back: int = 0) -> Any:
        """The answer to a question about the end of a text, or a place so many characters before it."""
        place = {"line": text.count("\n"), "character": len(text.rpartition("\n")[2]) - back}
        return self.request(
            f"textDocument/{method}", {"textDocument": {"uri": self.open(path, text)}, "position": place}
        )

    def completions(self, path: str, text: str) -> set[str]:
        found = self.at_end(path, text, "completion")
        return {item["label"] for item in (found["items"] if isinstance(found, dict) else found)}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.process.kill()
    server.process.communicate()


def names_schema(schema: str) -> str:
    return f"# yaml-language-server: $schema=../../schemas/{schema}.json\n"


SGD = names_schema("optimizer") + "_target_: torch.optim.SGD\n"
EXPERIMENT = "# @package _global_\n" + names_schema("train")


def test_keys_and_choices_are_completed(server: Server) -> None:
    keys = server.completions("optimizer/mine.yaml", SGD)
    assert {"lr", "momentum", "nesterov", "weight_decay", "fused"} <= keys
    assert not {"betas", "eps", "_target_"} & keys
    assert {"torch.optim.SGD", "torch.optim.AdamW"} <= server.completions(
        "optimizer/mine.yaml", names_schema("optimizer") + "_target_: "
    )
    nested = server.completions("experiment/mine.yaml", f"{EXPERIMENT}optimizer:\n  ")
    assert {"lr", "momentum", "betas"} <= nested
    assert {"auto", "cpu", "gpu"} <= server.completions(
        "experiment/mine.yaml", f"{EXPERIMENT}trainer:\n  accelerator: "
    )


def test_a_field_is_explained(server: Server) -> None:
    answer = server.at_end("optimizer/mine.yaml", f"{SGD}momentum: 0.9", "hover", back=12)
    assert "Share of the last step that is taken again" in answer["contents"]["value"]


@pytest.mark.parametrize(
    ("path", "text", "lines"),
    [
        ("optimizer/mine.yaml", f"{SGD}lr: 0.1\nmomentum: ${{optimizer.lr}}\nfused: true\n", []),
        ("optimizer/mine.yaml", f"{SGD}lr: -1\n", [2]),
        ("optimizer/mine.yaml", f"{SGD}lr: 0.1\nlrr: 0.1\n", [3]),
        ("optimizer/mine.yaml", names_schema("optimizer") + "_target_: mine.Optimizer\nspeed: fast\n", []),
        ("experiment/mine.yaml", f"{EXPERIMENT}seed: 1\ndata:\n  batch_size: 16\n  shuffle: maybe\n", [5]),
        ("experiment/mine.yaml", f"{EXPERIMENT}defaults:\n  - override /model: mpl\n", [3]),
        ("experiment/mine.yaml", f"{EXPERIMENT}defaults:\n  - override /model: mlp\n", []),
    ],
)
def test_a_wrong_value_is_underlined(server: Server, path: str, text: str, lines: list[int]) -> None:
    said = server.said(path, text)
    assert sorted({line for line, _ in said}) == lines, said


@pytest.mark.parametrize("path", sorted((ROOT / "conf").rglob("*.yaml")), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_of_ours_is_underlined(server: Server, path: Path) -> None:
    assert server.said(str(path.relative_to(ROOT / "conf")), path.read_text()) == []
