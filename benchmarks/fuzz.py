"""Damaged inputs by the thousand: does any end in a traceback, a hang or a wrong number?

    PYTHONPATH=. python benchmarks/fuzz.py                                      # 20,000
    PYTHONPATH=. python benchmarks/fuzz.py --kind dicom --seed 1234 --count 1   # one of them again

DICOM folders, experiment files, run directories, checkpoints and prepared data are damaged byte by
byte, element by element and file by file, by ``tests/fuzz``, each as its kind and its seed decide.
What the product may do with them: give what the undamaged input gives, refuse in one sentence
(``PhysFedError``), or give something else and say so. All else is a finding: a traceback, a value
that is wrong without a word, more than 10 s, more than 4 GiB, the death of the process. The judges
are pydicom's own pixel values, the file's own words, and the results of the undisturbed run.

``--slow`` is the part of the attempts on run directories that resume the run or draw its pages.

Prints a line for each finding to the error output, and one JSON line in the end: counts by kind and
result, and the findings by what they have in common, with seeds. Exit status 1 if there are any.
"""

from tests.fuzz.command import main

if __name__ == "__main__":
    raise SystemExit(main(count=20_000))
