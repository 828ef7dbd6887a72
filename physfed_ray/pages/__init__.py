"""The pages that runs, report checks and sweeps leave: one look, files that open offline."""

from typing import Any

import jinja2


def render(template: str, /, **content: Any) -> str:
    """Fill in a page.

    Args:
        template: A file of this folder that extends ``base.html``.
        content: What it names.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("physfed_ray", "pages"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(content)
