"""Put the folders of results/ on the site: their texts as pages, their figures and tables beside them.

A text there links to the documentation as ``../docs/PAGE.md`` or ``../../docs/PAGE.md``, and a page of the documentation
to a text there as ``../results/FOLDER/README.md``: right in the repository, while on the site docs/ is the root.
"""

from __future__ import annotations

from pathlib import Path

from mkdocs.structure.files import File

SHOWN = (".md", ".png", ".html", ".csv", ".json", ".tex")


def on_files(files, config):
    """Add every file of results/ that a reader of its texts may want."""
    root = Path(config.config_file_path).parent
    for path in sorted((root / "results").rglob("*")):
        if path.suffix in SHOWN:
            files.append(File.generated(config, path.relative_to(root).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links from results/ to docs/, from whatever depth, and from the pages of docs/ to results/."""
    if page.file.src_uri.startswith("results/"):
        up = "../" * page.file.src_uri.count("/")
        return markdown.replace(f"{up}docs/", up)
    return markdown.replace("](../results/", "](results/")
