"""The cost model against the paper's tables: ``python -m bench.flops --json``."""

from __future__ import annotations

from typing import Any

from transformers import LlamaConfig, SiglipVisionConfig

from bench.harness import ratio, run
from mod.config import VideoLLMMoDConfig
from mod.cost import kv_bytes, macs

#: Ego4D narration as the paper counts it: frames, text tokens, LoRA rank.
FRAMES, TEXT, RANK = 600, 600, 128

#: Rows of the paper's tables (TFLOPs).
PAPER_TFLOPS: dict[str, float] = {
    "full": 48.29,
    "early exit": 7.14,
    "layer skip": 26.35,
    "mod 0.1": 28.54,
    "mod 0.2": 30.74,
    "mod 0.3": 32.93,
    "all layers": 13.18,
    "all deep": 15.37,
    "interleaved deep": 31.83,
}
#: MiB of KV cache a frame in bf16, silence token included: dense, and MoD at keep ratio 0.2.
PAPER_KV_MIB = {"dense": 1.375, "mod": 0.875}


def llama3_8b(
    mod_layers: str | list[int] = "interleaved", keep_ratio: float = 0.2, **fields: Any
) -> VideoLLMMoDConfig:
    """Llama-3-8B behind SigLIP-L/16 at 384 pixels, as in the paper."""
    return VideoLLMMoDConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=24,
            num_attention_heads=16,
            image_size=384,
            patch_size=16,
        ),
        text_config=LlamaConfig(
            vocab_size=128256,
            hidden_size=4096,
            intermediate_size=14336,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=8,
        ),
        mod_layers=mod_layers,
        keep_ratio=keep_ratio,
        **fields,
    )


def configs() -> dict[str, VideoLLMMoDConfig]:
    """What each row of the paper runs.

    Its baselines skip all of a frame's tokens: EarlyExit after two layers, LayerSkip in every other
    one.
    """
    skips: dict[str, Any] = {"router": "skip", "always_keep_decision": False}
    return {
        "full": llama3_8b(router="none"),
        "early exit": llama3_8b("after-2", **skips),
        "layer skip": llama3_8b(**skips),
        "mod 0.1": llama3_8b(keep_ratio=0.1),
        "mod 0.2": llama3_8b(),
        "mod 0.3": llama3_8b(keep_ratio=0.3),
        "all layers": llama3_8b("all"),
        "all deep": llama3_8b("all-deep"),
        "interleaved deep": llama3_8b("interleaved-deep"),
    }


def measure(quick: bool) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Compare every row; nothing here depends on the machine."""
    del quick
    rows = {}
    for name, config in configs().items():
        ours = macs(config, FRAMES, TEXT, lora_rank=RANK) / 1e12
        rows[name] = {"ours": round(ours, 3), "paper": PAPER_TFLOPS[name]}
    kv = {
        "dense": kv_bytes(llama3_8b(mod_layers=[]), 1, 1, 2) / 2**20,
        "mod": kv_bytes(llama3_8b(), 1, 1, 2) / 2**20,
    }
    worst = max(abs(r["ours"] / r["paper"] - 1) for r in rows.values())
    worst_kv = max(abs(kv[k] / PAPER_KV_MIB[k] - 1) for k in kv)
    ratios = {
        "paper_rows_max_rel_error": ratio([worst]),
        "paper_kv_max_rel_error": ratio([worst_kv]),
    }
    settings = {"frames": FRAMES, "text_tokens": TEXT, "lora_rank": RANK}
    return settings, ratios, {"tera_macs": rows, "kv_mib_per_frame": kv}


if __name__ == "__main__":
    run("flops", measure)
