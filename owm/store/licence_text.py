"""Which licence a text is: for sources that publish the text of a licence instead of its name."""

import re

# The first that fits counts: what is more special comes first.
_SIGNS: tuple[tuple[str, str], ...] = (
    (r"llama\s*4\s+community\s+license", "llama4"),
    (r"llama\s*3\.3\s+community\s+license", "llama3.3"),
    (r"llama\s*3\.2\s+community\s+license", "llama3.2"),
    (r"llama\s*3\.1\s+community\s+license", "llama3.1"),
    (r"meta\s+llama\s*3\s+community\s+license", "llama3"),
    (r"llama\s*2\s+community\s+license", "llama2"),
    (r"gemma\s+terms\s+of\s+use", "gemma"),
    (r"qwen\s+research\s+license", "qwen-research"),
    (r"tongyi\s+qianwen\s+license", "tongyi-qianwen"),
    (r"(?:qwen|tongyi)\s+license\s+agreement", "qwen"),
    (r"deepseek\s+license\s+agreement", "deepseek"),
    (r"mistral\s+(?:ai\s+)?research\s+license", "mrl"),
    (r"mistral\s+ai\s+non-production\s+license", "mnpl"),
    (r"nvidia\s+open\s+model\s+license", "nvidia-open-model-license"),
    (r"lfm\s+open\s+license\s+v1\.0", "lfm1.0"),
    (r"falcon[\s-]+180b\s+(?:tii\s+)?license", "falcon-180b"),
    # The first Falcon licence asked for a part of what is earned: it is not the one of this name.
    (r"tii\s+falcon\s+llm\s+license\s+version\s+1\.0", "tii-falcon-llm-1.0"),
    (r"falcon[\s-]+(?:llm|[\d.]+(?:\s+\w+)?)\s+(?:tii\s+)?license|tii\s+falcon\s+license", "falcon-llm-license"),
    (r"modified\s+mit\s+license", "modified-mit"),
    (r"bigscience\s+rail", "bigscience-bloom-rail-1.0"),
    (r"attribution-noncommercial-sharealike\s+4\.0", "cc-by-nc-sa-4.0"),
    (r"attribution-noncommercial(?:\s+international)?\s+4\.0", "cc-by-nc-4.0"),
    (r"attribution-sharealike\s+4\.0", "cc-by-sa-4.0"),
    (r"attribution\s+4\.0\s+international", "cc-by-4.0"),
    (r"apache\s+license[\s,]+version\s+2\.0", "apache-2.0"),
    (r"gnu\s+affero\s+general\s+public\s+license\s+version\s+3", "agpl-3.0"),
    (r"gnu\s+general\s+public\s+license\s+version\s+3", "gpl-3.0"),
    (r"mit\s+license|permission\s+is\s+hereby\s+granted,\s+free\s+of\s+charge,\s+to\s+any\s+person", "mit"),
    (r"neither\s+the\s+name\s+of\s+.{1,80}\s+may\s+be\s+used\s+to\s+endorse", "bsd-3-clause"),
)
_BEGINNING = 3000  # characters in which a licence says what it is


def licence_of(text: str) -> str | None:
    """Return the usual short name of a licence from its text, None if the text is not known."""
    beginning = text[:_BEGINNING].lower()
    return next((name for sign, name in _SIGNS if re.search(sign, beginning)), None)
