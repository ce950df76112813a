"""A process that records the same batches as its rivals, until it is done or killed. See test_recording."""

import hashlib
import sys

from db.chain.events import Actor
from db.columns import digest_of
from db.engine import open_database
from db.inspection.batches import record_batch
from db.inspection.outcomes import FindingOutcome, ImageOutcome
from db.inspection.runs import register_model, start_or_resume_run


def main(url: str, batches: int, status: str, source: str) -> None:
    actor = Actor(status)
    settings = {"s": 1}
    with open_database(url) as database:
        model = register_model(
            database, digest=hashlib.sha256(b"m").hexdigest(), name="m", architecture="a",
            classes=["good", "pit"], task="single-label", thresholds=None, card={}, actor=actor,
        )  # fmt: skip
        run = start_or_resume_run(
            database, source=source, settings=settings, settings_digest=digest_of(settings),
            model=model, actor=actor, host="h",
        )  # fmt: skip
        for batch in range(batches):
            outcomes = []
            for number in range(batch * 10, batch * 10 + 10):
                flagged = number % 5 == 0
                score = 0.8 if flagged else 0.1
                found = FindingOutcome(class_name="pit", class_score=score, threshold=0.5)
                outcomes.append(
                    ImageOutcome(
                        uri=f"{number:05d}.png", version="1", size=number, part=f"P{number // 3}", lot="L",
                        digest=hashlib.sha256(str(number - number % 7).encode()).hexdigest(),
                        verdict="review" if flagged else "pass", score=score, review_threshold=0.5,
                        reject_threshold=0.9, findings=(found,) if flagged else (),
                    )
                )  # fmt: skip
            result = record_batch(database, run, outcomes, actor=actor)
            print(run.number, result.recorded, result.already_recorded, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
