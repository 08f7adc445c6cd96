"""`swaa-tune`: adapters that let a model do with what a recipe shows it."""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Callable, Sequence

from swaa import presets
from swaa.client import Client
from swaa.errors import Error
from swaa.evaluation import records
from swaa.evaluation.runner import print_progress
from swaa.recipe import Recipe, format_layers
from swaa.tuning import examples, facts
from swaa.tuning.settings import TARGETS, Progress, Settings

# Settings that are flags of their own.
_NUMBERS = ("row_tokens", "rows_per_step", "learning_rate", "warm_up_steps", "rank", "alpha",
            "seed")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    parsed = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], None] = parsed.command
    try:
        command(parsed)
    except (Error, ValueError, OSError) as error:
        print(f"swaa-tune: {error}", file=sys.stderr)
        return 1
    except ImportError as error:
        print(f"swaa-tune: {error}; pip install 'swaa[tune]'", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="swaa-tune", description=__doc__.split(": ", 1)[1])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    made = commands.add_parser("facts", help="make prompts that hide facts in texts, as JSONL")
    made.add_argument("--texts", nargs="+", metavar="FILE",
                      help="plain texts; default: the topics of Python's own manual")
    made.add_argument("--words", type=int, nargs=2, default=(150, 700), metavar=("LEAST", "MOST"))
    made.add_argument("--count", type=int, default=1000)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--output", required=True)
    made.set_defaults(command=_facts)

    prepare = commands.add_parser("prepare", help="make examples of prompts; goes on where it "
                                                  "broke off")
    prepare.add_argument("--address", default="127.0.0.1:50051", help="HOST:PORT of the server")
    prepare.add_argument("--concurrency", type=int, default=8, help="requests at a time")
    prepare.add_argument("--data", required=True, metavar="FILE.jsonl")
    prepare.add_argument("--format", default="completion",
                         choices=(*examples.FORMATS, *records.FORMATS))
    prepare.add_argument("--prompt", choices=("chat", "text"), default="chat",
                         help="how records of the published formats are asked")
    prepare.add_argument("--answers", choices=examples.ANSWERS, default="given",
                         help="whose answers are learnt: the data's or full attention's own")
    prepare.add_argument("--max-tokens", type=int, default=512, help="of full attention's answers")
    prepare.add_argument("--tokenizer", metavar="MODEL",
                         help="split texts by this model's files instead of the server")
    prepare.add_argument("--output", required=True, metavar="FILE.jsonl")
    prepare.set_defaults(command=_prepare)

    _add_train(commands.add_parser("train", help="tune an adapter; goes on where it broke off"))

    lazy = commands.add_parser("lazy-layers", help="LightTransfer's count: which layers look at "
                                                   "first and last keys alone")
    lazy.add_argument("--model", required=True, metavar="FOLDER|FILE.gguf")
    lazy.add_argument("--data", required=True, metavar="FILE.jsonl", help="what prepare wrote")
    lazy.add_argument("--sinks", type=int, default=16)
    lazy.add_argument("--recent", type=int, default=256)
    lazy.add_argument("--last", type=int, default=32, help="queries that are looked at")
    lazy.add_argument("--limit", type=int, default=100, help="examples, at most")
    lazy.add_argument("--budget", type=int, help="how many layers stay full; default: half")
    lazy.set_defaults(command=_lazy_layers)

    preset = commands.add_parser("presets", help="what is published for models, with its source")
    preset.add_argument("model", nargs="?", default="", help="a part of the model's name")
    preset.set_defaults(command=_presets)
    return parser


def _add_train(train: argparse.ArgumentParser) -> None:
    train.add_argument("--model", required=True, metavar="FOLDER|FILE.gguf",
                       help="the base model, as the server has it")
    train.add_argument("--data", required=True, metavar="FILE.jsonl", help="what prepare wrote")
    train.add_argument("--recipe", required=True, help="the letters: W=256,K=16,F=even")
    train.add_argument("--output", required=True, metavar="FOLDER", help="the adapter")
    train.add_argument("--steps", type=int, default=400)
    train.add_argument("--targets", choices=TARGETS, default=TARGETS[0],
                       help="learn the answers' tokens, or full attention's distribution over them")
    for name in _NUMBERS:
        default = getattr(Settings, name)
        train.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default,
                           help=f"default: {default}")
    train.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    train.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto",
                       help="of the base model; auto: bfloat16 on a GPU")
    train.add_argument("--checkpoint-every", type=int, default=50, metavar="STEPS")
    train.set_defaults(command=_train)


def _facts(args: argparse.Namespace) -> None:
    texts = ([pathlib.Path(path).read_text(encoding="utf-8") for path in args.texts]
             if args.texts else facts.python_texts())
    least, most = args.words
    examples.write_cases(args.output, facts.fact_cases(texts, (least, most), args.count, args.seed))


def _prepare(args: argparse.Namespace) -> None:
    cases = examples.read_cases(args.data, args.format, args.prompt == "chat")
    splitter = examples.LocalTokenizer(args.tokenizer) if args.tokenizer else None
    with Client(args.address) as client:
        outcomes = examples.prepare(
            cases, args.output, client, answers=args.answers, splitter=splitter,
            max_tokens=args.max_tokens, concurrency=args.concurrency, progress=print_progress)
    print(", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())))


def _train(args: argparse.Namespace) -> None:
    import torch

    from swaa.tuning import model, training
    recipe = Recipe.parse(args.recipe)
    found = examples.read_examples(args.data)
    data = [example for example in found if len(example) <= args.row_tokens]
    if len(data) < len(found):
        print(f"{len(found) - len(data)} of {len(found)} examples are longer than a row of "
              f"{args.row_tokens} tokens and left out", file=sys.stderr)
    settings = Settings(recipe, args.steps, args.targets,
                                 **{name: getattr(args, name) for name in _NUMBERS})
    device = model.default_device() if args.device == "auto" else args.device
    dtype = args.dtype if args.dtype != "auto" else ("bfloat16" if device == "cuda" else "float32")
    base = model.load_base(args.model, device, getattr(torch, dtype))

    def report(progress: Progress) -> None:
        if progress.step % 10 == 0 or progress.step == args.steps:
            print(f"step {progress.step} of {args.steps}: loss {progress.loss:.4f}, "
                  f"{progress.tokens / progress.seconds:.0f} tokens/s", flush=True)

    training.train(base, data, settings, args.output, device=device,
                   checkpoint_every=args.checkpoint_every, report=report)
    print(f"{args.output}: an adapter for {recipe}; a server loads it by "
          "LoadLora, or by lora.adapters of its configuration")


def _lazy_layers(args: argparse.Namespace) -> None:
    import torch

    from swaa.tuning import lazy_layers, model
    device = model.default_device()
    base = model.load_base(args.model, device, torch.float32)
    texts = [example.prompt_ids for example in examples.read_examples(args.data)
             if len(example.prompt_ids) > args.sinks + args.recent][:args.limit]
    if not texts:
        raise ValueError(f"{args.data}: no prompt is longer than {args.sinks} first and "
                         f"{args.recent} recent tokens")
    ratios = [lazy_layers.lazy_ratios(base, ids, sinks=args.sinks, recent=args.recent,
                                      last=args.last, device=device) for ids in texts]
    for layer, count in enumerate(lazy_layers.lazy_counts(ratios)):
        mean = sum(text[layer] for text in ratios) / len(ratios)
        print(f"layer {layer:3}: lazy in {count} of {len(texts)} texts, mean ratio {mean:.3f}")
    kept = lazy_layers.least_lazy(ratios, args.budget or base.config.num_hidden_layers // 2)
    print(f"F={format_layers(kept)}")


def _presets(args: argparse.Namespace) -> None:
    found = [preset for preset in presets.PRESETS if args.model.lower() in preset.model]
    layers = {name: kept for name, kept in presets.LIGHT_TRANSFER.items()
              if args.model.lower() in name}
    if not found and not layers:
        raise ValueError(f"nothing is published for {args.model!r}; see them all without a name")
    for preset in found:
        reached = [f"{value:.1f} {how}" for value, how in (
            (preset.accuracy, "as is"), (preset.tuned_accuracy, "tuned")) if value is not None]
        print(f"{preset.model}  {preset.recipe}  {', '.join(reached)}  ({preset.source})")
    for name, kept in layers.items():
        print(f"{name}  F={format_layers(kept)}  (SWAA's repository: least often lazy by "
              "LightTransfer, arXiv 2410.13846)")


if __name__ == "__main__":
    sys.exit(main())
