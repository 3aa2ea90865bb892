"""Configuration: YAML files and KEY VALUE pairs, merged, checked and frozen."""

from slowfast_maskfeat.config.defaults import default_config
from slowfast_maskfeat.config.load import load_config, parse_config

__all__ = ["default_config", "load_config", "parse_config"]
