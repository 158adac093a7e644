"""How models mark what they think before they answer: one row of a table for each family.

What a row says is text; whether a mark is one token or many is the vocabulary's matter, except in the formats that
frame a whole turn with control tokens: there the same letters, written out, are text.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from owm.native.llama import Model

CONTROL = "\ud800"  # stands before a mark that must be a control token; no text that was decoded has this character


@dataclass(frozen=True, slots=True)
class ReasoningFormat:
    """The marks of one family of models.

    A turn is any number of thoughts, then the answer. In a format with `header_end` every part has a header that names
    it, and `answer_header` finds the answer's.
    """

    name: str
    evidence: tuple[str, ...]  # texts that a chat template of such a model has, all of them
    openings: tuple[str, ...]
    closings: tuple[str, ...]
    opens: str  # what a template writes to begin a thought
    closes: str  # what ends a thought by force, and what then stands before the answer
    lead: str  # what stands before the answer where the model has just ended its thought
    frames: tuple[str, ...] = ()  # between the parts, no part of any
    answer_openings: tuple[str, ...] = ()
    answer_closings: tuple[str, ...] = ()
    header_end: str = ""
    answer_header: str = ""  # a pattern
    can_skip: bool = True  # an empty thought keeps the model from thinking

    @property
    def empty(self) -> str:
        """A thought without content, as models that need not think were trained to write it."""
        return self.opens + self.closes

    @property
    def control_texts(self) -> tuple[str, ...]:
        """The control tokens in its marks."""
        return tuple(dict.fromkeys(text for mark in (*self.marks, self.header_end) for text in control_texts(mark)))

    @property
    def is_framed(self) -> bool:
        """Its marks are control tokens, and only those count."""
        return self.closings[0].startswith(CONTROL)

    @property
    def marks(self) -> tuple[str, ...]:
        """Every mark of it."""
        return (*self.frames, *self.openings, *self.answer_openings, *self.closings, *self.answer_closings)

    def may_begin(self, text: str) -> bool:
        """Tell whether a text is the unfinished beginning of a mark."""
        return any(mark.startswith(text) and mark != text for mark in self.marks)

    def tokens(self, model: "Model") -> dict[int, str]:
        """Return the tokens of a vocabulary that are marks by themselves, with their texts."""
        texts = self.control_texts or self.marks
        found = {text: model.tokenize(text, add_special=False, parse_special=True) for text in texts}
        return {ids[0]: text for text, ids in found.items() if len(ids) == 1}


def control_texts(mark: str) -> list[str]:
    """Return the control tokens in a mark: `<|start|>` of `<|start|>assistant`."""
    return re.findall(rf"{CONTROL}(<\|?\w+\|?>)", mark)


def _brackets(
    name: str, opening: str, closing: str, *evidence: str, line: str = "\n", answer: str = ""
) -> ReasoningFormat:
    """Return a format of a pair of marks with `line` between them and what they enclose; `answer` opens the answer."""
    lead = line + (answer or line)
    return ReasoningFormat(
        name,
        evidence or (opening, closing),
        (opening,),
        (closing,),
        opens=opening + line,
        closes=line + closing + lead,
        lead=lead,
        answer_openings=(answer.strip(),) if answer else (),
        answer_closings=(answer.strip().replace("<", "</"),) if answer else (),
    )


_C = CONTROL
THINK = _brackets("think", "<think>", "</think>")

# The first row whose evidence is there. ref: the models' own chat templates
FORMATS = (
    ReasoningFormat(  # gpt-oss
        "harmony",
        ("<|start|>", "<|channel|>", "<|message|>"),
        (f"{_C}<|channel|>",),
        (f"{_C}<|end|>",),
        opens="<|channel|>analysis<|message|>",
        closes="<|end|><|start|>assistant<|channel|>final<|message|>",
        lead="<|start|>assistant<|channel|>final<|message|>",
        frames=(f"{_C}<|start|>assistant",),
        answer_closings=(f"{_C}<|end|>", f"{_C}<|return|>"),
        header_end=f"{_C}<|message|>",
        answer_header=r"<\|channel\|>\s*final\b",
        can_skip=False,
    ),
    ReasoningFormat(
        "muse-glimmer",
        ("to=self<|message|>", "<|eom|>"),
        (),
        (f"{_C}<|eom|>",),
        opens=" to=self<|message|>",
        closes="<|eom|><|start|>assistant to=user<|message|>",
        lead="<|start|>assistant to=user<|message|>",
        frames=(f"{_C}<|start|>assistant",),
        answer_closings=(f"{_C}<|eot|>",),
        header_end=f"{_C}<|message|>",
        answer_header=r"\bto=user\b",
    ),
    ReasoningFormat(
        "gemma4",
        ("<|channel>", "<channel|>"),
        (f"{_C}<|channel>thought", f"{_C}<|channel>"),
        (f"{_C}<channel|>",),
        opens="<|channel>thought\n",
        closes="<channel|>",
        lead="",
    ),
    ReasoningFormat(
        "solar",
        ("<|think|>", "<|begin|>assistant", "<|content|>"),
        (f"{_C}<|think|>",),
        (f"{_C}<|end|>",),
        opens="<|think|>",
        closes="<|end|><|begin|>assistant<|content|>",
        lead="<|begin|>assistant<|content|>",
        frames=(f"{_C}<|begin|>assistant",),
        answer_openings=(f"{_C}<|content|>",),
        answer_closings=(f"{_C}<|end|>",),
    ),
    *(
        ReasoningFormat(
            f"cohere-{kind.lower()}",
            ("<|START_THINKING|>", f"<|START_{kind}|>"),
            (f"{_C}<|START_THINKING|>",),
            (f"{_C}<|END_THINKING|>",),
            opens="<|START_THINKING|>",
            closes=f"<|END_THINKING|><|START_{kind}|>",
            lead=f"<|START_{kind}|>",
            answer_openings=(f"{_C}<|START_{kind}|>",),
            answer_closings=(f"{_C}<|END_{kind}|>",),
        )
        for kind in ("TEXT", "RESPONSE")
    ),
    ReasoningFormat(
        "kimi-3",
        ("open_tag('think'", "<|sep|>"),
        (f"{_C}<|open|>think{_C}<|sep|>",),
        (f"{_C}<|close|>think{_C}<|sep|>",),
        opens="<|open|>think<|sep|>",
        closes="<|close|>think<|sep|><|open|>response<|sep|>",
        lead="<|open|>response<|sep|>",
        answer_openings=(f"{_C}<|open|>response{_C}<|sep|>",),
        answer_closings=(f"{_C}<|close|>response{_C}<|sep|>",),
    ),
    ReasoningFormat(
        "apertus",
        ("<|inner_prefix|>", "<|inner_suffix|>"),
        (f"{_C}<|inner_prefix|>",),
        (f"{_C}<|inner_suffix|>",),
        opens="<|inner_prefix|>",
        closes="<|inner_suffix|>",
        lead="",
    ),
    _brackets("granite", "<think>", "</think>", "<think></think>", "<response></response>", answer="<response>"),  # 3.3
    ReasoningFormat(
        "granite-phrases",  # 3.2
        ("Here is my thought process:", "Here is my response:"),
        ("Here is my thought process:", "Here's my thought process:"),
        ("Here is my response:", "Here's my response:"),
        opens="Here is my thought process:\n\n",
        closes="\n\nHere is my response:\n\n",
        lead="\n\n",
    ),
    ReasoningFormat(
        "apriel",
        ("[BEGIN FINAL RESPONSE]",),
        ("Here are my reasoning steps:",),
        ("[BEGIN FINAL RESPONSE]",),
        opens="Here are my reasoning steps:\n",
        closes="\n[BEGIN FINAL RESPONSE]\n",
        lead="\n",
        answer_closings=("[END FINAL RESPONSE]",),
    ),
    _brackets("hunyuan", "<think>", "</think>", "<think>", "<answer>", "</answer>", answer="<answer>\n"),
    _brackets("hunyuan-3", "<think:opensource>", "</think:opensource>", "<think{}>", ":opensource", line=""),
    _brackets("seed", "<seed:think>", "</seed:think>", line=""),
    _brackets("minimax-3", "<mm:think>", "</mm:think>", line=""),
    _brackets("magistral", "[THINK]", "[/THINK]", line=""),
    _brackets("exaone-deep", "<thought>", "</thought>"),
    THINK,  # DeepSeek, Qwen, QwQ, SmolLM3, GLM, Nemotron, MiniMax, Kimi, LFM, Olmo, Phi and many more
)


def detect(template: str) -> ReasoningFormat | None:
    """Find the format that a chat template (its source) is made for; None where it says nothing of thoughts."""
    return next((row for row in FORMATS if all(text in template for text in row.evidence)), None)


def closing_text(reasoning: ReasoningFormat) -> str:
    """Return the text to feed to a model to end its thought; its answer comes right after."""
    return reasoning.closes
