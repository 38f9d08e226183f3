"""Exits with 1 unless a wheel is what another build of the same sources made: `same_build.py WHEEL SRC EPOCH`.

SRC has the compiled parts that were built in place there: those of the wheel have the same bytes. What else could
differ from build to build are times, all of which are EPOCH, in seconds, and the order of files, which is that of
their names.
"""

import sys
import time
import zipfile
from pathlib import Path


def place(name):
    """Where a file stands: those of a folder before the folders in it."""
    *folders, last = name.split("/")
    return *((1, folder) for folder in folders), (0, last)


wheel, source, epoch = zipfile.ZipFile(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
even = (*time.gmtime(epoch)[:5], time.gmtime(epoch).tm_sec // 2 * 2)  # a zip counts two seconds
parts = [name for name in wheel.namelist() if name.endswith(".so")]
wrong = [f"{name}: other bytes than {source / name}" for name in parts
         if not (source / name).exists() or wheel.read(name) != (source / name).read_bytes()]  # fmt: skip
wrong += [f"{info.filename}: of {info.date_time}, not {even}" for info in wheel.infolist() if info.date_time != even]
packed = [name for name in wheel.namelist() if ".dist-info/" not in name]
wrong += ["files are not in the order of their names"] * (packed != sorted(packed, key=place))
if wrong or not parts:
    sys.exit("\n".join(wrong[:9] or [f"{sys.argv[1]}: no compiled parts"]))
print(f"{len(parts)} compiled parts, {len(packed)} files")
