"""WordPiece, BERT's way: word beginnings are marked instead of continuations."""

from owm.convert.vocabulary.tokens import SPACE, TokenTable, TokenType


def mark_word_beginnings(table: TokenTable) -> None:
    """Turn `##` continuations into plain texts and put a visible space before everything else but control tokens."""
    control = int(TokenType.CONTROL)
    table.tokens = [
        text if kind == control else _marked(str(text)) for text, kind in zip(table.tokens, table.types, strict=True)
    ]


def _marked(text: str) -> str:
    return text[2:] if text.startswith("##") else SPACE + text
