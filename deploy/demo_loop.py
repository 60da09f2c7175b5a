"""`make demo-loop`: a model is trained, serves, its world moves, and it is trained again, proven and promoted, by itself.

Real digits are trained on and served; from one moment on half of them come from a second scanner: white on black, blurred,
and more of some digits than of others. Nobody does anything then but watch. Starts a stack of its own under
.evertrain/demo-loop, and a Prometheus where one is installed; ends all that it started.
Exits non-zero when anything it promises did not happen.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.datasets import load_digits

from deploy.demo_picture import Story, drawn
from deploy.demo_prometheus import Prometheus, watching
from deploy.demo_serving import Served
from orchestrator import Client, Observer
from orchestrator.cli.stack_state import load_state

ROOT = Path(__file__).parents[1]
HOME = ROOT / ".evertrain" / "demo-loop"
RUN_FILE = Path("deploy/examples/watched_digits.yaml")
PICTURE = HOME / "loop.html"
MODEL = "digits-watched"
TRAINED_ON = 1200  # of the 1,797 digits; the others are what is served
BATCH = 250
QUIET_BATCHES = 12  # before the second scanner
PACE_S = 1.0
LATEST_S = 240.0  # by then it must have been promoted
AFTERWARDS = 10  # batches

Pixels = np.ndarray[Any, np.dtype[np.float64]]


def evertrain(*words: str, check: bool = True) -> int:
    """Type one command, and show it as typed."""
    print(f"\n$ evertrain {' '.join(words)}", flush=True)
    command = [sys.executable, "-m", "orchestrator.cli.app", *words]
    return subprocess.run(command, cwd=ROOT, check=check).returncode


class World:
    """Digits as they come to be read: images [n, 64] of 0 (white) to 16 (ink), drawn by a seed from those not trained on."""

    def __init__(self) -> None:
        digits = load_digits()
        order = np.random.default_rng(7).permutation(len(digits.target))
        self.images, self.labels = digits.data[order], digits.target[order]
        self._generator = np.random.default_rng(8)
        self.second_scanner = False

    def write_training_data(self, to: Path) -> None:
        table = pa.table({**columns(self.images[:TRAINED_ON]), "digit": self.labels[:TRAINED_ON]})
        pq.write_table(table, to)

    def batch(self) -> tuple[Pixels, Sequence[int]]:
        chosen = self._generator.integers(TRAINED_ON, len(self.labels), BATCH)
        if not self.second_scanner:
            return self.images[chosen], self.labels[chosen].tolist()
        other = self._generator.random(BATCH) < 0.5
        often = np.where(self.labels[TRAINED_ON:] < 3, 3.0, 1.0)
        uneven = TRAINED_ON + self._generator.choice(len(often), BATCH, p=often / often.sum())
        chosen = np.where(other, uneven, chosen)
        images = np.where(other[:, None], 16 - blurred(self.images[chosen]), self.images[chosen])
        return images, self.labels[chosen].tolist()


def columns(images: Pixels) -> dict[str, Pixels]:
    return {f"p{place // 8}{place % 8}": images[:, place] for place in range(64)}


def blurred(images: Pixels) -> Pixels:
    """Each pixel half itself, half the mean of its neighbours."""
    padded = np.pad(images.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)))
    around = [padded[:, 1 + down : 9 + down, 1 + right : 9 + right] for down in (-1, 0, 1) for right in (-1, 0, 1)]
    return (images + np.mean(around, axis=0).reshape(-1, 64)) / 2


class Service:
    """What answers, and tells Evertrain of it: the version that is champion. Labels become known two batches later."""

    def __init__(self, client: Client, world: World, story: Story) -> None:
        self._client, self._world, self._story = client, world, story
        self._unlabelled: deque[tuple[Sequence[str], Sequence[int]]] = deque()
        self._serve_champion()

    def _serve_champion(self) -> None:
        champion = self._client.model(MODEL, "champion")
        self.version = champion.version
        self._model = Served(champion.checkpoint)
        self._observer = Observer(MODEL, version=self.version, every_s=0.2)

    def one_batch(self) -> float:
        """Its accuracy."""
        images, labels = self._world.batch()
        answers, confidences = self._model.answers(columns(images))
        requests = self._observer.record_many(columns(images), predictions=answers, confidences=confidences)
        self._unlabelled.append((requests, labels))
        if len(self._unlabelled) > 2:
            for request, label in zip(*self._unlabelled.popleft(), strict=True):
                self._observer.label(request, str(label))
        right = float(np.mean([int(answer) == label for answer, label in zip(answers, labels, strict=True)]))
        self._story.served(right, self.version)
        return right

    def follow_champion(self) -> None:
        if self._client.model(MODEL, "champion").version != self.version:
            self._observer.close()
            self._unlabelled.clear()
            self._serve_champion()

    def close(self) -> None:
        self._observer.close()


def serve(service: Service, batches: int, words: str) -> float:
    """So many batches, at their pace; the mean accuracy."""
    print(f"\n>>> {words}", flush=True)
    rates = []
    for _ in range(batches):
        rates.append(service.one_batch())
        time.sleep(PACE_S)
    print(f"    right: {np.mean(rates):.1%} of {batches * BATCH:,} digits", flush=True)
    return float(np.mean(rates))


def watch_the_loop(client: Client, service: Service, story: Story) -> Mapping[str, Any]:
    """Serve on, and tell what Evertrain says and does, until a challenger was judged."""
    told: set[str] = set()
    began = time.monotonic()
    while time.monotonic() - began < LATEST_S:
        rate = service.one_batch()
        for judged in list(client.judgements(MODEL))[:20][::-1]:
            kind = "performance" if "error rate" in judged.words else "features"
            if judged.status in ("suspected", "drift") and tell(told, f"judged/{judged.status}/{kind}"):
                print(f"    [{rate:.0%} right] monitor: {shortened(judged.words)}", flush=True)
                story.happened("drift seen" if judged.status == "drift" else "suspected")
        for decision in list(client.decisions(MODEL))[::-1]:
            if tell(told, f"decided/{decision.number}/{decision.standing}"):
                words = decision.told[-1] if decision.told else decision.words
                words = words if decision.version else shortened(words)
                if decision.because != "in_progress":
                    print(
                        f"    [{rate:.0%} right] decision {decision.number}, {decision.standing}: {words}", flush=True
                    )
                if decision.action == "retrain":
                    story.happened("promoted" if decision.standing == "probation" else decision.standing)
            if decision.action == "retrain" and decision.standing not in ("accepted", "training"):
                return {"decision": decision, "told": told}
        time.sleep(PACE_S)
    return {"decision": None, "told": told}


def shortened(words: str) -> str:
    """What a line has room for: the first of all features that moved."""
    first, *others = words.split("; ")
    return first + (f"; and {len(others)} more" if others else "")


def tell(told: set[str], key: str) -> bool:
    """Whether it is news."""
    news = key not in told
    told.add(key)
    return news


def seen_in(prometheus: Prometheus | None) -> list[str]:
    """What Prometheus knows of the drift: the monitor's word, and the features that differ most."""
    if prometheus is None:
        return []
    drifts = prometheus.ask('evertrain_monitor_status{status="drift"} == 1')
    return [
        f"{name} {value:.3g}" for name, value in {**drifts, **prometheus.ask("topk(5, evertrain_drift_effect)")}.items()
    ]


def story_of(client: Client, prometheus: Prometheus | None) -> list[str]:
    """The story. Answers what was promised and did not happen."""
    world = World()
    HOME.mkdir(parents=True, exist_ok=True)
    data = HOME / "digits.parquet"
    world.write_training_data(data)
    run = client.submit(ROOT / RUN_FILE, overrides={"data.source": str(data)})
    print(f"\n$ evertrain submit {RUN_FILE}\n{run.id} ({run.name}) is {run.state}", flush=True)
    evertrain("watch", run.id, check=False)
    story = Story()
    service = Service(client, world, story)
    before = serve(service, QUIET_BATCHES, "version 1 serves digits that it never saw")
    print(drawn(world.batch()[0][:6]))
    world.second_scanner = True
    story.happened("second scanner")
    print(
        "\n>>> a second scanner is connected: half of the digits come white on black, blurred, and oftener 0, 1 and 2\n",
        flush=True,
    )
    print(drawn(world.batch()[0][:6]))
    found = watch_the_loop(client, service, story)
    drift = seen_in(prometheus)
    print("\n>>> Prometheus says\n" + "\n".join(f"    {line}" for line in drift or ["nothing: is it installed?"]))
    service.follow_champion()
    after = serve(service, AFTERWARDS, f"version {service.version} serves")
    service.close()
    evertrain("monitor", "describe", MODEL, "--html", str(HOME / "monitor.html"))
    evertrain("monitor", "decisions", MODEL)
    evertrain("model", "list")
    PICTURE.write_text(story.page(MODEL))
    print(f"\nthe picture: {PICTURE}")
    unseen = (
        ["Prometheus saw the drift"] if prometheus is not None and not any("status" in each for each in drift) else []
    )
    return unseen + broken(before, after, story, found["decision"], client)


def broken(before: float, after: float, story: Story, decision: Any, client: Client) -> list[str]:
    """What was promised and did not happen."""
    low = story.lowest_between("second scanner")
    standing = decision.standing if decision is not None else "none"
    promises = {
        f"it was right before (in {before:.1%})": before > 0.9,
        f"the second scanner misled it (down to {low:.1%})": low < before - 0.2,
        "the monitor saw the drift": story.has("drift seen"),
        f"a retraining was decided on and promoted (it is {standing})": standing in ("probation", "promoted"),
        "version 2 is champion": client.model(MODEL, "champion").version == 2,
        f"it is right again (in {after:.1%})": after > low + 0.2,
    }
    return [words for words, kept in promises.items() if not kept]


def main() -> int:
    started = time.monotonic()
    os.environ["EVERTRAIN_HOME"] = str(HOME)
    missing = ["everything: it did not get so far"]
    if HOME.exists():  # an earlier demo's models would be in the way
        evertrain("down", check=False)
        shutil.rmtree(HOME)
    try:
        evertrain("up", "--port", "0", "--http-port", "0")
        state = load_state(HOME)
        assert state is not None
        with Client() as client, watching(state.http_port, HOME) as prometheus:
            missing = story_of(client, prometheus)
    finally:
        evertrain("down", check=False)
    for words in missing:
        print(f"NOT as promised: {words}", file=sys.stderr)
    if not missing:
        print(
            f"\nAll of it in {time.monotonic() - started:.0f} s, and nobody touched anything after the first command."
        )
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
