"""The pictures of docs/gallery.md, anew: `python -m examples.gallery [NAME ...]`.

Each example runs in a process of its own and prints its figures; its picture goes to docs/pictures, or to the folder
that the environment variable PICTURES names.
"""

import argparse
import os
import subprocess
import sys

from examples.count import FOLDER

EXAMPLES = ("vowels", "forecast", "stream", "language", "policy", "ocr", "export", "swap")
PICTURES = FOLDER.parent / "docs" / "pictures"


def main():
    parser = argparse.ArgumentParser(prog="python -m examples.gallery")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(EXAMPLES))
    for name in parser.parse_args().names or EXAMPLES:
        print(f"\n{name}", flush=True)
        where = {"PICTURES": str(PICTURES), **os.environ}
        subprocess.run([sys.executable, "-m", f"examples.{name}"], env=where, check=True)


if __name__ == "__main__":
    main()
