"""`swaa-eval`: measures recipes on a server, chooses layers, recommends a recipe."""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence

from swaa.client import Client
from swaa.errors import Error
from swaa.evaluation import layers, records, recommendation, results, retrieval, runner, texts
from swaa.evaluation.answers import AnswerTask
from swaa.evaluation.cases import Task
from swaa.evaluation.scoring import mean_answer_scores
from swaa.recipe import Recipe

_TASKS: Mapping[str, str] = {
    "pass_key": "a number said at some depth of a text",
    "multi_needle": "several numbers all over a text",
    "key_value": "the value of a key of a JSON object",
    "agreement": "how far from full attention",
    "perplexity": "how well a text is predicted, by position",
    **{form: f"questions of a JSONL file, --data, in the format {form}"
       for form in records.FORMATS},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    parsed = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], None] = parsed.command
    try:
        command(parsed)
    except (Error, ValueError, OSError, runner.RunMismatch) as error:
        print(f"swaa-eval: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="swaa-eval", description=__doc__.split(": ", 1)[1])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="measure tasks under recipes; goes on where it broke off")
    _add_server(run)
    _add_task(run)
    run.add_argument("--recipes", default="full;quality;balanced;fast;memory;decode;window",
                     help="names, or recipes such as W=512,K=16,F=odd,D=all, divided by semicolons")
    run.add_argument("--grid", help="in place of --recipes full attention and all combinations of "
                                    "W=256/512,K=0/16,F=-/even,D=-/all")
    run.add_argument("--warm-up", type=int, default=400, metavar="REQUESTS",
                     help="short requests, at most, by which the server learns what steps cost")
    run.add_argument("--output", required=True, help="the folder of the run")
    run.set_defaults(command=_run)

    report = commands.add_parser("report", help="tables and plots of a run, into its folder")
    report.add_argument("folder")
    report.set_defaults(command=_report)

    layer = commands.add_parser("layers", help="choose the layers that stay full")
    _add_server(layer)
    _add_task(layer)
    layer.add_argument("--recipe", required=True, help="the other letters: W=256,K=16,D=all")
    layer.add_argument("--budget", type=int, help="how many layers stay full; default: half")
    layer.add_argument("--method", choices=("greedy", "leave-one-out"), default="greedy")
    layer.add_argument("--per-round", type=int, default=1, help="greedy: layers added at a time")
    layer.add_argument("--name", default="chosen-layers", help="of the recipe that is written")
    layer.add_argument("--output", help="a YAML file for the server, with the recipe")
    layer.set_defaults(command=_layers)

    best = commands.add_parser("recommend", help="the cheapest recipe of a run that is good enough")
    best.add_argument("folder")
    best.add_argument("--task", required=True)
    best.add_argument("--metric", required=True)
    best.add_argument("--maximum-loss", type=float, required=True,
                      help="of full attention's quality, on the metric's own scale")
    best.add_argument("--max-time-to-first-token", type=float, metavar="SECONDS")
    best.add_argument("--max-kv-bytes", type=float, metavar="BYTES")
    best.add_argument("--name", default="recommended", help="of the recipe that is written")
    best.add_argument("--output", help="a YAML file for the server: the recipe, an experiment")
    best.set_defaults(command=_recommend)
    return parser


def _add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--address", default="127.0.0.1:50051", help="HOST:PORT of the server")
    parser.add_argument("--concurrency", type=int, default=8, help="requests at a time")


def _add_task(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", choices=list(_TASKS), default="pass_key",
                        help="; ".join(f"{name}: {what}" for name, what in _TASKS.items()))
    parser.add_argument("--words", type=_integers, default=(400, 800, 1200),
                        help="lengths of texts, such as 400,800 (key_value: pairs)")
    parser.add_argument("--depths", type=_floats, default=(0.1, 0.3, 0.5, 0.7, 0.9),
                        help="pass_key: where the number stands")
    parser.add_argument("--cases", type=int, default=4, help="of each length and depth")
    parser.add_argument("--needles", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", help="a JSONL file of questions, or a text file, which "
                                       "agreement and perplexity take whole")
    parser.add_argument("--limit", type=int, help="of a file's records, the most that are taken")
    parser.add_argument("--prompt", choices=("chat", "text"), default="chat",
                        help="how a file's questions are asked")


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _floats(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _task(args: argparse.Namespace) -> Task:
    if args.task in records.FORMATS:
        if not args.data:
            raise ValueError(f"--task {args.task} needs --data FILE.jsonl")
        return records.question_file(args.data, args.task, chat=args.prompt == "chat",
                                     limit=args.limit)
    if args.task in ("agreement", "perplexity"):
        if args.data:
            made = [pathlib.Path(args.data).read_text(encoding="utf-8")]
        else:
            made = [text for words in args.words
                    for text in texts.made_texts(args.cases, words, args.seed)]
        if args.task == "agreement":
            return texts.Agreement(made)
        return texts.Perplexity(made)
    return _retrieval(args)


def _retrieval(args: argparse.Namespace) -> AnswerTask:
    if args.task == "multi_needle":
        return retrieval.multi_needle(args.words, args.needles, args.cases, args.seed)
    if args.task == "key_value":
        return retrieval.key_value(args.words, args.cases, args.seed)
    return retrieval.pass_key(args.words, args.depths, args.cases, args.seed)


def _run(args: argparse.Namespace) -> None:
    with Client(args.address) as client:
        recipes = recommendation.candidates(args.grid) if args.grid else runner.parse_recipes(
            args.recipes, client)
        if args.warm_up and not runner.warm_up(client, args.warm_up):
            print("swaa-eval: the server's step-time model is not fitted yet; device seconds may "
                  "be missing", file=sys.stderr)
        runner.evaluate(client, [_task(args)], recipes, args.output, concurrency=args.concurrency,
                        progress=runner.print_progress)
    _report(argparse.Namespace(folder=args.output))


def _report(args: argparse.Namespace) -> None:
    from swaa.evaluation import plots
    folder = pathlib.Path(args.folder)
    frame = results.load(folder)
    summary = results.summarize(frame)
    results.write_summary(summary, folder / "summary.json")
    print(results.to_text(summary))
    for task, metric in frame[["task", "metric"]].drop_duplicates().itertuples(index=False):
        if metric.startswith("nll_"):
            continue
        plots.trade_off(summary, task, metric, folder / f"{task}-{metric}-trade-off.svg")
        if task == "pass_key":
            plots.heat_map(frame, task, metric, folder / f"{task}-{metric}-map.svg")


def _layers(args: argparse.Namespace) -> None:
    base = Recipe.parse(args.recipe)
    task = _task(args)
    with Client(args.address) as client:
        budget = args.budget or client.model_info().num_layers // 2
        if args.method == "greedy":
            choice = layers.greedy(
                client, task.cases(), base, budget, per_round=args.per_round,
                concurrency=4 * args.concurrency,
                progress=lambda chosen, score: print(f"{len(chosen)} layers: {score:.3f} with "
                                                     f"{'+'.join(map(str, chosen))}", flush=True))
            chosen = choice.layers
        else:
            losses = layers.leave_one_out(client, task.cases(), base, 4 * args.concurrency)
            for layer, loss in enumerate(losses):
                print(f"layer {layer}: {loss:+.3f}")
            chosen = layers.most_missed(losses, budget)
        picked = layers.with_layers(base, chosen)
        print(f"{picked}: {mean_answer_scores(client, task.cases(), [picked])[0]:.3f}")
    if args.output:
        named = {"recipes": [{"name": args.name, "recipe": picked.to_config()}]}
        pathlib.Path(args.output).write_text(recommendation.to_yaml(named), encoding="utf-8")


def _recommend(args: argparse.Namespace) -> None:
    summary = results.summarize(results.load(args.folder))
    found = recommendation.recommend(summary, args.task, args.metric, recommendation.Objectives(
        args.maximum_loss, args.max_time_to_first_token, args.max_kv_bytes))
    print(f"{args.task}: {args.metric}; * is on the Pareto front, + keeps to the objectives")
    for row in found.table.to_dict("records"):
        marks = ("*" if row["on_front"] else " ") + ("+" if row["good_enough"] else " ")
        print(f" {marks} {row['recipe']:40} {row['mean']:7.3f}  {row['device_seconds']:7.3f} s  "
              f"{row['kv_cache_bytes'] / 1e6:6.1f} MB  first token "
              f"{row['time_to_first_token_seconds']:.3f} s")
    if found.recipe is None:
        raise ValueError("no recipe but full attention itself keeps to the objectives; allow a "
                         "greater --maximum-loss, or measure other recipes")
    print(f"take {found.recipe}")
    if args.output:
        config = recommendation.recipes_of(args.folder)[found.recipe]
        pathlib.Path(args.output).write_text(
            recommendation.configuration(found.recipe, config, name=args.name), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
