"""What our boards ask and say alike: selectors, variables, queries, the kinds of speed-up."""

from dashboards.grafana import label_variable, target

# Label selectors: of everything, and of what has a recipe or an experiment.
SERVER = 'job=~"$job",instance=~"$instance"'
RECIPE = SERVER + ',recipe=~"$recipe"'
EXPERIMENT = SERVER + ',experiment=~"$experiment"'

VARIABLES = (label_variable("job", "Job", "swaa_build_info"),
             label_variable("instance", "Server", 'swaa_build_info{job=~"$job"}'))
RECIPE_VARIABLE = label_variable("recipe", "Recipe", f"swaa_generation_tokens_total{{{SERVER}}}")
EXPERIMENT_VARIABLE = label_variable("experiment", "Experiment",
                                     f"swaa_experiment_assignments_total{{{SERVER}}}")

TOKENS = "suffix: tok/s"
TIMES = "suffix: ×"

KINDS_OF_SPEEDUP = (
    ("attributed",
     "How many device seconds does the recipe cost? From a model of a step's time, fitted while "
     "serving, applied to each request's own tokens and keys.",
     "while the model's error is below 10 %"),
    ("shadow",
     "How fast is it alone on an idle device? Finished requests are computed again under both "
     "recipes, one after the other.",
     "always; for requests as they come in quiet hours if many are dropped"),
    ("switchback",
     "What will users see if all switch? All traffic takes one arm by turns. In the report "
     "(GetReport), not here.",
     "after 12 pairs of turns"),
    ("observed",
     "What does one user gain today? Latencies by arm in one shared batch: every recipe slows all "
     "others, so it understates, and may even turn round, what a recipe gains.",
     "never a verdict"))
KINDS = "\n".join((
    "A speed-up is only ever a measured one, and each kind answers its own question:\n",
    "| kind | question | how far to trust it |", "|---|---|---|",
    *(f"| `{kind}` | {question} | {trust} |" for kind, question, trust in KINDS_OF_SPEEDUP),
    "",
    "*Attended keys* are counted exactly and are no time: 4 times fewer keys may go with 1.4 times "
    "less time."))


def rate(metric, by, selector=SERVER):
    return f"sum by ({by}) (rate({metric}{{{selector}}}[$__rate_interval]))"


def total(metric, selector=SERVER):
    return f"sum(rate({metric}{{{selector}}}[$__rate_interval]))"


def quantile(share, metric, by="", selector=SERVER):
    """Absent, and not NaN, where nothing came."""
    labels = ", ".join(filter(None, (by, "le")))
    return f"histogram_quantile({share}, {rate(metric + '_bucket', labels, selector)}) >= 0"


def quantiles(metric, selector=SERVER):
    return [target(quantile(share, metric, "", selector), name)
            for share, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))]


def ratio(part, whole):
    """Absent, and not 0/0, where there is nothing to divide by."""
    return f"{part} / ({whole} > 0)"


def mean(metric, by, selector=SERVER):
    return ratio(rate(metric + "_sum", by, selector), rate(metric + "_count", by, selector))
