"""What models say: token by token, so that each escape comes in pieces."""

from pathlib import Path

from support.hostile_fields import Stage, Words, case
from support.hostile_text import planted
from support.scripted_gguf import write_scripted_gguf

THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)


def write_model(stage: Stage) -> Path:
    """Write a model that thinks and answers hostile texts, each character a token."""
    # A model repeats itself if it says the same for eight tokens: its thought has other escapes than its answer.
    thought = "thought\x1b[1;5H\x9b\u2067\x85"
    script = ["<think>", *thought, "</think>", *planted("answer")]
    return write_scripted_gguf(
        stage.folder / "m.gguf", script, template=THINKING, marks=("<think>", "</think>"), n_ctx_train=1024
    )


@case("run", "thought", "answer")
def plant_answer(stage: Stage) -> Words:
    return ["run", write_model(stage), "Why?", "--temp", "0"]


@case("run --json")
def plant_object(stage: Stage) -> Words:
    return ["run", write_model(stage), "Why?", "--temp", "0", "--json"]


@case("run --extract", "answer")
def plant_code(stage: Stage) -> Words:
    model = write_scripted_gguf(stage.folder / "m.gguf", ["```", "\n", *planted("answer"), "\n", "```"])
    return ["run", model, "Why?", "--temp", "0", "--extract"]


@case("chat --plain", "answer", "thought", typed="Why?\n")
def plant_chat(stage: Stage) -> Words:
    return ["chat", write_model(stage), "--plain", "--temp", "0", "--think", "show"]


@case("batch", "answer")
def plant_rows(stage: Stage) -> Words:
    (stage.folder / "rows.txt").write_text("Why?\n")
    return ["batch", "rows.txt", "-m", write_model(stage), "--temp", "0", "--think", "hide"]


@case("embed")
def plant_embed(stage: Stage) -> Words:
    return ["embed", write_model(stage), planted("text")]
