"""The closed loop on streams with a known truth: what acting on feedback earns more than never retraining, and than a schedule.

    python bench/loops.py                      # 20 seeds of each stream
    python bench/loops.py --seeds 5 --kinds sudden stable

Every seed of a stream (20,000 decisions over 1,000 days, after 8,000 of the past) is lived through by four arms in this process:
makegood's, the first model for good, a new model every 91 days on all rows, and the oracle that acts by the true chances. Each training
costs 5,000 EUR, and a promotion asks for 80% confidence. Reported is the mean over seeds of the paired difference of net realised money,
with Student's interval, once more over the later seeds, on none of which anything was chosen. A run that was cut off goes on where it was:
what is finished is kept in a file of lines. Losses are published as they are.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

import result
from makegood.economics.value import critical
from makegood.loop import arms
from makegood.loop.controller import Terms
from makegood.loop.house import Manner
from makegood.loop.inside import Inside
from makegood.loop.replay import nobody, play
from makegood.loop.retraining import learnt
from makegood.loop.tape import of_stream
from makegood.streams.kinds import DRIFTING, stream

KINDS = ("stable", *DRIFTING)
SEEDS = 20
LOOKED_AT = 5  # the first seeds, on some of whose streams the controller's terms were chosen
AMPLE_S = 60.0  # for a training, which takes two: what it learns depends on the seed, and not on what else the machine does
LOSS = -0.01
LINES = result.RESULTS / "loops.lines"


def once(kind: str, seed: int) -> dict[str, Any]:
    """Return the money of each arm on one stream, and what was done."""
    began = time.perf_counter()
    tape = of_stream(stream(kind, seed))
    train = tape.case.train.model_copy(update={"budget": AMPLE_S})
    tape = type(tape)(**{**vars(tape), "case": tape.case.model_copy(update={"train": train})})
    terms = Terms.of(tape.case)
    first = learnt(tape.case, tape.history)
    house = Inside(tape, first)
    played = play(tape, house, Manner(terms, nobody))
    mine = arms.Lived(house.paid, tuple((at, terms.cost) for at, _ in played.trained))
    seconds = time.perf_counter() - began
    others = {"never": arms.never(tape, first), "scheduled": arms.scheduled(tape, first), "oracle": arms.oracle(tape, first)}
    declined = 0.0  # to decline everything pays nothing; what the oracle gains is over the better of that and of approving everything
    today = float(arms.paying(tape, first)[:, 0].sum())
    return {
        "kind": kind,
        "seed": seed,
        "makegood": mine.net,
        **{name: arm.net for name, arm in others.items() if arm is not None},
        "constant": max(today, declined),
        "trained": len(played.trained),
        "promoted": sum(e.kind == "promoted" for e in played.events),
        "rolled_back": sum(e.kind == "rolled back" for e in played.events),
        "alarms": sum(e.kind == "alarm" for e in played.events),
        "seconds": seconds,
    }


def mean(x: np.ndarray[Any, Any]) -> dict[str, float]:
    """Return the mean over seeds with its 95% interval (Student's t)."""
    reach = critical(np.ones(len(x)), 0.95) * float(x.std(ddof=1)) / np.sqrt(len(x)) if len(x) > 1 else float("nan")
    return {"mean": round(float(x.mean()), 1), "low": round(float(x.mean() - reach), 1), "high": round(float(x.mean() + reach), 1)}


def summary(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of each kind, and whether the targets are met."""
    kinds: dict[str, Any] = {}
    for kind in dict.fromkeys(line["kind"] for line in lines):
        runs = [line for line in lines if line["kind"] == kind]
        column = {name: np.array([run[name] for run in runs], dtype=np.float64) for name in runs[0] if name != "kind"}
        gains, later = column["oracle"] - column["constant"], column["seed"] >= LOOKED_AT
        kinds[kind] = {
            "seeds": len(runs),
            "by_seed": {name: (column["makegood"] - column[name]).round().astype(int).tolist() for name in ("never", "scheduled")},
            "over_never": mean(column["makegood"] - column["never"]),
            "over_scheduled": mean(column["makegood"] - column["scheduled"]),
            "over_never_later": mean((column["makegood"] - column["never"])[later]),
            "over_scheduled_later": mean((column["makegood"] - column["scheduled"])[later]),
            "scheduled_over_never": mean(column["scheduled"] - column["never"]),
            "oracle_over_never": mean(column["oracle"] - column["never"]),
            "oracle_gain": mean(gains),
            **{name: round(float(column[name].mean()), 2) for name in ("trained", "promoted", "rolled_back", "alarms", "seconds")},
        }
    drifting = [kinds[kind] for kind in DRIFTING if kind in kinds]
    better = {name: sum(k[name]["mean"] > 0 for k in drifting) for name in ("over_never", "over_scheduled")}
    both = sum(k["over_never"]["mean"] > 0 and k["over_scheduled"]["mean"] > 0 for k in drifting)
    figures: dict[str, Any] = {
        "unit": "EUR, net of retraining",
        "kinds": kinds,
        "better": better,
        "better_than_both": both,
        "target_both": 4,
    }
    if "stable" in kinds:
        stable = kinds["stable"]
        low = min(stable[name]["low"] for name in ("over_never", "over_scheduled")) / stable["oracle_gain"]["mean"]
        figures |= {"stable_low_of_oracle_gain": round(low, 5), "target_stable": LOSS}
    return figures


def main() -> None:
    """Run what is missing, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    parser.add_argument("--lines", type=Path, default=LINES)
    asked = parser.parse_args()
    asked.lines.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.loads(line) for line in asked.lines.read_text().splitlines()] if asked.lines.exists() else []
    done = {(line["kind"], line["seed"]) for line in lines}
    for seed in range(asked.seeds):
        for kind in asked.kinds:
            if (kind, seed) not in done:
                lines.append(once(kind, seed))
                with asked.lines.open("a") as file:
                    file.write(json.dumps(lines[-1]) + "\n")
                print(lines[-1], flush=True)
    result.write("loops", summary(lines), ("makegood", "numpy", "lightgbm"))


if __name__ == "__main__":
    main()
