"""Whether experiments run as they should."""

from dashboards.grafana import dashboard, graph, target, text
from dashboards.queries import (
    EXPERIMENT, EXPERIMENT_VARIABLE, KINDS, SERVER, VARIABLES, rate, ratio)

EXPERIMENTS_TEXT = """\
An experiment gives each unit (a user, a conversation) one *arm*, and each arm is a recipe. **No
verdict is on this board**: counts of requests are no statistics. `GetReport` has them, with
intervals that may be looked at at any time, the check of the sample ratio and its warnings. Here
is whether the experiment runs as it should.

* *assigned*: a request whose unit is in the experiment; *unassigned*: one that could have been
  and is not, and why (`explicit_recipe`: it named its recipe; `no_unit`: it named nobody;
  `outside`: beyond the experiment's share of units; `stopped`: its arm is stopped and it gets
  control's recipe; `invalid`: its unit's name is too long).
* *outcome*: what a client recorded about an answer, such as a rating.
* *guardrail*: a harm at which the server stops an arm by itself."""


def arms():
    assigned = "swaa_experiment_assignments_total"
    hour = ("experiment_arm:swaa_experiment_assignments:increase1h"
            '{job=~"$job",experiment=~"$experiment"}')
    return [
        text("How to read this", EXPERIMENTS_TEXT, height=7),
        graph("Assigned requests", "By experiment and arm.",
              [target(rate(assigned, "experiment, arm", EXPERIMENT), "{{experiment}} {{arm}}")],
              "reqps"),
        graph("Share of an arm",
              "Of its experiment's requests of the last hour. Units are divided by the weights, "
              "requests only roughly: some units send more. The report tests the units. Needs the "
              "recording rules.",
              [target(f"{hour} / on (job, experiment) group_left () "
                      f"(sum by (job, experiment) ({hour}) > 0)", "{{experiment}} {{arm}}")],
              "percentunit", most=1),
        graph("Unassigned requests", "By reason; of all experiments.",
              [target(rate("swaa_experiment_unassigned_total", "reason"), "{{reason}}")], "reqps",
              stacked=True),
        graph("Outcomes", "That clients recorded, by experiment and arm.",
              [target(rate("swaa_experiment_outcomes_total", "experiment, arm", EXPERIMENT),
                      "{{experiment}} {{arm}}")], "ops"),
        graph("Outcomes a request",
              "Where arms differ in this, outcomes go missing in one of them, and what they say is "
              "biased.",
              [target(ratio(rate("swaa_experiment_outcomes_total", "experiment, arm", EXPERIMENT),
                            rate(assigned, "experiment, arm", EXPERIMENT)),
                      "{{experiment}} {{arm}}")]),
        graph("Observations lost",
              "Since the servers' start: what storage could not take and the report does not know.",
              [target(f"sum by (instance) (swaa_experiment_dropped_observations_total{{{SERVER}}})",
                      "{{instance}}")]),
    ]


def stops():
    return [
        graph("Stopped arms",
              "On how many servers an arm is stopped, by a guardrail or by StopExperiment. It "
              "should be none or all of them.",
              [target(f"sum by (experiment, arm) (swaa_experiment_arm_stopped{{{EXPERIMENT}}})",
                      "{{experiment}} {{arm}}")], width=12),
        graph("Stops by guardrails",
              "How often a guardrail has stopped an arm since the servers' start. The log says "
              "which metric and how much.",
              [target(f"sum by (experiment, arm) "
                      f"(swaa_experiment_guardrail_stops_total{{{EXPERIMENT}}})",
                      "{{experiment}} {{arm}}")], width=12),
    ]


def shadows():
    return [
        text("What the kinds of speed-up mean", KINDS, height=9),
        graph("Comparisons",
              "`shadow`: finished requests that were computed again under two recipes, by the "
              "recipe that answered.",
              [target(rate("swaa_shadow_requests_total", "recipe"), "{{recipe}}")], "reqps"),
        graph("Comparisons not made",
              "Chosen and not computed again, by reason and prompt's length. queue_full: more are "
              "chosen than there is time for; not_computed: the server refused or ended it, as "
              "when it drains. Where long prompts are missing, speed-ups speak for short ones.",
              [target(rate("swaa_shadow_dropped_total", "reason, prompt_len"),
                      "{{reason}} {{prompt_len}}")], "reqps", stacked=True),
        graph("Cost of comparisons",
              "Seconds of device time a second that comparing takes from real requests.",
              [target(rate("swaa_shadow_device_seconds_total", "instance"), "{{instance}}")],
              "percentunit"),
    ]


def board():
    return dashboard(
        "swaa-experiments", "SWAA / Experiments", "Whether experiments run as they should.",
        (*VARIABLES, EXPERIMENT_VARIABLE),
        [("Arms", arms()), ("Stops", stops()), ("Comparisons", shadows())])
