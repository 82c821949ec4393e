"""Every key of export.yaml: its default, its rule and its meaning."""

from dataclasses import dataclass

from pixelis.config.settings import setting


@dataclass(frozen=True)
class ExportDataConfig:
    """Section `data` of export.yaml."""

    path: str = setting("data/cota", "folder that data-prep wrote; missing: a drawn scene is used")


@dataclass(frozen=True)
class ExportConfig:
    """configs/export.yaml."""

    adapter: str | None = setting(None, "folder, runs:/ or models:/ address; null: newest sft run")
    experiment: str = setting("sft_curriculum", "experiment whose newest finished run is taken")
    output_dir: str = setting("outputs/export", "folder that is made; must not be there yet")
    save_dtype: str = setting(
        "float32",
        "type of the saved weights; half as large ones are rounded; base: as the base's are saved",
        choices=("float32", "bfloat16", "float16", "base"),
    )
    tolerance: float = setting(1e-3, "largest difference of a logit before and after", above=0)
    data: ExportDataConfig = ExportDataConfig()
