"""Close temporary indexes while threads use them: their folders must go, and every error must say that it is closed."""

from __future__ import annotations

import sys
import threading
import time
from random import Random

from toy import ToyEncoder

from rerank_integrations import ColBERTIndex, IndexClosedError, RerankError


def run(count: int, seed: int) -> dict[str, int]:
    """Close `count` temporary indexes, each under four threads that search and one that writes."""
    moments = Random(seed)
    left = failed = 0
    for _ in range(count):
        index = ColBERTIndex.create(None, ToyEncoder())
        index.upsert([f"text {number}" for number in range(5)])
        errors: list[BaseException] = []
        threads = [threading.Thread(target=_use, args=(index, number == 0, errors)) for number in range(5)]
        for thread in threads:
            thread.start()
        time.sleep(moments.uniform(0, 0.02))
        index.close()
        for thread in threads:
            thread.join()
        left += index.path.exists()
        failed += sum(not isinstance(error, IndexClosedError) for error in errors)
        for error in errors:
            if not isinstance(error, RerankError):
                print(repr(error), file=sys.stderr)
    return {"all": count, "left": left, "failed": failed}


def _use(index: ColBERTIndex, writes: bool, errors: list[BaseException]) -> None:
    """Search or write until the index is closed."""
    try:
        while True:
            if writes:
                index.upsert(["one more"])
            else:
                index.search("text 3", 3)
    except BaseException as error:
        errors.append(error)
