"""Configuration: YAML files and KEY VALUE pairs, merged, checked and frozen."""

from slowfast_maskfeat.config.defaults import add_keys, added_keys, default_config, key_value
from slowfast_maskfeat.config.difference import changed_keys, changes_training, difference_table
from slowfast_maskfeat.config.load import (
    Overrides,
    check_complete,
    check_pair,
    default_folder,
    import_extensions,
    load_config,
    load_run_config,
    override_pairs,
    parse_config,
)
from slowfast_maskfeat.config.yaml_file import split_words

__all__ = [
    "Overrides",
    "add_keys",
    "added_keys",
    "changed_keys",
    "changes_training",
    "check_complete",
    "check_pair",
    "default_config",
    "default_folder",
    "difference_table",
    "import_extensions",
    "key_value",
    "load_config",
    "load_run_config",
    "override_pairs",
    "parse_config",
    "split_words",
]
