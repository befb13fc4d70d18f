"""What config.json, the hub's cache and .gguf files say of a model's shape."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from core.memory.architecture import (
    Architecture,
    ArchitectureError,
    NotDownloadedError,
    find_architecture,
    likely_architecture,
    of_size,
    read_config,
)
from core.profile import Profile, from_document

Config = Mapping[str, Any]


def llama(**changes: Any) -> dict[str, Any]:
    """Llama 2 7B's config.json."""
    return {
        "model_type": "llama",
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "intermediate_size": 11008,
        "vocab_size": 32000,
        "tie_word_embeddings": False,
        **changes,
    }


def profile(model: str | Path) -> Profile:
    return from_document({"model": {"model_name_or_path": str(model)}, "data": {"dataset": "demo"}})


def saved(folder: Path, config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = config if isinstance(config, str) else json.dumps(config)
    (folder / "config.json").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (llama(), 6_738_415_616),
        (
            llama(vocab_size=128256, num_key_value_heads=8, intermediate_size=14336),
            8_030_261_248,
        ),
        (
            llama(
                hidden_size=8192, num_hidden_layers=80, num_attention_heads=64,
                num_key_value_heads=8, intermediate_size=28672, vocab_size=128256,
            ),
            70_553_706_496,
        ),
        (
            llama(
                model_type="mistral", vocab_size=32768, num_key_value_heads=8, head_dim=128,
                intermediate_size=14336,
            ),
            7_248_023_552,
        ),
        (
            llama(
                model_type="qwen2", hidden_size=896, num_hidden_layers=24, num_attention_heads=14,
                num_key_value_heads=2, intermediate_size=4864, vocab_size=151936,
                tie_word_embeddings=True,
            ),
            494_032_768,
        ),
        (
            llama(
                model_type="gemma", hidden_size=2048, num_hidden_layers=18, num_attention_heads=8,
                num_key_value_heads=1, head_dim=256, intermediate_size=16384, vocab_size=256000,
                tie_word_embeddings=True,
            ),
            2_506_172_416,
        ),
        (
            llama(
                model_type="phi3", hidden_size=3072, num_key_value_heads=32,
                intermediate_size=8192, vocab_size=32064,
            ),
            3_821_079_552,
        ),
        (
            {
                "model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12,
                "vocab_size": 50257, "n_positions": 1024,
            },
            124_439_808,
        ),
        (
            {
                "model_type": "gpt_neox", "hidden_size": 2048, "num_hidden_layers": 24,
                "num_attention_heads": 16, "intermediate_size": 8192, "vocab_size": 50304,
                "tie_word_embeddings": False,
            },
            1_414_647_808,
        ),
    ],
    ids=lambda value: value.get("model_type") if isinstance(value, dict) else None,
)  # fmt: skip
def test_published_models_have_their_number_of_parameters(config: Config, parameters: int) -> None:
    assert read_config(config).size() == parameters


SMALL = {
    "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 160, "vocab_size": 320, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"attention_bias": True, "mlp_bias": True},
    "mistral": {},
    "smollm3": {},
    "qwen2": {},
    "qwen3": {},
    "granite": {},
    "gemma": {},
    "gemma2": {},
    "gemma3_text": {},
    "phi3": {},
    "phi": {},
    "olmo": {},
    "olmo2": {},
    "stablelm": {"use_qkv_bias": True},
    "starcoder2": {},
    "cohere": {},
    "gpt_neox": {},
    "falcon": {"num_key_value_heads": None},
    "opt": {"ffn_dim": 160, "word_embed_proj_dim": 64},
    "gptj": {"rotary_dim": 8, "intermediate_size": None},
    "gpt2": {"intermediate_size": None},
    "gpt_bigcode": {"intermediate_size": None},
    "bloom": {},
    "mixtral": {"num_local_experts": 4},
}


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_family_is_read_as_transformers_builds_it(kind: str) -> None:
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    given = {k: v for k, v in (SMALL | FAMILIES[kind]).items() if v is not None}
    config = CONFIG_MAPPING[kind](**given)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    found = read_config(config.to_dict())
    assert found.kind != "unknown"
    assert found.size() == sum(p.numel() for p in model.parameters())
    inside = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if ".1." in name and getattr(module, "weight", None) is not None and module.weight.ndim == 2
    } - {"gate"}  # a router's, which is no linear layer
    assert {linear.name for linear in found.linears} == inside


def test_an_unknown_architecture_is_estimated_from_the_usual_names_and_says_so() -> None:
    found = read_config(llama(model_type="hyena"))
    assert found.kind == "unknown"
    assert found.size() == 6_738_415_616
    assert "The architecture hyena is not one that the formulas know" in found.notes[0]


def test_a_mixture_of_experts_counts_all_of_them_and_says_that_it_is_an_estimate() -> None:
    found = read_config(
        llama(
            model_type="mixtral",
            num_local_experts=8,
            num_key_value_heads=8,
            intermediate_size=14336,
        )
    )
    assert found.size() == 46_702_792_704
    assert "mixture of 8 experts" in found.notes[0]


def test_the_language_part_of_a_vision_model_is_read_with_a_note() -> None:
    found = read_config({"model_type": "llava", "text_config": llama(), "vision_config": {}})
    assert found.hidden == 4096
    assert any("sees more than text" in note for note in found.notes)


def test_code_that_comes_with_a_model_is_told_and_not_run(tmp_path: Path) -> None:
    folder = saved(
        tmp_path / "m", llama(model_type="own", auto_map={"AutoModelForCausalLM": "m.Own"})
    )
    (folder / "m.py").write_text("raise SystemExit('this ran')")
    found = find_architecture(profile(folder))
    assert "comes with code of its own, which is not run" in found.notes[0]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "llama"}, "how large the model is (llama): it has no hidden_size"),
        ({}, "(no model_type)"),
        (llama(hidden_size="big"), "hidden_size is 'big', not a number"),
        (llama(num_hidden_layers=0), "are no sizes of a model"),
        (llama(num_attention_heads=0, head_dim=None), "how large the model is"),
        (llama(num_hidden_layers=10**9), "are no sizes of a model"),
        (llama(vocab_size=10**400), "are no sizes of a model"),
        (llama(vocab_size=float("inf")), "how large the model is"),
        (llama(intermediate_size=-5), "are no sizes of a model"),
        (llama(model_type="mixtral", num_local_experts=-3), "are no sizes of a model"),
    ],
)
def test_a_config_without_sizes_is_refused_with_a_sentence(config: Config, message: str) -> None:
    with pytest.raises(ArchitectureError) as caught:
        read_config(config)
    assert message in str(caught.value)


def test_no_experts_are_no_mixture() -> None:
    assert read_config(llama(model_type="qwen3_next", num_experts=0)).experts == 0


@pytest.mark.parametrize("text", ["[" * 200_000, " " * (17 * 2**20)])
def test_a_config_that_would_fill_the_memory_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ArchitectureError, match=r"not valid JSON|too large"):
        find_architecture(profile(tmp_path))


def test_a_typical_model_has_the_number_of_parameters_that_is_known() -> None:
    for count in (120_000_000, 1_000_000_000, 7_000_000_000, 70_000_000_000):
        found = of_size(count, "from its size")
        assert found.size() == count
        assert found.kind == "unknown"
        shape = found.layers * found.layer_size() + found.outside_size()
        assert shape == pytest.approx(count, rel=0.15)
        # Attention with other heads has no kernel but the one that keeps all scores.
        assert found.head_dim in (64, 128) and found.heads * found.head_dim == found.hidden
    assert of_size(7_000_000_000, "").layers in range(24, 41)


# Where models are -----------------------------------------------------------------------------------------------


def test_the_demo_model_is_found() -> None:
    assert find_architecture(profile("demo")).model_type == "llama"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "holds no config.json, so that it is no model"),
        ("{", "is not valid JSON"),
        ("[1]", "is no JSON object"),
    ],
)
def test_a_folder_that_is_no_model_is_refused(
    tmp_path: Path, config: str | None, message: str
) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    if config is not None:
        saved(folder, config)
    with pytest.raises(ArchitectureError, match=message):
        find_architecture(profile(folder))


def test_an_adapter_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ArchitectureError, match="a LoRA adapter, not a whole model"):
        find_architecture(profile(tmp_path))


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArchitectureError, match="there is no "):
        find_architecture(profile(tmp_path / "none"))


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(ArchitectureError, match=r"a folder, a \.gguf file or a hub name"):
        find_architecture(profile(tmp_path / "model.bin"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub."""
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HUGGINGFACE_HUB_CACHE", raising=False)
    return tmp_path / "hub"


def cached(hub: Path, revision: str, commit: str, config: Config) -> None:
    model = hub / "models--someone--model"
    saved(model / "snapshots" / commit, config)
    (model / "refs").mkdir(exist_ok=True)
    (model / "refs" / revision).write_text(commit)


def test_a_hub_model_is_read_from_the_cache(hub: Path) -> None:
    cached(hub, "main", "abc", llama(num_hidden_layers=7))
    cached(hub, "v2", "def", llama(num_hidden_layers=9))
    named = profile("someone/model")
    assert find_architecture(named).layers == 7
    for revision, layers in (("v2", 9), ("def", 9), ("abc", 7)):
        other = named.with_changes({"model.model_revision": revision})
        assert find_architecture(other).layers == layers


def test_a_hub_model_that_is_not_in_the_cache_says_how_to_get_it_there(hub: Path) -> None:
    with pytest.raises(ArchitectureError, match="someone/model has not been downloaded yet"):
        find_architecture(profile("someone/model"))
    cached(hub, "main", "../../escape", llama())
    with pytest.raises(ArchitectureError, match="has not been downloaded"):
        find_architecture(profile("someone/model"))


@pytest.mark.parametrize(
    ("name", "told", "parameters"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", "7B", 7e9),
        ("Qwen/Qwen2.5-7B-Instruct-1M", "7B", 7e9),
        ("meta-llama/Llama-3.2-1B", "1B", 1e9),
        ("HuggingFaceTB/SmolLM2-135M", "135M", 135e6),
        ("EleutherAI/pythia-1.4b", "1.4b", 1.4e9),
        ("Qwen/Qwen3-30B-A3B", "30B", 30e9),
    ],
)
def test_a_hub_model_that_is_not_here_is_estimated_from_its_name(
    hub: Path, name: str, told: str, parameters: float
) -> None:
    found = likely_architecture(profile(name))
    assert found.kind == "unknown" and found.size() == parameters
    (note,) = found.notes
    assert f"an estimate from the {told} in its name" in note
    assert f"hf download {name} config.json" in note


@pytest.mark.parametrize(
    "name",
    ["gpt2", "7B/model", "a/phi-2", "a/Mixtral-8x7B", "a/gemma-3n-E4B", "a/0B", "a/Llama-8B-GPTQ",
     "a/llama-3-8b-bnb-4bit"],
)  # fmt: skip
def test_a_name_that_does_not_tell_an_ordinary_size_gives_no_estimate(hub: Path, name: str) -> None:
    with pytest.raises(NotDownloadedError, match="has not been downloaded yet"):
        likely_architecture(profile(name))


def test_what_is_here_counts_and_not_its_name(hub: Path, tmp_path: Path) -> None:
    cached(hub, "main", "abc", llama(num_hidden_layers=7))
    assert likely_architecture(profile("someone/model")).layers == 7
    (tmp_path / "model-7B").mkdir()
    for absent in (tmp_path / "model-7B", tmp_path / "none-7B"):
        with pytest.raises(ArchitectureError, match="no "):
            likely_architecture(profile(absent))


def weights(file: Path, shapes: Mapping[str, list[int]]) -> None:
    """A .safetensors file's header; what follows it is never read."""
    header = {n: {"dtype": "BF16", "shape": s, "data_offsets": [0, 0]} for n, s in shapes.items()}
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text)


def test_a_model_without_known_sizes_is_estimated_from_its_number_of_parameters(
    tmp_path: Path,
) -> None:
    folder = saved(tmp_path, {"model_type": "mamba", "d_state": 16})
    weights(folder / "model-1.safetensors", {"a": [1000, 2000], "b": [64]})
    weights(folder / "model-2.safetensors", {"c": [5, 6, 7]})
    found = find_architecture(profile(folder))
    assert (found.kind, found.size()) == ("unknown", 2_000_064 + 210)
    assert "an estimate from the number of its parameters" in found.notes[0]


def test_damaged_weights_do_not_hide_that_the_config_says_too_little(tmp_path: Path) -> None:
    folder = saved(tmp_path, {"model_type": "mamba"})
    (folder / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(ArchitectureError, match="does not say how large the model is"):
        find_architecture(profile(folder))


# .gguf ----------------------------------------------------------------------------------------------------------


def write_gguf(file: Path, kind: str = "llama", *, tied: bool = True, **more: int) -> None:
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(str(file), kind)
    writer.add_block_count(3)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(160)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_token_list(["a", "bc", "d"] * 100)
    writer.add_token_scores([0.5] * 300)
    for key, value in more.items():
        writer.add_uint32(f"{kind}.{key}", value)
    writer.add_tensor("token_embd.weight", np.zeros((300, 64), dtype=np.float16))
    if not tied:
        writer.add_tensor("output.weight", np.zeros((300, 64), dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("tied", [True, False])
def test_a_gguf_file_is_read_by_its_header(tmp_path: Path, tied: bool) -> None:
    write_gguf(tmp_path / "m.gguf", tied=tied)
    found = find_architecture(profile(tmp_path / "m.gguf"))
    wanted = read_config(llama(**{k: SMALL[k] for k in SMALL}, tie_word_embeddings=tied))
    assert shape(found) == {**shape(wanted), "vocabulary": 300}


def shape(architecture: Architecture) -> dict[str, Any]:
    names = (
        "hidden",
        "layers",
        "heads",
        "kv_heads",
        "head_dim",
        "intermediate",
        "vocabulary",
        "tied",
    )
    return {name: getattr(architecture, name) for name in names}


def test_a_gguf_file_of_an_unknown_kind_gives_an_estimate(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", "warp")
    found = find_architecture(profile(tmp_path / "m.gguf"))
    assert found.kind == "unknown"
    assert found.parameters == 300 * 64


def test_a_damaged_gguf_file_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    write_gguf(file)
    whole = file.read_bytes()
    end = whole.index(b"token_embd.weight") + 8
    for size in [*range(64), *range(64, end, 97)]:
        file.write_bytes(whole[:size])
        with pytest.raises(ArchitectureError, match=r"damaged or no \.gguf file"):
            find_architecture(profile(file))
