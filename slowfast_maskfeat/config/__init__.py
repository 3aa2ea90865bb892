"""Configuration: YAML files and KEY VALUE pairs, merged, checked and frozen."""

from slowfast_maskfeat.config.defaults import add_keys, added_keys, default_config, key_value
from slowfast_maskfeat.config.load import import_extensions, load_config, parse_config
from slowfast_maskfeat.config.yaml_file import is_yaml

__all__ = [
    "add_keys",
    "added_keys",
    "default_config",
    "import_extensions",
    "is_yaml",
    "key_value",
    "load_config",
    "parse_config",
]
