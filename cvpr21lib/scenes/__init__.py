"""Demo-scale worlds with exact ground truth: bundled photographs, and what is drawn on top of them."""
