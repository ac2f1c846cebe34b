"""Coverage-guided fuzzing of everything that reads bytes of others.

`targets.py` says what is promised of any bytes, `rounds.py` prepares the sessions that get them,
`mutate.py` changes messages by their structure, `run.py` hands all that to libFuzzer (atheris), and
`make.py` writes the corpus.
"""
