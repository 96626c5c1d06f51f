"""The site file as a kind of file: its schema in words, and what messages call it."""

from __future__ import annotations

from common.schema_words import SchemaWords
from common.yaml_dialect import Textual
from common.yaml_document import FileKind
from hpc.site.schema import Site
from hpc.slurm.options import option_as_key

SITE_KEYS = SchemaWords(Site)
SITE_FILE = FileKind(
    name="site file",
    content="a mapping of keys such as partition, account, time",
    page="docs/site-file.md",
    reader=Textual,
    when_missing="give its path, or make one with `ebbtide doctor`",
    may_be_empty=True,
    where_it_belongs=lambda path: option_as_key(path[0]) if len(path) == 1 else None,
    other_keys="see docs/site-file.md for all keys; further options of sbatch go into sbatch",
)
