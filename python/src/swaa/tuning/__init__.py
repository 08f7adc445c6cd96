"""LoRA adapters tuned under a recipe's mask: a model learns to do with what the recipe shows.

| module | what it does |
|---|---|
| examples | makes examples of token ids through a server, with given answers or full attention's |
| facts | texts with facts hidden in them, to learn to find them |
| masks, packing | what a recipe makes visible; examples packed into rows |
| model, training | the model under that mask; steps, checkpoints, the adapter as PEFT saves it |
| lazy_layers | LightTransfer's count, for comparison with `swaa.evaluation.layers` |

The last two lines need the extra `swaa[tune]`. `swaa-tune` is all of it on the command line.
"""
