"""The options and arguments of commands that make model files, or measure them, each declared once."""

from pathlib import Path
from typing import Annotated

import typer

from owm.cli.options import OUTPUT, RESOURCES, complete_models

CheckpointArg = Annotated[
    str | None,
    typer.Argument(metavar="SOURCE", help="A checkpoint's folder, or `owner/repo[@REV]`.", show_default=False),
]
OutputOpt = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to write.", show_default=False)
]
ConvertTypeOpt = Annotated[
    str, typer.Option("--type", metavar="TYPE", help="`f32`, `f16`, `bf16`, or `auto`: the checkpoint's own.")
]
SplitMaxSizeOpt = Annotated[
    str | None,
    typer.Option(
        "--split-max-size",
        metavar="SIZE",
        help="Write several files of at most this size (`4GiB`).",
        show_default=False,
    ),
]
PreOpt = Annotated[
    str | None,
    typer.Option(
        "--pre",
        metavar="NAME",
        help="llama.cpp's name of the pre-tokenizer, if it is not recognized.",
        show_default=False,
    ),
]
LoraOpt = Annotated[
    Path | None,
    typer.Option(
        "--lora", metavar="DIR", help="Convert this adapter (PEFT) of the checkpoint instead.", show_default=False
    ),
]
BaseOpt = Annotated[
    str | None,
    typer.Option("--base", metavar="REF", help="The checkpoint that `--lora` adapts.", show_default=False),
]
WithConverterOpt = Annotated[
    Path | None,
    typer.Option(
        "--with-converter",
        metavar="DIR",
        help="Run the converter of this llama.cpp checkout, for architectures that owm does not convert.",
        show_default=False,
    ),
]

ModelFileArg = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="A model file (GGUF), or a stored model by its name.",
        show_default=False,
        autocompletion=complete_models,
    ),
]
PartArg = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="One of the parts (`-00001-of-00003.gguf`), or a stored model by its name.",
        show_default=False,
        autocompletion=complete_models,
    ),
]
PartMaxSizeOpt = Annotated[
    str | None,
    typer.Option("--max-size", metavar="SIZE", help="No part is larger than this (`2GiB`).", show_default=False),
]
PartMaxTensorsOpt = Annotated[
    int | None,
    typer.Option("--max-tensors", metavar="N", min=1, help="No part has more tensors than this.", show_default=False),
]

ImatrixSourceArg = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A model to compute one for, or the file of one to look at.",
        show_default=False,
        autocompletion=complete_models,
    ),
]
CalibrationOpt = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        metavar="FILE",
        help="Text to read, or conversations (`.jsonl`), instead of the text that comes with owm.",
        show_default=False,
    ),
]
ChunksOpt = Annotated[
    int | None,
    typer.Option("--chunks", metavar="N", help="Read at most so many chunks (default: all).", show_default=False),
]
ChunkSizeOpt = Annotated[
    int, typer.Option("--ctx-size", "-c", metavar="N", help="Tokens in a chunk.", rich_help_panel=RESOURCES)
]

QUANTIZE = "Recipe"
TAILOR = "Target size"

QuantizeSourceArg = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="`owner/repo[@REV]` with safetensors, a checkpoint's folder, or a model file (stored or a path).",
        show_default=False,
        autocompletion=complete_models,
    ),
]


def complete_types(incomplete: str) -> list[str]:
    """Offer quantization types to the shell."""
    from owm.quantize.types import FILE_TYPE_IDS

    return [name for name in FILE_TYPE_IDS if name.startswith(incomplete.upper())]


QuantTypesArg = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="TYPE…",
        help="`Q4_K_M`, `Q8_0`, `IQ4_XS`, …; several are made from one reading (default: Q4_K_M).",
        show_default=False,
        autocompletion=complete_types,
    ),
]
TensorTypeOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--tensor-type",
        metavar="REGEX=TYPE",
        help="Give tensors whose name fits another type; may be repeated, the first that fits wins.",
        rich_help_panel=QUANTIZE,
        show_default=False,
    ),
]
TensorTypeFileOpt = Annotated[
    Path | None,
    typer.Option(
        "--tensor-type-file",
        metavar="FILE",
        help="Read such lines from a file.",
        rich_help_panel=QUANTIZE,
        show_default=False,
    ),
]
OutputTypeOpt = Annotated[
    str | None,
    typer.Option(
        "--output-type",
        metavar="TYPE",
        help="Tensor type of the output embeddings.",
        rich_help_panel=QUANTIZE,
        show_default=False,
    ),
]
EmbeddingTypeOpt = Annotated[
    str | None,
    typer.Option(
        "--embedding-type",
        metavar="TYPE",
        help="Tensor type of the token embeddings.",
        rich_help_panel=QUANTIZE,
        show_default=False,
    ),
]
PureOpt = Annotated[
    bool, typer.Option("--pure", help="One tensor type throughout, no mixture.", rich_help_panel=QUANTIZE)
]
PruneLayersOpt = Annotated[
    str | None,
    typer.Option(
        "--prune-layers",
        metavar="N,N…",
        help="Leave out these layers, counted from 0.",
        rich_help_panel=QUANTIZE,
        show_default=False,
    ),
]
AllowRequantizeOpt = Annotated[
    bool,
    typer.Option("--allow-requantize", help="Quantize tensors that are quantized already.", rich_help_panel=QUANTIZE),
]
TargetSizeOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--target-size",
        metavar="SIZE",
        help="Choose types so that the file takes at most this (`4.2GiB`); may be repeated.",
        rich_help_panel=TAILOR,
        show_default=False,
    ),
]
BpwOpt = Annotated[
    list[float] | None,
    typer.Option(
        "--bpw",
        metavar="N",
        help="The same in bits per weight, of the whole file; may be repeated.",
        rich_help_panel=TAILOR,
        show_default=False,
    ),
]
FitOpt = Annotated[
    bool,
    typer.Option(
        "--fit",
        help="The same for what this machine can hold with a context of `--ctx-size` (default: 8192).",
        rich_help_panel=TAILOR,
    ),
]
FitCtxSizeOpt = Annotated[
    str | None,
    typer.Option(
        "--ctx-size",
        "-c",
        metavar="N",
        help="Tokens in the context that `--fit` leaves room for (`16k`).",
        rich_help_panel=TAILOR,
        show_default=False,
    ),
]
RecipeOpt = Annotated[
    Path | None,
    typer.Option(
        "--recipe",
        metavar="FILE",
        help="Use the types that were chosen before, for a target size.",
        rich_help_panel=TAILOR,
        show_default=False,
    ),
]
MeasureQualityOpt = Annotated[
    bool,
    typer.Option(
        "--quality", help="Measure what is lost against the source, and write it into the file.", rich_help_panel=OUTPUT
    ),
]
ImatrixOpt = Annotated[
    str | None,
    typer.Option(
        "--imatrix",
        metavar="FILE|auto",
        help="Importance matrix to quantize by; `auto` computes one.",
        rich_help_panel=QUANTIZE,
        show_default=False,
    ),
]
ReproduceOpt = Annotated[
    bool,
    typer.Option(
        "--reproduce",
        help="SOURCE is something made here: make it again as its manifest says, compare every byte, and keep nothing.",
        rich_help_panel=OUTPUT,
    ),
]
KeepSplitOpt = Annotated[bool, typer.Option("--keep-split", help="Write as many files as the source has.")]
MaxMemoryOpt = Annotated[
    str | None,
    typer.Option(
        "--max-memory",
        metavar="SIZE",
        help="Most memory to use (default: 512MiB).",
        rich_help_panel=RESOURCES,
        show_default=False,
    ),
]
PlotOpt = Annotated[
    Path | None,
    typer.Option(
        "--plot",
        metavar="FILE",
        help="Draw size against divergence (`.svg`, `.png`).",
        show_default=False,
        rich_help_panel=OUTPUT,
    ),
]

QualityReferenceArg = Annotated[
    str,
    typer.Argument(
        metavar="REFERENCE",
        help="What to measure against: a stored model, a name to pull, or a path; best the original weights.",
        show_default=False,
        autocompletion=complete_models,
    ),
]
QualityModelArg = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="The model to measure.", show_default=False, autocompletion=complete_models),
]
QualityTextOpt = Annotated[
    Path | None,
    typer.Option(
        "--text", metavar="FILE", help="Read this text (default: the one that comes with owm).", show_default=False
    ),
]
QualityFullOpt = Annotated[
    bool, typer.Option("--full", help="Read the whole text, however precise the figures are before.")
]
