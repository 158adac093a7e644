"""What measuring quality gives: figures with intervals. Nothing heavy is imported, so listing can read them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure of the whole text, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Divergence:
    """How far a candidate is from a reference on a text.

    Divergences are in nats a token. An interval holds the whole text's figure with a confidence of 95 %; it is a point
    where the whole text was read.
    """

    text_name: str
    text_sha256: str
    n_ctx: int
    n_chunks: int
    n_chunks_total: int
    n_tokens: int
    kld_mean: Estimate
    kld_median: Estimate
    kld_p99: Estimate
    perplexity_reference: Estimate
    perplexity: Estimate
    top1_agreement: Estimate
    seconds: float

    @property
    def is_whole(self) -> bool:
        """Whether the whole text was read."""
        return self.n_chunks == self.n_chunks_total
