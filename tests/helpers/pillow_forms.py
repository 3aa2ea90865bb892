"""RandAugment's operations as Pillow does them, one picture at a time: the measure of tensors."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageEnhance, ImageOps


def pictures() -> dict[str, np.ndarray]:
    """The two pictures of the golden results, and a smooth one: (H, W, 3) uint8."""
    noise = np.random.Generator(np.random.PCG64(400)).integers(0, 256, (48, 64, 3))
    y, x = np.mgrid[:48, :64]
    ramp = np.stack([4 * x % 256, 5 * y % 256, (x + y) % 256], -1)
    coarse = np.random.default_rng(1).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    smooth = Image.fromarray(coarse).resize((80, 60), Image.Resampling.BICUBIC)
    return {
        "noise": noise.astype(np.uint8),
        "ramp": ramp.astype(np.uint8),
        "smooth": np.array(smooth),
    }


def pillow_result(
    picture: np.ndarray,
    name: str,
    argument: float,
    *,
    resample: Image.Resampling = Image.Resampling.BICUBIC,
    fill: tuple[int, int, int] = (128, 128, 128),
) -> np.ndarray:
    """One operation on one picture (H, W, 3) uint8."""
    image = Image.fromarray(picture)
    width, height = image.size
    options = {"resample": resample, "fillcolor": fill}

    def move(*matrix: float) -> Image.Image:
        return image.transform(image.size, Image.Transform.AFFINE, matrix, **options)

    def enhance(kind: type) -> Image.Image:
        return kind(image).enhance(argument)

    def posterize() -> Image.Image:
        if argument:
            return ImageOps.posterize(image, int(argument))
        return image.point([0] * 768)  # what older Pillows do; newer ones refuse to keep no bit

    def solarize_add() -> Image.Image:
        table = [min(value + int(argument), 255) if value < 128 else value for value in range(256)]
        return image.point(table * 3)

    forms = {
        "AutoContrast": lambda: ImageOps.autocontrast(image),
        "Equalize": lambda: ImageOps.equalize(image),
        "Invert": lambda: ImageOps.invert(image),
        "Rotate": lambda: image.rotate(argument, **options),
        "Posterize": posterize,
        "Solarize": lambda: ImageOps.solarize(image, int(argument)),
        "SolarizeAdd": solarize_add,
        "Color": lambda: enhance(ImageEnhance.Color),
        "Contrast": lambda: enhance(ImageEnhance.Contrast),
        "Brightness": lambda: enhance(ImageEnhance.Brightness),
        "Sharpness": lambda: enhance(ImageEnhance.Sharpness),
        "ShearX": lambda: move(1, argument, 0, 0, 1, 0),
        "ShearY": lambda: move(1, 0, 0, argument, 1, 0),
        "TranslateXRel": lambda: move(1, 0, argument * width, 0, 1, 0),
        "TranslateYRel": lambda: move(1, 0, 0, 0, 1, argument * height),
    }
    return np.array(forms[name.removesuffix("Increasing")]())
