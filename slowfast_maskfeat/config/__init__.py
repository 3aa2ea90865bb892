"""From YAML files and KEY VALUE pairs to one merged, checked, frozen configuration."""

from slowfast_maskfeat.config.defaults import default_config
from slowfast_maskfeat.config.load import load_config, parse_config

__all__ = ["default_config", "load_config", "parse_config"]
