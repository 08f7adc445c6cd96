"""What recipes gain and lose on a model: tasks, runs, intervals, plots, layers, recommendations.

    swaa-eval run --address 127.0.0.1:50051 --task pass_key --recipes "full;W=512,K=16" --output run
    swaa-eval report run

The same from Python: evaluation.runner.evaluate, evaluation.results.load. docs/evaluation.md of the
project says what the tasks measure and what came out.
"""
