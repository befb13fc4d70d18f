"""A program: takes memory of the GPU that it sees and holds it until its input ends, as somebody else's job would.

`python foreign.py BYTES`. It says `holding` once it has the memory.
"""

import sys


def main(size: int) -> None:
    import torch

    held = torch.ones(size, dtype=torch.uint8, device="cuda")
    # What was asked for is there only once a kernel has run.
    torch.cuda.synchronize()
    print("holding", flush=True)
    sys.stdin.read()
    del held


if __name__ == "__main__":
    main(int(sys.argv[1]))
