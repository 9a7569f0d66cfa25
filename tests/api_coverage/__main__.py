"""``uv run python -m tests.api_coverage``: writes ``docs/reference/api-coverage.md`` anew."""

from tests.api_coverage.page import PAGE, render

if __name__ == "__main__":
    PAGE.write_text(render())
