"""What the rows that do not compete are chosen by: a bound of one number is none of another."""

import math

from physfed_ray.results.tables import Column, ScoreTable, TableRow, nan_mean

ORACLE = "oracle"
MOST_NAMED = 4
_WHAT = {
    True: "takes for each protocol the client whose model turns out to have the highest mean PSNR "
    "there, chosen with the answer at hand; it bounds that choice, and no other number",
    False: "trains one network on everybody's data in one place, with the same settings: it shows "
    "what keeping the data apart costs, and bounds nothing",
}


def bound_words(table: ScoreTable) -> str:
    """Return what each row that does not compete is, and which rows are ahead of it here.

    Returns:
        Sentences, "" where every row competes.
    """
    rows = [row for row in table.rows if not row.ranked]
    sentences = []
    for row in rows:
        what = _WHAT[ORACLE in row.label.lower()]
        ahead = _ahead(table, row)
        more = f"; ahead of it here: {', '.join(ahead)}" if ahead else ""
        sentences.append(f"{row.label} (in italics) {what}{more}.")
    return " ".join(sentences)


def _ahead(table: ScoreTable, bound: TableRow) -> list[str]:
    """Return the competing rows that beat a bound on average, each with the columns."""
    found = []
    for row in table.rows:
        if not row.ranked:
            continue
        better = [
            column.heading
            for m, column in enumerate(table.columns)
            if _better(row, bound, m, column)
        ]
        if better:
            found.append(f"{row.label} ({', '.join(better)})")
    shown = found[:MOST_NAMED]
    return shown + [f"and {len(found) - MOST_NAMED} more"] * (len(found) > MOST_NAMED)


def _better(row: TableRow, bound: TableRow, metric: int, column: Column) -> bool:
    """Say whether a row's average is better, as it is printed."""
    own, other = (
        float(nan_mean(r.values[..., metric].ravel(), 0)) * column.scale for r in (row, bound)
    )
    if not (math.isfinite(own) and math.isfinite(other)):
        return False
    difference = round(own, column.decimals) - round(other, column.decimals)
    return difference * (1 if column.higher_is_better else -1) > 0
