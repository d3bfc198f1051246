# SPDX-License-Identifier: MIT
"""Objects, dictionaries, strings and lists, made and dropped: python3 with PYTHONMALLOC=malloc.  A percentage of
work is the argument."""
import json
import random
import sys


class Node:
    def __init__(self, key, left=None, right=None):
        self.key, self.left, self.right, self.tags = key, left, right, [str(key), (key, key + 1)]


def insert(root, key):
    if root is None:
        return Node(key)
    at = root
    while True:
        side = "left" if key < at.key else "right"
        below = getattr(at, side)
        if below is None:
            setattr(at, side, Node(key))
            return root
        at = below


def words(r, n):
    return ["".join(r.choices("abcdefghij", k=r.randrange(2, 12))) for _ in range(n)]


def main():
    r = random.Random(1)
    total, kept = 0, []
    for turn in range(int(sys.argv[1]) // 5):
        root = None
        for _ in range(2000):
            root = insert(root, r.randrange(1 << 20))
        count = {}
        for word in words(r, 4000):
            count[word] = count.get(word, 0) + 1
        text = json.dumps({"words": count, "list": [[i, str(i), {"i": i}] for i in range(2000)]})
        back = json.loads(text)
        total += len(text) + len(back["words"])
        kept.append((root, {k: [v] * 3 for k, v in count.items()}))
        if len(kept) > 6:
            del kept[r.randrange(len(kept))]
        total += len(sorted("%d:%s" % (v, k) for k, v in count.items()))
    print(total)


main()
