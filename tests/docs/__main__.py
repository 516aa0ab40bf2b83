"""`just docs`: write the generated parts of the documents."""

import sys

from tests.docs.code import StaleTableError
from tests.docs.generate import DOCUMENTS, generate


def main() -> str | int:
    for path in DOCUMENTS:
        text = path.read_text()
        try:
            new = generate(text)
        except StaleTableError as error:
            return f"{path.name}: {error}"
        if new != text:
            path.write_text(new)
            sys.stdout.write(f"{path.name}: updated\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
