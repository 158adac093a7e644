"""Small chat templates in the shapes of those that models which think come with."""

_TURNS = (
    "{% for m in messages %}{% set content = m.content %}"
    "{% if m.role == 'assistant' and '</think>' in content %}"
    "{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{ '<|im_start|>' + m.role + '\n' + content + '<|im_end|>\n' }}{% endfor %}"
)
_BEGIN = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"

# Qwen3: a switch that writes an empty thought; the model opens its own.
SWITCHED = (
    _TURNS
    + _BEGIN
    + "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
# DeepSeek-R1, Qwen3-Thinking: the thought is open.
OPENING = _TURNS + _BEGIN + "{{ '<think>\n' }}{% endif %}"
# DeepSeek-V3.1: closed unless it is switched on.
CLOSING = _TURNS + _BEGIN + "{{ '<think>' if thinking else '</think>' }}{% endif %}"
# Kimi-K2-Thinking, LFM2.5: nothing but the stripping of old thoughts tells.
SILENT = _TURNS + _BEGIN + "{# <think> #}{% endif %}"
# Granite 3.3: the system prompt tells the model.
TOLD = (
    "{% if thinking %}{{ 'Write thoughts between <think></think>, the response between <response></response>.\n' }}"
    "{% endif %}" + _TURNS + _BEGIN + "{% endif %}"
)
# Nemotron Nano 2: words in a message.
WORDED = (
    "{% set ns = namespace(on=true) %}{% for m in messages %}"
    "{% if '/no_think' in m.content %}{% set ns.on = false %}{% endif %}{% endfor %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content.replace('/no_think', '').strip() + '\n' }}"
    "{% endfor %}" + _BEGIN + "{{ '<think>\n' if ns.on else '<think></think>' }}{% endif %}"
)
# Hunyuan 3: the effort is the switch, and there is no medium.
LEVELLED = (
    "{% set level = reasoning_effort|default('no_think') %}"
    "{% if level not in ['high', 'low', 'no_think'] %}{{ raise_exception('reasoning_effort: ' + level) }}{% endif %}"
    "{{ 'effort ' + level + '\n' }}"
    + _TURNS
    + _BEGIN
    + "{{ '<think></think>' if level == 'no_think' else '<think>' }}{% endif %}"
)
# gpt-oss.
HARMONIC = (
    "{{ '<|start|>system<|message|>Reasoning: ' + reasoning_effort|default('medium') + '<|end|>' }}"
    "{% set told = messages[0].role in ['developer', 'system'] %}"
    "{% if told %}{{ '<|start|>developer<|message|># Instructions\n\n' + messages[0].content + '<|end|>' }}{% endif %}"
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{% if '<|channel|>' in m.content %}{{ raise_exception('marks in the content') }}{% endif %}"
    "{% if m.tool_calls %}{% if m.thinking and m.content %}{{ raise_exception('content and thinking') }}{% endif %}"
    "{% if m.thinking %}{{ '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' }}{% endif %}"
    "{{ '<|start|>assistant to=functions.f<|channel|>commentary json<|message|>{}<|call|>' }}"
    "{% else %}{{ '<|start|>assistant<|channel|>final<|message|>' + m.content }}"
    "{{ '<|return|>' if loop.last and not add_generation_prompt else '<|end|>' }}{% endif %}"
    "{% elif m.role == 'user' %}{{ '<|start|>user<|message|>' + m.content + '<|end|>' }}"
    "{% elif m.role == 'tool' %}{{ '<|start|>functions.f to=assistant<|message|>' + m.content + '<|end|>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)
