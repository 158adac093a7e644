"""Scores given answers in float32: transformers_choices.py CHECKPOINT < cases.json > scores.json.

A case has `prompt` (ids), `choices` (texts) and `ends` (ids); its scores are, for each choice, the logarithm of the
probability that transformers gives to its tokens and one of the ends after them, each read alone, and those tokens.
Runs in the environment with torch and transformers.
"""

import json
import sys
from pathlib import Path

import torch
import transformers


def main(checkpoint: Path) -> None:
    """Read cases from stdin and write their scores to stdout."""
    transformers.utils.logging.set_verbosity_error()
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    found = []
    for case in json.load(sys.stdin):
        prompt, scores = case["prompt"], []
        for choice in case["choices"]:
            path = tokenizer.encode(choice, add_special_tokens=False)
            with torch.inference_mode():
                logits = model(torch.tensor([[*prompt, *path]])).logits[0, len(prompt) - 1 :]
            logprobs = logits.to(torch.float64).log_softmax(dim=-1)
            logprob = sum(float(row[token]) for row, token in zip(logprobs, path, strict=False))
            scores.append({"logprob": logprob + float(logprobs[-1, case["ends"]].logsumexp(0)), "tokens": path})
        found.append(scores)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
