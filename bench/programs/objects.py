# SPDX-License-Identifier: MIT
"""A heap of Python objects that answers: objects.py COUNT.  bench/victims.py says what the commands are."""
import random
import sys
import time


def record(i):
    return {"id": i, "name": f"user:{i:08d}", "tags": [f"t{i % 7919}", f"group-{i * 31 % 104729}"], "score": i * 0.5}


def right(heap, i):
    return heap[i] == record(i)


def answer(heap, command, choice):
    """How many objects are wrong."""
    count = {"one": 1, "hundred": 99, "next": 20000}.get(command)
    if count is None:
        return sum(not right(heap, i) for i in range(len(heap)))
    return sum(not right(heap, choice.randrange(len(heap))) for _ in range(count))


def main():
    heap, choice = [record(i) for i in range(int(sys.argv[1]))], random.Random(2)
    print("ready 0 0", flush=True)
    for line in sys.stdin:
        start = time.monotonic_ns()
        wrong = answer(heap, line.strip(), choice)
        print(line.strip(), time.monotonic_ns() - start, wrong, flush=True)


main()
