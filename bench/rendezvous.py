"""The plan and the rendezvous of 1, 64 and 1,024 nodes, simulated: real clients of a real TCPStore, on one machine.

Every simulated node connects, reports, learns who the others are, and then beats as a node agent does. Measured: the
time until all have met, and one beat of all nodes. Beside it the limit of this machine: the same number of raw requests
to the same kind of server, over one connection per node. No processes of a run are started, and no network is between
the nodes.
torch looks up the name of every peer; a name server that answers late, or not, shows in the time until all have met.
"""

from __future__ import annotations

import json
import socket
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench.record import report  # noqa: E402
from core.config import load_run_file  # noqa: E402
from core.config.layout import driven_engines  # noqa: E402
from core.processes import keys  # noqa: E402
from core.processes.rendezvous import Address, Rendezvous  # noqa: E402
from hpc.sbatch.text import sbatch_text  # noqa: E402
from hpc.site.files import Site  # noqa: E402
from launchers.node.pulse import Pulse  # noqa: E402
from launchers.submit.job_plan import make_plan, render, task_command  # noqa: E402

NODES = (1, 64, 1024)
WORKERS = 16  # threads that play the nodes
BEATS = 5
ENGINE = "node0-engine0"
WATCHED = (keys.ENDED, keys.FAILED, keys.server_condemned(ENGINE), keys.server_ready(ENGINE))
RUN = """
model: {{path: /nowhere}}
data: {{path: /nowhere.jsonl}}
rollout: {{num_rollout: 1, rollout_batch_size: {batch}, n_samples_per_prompt: 1}}
train: {{global_batch_size: {batch}}}
placement: {{num_nodes: {nodes}, trainers_per_node: 8, engines_per_node: 2, engine_tensor_parallel: 4, device: cuda}}
"""


def plan_seconds(num_nodes: int) -> float:
    """Seconds from the run file's text to plan, map, script, and every driver's list of engines."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.yaml"
        path.write_text(RUN.format(nodes=num_nodes, batch=8 * num_nodes))
        began = time.perf_counter()
        config = load_run_file(path)
        plan = make_plan(config, Site())
        render(plan)
        sbatch_text(plan.job(Path(folder), task_command("python")))
        driven_engines(config, num_nodes - 1)
        return time.perf_counter() - began


def meet_seconds(num_nodes: int) -> tuple[float, list[float]]:
    """Seconds until all nodes have connected, reported and read the list of all, and seconds of single beats."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    server = Rendezvous(Address(*listener.getsockname()), 1, "key", listener=listener)
    with ThreadPoolExecutor(WORKERS) as pool:
        began = time.perf_counter()

        def join(node: int) -> Rendezvous:
            client = Rendezvous(server.address, 1, "key")
            client.set(keys.health(node), json.dumps({"listening": ["10.0.0.1", 20000 + node], "report": "x" * 300}))
            return client

        clients = list(pool.map(join, range(num_nodes)))
        everyone = server.get_many([keys.health(node) for node in range(num_nodes)])
        server.set(keys.LISTENERS, json.dumps([json.loads(text)["listening"] for text in everyone]))
        list(pool.map(lambda client: len(json.loads(client.get(keys.LISTENERS) or "")), clients))
        met = time.perf_counter() - began
        server.set(keys.ENDED, "")
        pulses = [Pulse(client, node, num_nodes, WATCHED, 30.0) for node, client in enumerate(clients)]
        beats = []
        for _ in range(BEATS):
            began = time.perf_counter()
            list(pool.map(lambda pulse: pulse._once(), pulses))
            beats.append(time.perf_counter() - began)
    return met, beats


def raw_seconds(num_connections: int, num_requests: int) -> float:
    """Seconds of the same number of 100-byte requests and answers over one connection per node: plain sockets."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=4096)) as listener:
        threading.Thread(target=_answer, args=(listener, num_connections), daemon=True).start()
        connections = [socket.create_connection(listener.getsockname()) for _ in range(num_connections)]
        share = max(1, num_requests // num_connections)

        def ask(connection: socket.socket) -> None:
            for _ in range(share):
                connection.sendall(b"x" * 100)
                connection.recv(4096)

        with ThreadPoolExecutor(WORKERS) as pool:
            began = time.perf_counter()
            list(pool.map(ask, connections))
            seconds = time.perf_counter() - began
        for connection in connections:
            connection.close()
    return seconds


def _answer(listener: socket.socket, num_connections: int) -> None:
    import selectors

    selector, left = selectors.DefaultSelector(), num_connections
    for _ in range(num_connections):
        selector.register(listener.accept()[0], selectors.EVENT_READ)
    while left:
        for key, _ in selector.select():
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            if data := connection.recv(4096):
                connection.sendall(data)
            else:
                selector.unregister(connection)
                left -= 1


def main() -> None:
    """Measure, print, write results/rendezvous.json."""
    seconds: dict[str, list[float]] = {}
    facts: dict[str, float] = {}
    for num_nodes in NODES:
        seconds[f"plan, {num_nodes} nodes"] = [plan_seconds(num_nodes) for _ in range(3)]
        rounds = [meet_seconds(num_nodes) for _ in range(3)]
        seconds[f"meet, {num_nodes} nodes"] = [met for met, _ in rounds]
        beats = [beat for _, beats in rounds for beat in beats]
        seconds[f"beat of all, {num_nodes} nodes"] = beats
        requests = num_nodes * (1 + len(WATCHED) + 1 + 1)  # a set; checks, the phase among them; a get
        raw = [raw_seconds(num_nodes, requests) for _ in range(3)]
        seconds[f"raw requests, {num_nodes} nodes"] = raw
        facts[f"beat_over_raw_{num_nodes}"] = statistics.median(beats) / statistics.median(raw)
    report("rendezvous", seconds, **facts)


if __name__ == "__main__":
    main()
