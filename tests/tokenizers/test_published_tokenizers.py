"""Networks of published tokenizers: names, load reports and numbers of other implementations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.golden_rule import (
    GOLDEN,
    fill_with_golden_weights,
    golden_array,
    golden_json,
    golden_randn,
)
from helpers.tiny_run import ROOT
from torch import Tensor, nn

from slowfast_maskfeat import load_config, load_weights
from slowfast_maskfeat.backbones import BlockOptions, EncoderOptions
from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.builders.tokenizer import build_tokenizer, find_tokenizer, load_tokenizer
from slowfast_maskfeat.builders.tokenizer_networks import Parts, find_architecture
from slowfast_maskfeat.checkpoints import save_checkpoint, save_safetensors
from slowfast_maskfeat.runs.model_info import measure_model
from slowfast_maskfeat.tokenizers import (
    VQGAN,
    VQKD,
    DalleDecoder,
    DalleEncoder,
    DirectionEMAQuantizer,
    FeatureReconstruction,
    LearnedQuantizer,
    PatchTransformer,
    PixelReconstruction,
    Tokenizer,
    VQGANDecoder,
    VQGANEncoder,
)
from slowfast_maskfeat.tokenizers.published import own_names

FILES = json.loads((GOLDEN / "method_checkpoint_names.json").read_text())
# Of VQ-KD: averages that repeat its codebook, and a flag.
REPEATED = {f"quantize.embedding.{name}" for name in ("cluster_size", "embed_avg", "initted")}


def published(config: str, parts: Parts) -> Tokenizer:
    """The network of a shipped configuration, without memory."""
    cfg = load_config([str(ROOT / f"configs/{config}.yaml")])
    with torch.device("meta"):
        return find_architecture(cfg).build(cfg, parts)


def shapes(weights: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in weights.items()}


def weights_of(file: str) -> dict[str, Tensor]:
    """Weights without memory, by the names and shapes of a published file."""
    names = FILES[file]["names"]
    return {name: torch.empty(shape, device="meta") for name, shape in names.items()}


@pytest.mark.parametrize(
    ("file", "config", "parts", "unused"),
    [
        ("vqgan_imagenet_f16_16384", "teachers/VQGAN_F16_16384", Parts(), set()),
        (
            "vqkd_encoder_base_decoder_1x768x12_clip",
            "masked_ssl/in1k_VQKD",
            Parts(num_features=512),
            REPEATED,
        ),
        ("dalle_encoder", "masked_ssl/in1k_DVAE", Parts(has_decoder=False), set()),
    ],
)
def test_the_shipped_networks_have_the_published_names(
    file: str, config: str, parts: Parts, unused: set[str]
) -> None:
    model, theirs = published(config, parts), weights_of(file)
    assert sum(value.numel() for value in theirs.values()) >= FILES[file]["parameters"]
    theirs = own_names(theirs)
    assert unused <= set(theirs)
    assert shapes(model.state_dict()) == {
        name: shape for name, shape in shapes(theirs).items() if name not in unused
    }


def test_the_decoder_of_dalle_has_the_published_names_and_size() -> None:
    decoder = published("masked_ssl/in1k_DVAE", Parts()).decoder
    assert isinstance(decoder, DalleDecoder)
    assert shapes(decoder.state_dict()) == shapes(weights_of("dalle_decoder"))
    count = sum(parameter.numel() for parameter in decoder.parameters())
    assert count == FILES["dalle_decoder"]["parameters"]


@pytest.mark.parametrize(
    ("config", "files"),
    [
        ("masked_ssl/in1k_DVAE", ("dalle_encoder", "dalle_decoder")),
        ("teachers/VQGAN_F16_16384", ("vqgan_imagenet_f16_16384",)),
    ],
)
def test_their_sizes_are_counted(config: str, files: tuple[str, ...]) -> None:
    found = measure_model(load_config([str(ROOT / f"configs/{config}.yaml")]))
    assert found.complexity.num_parameters == sum(FILES[file]["parameters"] for file in files)
    assert found.grid == (1, 14, 14)
    assert found.complexity.multiply_adds > 50e9


def foreign_vqgan() -> tuple[VQGAN, dict[str, Tensor], dict]:
    """Our network, and weights and numbers of taming-transformers."""
    golden = golden_json("foreign/vqgan_taming.json")
    options = {"num_blocks": golden["num_blocks"], "attends": True}
    dim = golden["code_dim"]
    model = VQGAN(
        VQGANEncoder(golden["widths"], out_channels=dim, **options),
        LearnedQuantizer(golden["num_codes"], dim, beta=0.25),
        VQGANDecoder(dim, golden["widths"], out_channels=3, **options),
        reconstruction=PixelReconstruction("l1"),
    )
    state = {
        name: torch.from_numpy(golden_array(name, shape=tuple(shape)))
        for name, shape in golden["state"]
    }
    return model, state, golden


def test_a_vqgan_loads_completely_and_computes_what_the_authors_code_computes(
    tmp_path: Path,
) -> None:
    model, state, golden = foreign_vqgan()
    of_training = {"loss.perceptual_loss.lin0.model.1.weight": torch.zeros(1)}
    path = save_checkpoint(tmp_path / "last.pth", {"state_dict": {**state, **of_training}})
    report = load_weights(model, path, complete=True)
    assert (report.coverage, report.missing) == (1.0, ())
    assert report.unexpected == tuple(of_training)  # reported, and not used
    model.double().eval()
    images = golden_randn(1000, tuple(golden["input_shape"])).sigmoid().double()
    with torch.no_grad():
        encoded = model.to_vectors(model.encoder(model.reconstruction.scaled(images)))
        codes = model.encode(images)
        output = model.decoder_output(codes)
    expected = torch.tensor(golden["vectors"]).double().view(golden["vectors_shape"])
    torch.testing.assert_close(encoded, expected, rtol=1e-6, atol=1e-6)
    assert codes.tolist() == golden["codes"]
    expected = torch.tensor(golden["out"]).double()
    torch.testing.assert_close(output.flatten()[::13], expected, rtol=1e-6, atol=1e-6)
    assert float(output.norm()) == pytest.approx(golden["out_norm"], rel=1e-9)
    result = model(images)
    # Its loss has both terms, of which ours weighs one by beta.
    assert float(result.loss.mean().detach()) == pytest.approx(golden["loss"], rel=1e-6)


def small_vqkd() -> VQKD:
    """A network of VQ-KD for 16x16 pixels and features of width 12, with class tokens."""
    block = BlockOptions(key_bias=False)
    sizes = {"width": 16, "num_heads": 2, "patch_padding": (0, 0), "block": block}
    encoder = PatchTransformer(
        EncoderOptions(
            clip_size=(1, 16, 16), patch_kernel=(4, 4), patch_stride=(4, 4), depth=3, **sizes
        )
    )
    decoder = PatchTransformer(
        EncoderOptions(
            clip_size=(1, 4, 4),
            in_channels=6,
            patch_kernel=(1, 1),
            patch_stride=(1, 1),
            depth=1,
            **sizes,
        )
    )
    quantizer = DirectionEMAQuantizer(10, 6, decay=0.99, beta=1.0)
    kind = FeatureReconstruction()
    return VQKD(encoder, quantizer, decoder, num_features=12, reconstruction=kind)


def published_vqkd(model: VQKD) -> dict[str, Tensor]:
    """Weights of the golden rule in the published names."""
    state = {
        name: torch.from_numpy(golden_array(name, shape=tuple(value.shape)))
        for name, value in model.state_dict().items()
        if not name.startswith("quantizer.")
    }
    codebook = torch.nn.functional.normalize(golden_randn(5, (10, 6)), dim=1)
    state["quantize.embedding.weight"] = codebook
    state["quantize.cluster_size"] = torch.arange(10.0)
    state["quantize.embedding.embed_avg"] = codebook.clone()
    return state


def reference_transformer(state: dict[str, Tensor], part: str, maps: Tensor) -> Tensor:
    """Tokens (B, N, D) of a part by torch's own transformer layers, without the class token."""
    get = {name.removeprefix(f"{part}."): value.double() for name, value in state.items()}
    kernel = get["patch_embed.proj.weight"]
    width, side = kernel.shape[0], kernel.shape[2]
    tokens = torch.nn.functional.conv2d(maps, kernel, get["patch_embed.proj.bias"], stride=side)
    tokens = tokens.flatten(2).transpose(1, 2)
    tokens = torch.cat([get["cls_token"].expand(len(maps), -1, -1), tokens], dim=1)
    tokens = tokens + get["pos_embed"]
    depth = len({name.split(".")[1] for name in get if name.startswith("blocks.")})
    for number in range(depth):
        block = {n.removeprefix(f"blocks.{number}."): value for n, value in get.items()}
        layer = nn.TransformerEncoderLayer(
            width,
            2,
            dim_feedforward=4 * width,
            dropout=0.0,
            activation="gelu",
            layer_norm_eps=1e-6,
            batch_first=True,
            norm_first=True,
        ).double()
        zeros = torch.zeros_like(block["attn.q_bias"])
        bias = torch.cat([block["attn.q_bias"], zeros, block["attn.v_bias"]])
        names = {"out_proj": "attn.proj", "linear1": "mlp.fc1", "linear2": "mlp.fc2"}
        names |= {"norm1": "norm1", "norm2": "norm2"}
        found = {
            "self_attn.in_proj_weight": block["attn.qkv.weight"],
            "self_attn.in_proj_bias": bias,
        }
        for theirs, ours in names.items():
            front = "self_attn." if theirs == "out_proj" else ""
            for last in ("weight", "bias"):
                found[f"{front}{theirs}.{last}"] = block[f"{ours}.{last}"]
        layer.load_state_dict(found)
        tokens = layer(tokens)
    norm = get["fc_norm.weight"], get["fc_norm.bias"]
    return torch.nn.functional.layer_norm(tokens[:, 1:], (width,), *norm, eps=1e-6)


def two_layers(state: dict[str, Tensor], name: str, tokens: Tensor) -> Tensor:
    weights = [state[f"{name}.{i}.{last}"].double() for i in (0, 2) for last in ("weight", "bias")]
    hidden = torch.nn.functional.linear(tokens, *weights[:2]).tanh()
    return torch.nn.functional.linear(hidden, *weights[2:])


def test_a_vqkd_loads_completely_and_computes_what_its_formulas_say(tmp_path: Path) -> None:
    """Source: beit2/modeling_vqkd.py; transformers by torch's own layers."""
    model = small_vqkd()
    state = published_vqkd(model)
    path = save_checkpoint(tmp_path / "vqkd.pth", {"model": state})
    report = load_weights(model, path, complete=True)
    assert (report.coverage, report.missing) == (1.0, ())
    assert report.unexpected == ("quantize.embedding.embed_avg",)
    assert model.quantizer.sizes.tolist() == list(range(10))
    model.double().eval()
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        tokens = reference_transformer(state, "encoder", images * 255 / 127.5 - 1)
        vectors = two_layers(state, "encode_task_layer", tokens)
        cosines = torch.nn.functional.normalize(vectors, dim=2) @ model.quantizer.codebook.T
        codes = cosines.argmax(dim=2)  # (2, 16)
        assert model.encode(images).flatten(1).tolist() == codes.tolist()
        found = model.quantizer.codebook[codes].transpose(1, 2).unflatten(2, (4, 4))
        features = two_layers(
            state, "decode_task_layer", reference_transformer(state, "decoder", found)
        )
        result = model(images)
    expected = features.transpose(1, 2).unflatten(2, (4, 4))
    torch.testing.assert_close(result.output, expected, rtol=1e-9, atol=1e-9)
    units = torch.nn.functional.normalize(vectors, dim=2)
    distance = (units - model.quantizer.codebook[codes]).square().mean(dim=(1, 2))
    torch.testing.assert_close(result.loss, distance, rtol=1e-9, atol=1e-9)


def test_a_vqkd_trains_every_parameter_and_exempts_positions() -> None:
    torch.manual_seed(0)
    model = small_vqkd()
    images, features = torch.rand(2, 3, 16, 16), torch.randn(2, 12, 4, 4)
    result = model(images)
    (model.reconstruction.loss(result.output, features) + result.loss).mean().backward()
    names = dict(model.named_parameters())
    for name, parameter in names.items():
        assert parameter.grad is not None, name
    exempt = {"cls_token", "pos_embed"}
    assert model.no_weight_decay() == {f"{p}.{n}" for p in ("encoder", "decoder") for n in exempt}
    with pytest.raises(ValueError, match="reconstruct pixels"):
        model.decode(result.codes)
    assert not model.has_pictures


VQKD_YAML = """
MODEL: {MODEL_NAME: Tokenizer}
DATA: {TRAIN_CROP_SIZE: 16, NUM_FRAMES: 1}
TOKENIZER:
  {ARCH: vit, RECONSTRUCTION: features, NUM_CODES: 10, CODE_DIM: 6, CODEBOOK: direction,
   DISTANCE: cosine, KMEANS_ROUNDS: 0}
MVIT:
  {PATCH_2D: True, PATCH_KERNEL: [4, 4], PATCH_STRIDE: [4, 4], PATCH_PADDING: [0, 0], DEPTH: 3,
   EMBED_DIM: 16, NUM_HEADS: 2, KEY_BIAS: False}
"""


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_published_vqkd_is_frozen_without_its_teacher(tmp_path: Path, suffix: str) -> None:
    """Its file has no configuration, and the teacher of its training is not named."""
    state = published_vqkd(small_vqkd())
    path, file = tmp_path / f"vqkd{suffix}", tmp_path / "vqkd.yaml"
    file.write_text(VQKD_YAML)
    if suffix == ".pth":
        save_checkpoint(path, {"model": state})
    else:
        save_safetensors(path, dict(sorted(state.items())))
    found = find(CHECKPOINT=path, CFG=file)
    assert (found.num_codes, found.pixels_per_code) == (10, 4)
    model = small_vqkd()
    load_weights(model, path, complete=True)
    images = torch.rand(2, 3, 16, 16)
    network = load_tokenizer(found).network
    assert torch.equal(network.encode(images), model.eval().encode(images))
    assert network.decoder_output(network.encode(images)).shape == (2, 12, 4, 4)


DALLE = """
MODEL: {MODEL_NAME: Tokenizer}
DATA: {TRAIN_CROP_SIZE: 16}
TOKENIZER:
  {TYPE: dvae, ARCH: dalle, WIDTHS: [8, 16], NUM_CODES: 12, CODE_DIM: 4, NUM_BLOCKS: 1,
   RECONSTRUCTION: logit_laplace}
"""


@pytest.fixture
def dalle_files(tmp_path: Path) -> dict[str, Path]:
    """Encoder and decoder in files of their own, as published, and the configuration of both."""
    networks = {
        "encoder": DalleEncoder((8, 16), num_blocks=1, out_channels=12),
        "decoder": DalleDecoder(12, 4, (16, 8), num_blocks=1, out_channels=6),
    }
    files = {
        part: save_checkpoint(tmp_path / f"{part}.pth", fill_with_golden_weights(net).state_dict())
        for part, net in networks.items()
    }
    files["cfg"] = tmp_path / "dalle.yaml"
    files["cfg"].write_text(DALLE)
    return files


def find(**keys: object):
    words = [word for key, value in keys.items() for word in (f"TOKENIZER.{key}", str(value))]
    return find_tokenizer(load_config([], ["MASK.TARGET", "tokens", *words]))


def test_the_encoder_of_dalle_makes_codes_and_with_the_decoder_pictures(
    dalle_files: dict[str, Path],
) -> None:
    alone = find(CHECKPOINT=dalle_files["encoder"], CFG=dalle_files["cfg"])
    assert (alone.num_codes, alone.pixels_per_code) == (12, 2)
    both = find(
        CHECKPOINT=dalle_files["encoder"],
        CFG=dalle_files["cfg"],
        DECODER_CHECKPOINT=dalle_files["decoder"],
    )
    frozen, complete = load_tokenizer(alone), load_tokenizer(both)
    assert frozen.sha256 == complete.sha256  # a decoder may be added to a training
    assert not any(p.requires_grad for p in complete.network.parameters())
    images = torch.rand(2, 3, 8, 8)
    codes = frozen.network.encode(images)
    assert codes.shape == (2, 4, 4)
    assert torch.equal(codes, complete.network.encode(images))
    assert not frozen.network.has_pictures
    with pytest.raises(ValueError, match="must have a decoder"):
        frozen.network.decode(codes)
    assert complete.network.has_pictures
    assert complete.network.decode(codes).shape == images.shape


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"CFG": ""}, "has no configuration; give the YAML file of its model .TOKENIZER.CFG"),
        ({"CFG": "in1k_VQKDD"}, r"\(.*VIT_B_16.*\), got 'in1k_VQKDD'; did you mean in1k_VQKD\b"),
        ({"CFG": "my/in1k_VQDK.yaml"}, "; did you mean .*in1k_VQKD"),
        ({"CFG": "%%%"}, "got '%%%'$"),
        ({"CHECKPOINT": "decoder"}, "fills 0.0% of the backbone"),
        ({"DECODER_CHECKPOINT": "encoder"}, "fills 0.0% of the backbone"),
        ({"CFG": "VQGAN_F16_16384", "DECODER_CHECKPOINT": "decoder"}, "must be '' for a tokenizer"),
    ],
)
def test_files_of_dalle_that_do_not_fit_are_named(
    dalle_files: dict[str, Path], keys: dict[str, str], message: str
) -> None:
    given = {"CHECKPOINT": "encoder", "CFG": dalle_files["cfg"], **keys}
    with pytest.raises(ValueError, match=message):
        load_tokenizer(find(**{key: dalle_files.get(name, name) for key, name in given.items()}))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "ARCH dalle TYPE vq",
            "TOKENIZER.TYPE must be 'dvae' with TOKENIZER.ARCH 'dalle', got 'vq'",
        ),
        ("ARCH vqgan TYPE dvae", "TOKENIZER.TYPE must be 'vq' with TOKENIZER.ARCH 'vqgan'"),
        ("ARCH vit", "TOKENIZER.RECONSTRUCTION must be 'features' with TOKENIZER.ARCH 'vit'"),
        ("ARCH vqgan RECONSTRUCTION features", "must be one of pixels, such as 'l2', with"),
        ("ARCH vit RECONSTRUCTION features", "MVIT must describe a plain transformer"),
        ("ARCH vit RECONSTRUCTION features MVIT.PATCH_2D True MVIT.PATCH_KERNEL [0,0]", "plain"),
        ("ARCH vit RECONSTRUCTION features MVIT.PATCH_KERNEL [2,8,8]", "must describe a plain"),
        ("WIDTHS []", "TOKENIZER.WIDTHS must have the channels of at least one stage"),
        ("ARCH vqgan WIDTHS [8,16]", "multiple of 32"),
        ("ARCH dalle TYPE dvae WIDTHS [6]", "multiple of 4"),
        ("ARCH dalle TYPE dvae NUM_BLOCKS 0", ">= 1 blocks"),
        ("ARCH dall_e", "TOKENIZER.ARCH must be one of"),
    ],
)
def test_keys_that_contradict_each_other_are_errors(words: str, message: str) -> None:
    pairs = words.split()
    names = [
        f"TOKENIZER.{word}" if i % 2 == 0 and "." not in word else word
        for i, word in enumerate(pairs)
    ]
    with pytest.raises(ValueError, match=message):
        _build(["MODEL.MODEL_NAME", "Tokenizer", *names])


def _build(words: list[str]) -> Tokenizer:
    cfg = load_config([], words)
    return build_tokenizer(cfg, DataSource(cfg))
