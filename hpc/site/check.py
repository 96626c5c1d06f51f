"""A `Site` made from the document of a site file, with every mistake turned into a `Mistake`."""

from __future__ import annotations

from pydantic import ValidationError

from common.mistake import Mistake
from common.schema_mistakes import schema_mistakes
from common.yaml_document import Document
from hpc.site.keys import SITE_KEYS
from hpc.site.schema import Site


def check_site(document: Document) -> tuple[Site | None, list[Mistake]]:
    """The site, or all mistakes in it with their lines."""
    try:
        return Site.model_validate(SITE_KEYS.with_empty(document.tree)), []
    except ValidationError as error:
        return None, schema_mistakes(error, document, SITE_KEYS)
