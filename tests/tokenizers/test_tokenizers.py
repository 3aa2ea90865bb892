"""dVAE and VQ tokenizers: codes of images, pictures of codes, and training."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from slowfast_maskfeat.metrics.codes import code_counts, code_usage
from slowfast_maskfeat.tokenizers import (
    DVAE,
    ConvDecoder,
    ConvEncoder,
    DirectionEMAQuantizer,
    EMAQuantizer,
    FeatureDecoder,
    FeatureReconstruction,
    LogitLaplaceReconstruction,
    PixelReconstruction,
    Reconstruction,
    Tokenizer,
    VQTokenizer,
    gumbel_noise,
    pixel_reconstruction,
)

WIDTHS = (8, 12)
NUM_CODES = 16


def dvae(loss: str = "l2") -> DVAE:
    reconstruction = pixel_reconstruction(loss)
    decoder = ConvDecoder(6, WIDTHS[::-1], num_blocks=1, out_channels=reconstruction.num_channels)
    encoder = ConvEncoder(WIDTHS, num_blocks=1, out_channels=NUM_CODES)
    return DVAE(encoder, decoder, code_dim=6, reconstruction=reconstruction)


def vq(loss: str = "l2", *, kmeans_rounds: int = 5) -> VQTokenizer:
    reconstruction = pixel_reconstruction(loss)
    decoder = ConvDecoder(6, WIDTHS[::-1], num_blocks=1, out_channels=reconstruction.num_channels)
    encoder = ConvEncoder(WIDTHS, num_blocks=1, out_channels=6)
    quantizer = EMAQuantizer(NUM_CODES, 6, decay=0.9, kmeans_rounds=kmeans_rounds, restart_after=10)
    return VQTokenizer(encoder, quantizer, decoder, reconstruction=reconstruction)


MODELS: dict[str, Callable[..., Tokenizer]] = {"dvae": dvae, "vq": vq}


def forward(model: Tokenizer, images: Tensor) -> Reconstruction:
    if isinstance(model, DVAE):
        cells = (images.shape[2] // 4, images.shape[3] // 4)
        noise = gumbel_noise(range(len(images)), (model.num_codes, *cells))
        return model(images, noise.to(images.dtype), temperature=0.5)
    return model(images)


def shapes(num_images: int = 8) -> Tensor:
    """Images of a bright rectangle in one of the colors, on a dark ground."""
    images = torch.full((num_images, 3, 16, 16), 0.1)
    for i in range(num_images):
        images[i, i % 3, 4 * (i % 2) : 12, 4 : 12 + 4 * (i % 2)] = 0.9
    return images


@pytest.mark.parametrize("loss", ["l1", "l2", "smooth_l1", "logit_laplace"])
@pytest.mark.parametrize("kind", MODELS)
def test_codes_and_pictures(kind: str, loss: str) -> None:
    torch.manual_seed(0)
    model, images = MODELS[kind](loss), torch.rand(3, 3, 16, 24)
    result = forward(model, images)
    assert model.num_codes == NUM_CODES
    assert model.pixels_per_code == 4
    assert result.codes.dtype == torch.int64
    assert result.codes.shape == (3, 4, 6)
    assert torch.equal(model.encode(images), result.codes)
    assert not model.encode(images).requires_grad
    pictures = model.decode(result.codes)
    assert pictures.shape == images.shape
    assert 0 <= float(pictures.min().detach()) <= float(pictures.max().detach()) <= 1
    assert result.loss.shape == (3,)
    assert model.reconstruction.loss(result.output, images).shape == (3,)
    if kind == "vq":  # what it trains on is what its codes show
        assert torch.allclose(model.reconstruction.pictures(result.output), pictures, atol=1e-6)


@pytest.mark.parametrize("kind", MODELS)
def test_every_parameter_has_a_gradient(kind: str) -> None:
    torch.manual_seed(0)
    model, images = MODELS[kind](), torch.rand(2, 3, 16, 16)
    result = forward(model, images)
    loss = model.reconstruction.loss(result.output, images) + 0.1 * result.loss
    loss.mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.norm()) > 0, name


@pytest.mark.parametrize("kind", MODELS)
def test_losses_are_those_of_single_images(kind: str) -> None:
    torch.manual_seed(0)
    model, images = MODELS[kind](kmeans_rounds=0) if kind == "vq" else dvae(), shapes(4)
    model.double().eval()
    images = images.double()
    whole = forward(model, images)
    pixels = model.reconstruction.loss(whole.output, images)
    noise = gumbel_noise(range(4), (NUM_CODES, 4, 4)).double()
    for i in range(4):
        part = slice(i, i + 1)
        arguments = {"noise": noise[part], "temperature": 0.5} if kind == "dvae" else {}
        alone = model(images[part], **arguments)
        assert torch.allclose(alone.loss, whole.loss[part])
        assert torch.allclose(model.reconstruction.loss(alone.output, images[part]), pixels[part])


@pytest.mark.parametrize("kind", MODELS)
def test_training_lowers_the_loss(kind: str) -> None:
    torch.manual_seed(0)
    model, images = MODELS[kind]("l2"), shapes()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    weight = 1e-3 if kind == "dvae" else 1.0
    losses = []
    for _ in range(120):
        result = forward(model, images)
        pixels = model.reconstruction.loss(result.output, images).mean()
        losses.append(float(pixels.detach()))
        (pixels + weight * result.loss.mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
        model.after_step(torch.tensor(True))
    mean = images.mean(dim=0, keepdim=True).expand_as(images)  # of the best constant picture
    baseline = float(model.reconstruction.loss(mean * 2 - 1, images).mean())
    assert min(losses[-5:]) < 0.5 * baseline
    usage = float(code_usage(code_counts(model.encode(images), NUM_CODES)))
    assert usage > (0.7 if kind == "vq" else 0.2)  # dead codes of the former restart


def test_the_names_of_a_small_dvae_are_the_published_ones() -> None:
    names = set(dvae().state_dict())
    assert {"codebook.weight", "encoder.0.0.weight", "encoder.1.net.4.bias"} <= names
    assert {"encoder.4.weight", "decoder.0.0.weight", "decoder.3.net.0.weight"} <= names


def test_features_of_a_teacher_are_reconstructed_on_the_grid_of_the_codes() -> None:
    torch.manual_seed(0)
    decoder = FeatureDecoder(6, 10, num_blocks=2, out_channels=20)
    quantizer = DirectionEMAQuantizer(NUM_CODES, 6, decay=0.9, beta=1.0)
    encoder = ConvEncoder(WIDTHS, num_blocks=0, out_channels=6)
    model = VQTokenizer(encoder, quantizer, decoder, reconstruction=FeatureReconstruction())
    images, features = torch.rand(2, 3, 16, 16), torch.randn(2, 20, 4, 4)
    result = model(images)
    assert result.output.shape == features.shape
    loss = model.reconstruction.loss(result.output, features)
    cosine = torch.cosine_similarity(result.output, features, dim=1)
    assert torch.allclose(loss, 1 - cosine.mean(dim=(1, 2)), atol=1e-6)
    with pytest.raises(ValueError, match="reconstruct pixels"):
        model.decode(result.codes)
    with pytest.raises(ValueError, match=r"\(2, 20, 4, 4\)"):
        model.reconstruction.loss(result.output, features[..., :2])


@pytest.mark.parametrize("value_range", [(-1.0, 1.0), (0.0, 1.0)])
def test_a_perfect_reconstruction_of_pixels(value_range: tuple[float, float]) -> None:
    images = torch.rand(2, 3, 8, 8)
    for error in ("l1", "l2", "smooth_l1"):
        kind = PixelReconstruction(error, value_range=value_range)
        output = kind.scaled(images)
        assert kind.loss(output, images).tolist() == [0, 0]
        assert torch.allclose(kind.pictures(output), images, atol=1e-6)
        assert (kind.loss(output + 0.5, images) > 0).all()


def test_a_likely_reconstruction_by_logit_laplace() -> None:
    images = torch.rand(2, 3, 8, 8)
    kind = LogitLaplaceReconstruction()
    logits = kind.scaled(images).logit()
    sharp, wide = (torch.cat([logits, torch.full_like(logits, s)], dim=1) for s in (-3.0, 0.0))
    assert torch.allclose(kind.pictures(sharp), images, atol=1e-5)
    assert (kind.loss(sharp, images) < kind.loss(wide, images)).all()
    assert (kind.loss(sharp + 1, images) > kind.loss(sharp, images)).all()


def test_black_and_white_have_a_finite_likelihood() -> None:
    images = torch.zeros(1, 3, 8, 8)
    images[..., 4:] = 1
    assert LogitLaplaceReconstruction().loss(torch.zeros(1, 6, 8, 8), images).isfinite().all()


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("shape", [(1, 3, 18, 16), (1, 3, 16, 2), (1, 1, 16, 16), (3, 16, 16)])
def test_images_of_another_size_are_errors(kind: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"multiples of 4|\(B, 3, H, W\)"):
        MODELS[kind]().encode(torch.rand(shape))


def test_what_does_not_fit_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"one of .*logit_laplace.*'huber'"):
        pixel_reconstruction("huber")
    with pytest.raises(ValueError, match=r"got widths \[\]"):
        ConvEncoder((), num_blocks=1, out_channels=4)
    encoder = ConvEncoder((4,), num_blocks=0, out_channels=5)
    decoder = ConvDecoder(6, (4,), num_blocks=0, out_channels=3)
    quantizer = EMAQuantizer(NUM_CODES, 6, decay=0.9)
    with pytest.raises(ValueError, match="width 6 of the codes, got 5"):
        VQTokenizer(encoder, quantizer, decoder, reconstruction=PixelReconstruction("l1"))
