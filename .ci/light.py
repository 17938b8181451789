"""Print the requirements of the built wheel without extras and without sentence-transformers, which brings torch."""

from __future__ import annotations

import sys
import zipfile
from email.parser import HeaderParser
from pathlib import Path


def main() -> int:
    """Read the wheel in the folder that is named, and print one requirement per line."""
    (wheel,) = Path(sys.argv[1]).glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        requirements = HeaderParser().parsestr(archive.read(metadata).decode()).get_all("Requires-Dist", [])
    for requirement in requirements:
        if "extra ==" not in requirement and not requirement.startswith("sentence-transformers"):
            sys.stdout.write(f"{requirement}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
