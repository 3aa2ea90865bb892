"""The only reader of the configuration: hands plain arguments to everything below."""

from slowfast_maskfeat.build.data import build_loader
from slowfast_maskfeat.build.masks import build_mask_sampler
from slowfast_maskfeat.build.model import build_model
from slowfast_maskfeat.build.optimizer import build_optimizer
from slowfast_maskfeat.build.task import build_task

__all__ = ["build_loader", "build_mask_sampler", "build_model", "build_optimizer", "build_task"]
