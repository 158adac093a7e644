"""How much a chat template may use, in numbers."""

# The base of each limit; characters, items, bytes, steps and time grow with the conversation that is rendered.
MAX_NODES = 8_000  # of the syntax tree; the longest templates in use have 1,300
MAX_CHARS = 1 << 20  # of any one text or of the whole result
MAX_ITEMS = 1 << 17  # of any one list, or weighed in any one value
MAX_BYTES = 64 << 20  # of everything made in one rendering
MAX_DEPTH = 64  # of lists in lists
MAX_STEPS = 100_000  # turns, calls, operations
MAX_SECONDS = 1.0
MAX_INT_BITS = 4096
MAX_DIGITS = 300
MAX_FORMAT_CHARS = 4096
MAX_SEARCH = 1 << 27  # text × pattern, where C's search may need the product
MAX_SOURCE_CHARS = 1 << 16

HINT = "`--raw` sends the prompt without a template"
