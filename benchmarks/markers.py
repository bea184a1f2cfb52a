"""Measured text that stands in a page between `<!-- name -->` and `<!-- /name -->`."""

from pathlib import Path


def replace_between(page: Path, name: str, text: str) -> None:
    """Put `text` in place of what stands between the markers; `ValueError` where the page lacks them."""
    opening, closing = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    content = page.read_text()
    before, found, rest = content.partition(opening)
    _, ended, after = rest.partition(closing)
    if not (found and ended):
        raise ValueError(f"{page}: lacks {opening.strip()} ... {closing}")
    page.write_text(f"{before}{opening}{text}\n{closing}{after}")
