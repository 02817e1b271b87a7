"""`python -m cvpr21lib.papers` prints the README's table of the eight papers."""

from cvpr21lib import papers

print(papers.markdown_table())
