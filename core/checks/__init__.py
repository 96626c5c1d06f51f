"""What a login node can know of a run file before anything is submitted: rules over several keys, and files."""

from core.checks.model_files import ModelFiles
from core.checks.rules import check_job, check_run, check_sections
from core.checks.run_file import check_run_file

__all__ = ["ModelFiles", "check_job", "check_run", "check_run_file", "check_sections"]
