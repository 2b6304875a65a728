"""Write .dvc/plots.html, the page `dvc plots show` fills: Vega's scripts are in it, so that it opens without a network.

They come from the package vl-convert-python; DVC's own page would fetch them from a CDN.
"""

from pathlib import Path

import vl_convert

OUTPUT = Path(__file__).parents[1] / ".dvc" / "plots.html"
PAGE = """<!DOCTYPE html>
<html>
<head>
<meta charset="utf-8">
<title>DVC plots</title>
<script>{bundle}</script>
<style>body {{ font-family: sans-serif }} div {{ display: inline-block; vertical-align: top; margin: 0.5em }}</style>
</head>
<body>
{{plot_divs}}
</body>
</html>
"""


def main() -> None:
    """Write the page."""
    OUTPUT.write_text(PAGE.format(bundle=vl_convert.javascript_bundle()), encoding="utf-8")


if __name__ == "__main__":
    main()
